"""How a process stops when it is asked to, starts workers, and shares work with others."""

import atexit
import faulthandler
import functools
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Self

from gazepose import heartbeat
from gazepose.heartbeat import Watch
from gazepose.output import inform, lasting_output
from gazepose.signals import STOP_SIGNALS, stop_signals_blocked, unblock_sigterm, wake_main_thread
from gazepose.startup import EXIT_PREEMPTED, preempted, say, tell_launcher

OUTSIDE = 3.0                    # seconds after a stop signal in which its handler runs, if there is nothing to save
OVERDUE = 10.0                   # seconds after a stop signal in which a process leaves a wait for a batch
LATEST = 110.0                   # seconds after a stop signal in which a process ends; SLURM gives 120
SILENT = 130.0                   # seconds without a batch; a loader worker shows its traceback after 120
ONE_PRESS = 2.0                  # seconds in which two SIGINT are one Ctrl-C: torchrun passes it on


@dataclass(frozen=True)
class Processes:
    """The processes that prepare data together, on one disk (training/distributed.py makes it for several)."""

    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], None] = lambda: None
    notify: Callable[[str], None] = inform
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


# ---- stops

class Preempted(BaseException):
    """A signal asked for a stop. A BaseException, so that no `except Exception` before the run's end catches it."""


class Overdue(Preempted):
    """The stop came while this process waited, and the wait did not end. Other processes may wait for this one."""


_waiting = 0.0                   # since when the main thread waits for a batch; 0: it does not


@contextmanager
def waiting() -> Iterator[None]:
    """While the block waits for a batch, a stop signal that is OVERDUE raises Overdue in it."""
    global _waiting
    _waiting = time.monotonic()
    try:
        yield
    finally:
        _waiting = 0.0


class Watchdog(Watch):
    """Kills a worker that the system has stopped (SIGSTOP) for heartbeat.SILENT seconds, and all workers when a
    `waiting` lasts SILENT seconds: one may hang where no timer of its own runs, and a queue waits for it for ever."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped: dict[int, float] = {}
        self._wait = 0.0, 0.0                    # the last wait for a batch, and when this thread first saw it

    def __enter__(self) -> Self:
        killed.clear()
        return super().__enter__()

    def look(self, now: float) -> None:
        if _waiting != self._wait[0]:
            self._wait = _waiting, now
        if _waiting and now - self._wait[1] > SILENT and multiprocessing.active_children():
            killed.append("all")
            return kill_workers()
        pids = [worker.pid for worker in _started if worker.returncode is None]
        for program in programs:
            pids += heartbeat.family(program.pid) if program.returncode is None else []
        self._stopped = {pid: self._stopped.get(pid, now) for pid in pids if heartbeat.is_stopped(pid)}
        for pid, since in self._stopped.items():
            if now - since >= heartbeat.SILENT:
                killed.append(str(pid))
                say(f"process {pid} on {socket.gethostname()} ({heartbeat.work or 'at work'}) has been stopped "
                     f"for {now - since:.0f} s, as by SIGSTOP -> it is killed; what it had not finished is done again, "
                     "now or when the same command is started again")
                heartbeat.kill(pid)


programs: list[Any] = []         # Popen of programs, such as trainings of a sweep, to watch like workers
killed: list[str] = []           # workers that a Watchdog killed since it began


class StopRequest:
    """Whether SIGTERM, SIGINT, SIGHUP or SIGUSR1 asked this process to stop. After its block the old handlers are back.

    While `at_once`, before there is anything to save, the signal itself kills the workers and raises Preempted. Later
    ones change nothing; only a second SIGINT ends the process at once. A signal that was ignored before (nohup) stays
    ignored.

    The main thread may hang outside Python, where no handler runs. So a thread ends the process at the second SIGINT;
    OUTSIDE seconds after a signal that no handler saw while there was nothing to save; and LATEST seconds after any.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.at_once = True
        self.ending: Callable[[str, str], None] = lambda state, reason: None
        """called with preempted or failed, and the reason, before the thread ends the process"""
        self._overdue = False
        global _current
        _current = self
        heard, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before: dict[int, Any] = {number: signal.signal(number, self._note) for number in numbers}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(heard,), daemon=True)
        self._thread.start()

    def __call__(self) -> bool:
        return self.stopping

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._writer.close()                     # ends the thread
        self._thread.join(OUTSIDE)               # at the end of Python it would abort the process, beside torch's

    def _note(self, number: int, frame: FrameType | None) -> None:
        global _pending
        first, self.stopping = not self.stopping, True
        if first and self.at_once:
            _pending = Preempted(f"by {signal.Signals(number).name}, with nothing to save")
            _raise_pending()
        if self._overdue and _waiting:
            kill_workers()                       # torch would wait for each that hangs
            raise Overdue("while it waited for a batch")

    def _watch(self, heard: socket.socket) -> None:
        """Read the numbers of signals as they come, whatever the main thread does."""
        first = interrupted = 0.0
        name = ""
        while True:
            try:
                heard.settimeout(0.5 if first else None)
                received = heard.recv(1)
                if not received:
                    return heard.close()
                number = received[0]
            except TimeoutError:
                number = 0
            now = time.monotonic()
            if number in self._before:
                if interrupted and number == signal.SIGINT and now - interrupted > ONE_PRESS:
                    end_now("failed", "SIGINT came twice, so nothing was saved", 128 + signal.SIGINT)
                if not first:
                    first, name = now, signal.Signals(number).name
                    if not self.at_once and os.environ.get("RANK", "0") == "0":
                        say(f"{name}: saving after this step; a second Ctrl-C ends at once, without saving")
                interrupted = interrupted or (now if number == signal.SIGINT else 0.0)
            elapsed = now - first if first else 0.0
            if elapsed > OUTSIDE and self.at_once and not self.stopping:
                end_now("preempted", f"by {name}, with nothing to save", EXIT_PREEMPTED)
            if elapsed > LATEST:
                with suppress(Exception):
                    faulthandler.dump_traceback(sys.__stderr__ or 2)
                end_now("failed", f"{name}: it had not ended {elapsed:.0f} s later, so nothing was saved", 1)
            if elapsed > OVERDUE and _waiting and not self._overdue:
                self._overdue = True
                wake_main_thread()


_current: StopRequest | None = None


def end_now(state: str, reason: str, code: int) -> None:
    """End this process from any thread, whatever the main thread does; `StopRequest.ending` is called before.

    Args:
        state: preempted or failed.
    """
    line = f"stopped {reason}" if state == "preempted" else f"error: {reason}"
    say(line)
    with suppress(Exception):
        tell_launcher(line)
        if _current is not None:
            _current.ending(state, reason)
    kill_workers()
    os._exit(code)


@contextmanager
def command(name: str, continues: bool = True) -> Iterator[StopRequest]:
    """Run a command that ends as users expect: a stop signal gives one line and exit code EXIT_PREEMPTED; output whose
    reader has gone (`| head`, a closed terminal) is dropped. continues: it keeps finished parts when it is stopped."""
    _start_tracker()
    with lasting_output(), StopRequest() as stop, Watchdog():
        try:
            yield stop
        except Preempted as error:
            sys.unraisablehook = lambda unraisable: None               # of what was half made, such as an iterator
            kept = "finished parts are kept -> the same command continues" if continues else \
                "the same command begins anew"
            say(f"{name}: stopped {str(error).partition(',')[0]}; {kept}")
            raise preempted() from None
        finally:
            kill_workers()                       # torch would wait 5 seconds for each


# ---- workers

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


_starting = False                # whether a worker is being started: it could not be killed yet
_pending: Preempted | None = None
_started: list[Any] = []         # Popen of workers that multiprocessing may not have noted yet


def _raise_pending() -> None:
    """Kill the workers and raise what a signal's handler left, unless a worker is being started."""
    global _pending
    if _pending is not None and not _starting:
        error, _pending = _pending, None
        kill_workers()
        raise error


START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"     # Windows only spawns
_Context: Any = type(multiprocessing.get_context(START))


class _Worker(_Context.Process):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        global _starting
        _start_server()
        _started[:] = [worker for worker in _started if worker.returncode is None]
        _starting = True
        try:
            with without_main_script():
                _started.append(_Context.Process._Popen(process_obj))
        finally:
            _starting = False
        _raise_pending()
        return _started[-1]


class _WorkerContext(_Context):
    Process = _Worker


WORKERS = _WorkerContext()
"""starts the workers that load batches, cut clips or render"""


def shield_workers() -> None:
    """Start the process that workers are forked from, and have it import the modules of loader workers meanwhile."""
    multiprocessing.set_forkserver_preload(["gazepose.data.loader"])
    _start_server()


def _start_tracker() -> None:
    """Start multiprocessing's process that frees what ended processes left. A closed terminal, or a scheduler, would
    end it before these."""
    if sys.platform != "win32":
        from multiprocessing import resource_tracker
        with stop_signals_blocked():
            resource_tracker.ensure_running()


@functools.cache
def _start_server() -> None:
    """It and its workers block the stop signals.

    A scheduler signals all processes of a job, but the batch that a worker loads is needed for the step that is saved.
    A worker that blocks SIGTERM is killed at the end of the program, where multiprocessing would wait for it.
    """
    _start_tracker()
    if START == "forkserver":
        from multiprocessing import forkserver
        with stop_signals_blocked():
            forkserver.ensure_running()
    atexit.register(kill_workers)


def kill_workers() -> None:
    """Kill every worker of this process, also one that hangs or is stopped."""
    for child in multiprocessing.active_children():
        child.kill()
    for worker in _started:
        if worker.poll() is None:
            worker.kill()


_begun = False


def begin_worker(hears_stop: bool = True) -> None:
    """Set up a worker process, of any start method: it leaves the stop signals to the main process and ends with it.

    Args:
        hears_stop: SIGTERM ends it, as a pool ends its workers. Not so in a loader, whose batch is still needed.
    """
    global _begun
    main = multiprocessing.parent_process()
    if main is None or _begun:
        return
    _begun = True
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    if hears_stop:
        unblock_sigterm()
    threading.Thread(target=_end_after, args=(main,), daemon=True).start()


def _end_after(main: BaseProcess) -> None:
    """The kernel would tell of the parent's death, but the parent of a forked worker is the server."""
    main.join()
    os._exit(1)


def start_loader_worker(number: int) -> None:
    """`worker_init_fn` of a loader."""
    begin_worker(hears_stop=False)
