"""Sweeps: the runs of an experiment are trained and scored, several at a time; then its tables are written.

There is no coordinator. A sweep looks at the run folders to see what is left, and a run's own lock keeps others out of
it. So a sweep that was killed goes on where it stopped, and several sweeps may share one disk.
"""

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch

from gazepose import processes
from gazepose.errors import UsageError
from gazepose.experiments.plan import Experiment, Prediction, Run, fingerprint, plan, start_name
from gazepose.experiments.results import markdown, record_of, write_record
from gazepose.io import lock, read_object
from gazepose.machine import core_numbers
from gazepose.output import inform, is_quiet
from gazepose.text import counted, printable
from gazepose.training.checkpoint import WEIGHTS, weights_folder
from gazepose.training.launcher import with_paths
from gazepose.training.runlog import LOCK

ONE_PROCESS = "--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
LOOK = 5.0                       # seconds between two looks at a run that another process trains
SAVING = 100.0                   # seconds that a stopped training has to save; SLURM gives 120 in launch/slurm_sweep.sh
LOG = "sweep.log"
TOOK = "sweep: {} took {:.0f} s"
CHILD = """
import os, signal, sys
from gazepose.startup import end_with_parent
end_with_parent(signal.SIGTERM)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [int(core) for core in sys.argv[1].split(",")])
os.execv(sys.argv[2], sys.argv[2:])
"""
"""The start of a child: it ends when its sweep is killed, and it has a share of the cores only, because training starts
one thread per core that it may use, whatever OMP_NUM_THREADS is."""
Task = Run | Prediction


def done(task: Task) -> bool:
    """Whether a run is finished, or a prediction exists and is newer than the weights that it was made with.

    Raises:
        ValueError: a run's folder holds another configuration.
    """
    if isinstance(task, Prediction):
        weights = weights_folder(task.run.folder) / WEIGHTS
        return task.file.exists() and task.file.stat().st_mtime >= weights.stat().st_mtime
    status = task.folder / "status.json"
    if not status.is_file() or read_object(status).get("state") != "finished":
        return False
    config = read_object(task.folder / "config.json")
    if task.folder.name.rpartition("-")[2] != fingerprint(config, start_name(task.start), task.version)[:10]:
        raise ValueError(f"{task.folder}: was trained with other flags than its name says -> remove it; it is trained "
                         "again")
    return True


def share(predictions: Sequence[Prediction], part: tuple[int, int]) -> list[Prediction]:
    """Part (k, n), k from 1: every n-th prediction, so that rows with long runs are spread over the parts."""
    number, parts = part
    if not 1 <= number <= parts:
        raise UsageError(f"--part {number}/{parts} -> give 1/{parts} to {parts}/{parts}")
    return list(predictions[number - 1::parts])


def needs(task: Task) -> Run | None:
    """The run that has to be finished before the task begins."""
    before = task.run if isinstance(task, Prediction) else task.start
    return before if isinstance(before, Run) else None


def tasks_of(predictions: Sequence[Prediction]) -> list[Task]:
    """The predictions and every run that they need, each once and after what it needs."""
    def with_needs(task: Task) -> Iterator[Task]:
        if before := needs(task):
            yield from with_needs(before)
        yield task
    return list(dict.fromkeys(task for prediction in predictions for task in with_needs(prediction)))


def command(task: Task, launch: str) -> list[str]:
    if isinstance(task, Prediction):
        data = task.run.data if Path(*task.run.data[1:2]).is_dir() else ()        # a world may have to be rendered
        return [sys.executable, "-m", "gazepose.infer", "--checkpoint", str(task.run.folder), "--split", task.split,
                *data, *task.infer, "--exp_path", str(task.folder)]
    start = task.start.folder if isinstance(task.start, Run) else task.start
    return [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *with_paths(shlex.split(launch)),
            "-m", "gazepose.train",
            *task.flags, *(("--checkpoint", str(start)) if start else ()), "--exp_path", str(task.folder),
            *(("--resume",) if (task.folder / "status.json").exists() else ())]


def in_use(task: Task) -> bool:
    """Whether a process works in a run's folder at this moment."""
    if isinstance(task, Prediction) or not task.folder.is_dir():
        return False
    try:
        lock(task.folder / LOCK).release()
    except BlockingIOError:
        return True
    return False


def title(task: Task) -> str:
    return f"{task.row}, seed {task.seed}: {task.split}" if isinstance(task, Prediction) else task.folder.name


def shares_of_machine(jobs: int) -> list[tuple[list[int], str | None]]:
    """Cores and CUDA_VISIBLE_DEVICES of each of `jobs` workers; with the same number the results are the same."""
    cores, gpus = core_numbers(), torch.cuda.device_count()
    if jobs < 1 or jobs > max(len(cores), gpus):
        raise UsageError(f"--jobs {jobs}: this machine has {counted(len(cores), 'core')} and "
                         f"{counted(gpus, 'GPU')} -> give fewer")
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or [*map(str, range(gpus))]
    return [(cores[k::jobs] or [cores[k % len(cores)]], ",".join(names[k::jobs] or [names[k % gpus]]) if gpus else None)
            for k in range(jobs)]


class Work:
    """The tasks of a sweep, which several threads take one after another; each thread runs one process at a time."""

    def __init__(self, predictions: Sequence[Prediction], launch: str) -> None:
        self.launch, self.waiting = launch, tasks_of(predictions)
        self.total = len(self.waiting)
        self.running: dict[Task, subprocess.Popen | None] = {}
        self.failures: dict[Task, str] = {}
        """in sentences"""
        self.stopping = False
        self.changed = threading.Condition()
        """guards all of the above"""

    def run_tasks(self, cores: Sequence[int], gpus: str | None) -> None:
        """Run one task after another until none is left."""
        while (task := self._take()) is not None:
            began = time.monotonic()
            process = self._start(task, cores, gpus)
            code = process.wait() if process else None
            with self.changed:
                del self.running[task]
                if self.stopping:
                    return
                if code == 0 and done(task):
                    line = TOOK.format(title(task), time.monotonic() - began)
                    inform(line)
                    with open(task.folder / LOG, "a", encoding="utf-8") as log:
                        log.write(f"{line}\n")
                else:
                    self._fail(task, f"{last_words(task.folder)} -> see {task.folder / LOG}")
                self.changed.notify_all()

    def _take(self) -> Task | None:
        """The first task that can begin, once there is one; None where all are done or taken, or the sweep stops."""
        with self.changed:
            while self.waiting and not self.stopping:
                for task in list(self.waiting):
                    before = needs(task)
                    if before in self.failures:
                        self.waiting.remove(task)
                        self._fail(task, f"{title(before)} failed, which it needs")
                    elif before in self.waiting or before in self.running:
                        continue
                    elif done(task):
                        self.waiting.remove(task)
                    elif not in_use(task):
                        self.waiting.remove(task)
                        self.running[task] = None
                        return task
                if self.waiting:
                    self.changed.wait(LOOK)
        return None

    def _start(self, task: Task, cores: Sequence[int], gpus: str | None) -> subprocess.Popen | None:
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": gpus} if gpus is not None else {})
        task.folder.mkdir(parents=True, exist_ok=True)
        with self.changed, open(task.folder / LOG, "ab") as log:
            if self.stopping:
                return None
            if not is_quiet():
                print(f"sweep: {self.total - len(self.waiting)} of {self.total}, {title(task)} -> {task.folder / LOG}",
                      flush=True)
            words = [sys.executable, "-c", CHILD, ",".join(map(str, cores)), *command(task, self.launch)]
            process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT)
            self.running[task] = process
            processes.programs.append(process)
            return process

    def _fail(self, task: Task, reason: str) -> None:
        self.failures[task] = printable(f"{title(task)}: {reason}")
        inform(f"sweep: failed: {self.failures[task]}")              # the end says it again

    def stop(self) -> None:
        """Have the trainings save and end, start no other one, and wait until they have saved."""
        with self.changed:
            self.stopping = True
            running = dict(self.running)
            self.changed.notify_all()
        for process in running.values():
            if process is not None and process.poll() is None:
                process.terminate()
        latest = time.monotonic() + SAVING                   # a launcher may end before its training has saved
        while any(in_use(task) for task in running) and time.monotonic() < latest:
            time.sleep(0.1)


def forecast(predictions: Sequence[Prediction], jobs: int) -> str:
    """What a sweep would do, a line for each task, and how long it would take: as long as finished tasks took, by the
    lines that a sweep left in their logs.

    Raises:
        ValueError: as of `done`.
    """
    lines, seconds = [], {True: [], False: []}           # of trainings and of predictions
    counts = {(training, is_done): 0 for training in (True, False) for is_done in (True, False)}
    finished: set[Task] = set()
    for task in tasks_of(predictions):
        training = isinstance(task, Run)
        if (needs(task) is None or needs(task) in finished) and done(task):
            finished.add(task)
            took = re.findall(re.escape(TOOK.partition("{}")[0] + title(task)) + r" took (\d+) s", _log_of(task))
            seconds[training] += map(float, took[-1:])
        counts[training, task in finished] += 1
        lines.append(f"  {'exists' if task in finished else 'to do '}  {title(task)}")
    lines.append(f"sweep: {counted(counts[True, False], 'run')} to train, {counts[True, True]} are finished; "
                 f"{counted(counts[False, False], 'prediction')} to make, {counts[False, True]} exist")
    known = [training for training in (True, False) if seconds[training] or not counts[training, False]]
    if len(known) < 2:
        return "\n".join([*lines, "how long: unknown, until one of each kind has been finished by a sweep"])
    total = sum(counts[training, False] * sum(seconds[training]) / max(len(seconds[training]), 1) for training in known)
    return "\n".join([*lines, f"how long: about {total / 60 / max(jobs, 1):.0f} min, {max(jobs, 1)} at a time, as the "
                              f"finished ones took"])


def _log_of(task: Task) -> str:
    file = task.folder / LOG
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def last_words(folder: Path) -> str:
    """The last error in a task's log, or the last line. A launcher adds an error of its own, which has no reason."""
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["the log is empty"]
    errors = [line for line in lines if "rror" in line and "CalledProcessError" not in line]
    return (errors or lines)[-1]


def run_all(predictions: Sequence[Prediction], jobs: int = 1, launch: str = ONE_PROCESS) -> list[str]:
    """Train and score what is left. Runs that were stopped are resumed; runs that another process trains are awaited.

    Args:
        jobs: tasks at a time, each on its share of the cores and GPUs.
        launch: options of `accelerate launch` for training.

    Returns:
        What failed, in sentences; all other tasks are done.
    """
    work, shares = Work(predictions, launch), shares_of_machine(jobs)
    with ThreadPoolExecutor(jobs) as threads:
        try:
            for thread in as_completed([threads.submit(work.run_tasks, *own) for own in shares]):
                thread.result()
        finally:
            work.stop()
    return list(work.failures.values())


def run_sweep(experiment: Experiment, command: str, out: Path, *, preset: str | None, data: Path | None = None,
              worlds: Sequence[str] | None = None, seeds: Sequence[int] | None = None, start: Path | None = None,
              flags: Sequence[str] = (), launch: str = ONE_PROCESS, jobs: int = 1, part: tuple[int, int] = (1, 1),
              dry_run: bool = False) -> list[str]:
    """Do what is left of an experiment, then write and print the table of each of its worlds.

    Args:
        command: the command line, for the records.
        preset: of the embedded world that `data` (or data/) is; None: it is another data set.
        jobs: tasks at a time; 0: none, the tables are made of the predictions that exist.
        part: (3, 8): only the third eighth of the predictions; a table is made where all of it is done.
        dry_run: do nothing; print what would be done.
        The others as of `python -m gazepose sweep`.

    Returns:
        What failed, in sentences.
    """
    setting = experiment.embedded if preset else experiment.ego4d
    if data is not None and preset:
        worlds = (preset,)                       # the folder holds this one only
    setting = replace(setting, worlds=tuple(worlds or setting.worlds), seeds=tuple(seeds or setting.seeds))
    extra = [*(("--data", str(data)) if data else ()), *flags]
    plans = [(world, plan(experiment, setting, world, extra, start)) for world in setting.worlds or (None,)]
    predictions = [prediction for _, predictions in plans for prediction in predictions]
    if dry_run:
        print(printable(forecast(share(predictions, part), jobs)))
        return []
    failures = run_all(share(predictions, part), jobs, launch) if jobs else []
    for world, predictions in plans:
        count = sum(prediction.file.exists() for prediction in predictions)
        if count < len(predictions) and jobs and not failures:
            print(f"sweep: {count} of {len(predictions)} predictions of {world or data} exist; no table yet")
            continue
        record = record_of(experiment, predictions, world, command)
        print(f"\n{record['title']}, {world or data}\n\n{markdown(record)}\ntable -> {write_record(out, record)}")
    return failures
