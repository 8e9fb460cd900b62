"""Work: what a plan asks for and nobody has done yet is trained and scored, several runs at once.

There is no coordinator: whoever works on a plan looks at the folders, and a run's own lock keeps others out of it. What
the predictions say is table.py's affair.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gazepose.experiments.sweep.plan import Prediction, Run, fingerprint, start_name
from gazepose.io import lock, read_object
from gazepose.processes import end_with_parent
from gazepose.training.checkpoint import WEIGHTS, weights_folder
from gazepose.training.runlog import LOCK

ROOT = Path(__file__).resolve().parents[2]
ONE_PROCESS = "--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
LOOK = 0.5                       # seconds between two looks at the runs that are under way
LOG = "sweep.log"


def finished(run: Run) -> bool:
    """Whether a run has been trained to its end, under just this configuration.

    Raises:
        ValueError: its folder holds another configuration.
    """
    if not (run.folder / "status.json").is_file() or read_object(run.folder / "status.json").get("state") != "finished":
        return False
    trained = read_object(run.folder / "config.json")
    if run.folder.name.rpartition("-")[2] != fingerprint(trained, start_name(run.start))[:10]:
        raise ValueError(f"{run.folder}: was trained with other flags than its name says -> remove it, it is made anew")
    return True


def scored(prediction: Prediction) -> bool:
    """Whether a prediction is there, and newer than the weights it was made with."""
    weights = weights_folder(prediction.run.folder) / WEIGHTS
    return prediction.file.exists() and prediction.file.stat().st_mtime >= weights.stat().st_mtime


def share(predictions: Sequence[Prediction], part: tuple[int, int]) -> list[Prediction]:
    """The part-th of so many parts, counted from 1: every so-many-th, so that long rows are spread."""
    number, parts = part
    if not 1 <= number <= parts:
        raise ValueError(f"--part {number}/{parts} -> give 1/{parts} to {parts}/{parts}")
    return list(predictions[number - 1::parts])


@dataclass
class _Slot:
    """A share of the machine's cores and GPUs, and what runs on it."""

    cores: set[int]
    gpus: str | None
    task: "Run | Prediction | None" = None
    process: subprocess.Popen | None = None
    began: float = 0.0


def _slots(jobs: int) -> list[_Slot]:
    cores, gpus = sorted(os.sched_getaffinity(0)), torch.cuda.device_count()
    if jobs < 1 or jobs > max(len(cores), gpus):
        raise ValueError(f"--jobs {jobs}: this machine has {len(cores)} cores and {gpus} GPUs -> give fewer")
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or [*map(str, range(gpus))]
    return [_Slot(set(cores[k::jobs]) or {cores[k % len(cores)]},
                  ",".join(seen[k::jobs] or [seen[k % gpus]]) if gpus else None) for k in range(jobs)]


def _needs(task: Run | Prediction) -> Run | None:
    before = task.run if isinstance(task, Prediction) else task.start
    return before if isinstance(before, Run) else None


def tasks_of(predictions: Sequence[Prediction]) -> list[Run | Prediction]:
    """Everything the predictions need and themselves, each once, behind what it needs."""
    def chain(task: Run | Prediction) -> Iterator[Run | Prediction]:
        if before := _needs(task):
            yield from chain(before)
        yield task
    return list(dict.fromkeys(task for prediction in predictions for task in chain(prediction)))


def _command(task: Run | Prediction, launch: str) -> list[str]:
    if isinstance(task, Prediction):
        return [sys.executable, str(ROOT / "infer.py"), "--checkpoint", str(task.run.folder), "--split", task.split,
                *task.infer, "--exp_path", str(task.folder)]
    start = task.start.folder if isinstance(task.start, Run) else task.start
    return [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *shlex.split(launch),
            str(ROOT / "train.py"),
            *task.flags, *(("--checkpoint", str(start)) if start else ()), "--exp_path", str(task.folder),
            *(("--resume",) if (task.folder / "status.json").exists() else ())]


def _held(folder: Path) -> bool:
    """Whether somebody else works in a run's folder just now."""
    if not folder.is_dir():
        return False
    try:
        lock(folder / LOCK).release()
    except BlockingIOError:
        return True
    return False


def _begin(slot: _Slot, task: Run | Prediction, launch: str) -> None:
    slot.task, slot.began = task, time.monotonic()
    task.folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if slot.gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = slot.gpus

    def prepare() -> None:
        end_with_parent(signal.SIGTERM)                      # nothing trains on when the sweep is gone
        os.sched_setaffinity(0, slot.cores)

    with open(task.folder / LOG, "ab") as log:
        slot.process = subprocess.Popen(_command(task, launch), env=environment, preexec_fn=prepare,
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _name(task: Run | Prediction) -> str:
    return f"{task.row}, seed {task.seed}: {task.split}" if isinstance(task, Prediction) else task.folder.name


def _last_words(folder: Path) -> str:
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return next((line for line in reversed(text) if "rror" in line), text[-1] if text else "it said nothing")


def work(predictions: Sequence[Prediction], jobs: int = 1, launch: str = ONE_PROCESS) -> list[str]:
    """Do what is not done yet; a run that was stopped is resumed, one that another process holds is waited for.

    Args:
        jobs: tasks at a time, each on its share of the cores and GPUs. With the same number the results are the same.
        launch: options of `accelerate launch` for training.

    Returns:
        What failed, in sentences; the others are done.
    """
    waiting, failed, lost = tasks_of(predictions), [], set()
    slots, total = _slots(jobs), len(waiting)
    try:
        while waiting or any(slot.task for slot in slots):
            for slot in slots:
                _look(slot, failed, lost, total)
            for slot in slots:
                if slot.task is None and (task := _next(waiting, slots, lost, failed)) is not None:
                    print(f"sweep: {total - len(waiting)} of {total}, {_name(task)} -> {task.folder / LOG}", flush=True)
                    _begin(slot, task, launch)
            time.sleep(LOOK if any(slot.task for slot in slots) else 0 if not waiting else 10 * LOOK)
    finally:
        for slot in slots:
            if slot.process and slot.process.poll() is None:
                slot.process.terminate()
        for slot in slots:
            if slot.process:
                slot.process.wait()
    return failed


def _look(slot: _Slot, failed: list[str], lost: set, total: int) -> None:
    """Take up what a slot's process has left when it has ended."""
    if slot.task is None or slot.process is None or slot.process.poll() is None:
        return
    task, slot.task = slot.task, None
    done = finished(task) if isinstance(task, Run) else task.file.exists()
    if done and slot.process.returncode == 0:
        print(f"sweep: {_name(task)} took {time.monotonic() - slot.began:.0f} s", flush=True)
        return
    lost.add(task)
    failed.append(f"{_name(task)}: {_last_words(task.folder)} -> see {task.folder / LOG}")
    print(f"sweep: failed: {failed[-1]}", flush=True)


def _next(waiting: list[Run | Prediction], slots: Sequence[_Slot], lost: set, failed: list[str]
          ) -> Run | Prediction | None:
    """The first task that can begin; what is done, or cannot be done any more, is taken off the list."""
    under_way = {slot.task for slot in slots}
    for task in list(waiting):
        before = _needs(task)
        if before is not None and before in lost:
            waiting.remove(task)
            lost.add(task)
            failed.append(f"{_name(task)}: {_name(before)} failed, which it needs")
        elif before is not None and (before in waiting or before in under_way):
            continue
        elif finished(task) if isinstance(task, Run) else scored(task):
            waiting.remove(task)
        elif not (isinstance(task, Run) and _held(task.folder)):
            waiting.remove(task)
            return task
    return None
