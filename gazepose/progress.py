"""How far a long job is: a progress bar in a terminal, elsewhere a plain line now and then; with
--quiet neither."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from gazepose import heartbeat
from gazepose.output import inform, is_quiet

SECONDS = 30.0               # between two plain lines


class Progress:
    """Context manager; `add` counts what is done. Both kinds say how much is done and about how long the rest takes.

    Args:
        what: the job, such as "preparing train".
        total: of all units, those of an earlier run too; done: of that earlier run.
        units: what they are, in the plural: "crops".
        notify: prints the plain lines.
        rank: only the first process shows a bar.
    """

    def __init__(self, what: str, total: int, units: str, notify: Callable[[str], None] = inform, *, done: int = 0,
                 rank: int = 0, seconds: float = SECONDS) -> None:
        self.what, self.total, self.units, self.notify, self.seconds = what, total, units, notify, seconds
        self.done, self.fresh = done, 0
        self.began = self.last = time.monotonic()
        self.bar = tqdm(total=total, initial=done, desc=what, unit=f" {units}", leave=False,
                        disable=rank > 0 or is_quiet() or not sys.stderr.isatty(), position=0)

    def __enter__(self) -> Self:
        heartbeat.work = self.what
        return self

    def add(self, units: int, note: str = "") -> None:
        """Count units; a note, such as "3 of 9 clips", goes into the line."""
        self.done, self.fresh, now = self.done + units, self.fresh + units, time.monotonic()
        self.bar.update(units)
        due = self.bar.disable and not is_quiet() and now - self.last >= self.seconds
        if due and self.fresh and self.done < self.total:
            self.last = now
            left = (now - self.began) / self.fresh * (self.total - self.done)
            self.notify(f"{self.what}: {note + ', ' if note else ''}{self.done / self.total:.0%} of {self.total} "
                        f"{self.units}, about {duration(left)} left")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        heartbeat.work = ""
        self.bar.close()


def duration(seconds: float) -> str:
    """A span of time in one unit: 40 s, 3 min."""
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
