"""Stops: who hears a signal, what ends with whom, and what a command leaves. Drill: test_five_signals."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from making import data_set

from gazepose import __main__ as door
from gazepose import heartbeat, processes, startup, verbs
from gazepose.data import loader as loading
from gazepose.data.windows import WindowRule
from gazepose.output import lasting_output
from gazepose.processes import STOP_SIGNALS, Overdue, Preempted, StopRequest, Watchdog
from gazepose.synthetic import stills, world
from gazepose.synthetic.compiled import compiled
from gazepose.synthetic.presets import VERSION
from gazepose.training import distributed
from gazepose.training.checkpoint import newest_whole
from gazepose.training.distributed import check_processes, start_accelerator, waiting_for_processes
from gazepose.training.engine import batches_of

ROOT = Path(__file__).resolve().parents[1]
NARROW = True                              # no test here reads a model of these runs


# ---- a process and its signals

@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_stops_at_once_where_nothing_is_to_save_and_is_noted_later(number):
    before = signal.getsignal(number)
    with pytest.raises(Preempted, match=f"by {number.name}"), StopRequest():
        signal.raise_signal(number)
    with StopRequest() as stop:
        stop.at_once = False
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert stop()
    assert signal.getsignal(number) is before


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)              # as nohup does
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


STUCK = """
import ctypes, os, signal, threading, time
from gazepose import processes
processes.OUTSIDE, processes.LATEST, processes.ONE_PRESS = 0.3, 1.5, 0.2
stop = processes.StopRequest()
stop.at_once = {at_once}
stop.ending = lambda *status: print(*status, flush=True)
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
print("ready", flush=True)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)               # for ever, where no handler of Python's runs
"""


@pytest.mark.parametrize("at_once, name, times, code, reason", [
    (True, "SIGTERM", 1, 75, "preempted by SIGTERM, with nothing to save"),
    (True, "SIGINT", 1, 75, "preempted by SIGINT, with nothing to save"),
    (False, "SIGHUP", 1, 1, "failed SIGHUP: it had not ended"), (False, "SIGINT", 2, 130, "failed SIGINT came twice")])
def test_a_main_thread_that_hangs_outside_python_is_ended(at_once, name, times, code, reason):
    with subprocess.Popen([sys.executable, "-c", STUCK.format(at_once=at_once)], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as stuck:
        assert stuck.stdout and stuck.stdout.readline() == "ready\n"
        for _ in range(times):
            time.sleep(0.4)                                            # until it is in the lock
            stuck.send_signal(getattr(signal, name))
        try:
            assert stuck.wait(20) == code and reason in stuck.stdout.read()
        finally:
            stuck.kill()


WORKER = """
from gazepose.processes import WORKERS, begin_worker, command, start_loader_worker, stop_signals_blocked, \\
    without_main_script
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
kind, = sys.argv[1:]
with command("work"):
    task = "import os, time; os.write(1, (str(os.getpid()) + chr(10)).encode()); time.sleep(60)"
    if kind == "loader":
        workers = [WORKERS.Process(target=exec, args=("from gazepose.processes import start_loader_worker; "
                                                      f"start_loader_worker(0); {task}",)) for _ in range(2)]
        with without_main_script():
            for worker in workers:
                worker.start()
        time.sleep(60)
    context = WORKERS if kind == "forkserver" else multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(2, context, begin_worker)
    with pool, without_main_script(), stop_signals_blocked():
        futures = [pool.submit(exec, task) for _ in range(2)]
    [future.result() for future in futures]
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
@pytest.mark.parametrize("kind", ["forkserver", "spawn", "loader"])
def test_a_worker_of_any_kind_ends_with_its_main_process(kind, name):
    main = subprocess.Popen([sys.executable, "-c", WORKER, kind], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert main.stdout and main.stderr
    pids = [int(main.stdout.readline()) for _ in range(2)]
    os.killpg(main.pid, getattr(signal, name)) if name == "SIGINT" else main.send_signal(getattr(signal, name))
    try:
        code = main.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(main.pid, signal.SIGKILL)
        raise
    assert code == (-signal.SIGKILL if name == "SIGKILL" else processes.EXIT_PREEMPTED)
    deadline = time.monotonic() + 20
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(runs, pids))
    text = main.stderr.read()
    assert "Traceback" not in text and (name == "SIGKILL" or f"work: stopped by {name}; finished parts are" in text)


LOCKED = """
import signal, sys, threading, weakref
from gazepose.processes import command
lock, thing = threading.Lock(), threading.Event()
lock.acquire()                               # as a library does that an exception has left with its lock
sys.called_at_the_end = weakref.ref(thing, eval("lambda ended: lock.acquire()", {"lock": lock}))
with command("work"):
    print("kept", end="")
    signal.raise_signal(signal.SIGTERM)
"""


def test_a_stopped_command_does_not_wait_for_a_lock_that_its_libraries_left():
    stopped = subprocess.run([sys.executable, "-c", LOCKED], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert stopped.returncode == processes.EXIT_PREEMPTED and stopped.stdout == "kept"
    assert "work: stopped by SIGTERM" in stopped.stderr


# ---- output that goes away

@contextmanager
def broken_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output is a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        yield


@pytest.mark.parametrize(("verb", "words"), [
    *((verb, "the same command begins anew") for verb in ("export", "push", "agree")),
    *((verb, "finished parts are kept -> the same command continues") for verb in ("watch", "prepare"))])
def test_a_verb_that_is_stopped_says_whether_it_goes_on_or_begins_anew(verb, words, monkeypatch, capsys):
    monkeypatch.setattr(verbs, verb, lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(5))
    with pytest.raises(SystemExit):
        door.run(verb, [])
    assert f"{verb}: stopped by SIGINT; {words}" in capsys.readouterr().err


def test_output_that_nobody_reads_is_dropped(monkeypatch):
    with broken_output(monkeypatch), lasting_output():
        print("x" * 100_000, flush=True)
        print("y")
    with pytest.raises(BrokenPipeError), broken_output(monkeypatch):
        print("x" * 100_000, flush=True)


def test_text_of_others_does_not_control_the_terminal(capsys):
    with lasting_output():
        print("clip \x1b]0;title\x07\x1b[2Jname\r\u202e", "\x1b[31mred\x1b[0m\tÉ")
    assert capsys.readouterr().out == "clip \\x1b]0;title\\x07\\x1b[2Jname\\r\\u202e \x1b[31mred\x1b[0m\tÉ\n"


@pytest.mark.parametrize("words, code", [
    (["doctor", "{data}"], 1), (["doctor", "{data}", "--json"], 1), (["--help"], 0), (["bad"], 1)],
    ids=["doctor", "JSON", "help", "usage"])
def test_a_verb_whose_reader_has_gone_ends_without_a_traceback(words, code, tmp_path, monkeypatch):
    data_set(tmp_path, {"c": [("t", [1, 2])]}, frames=4)
    monkeypatch.setattr(sys, "argv", ["gazepose", *(word.format(data=tmp_path) for word in words)])
    with broken_output(monkeypatch):
        try:
            door.main()
        except SystemExit as error:
            assert code and error.code
        else:
            assert code == 0


# ---- trainings

@pytest.mark.parametrize("fault, step", [
    (("after_step", 2, "hit", signal.SIGHUP), 3), (("in_validation", signal.SIGINT), 6)],
    ids=["SIGHUP", "SIGINT in validation"])
def test_ctrl_c_and_a_closed_terminal_save_as_sigterm_does(rig, fault, step):
    run = rig.run(f"stopped-{fault[0]}-{fault[-1]}", "--epochs", "1", ends=75, fault=fault)
    saved, _ = newest_whole(run.folder)
    assert run.status()["state"] == "preempted" and saved and saved.name.startswith(f"step-{step:08d}")
    assert "Traceback" not in run.log() and f"add --resume --exp_path {run.folder}" in run.log()
    if step == 6:                                                      # only the validation is missing
        run = rig.run(run.folder.name, "--epochs", "1", "--resume")
        assert run.status()["state"] == "finished" and run.status()["step"] == 6


def test_a_training_goes_on_when_its_output_is_closed(rig):
    run = rig.run("unread", "--epochs", "1", fault=("after_step", 2, "close_output"))
    assert run.status()["state"] == "finished" and (run.folder / "best").is_dir() and "best val_mAP" not in run.log()


class Silent:
    """A loader whose worker hangs."""

    def __init__(self) -> None:
        receive, send = multiprocessing.Pipe(duplex=False)
        self.receive = receive
        self.worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        self.worker.start()
        os.kill(self.worker.pid or 0, signal.SIGSTOP)
        send.close()                                                   # the worker's copy is left

    def __iter__(self) -> Iterator[Any]:
        yield self.receive.recv()


def test_a_worker_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "SILENT", 0.5)
    monkeypatch.setattr(heartbeat, "SILENT", 2.4)
    loader: Any = Silent()
    with Watchdog(), pytest.raises(RuntimeError, match="no batch came: a loader worker hangs.* -> look at the disk"):
        next(batches_of(loader))
    loader.worker.join(10)
    assert loader.worker.exitcode == -signal.SIGKILL


def test_a_stop_does_not_wait_for_a_worker_that_hangs(monkeypatch):
    monkeypatch.setattr(processes, "OVERDUE", 0.2)
    loader: Any = Silent()
    with StopRequest() as stop:
        stop.at_once = False
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.8)                                                # no wait for a batch: nothing is raised
        with pytest.raises(Overdue, match="while it waited for a batch"):
            next(batches_of(loader))


# ---- two at once

@pytest.mark.parametrize("module", [world, stills])
def test_of_two_renderings_one_renders_and_the_other_uses_it(module, tmp_path, monkeypatch):
    rendered, lines = [], []

    def render(folder: Path, *how: Any) -> None:
        rendered.append(folder)
        time.sleep(0.5)
        folder.mkdir(parents=True, exist_ok=True)
        world.write_json(folder / ("world.json" if module is world else "index.json"), WORLD)
    monkeypatch.setattr(module, "_render", render)
    facts = {**WORLD, "count": 3, "crop_size": 32}
    monkeypatch.setattr(stills, "Index", SimpleNamespace(open=lambda folder: SimpleNamespace(facts=facts)))
    work = (lambda: world.render_world(tmp_path / "w", "tiny", 0, 1, lines.append)) if module is world else (
        lambda: stills.render_stills(tmp_path / "w", "tiny", 0, 3, 32, 1, lines.append))
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rendered) == 1 and [line for line in lines if "waiting for" in line]


WORLD = {"preset": "tiny", "seed": 0, "version": VERSION}


def test_a_world_in_a_place_that_cannot_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(world, "lock_of", lambda *_: pytest.fail("asked for a lock"))
    world.write_json(tmp_path / "world.json", WORLD)
    assert world.render_world(tmp_path, "tiny", 0) == tmp_path


def test_what_a_killed_rendering_left_is_removed(tmp_path, monkeypatch):
    left = tmp_path / "w" / "videos" / ".clip.mp4.part-1"
    left.parent.mkdir(parents=True)
    left.touch()
    world.write_json(tmp_path / "w" / ".pieces" / "started.json", WORLD)
    monkeypatch.setattr(world, "run_tasks", lambda *_: None)
    monkeypatch.setattr(world, "_finish", lambda root, *_: world.write_json(root / "world.json", WORLD))
    world.render_world(tmp_path / "w", "tiny", 0, notify=lambda line: None)
    assert not left.exists()


# ---- places and launches

def test_kernels_work_where_nothing_can_be_written():
    code = "def twice(x):\n    return 2 * x"
    names: dict[str, Any] = {}
    exec(compile(code, "<nowhere>", "exec"), names)                    # numba finds no place for its cache
    assert compiled(names["twice"])(3) == 6


def test_too_little_shared_memory_is_said_before_the_first_batch(index_of, monkeypatch):
    index, rule = index_of([range(20)]), WindowRule(train=True, stride=3, windows_per_segment=8)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 << 20))
    rows = np.arange(20)
    with pytest.raises(ValueError, match=r"64 MiB are free, and --num_workers 8 needs up to 3\d\d\d MiB -> give "
                       r"--num_workers 0 or a smaller --batch_size, or start docker with --shm-size=4g"):
        loading.make_loader(index, rule, rows, batch_size=64, crop_size=224, num_workers=8)
    with pytest.raises(ValueError, match="--num_workers 3 or"):
        loading.make_loader(index, rule, rows, batch_size=32, crop_size=64, num_workers=8)
    loading.make_loader(index, rule, rows, batch_size=32, crop_size=64, num_workers=2)
    loading.make_loader(index, rule, rows, batch_size=64, crop_size=224, num_workers=0)


def test_processes_that_do_not_come_are_named(monkeypatch, capsys):
    monkeypatch.setattr(distributed, "SILENT", 0.1)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "host0", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="waited in vain for the other processes at host0:29500, because .* -> start"):
        with waiting_for_processes():
            time.sleep(0.5)
            raise torch.distributed.DistStoreError("Timed out after 1 seconds waiting for clients")
    text = capsys.readouterr().err
    assert "world: still waiting for the other processes at host0:29500" in text and "`unset WORLD_SIZE RANK" in text
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(ValueError, match="cannot look for the other processes at None.* `unset WORLD_SIZE RANK"):
        start_accelerator()
    monkeypatch.setenv("WORLD_SIZE", "1")
    with waiting_for_processes():
        time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_processes_of_one_machine_listen_on_loopback(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    for world_size, local, wanted in (("2", "1", None), ("2", "2", "lo")):
        monkeypatch.setenv("WORLD_SIZE", world_size)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        with waiting_for_processes():
            assert os.environ.get("GLOO_SOCKET_IFNAME") == wanted


def test_srun_without_a_launcher_names_the_script(monkeypatch):
    accelerator: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"), gradient_accumulation_steps=1)
    for name in startup.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="srun started this program 4 times.* -> sbatch launch/slurm.sh FLAG"):
        check_processes(accelerator, None, False, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    check_processes(accelerator, None, False, 1)
