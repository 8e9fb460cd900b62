"""Signs of life: which worker or rank is stopped, or hangs, while other processes need it.

A worker is looked at from outside: the system says whether it is stopped. A worker that computes or waits for a disk is
left alone, however long that takes and whether or not it holds Python's lock. Ranks may be on other machines, so each
counts in a store that all can reach. A thread counts, so slow work does not stop it; SIGSTOP does.

Silence is counted in the time in which this process itself ran. So a job that is suspended as a whole, such as by
Ctrl-Z or a laptop's lid, goes on when it is continued. torch counts time by the clock, so its own limits are out of
reach while a RankWatch watches.
"""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

SILENT = 120.0                   # seconds without a sign of life after which a process counts as lost
STUCK = 600.0                    # seconds in which no rank begins a batch, after which a training counts as stuck
ENDED = b"ended"                 # the last count of a rank that ends
work = ""                        # what this process does, for messages; progress.py sets it
batches = 0                      # that this process has begun; engine.py counts


class Watch:
    """A context manager: a thread calls `look` until the block ends, 24 times in SILENT seconds."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(1.0)                   # at the end of Python it would abort the process, beside torch's

    def _watch(self) -> None:
        now, last, pause = 0.0, time.monotonic(), min(SILENT / 24, 5.0)
        while not self._ended.wait(pause):
            at = time.monotonic()
            now, last = now + min(at - last, 2 * pause), at      # more has passed only where this process was stopped
            self.look(now)

    def look(self, now: float) -> None:
        """Do the watching; `now` is how many seconds this process has run in the block."""
        raise NotImplementedError


def is_stopped(pid: int) -> bool:
    """Whether a process of this machine is stopped by a signal; False where there is none."""
    import psutil  # what starts before the slow imports is short
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def kill(pid: int) -> None:
    """Kill a process of this machine, also one that is stopped."""
    import psutil  # as above
    with suppress(psutil.Error):
        psutil.Process(pid).kill()


def family(pid: int) -> list[int]:
    """A process of this machine and all that it started, as far as they run."""
    import psutil  # as above
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []


class RankWatch(Watch):
    """Watches the other ranks of a run. While this rank waits for them, one that is silent ends it; before, a line
    names the silent one, and this rank goes on with its own work. While all compute in step, the ranks also end when
    none of them begins a batch."""

    def __init__(self, store: Any, rank: int, names: Sequence[str], end: Callable[[str], None],
                 notify: Callable[[str], None]) -> None:
        """Make it on every rank, and enter it after every rank has made it.

        Args:
            store: a torch.distributed store with a connection of its own. names: of all ranks, process and host.
            end: ends this process with a message. notify: prints a line.
        """
        super().__init__()
        self.store, self.rank, self.names, self.end, self.notify = store, rank, names, end, notify
        self.counts: list[bytes] = [b""] * len(names)            # as they were read last
        self._seen, self._since, self._named = list(self.counts), [0.0] * len(names), -1
        self._waiting = self._in_step = False
        self._batches: list[list[bytes]] = []                    # of each rank, as they last changed
        self._batch_since = 0.0
        self._counting = threading.Thread(target=self._count, daemon=True)
        self._keys = [f"gazepose/heartbeat/{number}" for number in range(len(names))]
        store.set(self._keys[rank], b"0")

    def __enter__(self) -> Self:
        self._counting.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._counting.join(1.0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """In the block, this rank waits for the others."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """In the block, all ranks compute together, so each waits for the others at every batch."""
        self._in_step = True
        try:
            with self.waiting():
                yield
        finally:
            self._in_step = False

    def _count(self) -> None:
        """Show the others that this rank lives, and read their counts. A store whose machine is stopped does not
        answer, so `look` runs in a thread of its own. Without the store, all others are silent."""
        number = 0
        with suppress(RuntimeError):             # the store is gone: the run ends, or its machine is out of reach
            while not self._ended.wait(min(SILENT / 24, 5.0)):
                number += 1
                self.store.set(self._keys[self.rank], f"{number} {batches} {work}".encode())
                self.counts = self.store.multi_get(self._keys)
            self.store.set(self._keys[self.rank], ENDED)

    def look(self, now: float) -> None:
        for rank, count in enumerate(self.counts):
            if count in (self._seen[rank], ENDED) and rank != self.rank:
                continue
            self._seen[rank], self._since[rank] = count, now
        silent = [rank for rank, since in enumerate(self._since) if now - since > SILENT and rank != self.rank
                  and self.counts[rank] != ENDED]
        if not silent:
            self._named = -1
            return self._look_at_batches(now)
        rank = silent[0]
        did = b" ".join(self._seen[rank].split(b" ")[2:]).decode(errors="replace")
        more = f", like {len(silent) - 1} more," if silent[1:] else ""
        line = (f"rank {rank} ({self.names[rank]}{': ' + did if did else ''}){more} has shown no sign of life for "
                f"{now - self._since[rank]:.0f} s, so it is stopped, it hangs, or its machine is out of reach -> look "
                "at it there (kill -CONT continues a stopped process), then start the same command again (a training: "
                "with --resume --exp_path RUN); finished clips are kept")
        if self._waiting:
            self.end(line)
        elif rank != self._named:
            self._named = rank
            self.notify(f"world: {line}")

    def _look_at_batches(self, now: float) -> None:
        """End a run whose ranks all live, while one of them keeps the others from their next batch."""
        batches_now = [count.split(b" ")[1:2] for count in self.counts]
        if not self._in_step or batches_now != self._batches:
            self._batches, self._batch_since = batches_now, now
        elif now - self._batch_since > STUCK:
            with suppress(Exception):
                faulthandler.dump_traceback(sys.__stderr__ or 2)
            self.end(f"no rank has begun a batch for {now - self._batch_since:.0f} s, though all show signs of life, "
                     "so one of them hangs -> the lines above, in the log of each rank, say where it is; look at the "
                     "disk and the network there, then start the same command again (a training: with --resume "
                     "--exp_path RUN)")
