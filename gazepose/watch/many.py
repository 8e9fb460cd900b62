"""Work on many videos, several at a time, each in a process of its own, with one line of progress.

A decoder may end its whole process at a damaged video; then only that video is given up.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from gazepose.data.clip_crops import start_worker
from gazepose.machine import cores
from gazepose.processes import WORKERS
from gazepose.progress import Progress

POLL_S = 0.2                 # between two looks at what the processes have done
Report = Callable[[float], None]
"""is called with the seconds of a video that are done"""


class Job(Protocol):
    """One video, and what is done with it; can be sent to a process."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    def run(self, report: Report) -> Any:
        """Do it. Raises ValueError or FileNotFoundError where the video cannot be used."""


@dataclass(frozen=True)
class Outcome:
    """What became of a video."""

    value: Any = None
    """what `run` returned"""
    problem: str = ""
    """why there is none"""


def run_all(what: str, jobs: Sequence[Job], seconds: Mapping[str, float], processes: int | None,
            notify: Callable[[str], None]) -> dict[str, Outcome]:
    """Run all jobs, the longest first; name -> outcome, in the order of the jobs.

    Args:
        what: for the line of progress, such as "watching".
        seconds: length of each video by name.
        processes: how many; default: one per core; 0: none beside this one.
    """
    progress = _Videos(what, {job.name: max(ceil(seconds[job.name]), 1) for job in jobs}, notify)
    with progress.line:
        if processes == 0:
            for job in jobs:
                progress.finish(job.name, _outcome(job, lambda done, name=job.name: progress.report(name, done)))
        elif jobs:
            count = min(processes or cores(), len(jobs))
            longest_first = sorted(jobs, key=lambda job: -seconds[job.name])
            for job in _in_pool(longest_first, count, progress):       # a process died, perhaps at one of these
                if _in_pool([job], 1, progress):
                    progress.finish(job.name, Outcome(problem=(
                        f"{job.path}: its process died twice: the decoder crashed, gave no picture for minutes, or "
                        "memory ran out -> convert the video to H.264, or free memory")))
    return {job.name: progress.outcomes[job.name] for job in jobs}


class _Videos:
    """How far each video is, as one line of progress."""

    def __init__(self, what: str, lengths: dict[str, int], notify: Callable[[str], None]) -> None:
        self.lengths, self.done = lengths, dict.fromkeys(lengths, 0)
        self.outcomes: dict[str, Outcome] = {}
        self.line = Progress(what, sum(lengths.values()), "seconds of video", notify)

    def report(self, name: str, seconds: float) -> None:
        now = min(int(seconds), self.lengths[name])
        if now > self.done[name]:
            self.line.add(now - self.done[name], f"{len(self.outcomes)} of {len(self.lengths)} videos")
            self.done[name] = now

    def finish(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        self.report(name, self.lengths[name])


def _outcome(job: Job, report: Report) -> Outcome:
    try:
        return Outcome(job.run(report))
    except (ValueError, FileNotFoundError) as error:
        return Outcome(problem=str(error))


def _in_pool(jobs: Sequence[Job], count: int, progress: _Videos) -> list[Job]:
    """Run jobs in a pool; returns those that were not finished when a process of it died."""
    reports: Any = WORKERS.SimpleQueue()
    pool, unfinished = ProcessPoolExecutor(count, WORKERS, _start, (reports,)), []
    try:
        waiting: dict[Future[Outcome], Job] = {pool.submit(_run, job): job for job in jobs}
        while waiting:
            ended, _ = wait(waiting, timeout=POLL_S, return_when="FIRST_COMPLETED")
            while not reports.empty():
                progress.report(*reports.get())
            for future in ended:
                job = waiting.pop(future)
                try:
                    progress.finish(job.name, future.result())
                except BrokenProcessPool:
                    unfinished.append(job)
        return unfinished
    finally:
        pool.shutdown(cancel_futures=True)


_reports: Any = None             # of a worker: where it says how far it is


def _start(reports: Any) -> None:
    global _reports
    _reports = reports
    start_worker()


def _run(job: Job) -> Outcome:
    return _outcome(job, lambda seconds: _reports.put((job.name, seconds)))
