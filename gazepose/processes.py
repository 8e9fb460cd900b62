"""How a process ends with its launcher, stops when it is asked to, starts workers, and shares work with others.

The standard library only, so that train.py can call it before the slow imports.
"""

import atexit
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_PREEMPTED = 75              # EX_TEMPFAIL of sysexits.h: the same command with --resume goes on
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LAUNCHED = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}     # set by accelerate's two launchers and torchrun
_PR_SET_PDEATHSIG = 1            # prctl(2)


@dataclass(frozen=True)
class Processes:
    """The processes that prepare data together, on one disk (training/distributed.py makes it for several)."""

    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], None] = lambda: None
    notify: Callable[[str], None] = print
    """prints a line, on rank 0 only"""
    gather: Callable[[Any], list[Any]] = lambda value: [value]
    """the value of every process of the run, also of those on other disks; a barrier too"""

    @contextmanager
    def in_turn(self, path: Path) -> Iterator[None]:
        """Hold a lock file, so that other runs wait; rank 0 holds it for all processes of this run."""
        from gazepose.io import lock  # numpy: not before it is needed
        held = lock(path, self.notify) if self.rank == 0 else None
        try:
            self.barrier()
            yield
            self.barrier()
        finally:
            if held:
                held.release()


class Preempted(BaseException):
    """A signal asked for a stop. A BaseException, so that no `except Exception` before the run's end catches it."""


class StopRequest:
    """Whether SIGTERM or SIGUSR1 asked this process to stop; further ones change nothing.

    While `at_once`, before there is anything to save, the signal itself raises Preempted.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.at_once = True
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def __call__(self) -> bool:
        return self.stopping

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.stopping = not self.stopping, True
        if first and self.at_once:
            raise Preempted(f"{signal.Signals(number).name}, with nothing to save")


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux; elsewhere it outlives its parent)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:                   # the parent died before prctl
        os.kill(os.getpid(), number)


def end_with_launcher() -> None:
    """Treat the death of the launcher as a SIGTERM, so that it leaves no process behind.

    A process that no launcher started may outlive its parent, as under nohup.
    """
    if not LAUNCHED.isdisjoint(os.environ):
        end_with_parent(signal.SIGTERM)


@contextmanager
def without_main_script() -> Iterator[None]:
    """Processes started in this block do not import the main script: they do not need it, and it takes seconds."""
    main = sys.modules["__main__"]
    before = {name: main.__dict__.pop(name, None) for name in ("__file__", "__spec__")}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({name: value for name, value in before.items() if name == "__spec__" or value})


class _Worker(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        with without_main_script():
            return ForkServerProcess._Popen(process_obj)               # type: ignore[attr-defined]


class _WorkerContext(ForkServerContext):
    Process = _Worker


WORKERS = _WorkerContext()
"""starts the workers that load batches or cut clips"""


@functools.cache
def shield_workers() -> None:
    """Start the process that loader workers are forked from; it and its workers block the stop signals.

    A scheduler signals all processes of a job, but the batch that a worker loads is needed for the step that is saved.
    A worker that blocks SIGTERM is killed at the end of the program, where multiprocessing would wait for it.

    The process imports the modules of the workers in the background, once for all of them.
    """
    multiprocessing.set_forkserver_preload(["gazepose.data.loader"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()                            # lifts the block of SIGTERM when it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    atexit.register(lambda: [child.kill() for child in multiprocessing.active_children()])


def hear_stop_signals() -> None:
    """Unblock the stop signals, in a child of that process which SIGTERM should end."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def start_loader_worker(number: int) -> None:
    """`worker_init_fn` of a loader: the worker leaves Ctrl-C to the training process and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
