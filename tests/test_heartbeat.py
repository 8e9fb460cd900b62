"""Processes that are stopped or hang while others need them: workers, ranks, and jobs that are suspended as a whole."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import warm
from making import data_set
from rig import SHORT

from gazepose import heartbeat, processes, startup
from gazepose.heartbeat import ENDED, RankWatch, Watch
from gazepose.processes import Watchdog
from gazepose.progress import Progress
from gazepose.synthetic.world import run_tasks

ROOT = Path(__file__).resolve().parents[1]
NARROW = True                              # no test here reads a model of these runs
COMMAND = """
import sys
from gazepose import __main__, heartbeat
heartbeat.SILENT = 1.5
__main__.main()
"""


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    ends = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return met


def workers(main: int) -> list[int]:
    """Processes that a command started to cut or to render: children of its forkserver."""
    try:
        tree = psutil.Process(main).children(recursive=True)
        return [child.pid for child in tree if child.ppid() != main]
    except psutil.Error:
        return []


# ---- workers

def test_a_stopped_worker_is_killed_and_its_clip_cut_again(tmp_path):
    data_set(tmp_path / "data", {f"c{n}": [("t", list(range(1, 250)))] for n in range(4)}, frames=250)
    log = tmp_path / "log"
    main, = warm.start("-c", COMMAND, "prepare", "--data", "data", "--split", "train", cwd=tmp_path, logs=[log])
    until(lambda: list(tmp_path.glob("data/prepared/*/train/clips/.*.part-*")))
    pid = workers(main)[0]
    os.kill(pid, signal.SIGSTOP)
    codes, output = warm.wait([main], 120), log.read_text()
    assert codes == [0] and f"{4 * 249} rows -> " in output, output
    assert f"process {pid} on " in output and "s, as by SIGSTOP -> it is killed" in output


def test_a_stopped_worker_is_killed_and_its_part_rendered_again(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT", 1.0)
    before = {worker.pid for worker in processes._started}

    def stop_one() -> None:
        os.kill(until(lambda: [one.pid for one in processes._started if one.pid not in before])[0], signal.SIGSTOP)
    stopping = threading.Thread(target=stop_one)
    stopping.start()
    with Watchdog(), Progress("rendering", 6, "clips") as progress:
        run_tasks(time.sleep, [(0.1 * n,) for n in range(6)], 2, progress)
    stopping.join()
    assert progress.done == 6 and len(processes.killed) == 1


def test_a_stopped_training_of_a_sweep_is_killed(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT", 1.0)
    launcher = subprocess.Popen(["sh", "-c", "sleep 60; exit 3"])      # which waits for its training
    monkeypatch.setattr(processes, "programs", [launcher])
    training = until(lambda: heartbeat.family(launcher.pid)[1:])[0]
    os.kill(training, signal.SIGSTOP)
    with Watchdog():
        assert launcher.wait(20) == 3 and processes.killed == [str(training)]


def test_a_worker_that_dies_of_itself_is_an_error_with_a_remedy():
    with pytest.raises(ChildProcessError, match="a rendering process died -> free memory"):
        run_tasks(os._exit, [(3,), (3,)], 2, Progress("rendering", 2, "clips"))
    with Progress("rendering", 2, "clips") as progress:
        run_tasks(time.sleep, [(0,), (0,)], 1, progress)               # the same command with a lower --jobs
    assert progress.done == 2


READER = """
import os, sys, time
from gazepose import heartbeat
from gazepose.data import clip_crops
from gazepose.processes import WORKERS

def read(begun):
    clip_crops.STALL_S, heartbeat.SILENT = 2.0, 2.4
    clip_crops.alive()
    if begun is None:                    # it has read its clip, and waits for another
        clip_crops.alive(reads=False)
        time.sleep(4)
    else:
        open(begun, "w").close()
        time.sleep(600)

def main(begun):
    worker = WORKERS.Process(target=read, args=[begun])
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""


def test_a_reader_without_a_picture_ends_after_the_time_in_which_it_ran(tmp_path):
    (tmp_path / "reader.py").write_text(READER)
    begun = tmp_path / "begun"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    idle, main = (subprocess.Popen([sys.executable, "-c", f"import reader; reader.main({file!r})"], env=environment,
                                   start_new_session=True) for file in (None, str(begun)))
    until(begun.exists)
    os.killpg(main.pid, signal.SIGSTOP)
    time.sleep(3)
    os.killpg(main.pid, signal.SIGCONT)
    continued = time.monotonic()
    assert main.wait(60) == 1 and time.monotonic() - continued > 1
    assert idle.wait(60) == 0


def test_a_process_that_works_is_not_stopped(tmp_path):
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert not heartbeat.is_stopped(busy.pid)
        busy.send_signal(signal.SIGSTOP)
        until(lambda: heartbeat.is_stopped(busy.pid))
    finally:
        busy.kill()
        busy.wait()
    assert not heartbeat.is_stopped(busy.pid)


# ---- ranks

def state(pid: int) -> str:
    return psutil.Process(pid).status()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped_in_preparation_ends_the_one_that_waits(rig, rank):
    run = rig.start(f"stopped-{rank}", "--epochs", "1", world=2, fault=("preparing", rank, "hit", signal.SIGSTOP))
    other, frozen = run.pids[1 - rank], run.pids[rank]
    began = until(lambda: state(frozen) == psutil.STATUS_STOPPED and time.monotonic())
    until(lambda: state(other) == psutil.STATUS_ZOMBIE, 20)
    assert time.monotonic() - began < 10
    os.kill(frozen, signal.SIGCONT if rank == 1 else signal.SIGKILL)
    codes, output = run.wait(), run.log(1 - rank)
    assert codes[1 - rank] == 1 and f"rank {rank} (process {frozen} on " in output, output
    assert "no sign of life for" in output and "-> look at it there (kill -CONT" in output
    if rank == 1:                                # else the one that writes it is stopped
        assert run.status()["state"] == "failed" and f"rank 1 (process {frozen}" in run.status()["reason"]
        # the same command starts again; here it fails on purpose, as soon as it has its folder
        assert "on purpose" in rig.run("stopped-1", "--epochs", "1", ends=1, fault=("fail_at_once",)).log()


def test_a_job_that_is_suspended_as_a_whole_goes_on(rig):
    run = rig.start("suspended", "--epochs", "1", world=2, fault=("preparing", 1, "sleep", 2))
    until(lambda: run.folder.with_name("suspended.0.log").exists() and "world: 2" in run.log())
    time.sleep(0.5)
    os.killpg(run.pids[0], signal.SIGSTOP)
    time.sleep(3.5)                              # longer than a rank may be silent
    os.killpg(run.pids[0], signal.SIGCONT)
    assert run.wait() == [0, 0], run.log() + run.log(1)
    assert run.status()["state"] == "finished"


def test_a_training_that_is_suspended_as_a_whole_goes_on(rig):
    run = rig.start("suspended-in-training", *SHORT, world=2, fault=("waiting_in_training", 1, 1.0))
    run.until(lambda: list(run.folder.glob("metrics.jsonl")) and (run.folder / "metrics.jsonl").read_text())
    time.sleep(0.4)
    os.killpg(run.pids[0], signal.SIGSTOP)       # while rank 0 waits in a collective
    time.sleep(2.2)                              # longer than a rank may be silent
    os.killpg(run.pids[0], signal.SIGCONT)
    assert run.wait() == [0, 0], run.log() + run.log(1)
    assert run.status()["state"] == "finished"


def test_a_rank_that_hangs_in_training_ends_all_and_the_same_command_resumes(rig):
    run = rig.start("stuck", *SHORT, world=2, fault=("waiting_in_training", 1, 600, 1.0))
    assert run.wait() == [1, 1], run.log()
    assert run.status()["state"] == "failed" and "no rank has begun a batch for" in run.status()["reason"]
    assert "in sleep" in run.log(1)              # where it hangs
    rig.run("stuck", *SHORT, "--resume", world=2)


def test_a_rank_that_prepares_for_long_is_waited_for(rig):
    run = rig.start("slow", "--epochs", "1", world=2, fault=("preparing", 1, "sleep", 3.5))
    assert run.wait() == [0, 0], run.log()
    assert "sign of life" not in run.log()


def test_sigterm_in_a_wait_for_another_rank_ends_at_once(rig):
    run = rig.start("waits", "--epochs", "1", world=2, fault=("preparing", 1, "sleep"))
    until(lambda: (run.folder / "status.json").exists())
    time.sleep(1)
    for pid in run.pids:
        os.kill(pid, signal.SIGTERM)
    assert run.wait(15) == [75, 75], run.log() + run.log(1)
    assert run.status()["state"] == "preempted" and "SIGTERM" in run.status()["reason"]


class Store:
    def __init__(self, counts: dict[str, bytes]) -> None:
        self.counts, self.set = counts, counts.__setitem__

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.counts.get(key, b"") for key in keys]


def test_only_a_rank_that_waits_is_ended_and_one_that_has_ended_is_not_missed():
    ends: list[str] = []
    lines: list[str] = []
    watch = RankWatch(Store({}), 0, ["process 1 on a", "process 2 on b", "process 3 on c"], ends.append, lines.append)
    watch.counts = [b"1", b"7 0 preparing train", ENDED]
    watch.look(1.0)
    watch.look(100.0)
    assert not lines
    watch.look(122.0)
    watch.look(130.0)
    assert len(lines) == 1 and not ends
    assert "world: rank 1 (process 2 on b: preparing train) has shown no sign of life for 121 s" in lines[0]
    with watch.waiting():
        watch.look(135.0)
    assert len(ends) == 1 and "rank 1" in ends[0] and "-> look at it there" in ends[0]
    watch.counts[1] = b"8 0 preparing train"
    watch.look(140.0)
    with watch.waiting():
        watch.look(200.0)
    assert len(ends) == 1


@pytest.mark.parametrize("batches, ended", [(lambda at: 7, True), (lambda at: at // 500, False)],
                         ids=["none begins a batch", "batches are slow"])
def test_a_training_ends_when_no_rank_begins_a_batch(batches, ended, monkeypatch):
    ends: list[str] = []
    monkeypatch.setattr(heartbeat.faulthandler, "dump_traceback", lambda stream: ends.append("stacks"))
    watch = RankWatch(Store({}), 0, ["process 1 on a", "process 2 on b"], ends.append, ends.append)

    def look(at: int) -> None:
        watch.counts = [f"{at} 7 train".encode(), f"{at} {batches(at)} train".encode()]
        watch.look(float(at))
    for at in range(0, 2000, 50):                # each waits for another's preparation, which may take hours
        look(at)
    with watch.in_step():
        for at in range(2000, 2700, 50):
            look(at)
    if not ended:
        assert not ends
    else:
        assert ends[0] == "stacks" and "no rank has begun a batch for 6" in ends[1], ends
        assert "a training: with --resume" in ends[1]


def test_a_rank_that_is_silent_in_training_ends_the_others():
    ends: list[str] = []
    watch = RankWatch(Store({}), 0, ["process 1 on a", "process 2 on b"], ends.append, ends.append)
    watch.counts = [b"1 3 epoch 1", b"1 3 epoch 1"]
    watch.look(0.0)
    with watch.in_step():
        watch.look(121.0)
    assert len(ends) == 1 and "rank 1 (process 2 on b: epoch 1) has shown no sign of life for 121 s" in ends[0]


def test_time_in_which_a_watch_itself_was_stopped_does_not_count(monkeypatch):
    times, looks = iter([0.0, 5.0, 3600.0, 3605.0]), []

    class Looking(Watch):
        def look(self, now: float) -> None:
            looks.append(now)
            if len(looks) == 3:
                self._ended.set()
    watch = Looking()
    watch._ended = SimpleNamespace(wait=lambda pause: len(looks) == 3, set=lambda: None)       # type: ignore[assignment]
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: next(times)))
    watch._watch()
    assert looks == [5.0, 15.0, 20.0]


# ---- Ctrl-C in the first seconds

@pytest.mark.parametrize("words, module", [
    (["train.py"], "numpy"), (["train.py"], "torch"), (["train.py"], "gazepose.data.index"), (["infer.py"], "torch"),
    (["-m", "gazepose.train"], "numpy"), (["-m", "gazepose.infer"], "torch._C"),
    (["-m", "gazepose", "doctor", "nowhere"], "gazepose.heartbeat"),
    (["-m", "gazepose", "doctor", "nowhere"], "numpy"), (["-m", "gazepose", "train"], "accelerate")])
def test_ctrl_c_during_the_imports_is_one_line(words, module, tmp_path):
    if words[0].endswith(".py"):
        words = [str(ROOT / words[0])]
    with subprocess.Popen([sys.executable, "-X", "importtime", *words], cwd=tmp_path, stderr=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True) as program:
        assert program.stderr
        for line in program.stderr:                                    # Python prints each import as it ends
            if line.rpartition("|")[2].strip() == module:
                break
        program.send_signal(signal.SIGINT)
        late = threading.Timer(60, program.kill)                       # one that goes on would train
        late.start()
        rest = [line for line in program.stderr if not line.startswith("import time:")]
        late.cancel()
        assert program.wait(60) == 130 and len(rest) == 1 and "stopped by SIGINT" in rest[0], rest


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        startup.end_at_interrupt("train")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
