"""Sweeps: the runs of an experiment file, and how they are trained."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gazepose import __main__ as program
from gazepose.config import TrainConfig, asdict
from gazepose.experiments import plan as plans
from gazepose.experiments import sweep as working
from gazepose.experiments.plan import Experiment, Prediction, Row, Run, Setting, fingerprint, plan, read_experiment
from gazepose.experiments.sweep import forecast, run_all, share, tasks_of
from gazepose.io import lock
from gazepose.synthetic import presets
from gazepose.training import shipped_start

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / "gazepose" / "experiments" / "files").glob("*.toml"))
TINY = Setting(worlds=("tiny",), seeds=(0, 1), split="test", start=("--task gaze",), flags="--epochs 1")


def experiment(*rows: Row, against: str = "a", setting: Setting = TINY) -> Experiment:
    return Experiment(name="two", title="Two", question="Which?", against=against, row=rows, embedded=setting,
                      ego4d=Setting())


A, B = Row(name="a", flags="--model GazeLSTM"), Row(name="b", flags="--prior_head")


def test_every_row_has_a_run_per_seed_and_all_share_their_start():
    predictions = plan(experiment(A, B), TINY, "tiny")
    assert [(p.row, p.seed) for p in predictions] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert len({p.file for p in predictions}) == 4 and len({p.run.start for p in predictions}) == 1
    assert [p.run.folder.name.split("-")[0] for p in predictions[:2]] == ["GazeLSTM", "GazePose"]
    tasks = tasks_of(predictions)
    first = predictions[0]
    assert len(tasks) == 1 + 4 + 4 and tasks[:3] == [first.run.start, first.run, first]


def test_only_flags_that_change_the_result_change_a_run_s_name():
    def name(flags="", row=A):
        return plan(experiment(row, B), TINY, "tiny", flags.split())[0].run.folder

    assert name() == name("--num_workers 3 --save_every 7") == name(row=Row(name="other", flags="--model GazeLSTM"))
    assert len({name(), name("--lr 0.1"), name("--limit 5"), name(row=Row(name="a", flags="--model BaselineLSTM")),
                name(row=Row(name="a", flags="--model GazeLSTM", start_flags="--limit 9"))}) == 5


@pytest.fixture
def planned_anew():
    """Runs are remembered by their flags; those of a test that changes what they depend on are forgotten."""
    yield
    plans._run.cache_clear()


def test_other_weights_of_the_package_rename_the_runs_that_take_them(monkeypatch, planned_anew):
    def names(sha256: str) -> list[str]:
        for module in (plans, shipped_start):
            monkeypatch.setattr(module, "start_card", lambda backbone: SimpleNamespace(sha256=sha256, low_pass=0.0))
        plans._run.cache_clear()
        rows = experiment(A, Row(name="b", flags="--pretrained package --behaviour published"),
                          Row(name="c", flags="--from_scratch"), Row(name="d", flags="--behaviour published"))
        return [p.run.folder.name for p in plan(rows, Setting(seeds=(0,)), "tiny")]

    assert [one == other for one, other in zip(names("1"), names("2"), strict=True)] == [False, False, True, True]


def test_another_version_of_the_world_renames_the_runs_on_it_alone(monkeypatch, tmp_path, planned_anew):
    def names(version: int) -> list[str]:
        monkeypatch.setattr(presets, "VERSION", version)
        plans._run.cache_clear()
        return [plan(experiment(A, B), Setting(seeds=(0,)), world, extra)[0].run.folder.name
                for world, extra in (("tiny", ()), (None, ("--data", str(tmp_path))))]

    assert [one == other for one, other in zip(names(1), names(2), strict=True)] == [False, True]


def test_a_new_or_removed_flag_does_not_rename_older_runs():
    now = asdict(TrainConfig())
    before = {section: {key: value for key, value in values.items() if key != "windows_per_segment"}
              for section, values in now.items()}
    assert fingerprint(before, None) == fingerprint(now, None)
    before["data"]["removed_flag"] = 3
    assert fingerprint(before, None) == fingerprint(now, None)
    now["model"]["low_pass"] = 0.015                     # a run takes it from its start, which is counted
    assert fingerprint(before, None) == fingerprint(now, None)
    now["data"]["windows_per_segment"] = 1
    assert fingerprint(before, None) != fingerprint(now, None)


def test_two_predictions_of_the_same_weights_train_once():
    first, second = plan(experiment(A, Row(name="b", flags=A.flags, infer="--gaussian_drop")), TINY, "tiny")[:2]
    assert first.run == second.run and first.file != second.file and second.folder.parent == first.folder


def test_two_rows_with_the_same_run_are_refused():
    with pytest.raises(ValueError, match="rows 'a' and 'b' are the same run"):
        plan(experiment(A, Row(name="b", flags="--model=GazeLSTM")), TINY, "tiny")


def test_given_weights_replace_the_start(tmp_path):
    for name, content in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).write_bytes(content)
    runs = [plan(experiment(A, B), TINY, "tiny", start=tmp_path / name)[0].run for name in ("one", "two")]
    assert runs[0].start == tmp_path / "one" and runs[0].folder != runs[1].folder


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_experiment_can_be_planned_and_describes_itself(file, monkeypatch):
    monkeypatch.setattr(shipped_start, "FOLDER", ROOT / "gazepose" / "weights")
    shipped = read_experiment(file)
    lines = file.read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["# What", "# How long", "# Expect"]
    setting = replace(shipped.embedded, seeds=(0,))
    assert len(plan(shipped, setting, shipped.embedded.worlds[0])) == len(shipped.row) >= 3


@pytest.mark.parametrize("text, fault", [
    ("title = ", "not TOML"), ('titel = "x"', "'titel' is unknown"),
    ('title="t"\nquestion="q"\nagainst="c"\n[[row]]\nname="a"', "against = 'c' is not a row -> give one of a"),
    ('title="t"\nquestion="q"\nagainst="a"\n[[row]]\nname="a"\n[[row]]\nname="a"', "several rows are named a"),
    ('title="t"\nquestion="q"\nagainst="a"\n[embedded]\nseeds=["x"]\n[[row]]\nname="a"', "Setting"),
    ('title="t"\nquestion="q"\nagainst="a"\n[[row]]\nnaem="a"', "Row: 'naem' is unknown")])
def test_the_error_of_a_wrong_experiment_file_names_the_fault(tmp_path, text, fault):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ValueError, match=fault) as error:
        read_experiment(tmp_path / "e.toml")
    assert "e.toml" in str(error.value)


def test_the_parts_are_disjoint_and_complete():
    everything = plan(experiment(A, B), TINY, "tiny")
    parts = [share(everything, (k, 3)) for k in (1, 2, 3)]
    assert sorted((p.row, p.seed) for part in parts for p in part) == sorted((p.row, p.seed) for p in everything)
    with pytest.raises(ValueError, match="--part 4/3 -> give 1/3 to 3/3"):
        share(everything, (4, 3))


STAND_IN = """
import json, pathlib, sys, time
folder, kind, config, bad = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
if kind == bad:
    raise SystemExit("error: no such luck")
time.sleep(0.05)
with open(folder.parent / "done", "a") as file:
    print(folder.name, kind, *sys.argv[5:], file=file)
if kind == "train":
    (folder / "best").mkdir(exist_ok=True)
    (folder / "best" / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text(config)
    (folder / "status.json").write_text('{"state": "finished"}')
else:
    import numpy as np
    (folder / "pred").mkdir(exist_ok=True)
    np.savez(folder / "pred" / "test.npz", row=np.arange(4), score=np.zeros(4), label=np.arange(4) % 2)
"""


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A sweep of two runs that take a twentieth of a second each and add a line to a file."""
    bad = {"kind": "-"}

    def command(task, launch):
        config = {section: {} for section in ("model", "data", "optim", "run")} | {"name": task.folder.name}
        kind = "train" if isinstance(task, Run) else "infer"
        again = ["--resume"] if kind == "train" and (task.folder / "status.json").exists() else []
        return [sys.executable, "-c", STAND_IN, str(task.folder), kind, json.dumps(config), bad["kind"], *again]

    monkeypatch.setattr(working, "command", command)
    monkeypatch.setattr(working, "LOOK", 0.05)
    name = fingerprint({section: {} for section in ("model", "data", "optim", "run")}, None)[:10]
    start = Run((), tmp_path / f"start-{name}")
    named = fingerprint({section: {} for section in ("model", "data", "optim", "run")}, start.folder.name)[:10]
    runs = [Run((), tmp_path / f"{row}-{named}", start) for row in "ab"]
    return [Prediction(run.folder.name[0], 0, run, "test") for run in runs], bad, tmp_path


def lines(folder: Path) -> list[str]:
    return (folder / "done").read_text().splitlines() if (folder / "done").exists() else []


def test_finished_tasks_are_not_run_again(pool, capsys):
    predictions, _, folder = pool
    assert run_all(predictions, jobs=1) == []
    first = lines(folder)
    assert [line.split()[1] for line in first] == ["train", "train", "infer", "train", "infer"]
    assert first[0].startswith("start-")
    assert run_all(predictions, jobs=1) == [] and lines(folder) == first
    predictions[0].file.unlink()
    assert run_all(predictions, jobs=1) == [] and len(lines(folder)) == len(first) + 1


def test_a_dry_run_counts_what_is_left_and_takes_the_time_of_finished_tasks(pool):
    predictions, _, folder = pool
    assert forecast(predictions, 1).splitlines()[-2:] == [
        "sweep: 3 runs to train, 0 are finished; 2 predictions to make, 0 exist",
        "how long: unknown, until one of each kind has been finished by a sweep"]
    run_all(predictions[:1])
    for log in folder.glob("*/sweep.log"):
        log.write_text(re.sub(r"took \d+ s", "took 240 s", log.read_text()))
    assert forecast(predictions, 2).splitlines()[-2:] == [                 # 2 tasks of 4 minutes, 2 at a time
        "sweep: 1 run to train, 2 are finished; 1 prediction to make, 1 exist",
        "how long: about 4 min, 2 at a time, as the finished ones took"]
    assert len(lines(folder)) == 3                                         # and trained nothing


def test_flags_of_a_sweep_are_given_as_its_help_writes_them(monkeypatch):
    given = {}
    monkeypatch.setattr(working, "run_sweep", lambda *args, **how: given.update(how))
    for flags in (["--flags", "--limit 32 --epochs 1"], ["--flags=--limit 32 --epochs 1"]):
        program.run("sweep", [str(SHIPPED[0]), *flags, "--launch", "--config_file one.yaml", "--dry_run"])
        assert given["flags"] == ["--limit", "32", "--epochs", "1"] and given["launch"] == "--config_file one.yaml"
        assert given["dry_run"] is True
    program.run("sweep", [str(SHIPPED[0]), "--flags", "--compile"])
    assert given["flags"] == ["--compile"]


def test_a_run_that_was_stopped_is_resumed(pool):
    predictions, _, folder = pool
    run = predictions[1].run
    run.folder.mkdir()
    (run.folder / "status.json").write_text('{"state": "preempted"}')
    run_all(predictions)
    assert [line.endswith("--resume") for line in lines(folder)] == [name.startswith(f"{run.folder.name} train")
                                                                     for name in lines(folder)]


def test_a_failure_is_named_with_its_log_and_the_other_tasks_run(pool, capsys):
    predictions, bad, folder = pool
    bad["kind"] = "infer"
    failed = run_all(predictions)
    assert len(failed) == 2 and "error: no such luck -> see" in failed[0]
    assert "error: no such luck" in Path(failed[0].split(" -> see ")[1]).read_text()
    assert [line.split()[1] for line in lines(folder)] == ["train"] * 3
    bad["kind"] = "train"
    predictions[0].run.start.folder.joinpath("status.json").unlink()
    for prediction in predictions:
        prediction.run.folder.joinpath("status.json").unlink()
    failed = run_all(predictions)
    assert len(failed) == 5 and sum("which it needs" in sentence for sentence in failed) == 4


def test_the_reason_of_a_failure_is_the_training_s_and_not_the_launcher_s(tmp_path):
    for text, reason in (("error: disk full\nraise X\nsubprocess.CalledProcessError: status 1", "error: disk full"),
                         ("step 3\nsubprocess.CalledProcessError: died", "subprocess.CalledProcessError: died"),
                         ("", "the log is empty")):
        (tmp_path / working.LOG).write_text(text)
        assert working.last_words(tmp_path) == reason


def test_the_last_words_of_a_failed_run_do_not_control_the_terminal(capsys):
    run = tasks_of(plan(experiment(A, B), TINY, "tiny"))[0]
    work = working.Work([], "")
    work._fail(run, "error: \x1b[2J\x1b]0;title\x07 -> see sweep.log")
    assert "error: \\x1b[2J\\x1b]0;title\\x07 -> see" in work.failures[run] and "\x1b" not in capsys.readouterr().out


def test_a_folder_with_other_weights_than_its_name_says_is_refused(pool):
    predictions, _, _ = pool
    run_all(predictions)
    path = predictions[0].run.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": {"model": "other"}}))
    with pytest.raises(ValueError, match="other flags than its name says -> remove it; it is trained again"):
        run_all(predictions)
    shutil.rmtree(path.parent)
    assert run_all(predictions) == [] and path.is_file()


def test_a_run_that_another_process_trains_is_awaited(pool):
    predictions, _, folder = pool
    start = predictions[0].run.start.folder
    start.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import sys, time, pathlib; from gazepose.io import lock\n"
                              f"held = lock(pathlib.Path({str(start)!r}) / '.lock')\n"
                              "print(1, flush=True); time.sleep(1.5)"],
                             cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline()
    with pytest.raises(BlockingIOError, match=f"process {other.pid} on "):
        lock(start / ".lock")
    began = time.monotonic()
    assert run_all(predictions) == [] and time.monotonic() - began > 1 and len(lines(folder)) == 5


LONG = """
import pathlib, signal, sys, time
from gazepose.experiments import sweep
from gazepose.experiments.plan import Prediction, Run
from gazepose.processes import StopRequest

TRAINING = "import os, signal, sys, time\\n" \
           "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(75)))\\n" \
           "print(os.getpid(), sorted(os.sched_getaffinity(0)), flush=True); time.sleep(60)"
StopRequest()
folder = pathlib.Path(sys.argv[1])
sweep.command = lambda task, launch: [sys.executable, "-c", TRAINING]
sweep.run_all([Prediction("a", seed, Run((), folder / f"{seed}"), "val") for seed in range(3)])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_trainings_save_and_end_when_their_sweep_is_stopped_or_killed(tmp_path, number):
    """The sweep, or the kernel if the sweep was killed, sends SIGTERM to its trainings. No other one starts."""
    sweep = subprocess.Popen([sys.executable, "-c", LONG, str(tmp_path)], cwd=ROOT)
    log = tmp_path / "0" / working.LOG
    while not (log.exists() and log.read_text().strip()):
        time.sleep(0.05)
    pid = int(log.read_text().split()[0])
    sweep.send_signal(number)
    assert sweep.wait() != 0
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the training went on")
    assert log.read_text().splitlines()[1:] == ["saved"] and not (tmp_path / "1").exists()


def test_each_job_has_its_share_of_the_cores_and_the_gpus(monkeypatch):
    monkeypatch.setattr(working.torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert working.shares_of_machine(2) == [([0, 4], "0,2"), ([2, 6], "1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    assert [gpus for _, gpus in working.shares_of_machine(4)] == ["5", "6", "7", "5"]
    with pytest.raises(ValueError, match="--jobs 5: this machine has 4 cores and 3 GPUs -> give fewer"):
        working.shares_of_machine(5)
