"""Five signals to each command in the middle of its work: nothing is left running, and what is finished is kept.

Ctrl-C and a closed terminal signal the whole process group; the others go to the process that the user started.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from making import data_set

from gazepose.processes import EXIT_PREEMPTED
from gazepose.training.checkpoint import newest_whole
from gazepose.training.launcher import CONFIGURATIONS

pytestmark = pytest.mark.drill
ROOT = Path(__file__).resolve().parents[2]
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGKILL")
GROUP = ("SIGINT", "SIGHUP")
SMALL = ["--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--dmodel", "32",
         "--dim_feedforward", "32", "--nheads", "2", "--output_stride", "32", "--backbone", "test_resnet",
         "--batch_size", "2", "--epochs", "200", "--save_every", "3"]
WORKERS = ["--num_workers", "2"]
EXPERIMENT = f'''
title = "One"
question = "Which?"
against = "a"
[embedded]
worlds = ["tiny"]
seeds = [0, 1]
split = "test"
flags = "{' '.join(SMALL)} --model GazeLSTM"
[[row]]
name = "a"
flags = "--train_stride 1"
'''


def as_in_a_terminal() -> None:
    """A drill that runs in the background may ignore both."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Command:
    """A command in a folder. A mark in the environment finds all that it started, in whatever session."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.mark = f"GAZEPOSE_DRILL={folder}".encode()
        self.log = folder / "log"
        with open(self.log, "w") as log:
            self.main = subprocess.Popen(
                [sys.executable, *words], cwd=folder, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=as_in_a_terminal,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GAZEPOSE_DRILL": str(folder)})

    def running(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark in (process / "environ").read_bytes().split(b"\0"):       # a zombie has none
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def until(self, condition: Callable[[], object], seconds: float = 180) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + seconds, f"{self.running()}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)
        return time.monotonic() - began

    def send(self, name: str) -> None:
        number = getattr(signal, name)
        os.killpg(self.main.pid, number) if name in GROUP else self.main.send_signal(number)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_world) -> Path:
    """A prepared world, a data set of many clips, a pose network and a run."""
    place = tmp_path_factory.mktemp("signals")
    shutil.copytree(tiny_world, place / "world")
    data_set(place / "many", {f"c{number}": [("t", list(range(1, 250)))] for number in range(40)}, frames=250)
    state = timm.create_model("resnet50", num_classes=0).state_dict()
    state |= {"fc_finetune.weight": torch.zeros(3, 2051), "fc_finetune.bias": torch.zeros(3)}
    for angle in ("yaw", "pitch", "roll"):
        state |= {f"fc_{angle}.weight": torch.zeros(66, 2048), f"fc_{angle}.bias": torch.zeros(66)}
    torch.save({f"module.{key}": value for key, value in state.items()}, place / "hopenet.pkl")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, ROOT / "train.py", "--data", "world", "--exp_path", "run", *SMALL, *WORKERS,
                    "--epochs", "1", "--limit", "16"], cwd=place, env=env, check=True)
    return place


def prepare_(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    for name in ("json", "split", "videos"):
        (folder / "data" / name).parent.mkdir(exist_ok=True)
        shutil.copytree(place / "many" / name, folder / "data" / name)
    return (Command(folder, "-m", "gazepose", "prepare", "--data", "data", "--split", "train"),
            lambda: list(folder.glob("data/prepared/*/train/clips/*.bin")))


def synthetic(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    return (Command(folder, "-m", "gazepose", "synthetic", "--out", "world", "--preset", "tiny", "--jobs", "2"),
            lambda: list(folder.glob("world/.pieces/*.npz")))


def priors(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    index = next((place / "world" / "prepared").glob("*/train"))
    shutil.copytree(index, folder / "index" / "train")
    return (Command(folder, "-m", "gazepose", "priors", "head_pose", "--model", str(place / "hopenet.pkl"), "--data",
                    "index/train", "--batch_size", "1"), lambda: list(folder.glob("index/train.head_pose-*")))


def has_steps(run: Path, count: int) -> bool:
    records = run / "metrics.jsonl"
    return records.exists() and len(records.read_text().splitlines()) >= count


def train(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    return (Command(folder, str(ROOT / "train.py"), "--data", str(place / "world"), "--exp_path", "run", *SMALL,
                    *WORKERS), lambda: has_steps(folder / "run", 5))


def launched(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    return (Command(folder, "-m", "accelerate.commands.launch", "--config_file",
                    str(CONFIGURATIONS / "cpu2.yaml"), "--main_process_port", "0", str(ROOT / "train.py"),
                    "--data", str(place / "world"), "--exp_path", "run", *SMALL, *WORKERS),
            lambda: has_steps(folder / "run", 5))


def infer(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    started = Command(folder, str(ROOT / "infer.py"), "--checkpoint", str(place / "run"), "--split", "val", "--stride",
                      "1", "--batch_size", "1", *WORKERS, "--exp_path", "scores", "--data",
                      str(place / "world"))
    return started, lambda: len(started.running()) >= 5                # main, tracker, server, two workers


def sweep(place: Path, folder: Path) -> tuple[Command, Callable[[], object]]:
    (folder / "one.toml").write_text(EXPERIMENT)
    (folder / "data" / "embedded").mkdir(parents=True)
    (folder / "data" / "embedded" / "tiny-0").symlink_to(place / "world")
    (folder / "data" / "embedded" / "tiny-1").symlink_to(place / "world")

    def two_runs() -> bool:
        runs = list(folder.glob("runs/sweep/*/metrics.jsonl"))
        return len(runs) == 2 and all(has_steps(run.parent, 5) for run in runs)
    return Command(folder, "-m", "gazepose", "sweep", "one.toml", "--jobs", "2", "--flags",
                   " ".join(WORKERS)), two_runs


COMMANDS = {"prepare": prepare_, "synthetic": synthetic, "priors": priors, "train": train,
            "accelerate launch train": launched, "infer": infer, "sweep": sweep}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_leaves_no_process_and_what_is_finished(command, name, place, tmp_path, figure):
    started, busy = COMMANDS[command](place, tmp_path)
    try:
        started.until(lambda: busy() or started.main.poll() is not None)
        assert started.main.poll() is None, started.log.read_text()
        started.send(name)
        code = started.main.wait(60)
        seconds = started.until(lambda: not started.running(), 60)     # after the main process
    finally:
        orphans = started.running()
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
    runs = {path.parent: json.loads(path.read_text()) for path in tmp_path.glob("**/status.json")}
    states = ", ".join(sorted({status["state"] for status in runs.values()}))
    saved = [newest_whole(run)[0] for run in runs]
    log = started.log.read_text()
    traces = log.count("Traceback")
    figure(f"{command}, {name}: exit code, states, orphans, seconds until the last process, tracebacks",
           f"{code}; {states or '-'}; {len(orphans)}; {seconds:.1f}; {traces}")
    assert not orphans and all(saved)
    if name == "SIGKILL":
        assert code == -signal.SIGKILL
        assert command in ("train", "accelerate launch train") or set(states.split(", ")) <= {"", "preempted"}
    elif command != "accelerate launch train":
        assert code == EXIT_PREEMPTED and not traces and ": stopped " in log, log
    if runs and not (name == "SIGKILL" and command == "train"):
        assert states == "preempted", log
    assert busy() or command == "infer", "what was finished is gone"


@pytest.mark.parametrize("asked", [False, True], ids=["no signal", "SIGTERM"])
def test_a_stopped_loader_worker_ends_a_training(asked, place, tmp_path, figure):
    started, busy = train(place, tmp_path)
    started.until(busy)
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
               for pid in started.running()}
    workers = [pid for pid, parent in parents.items() if parent in parents and parent != started.main.pid]
    assert len(workers) == 2                                           # children of the server
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    if asked:
        started.send("SIGTERM")
    try:
        seconds = started.until(lambda: started.main.poll() is not None)
    finally:
        for pid in started.running():
            os.kill(pid, signal.SIGKILL)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    figure(f"loader workers stopped, {'SIGTERM' if asked else 'no signal'}: seconds until the end, state, reason",
           f"{seconds:.0f}; {status['state']}; {status['reason']}")
    saved = newest_whole(tmp_path / "run")[0]
    if asked:
        assert status["state"] == "preempted" and saved and saved.name.startswith(f"step-{status['step']:08d}")
    else:
        assert status["state"] == "failed" and "a loader worker hangs" in status["reason"] and 120 < seconds < 150
