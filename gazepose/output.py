"""Standard output and error: what nobody reads, as with `| head`, is dropped, and no text from a file or from another
process controls the terminal. With --quiet, lines of information are dropped too."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")        # of help texts
QUIET = "GAZEPOSE_QUIET"         # of the environment, so that ranks and workers are quiet too
QUIET_HELP = "--quiet, of every verb: print warnings, errors and the result only (also: GAZEPOSE_QUIET=1)"
_WARNING = re.compile(r" -> |warning|left out: \d|skipped", re.IGNORECASE)    # a line with a remedy is a warning


def take_quiet(args: Sequence[str]) -> list[str]:
    """The arguments without --quiet, which holds for this process and for those that it starts."""
    if "--quiet" in args:
        os.environ[QUIET] = "1"
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return [arg for arg in args if arg != "--quiet"]


@contextmanager
def quiet_in_help(args: Sequence[str]) -> Iterator[None]:
    """Around a parser of arguments without --quiet: the help that it prints ends with that flag."""
    try:
        yield
    finally:
        if not {"-h", "--help"}.isdisjoint(args):
            print(QUIET_HELP)


def is_quiet() -> bool:
    """Whether progress and lines of information are dropped."""
    return os.environ.get(QUIET, "0") not in ("", "0")


def is_shown(line: str) -> bool:
    """Whether a line of information is printed: with --quiet only one that warns."""
    return not is_quiet() or _WARNING.search(line) is not None


def inform(line: str, file: TextIO | None = None) -> None:
    """Print a line of information at once, also into a pipe. file: default: standard output."""
    if is_shown(line):
        print(line, file=file, flush=True)


class _Lasting:
    """A text stream that drops what it cannot write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return self._drop(len(text))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop(0)

    def _drop(self, count: int) -> int:
        with suppress(OSError, ValueError):      # also what the buffer still holds, and what Python flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return count


class _Printable(_Lasting):
    """Standard output, where every line goes that is neither an error nor a progress bar."""

    def write(self, text: str) -> int:
        if not text.replace("\n", "").isprintable():
            from gazepose.text import printable  # numpy: rarely needed
            text = "".join(part if COLOUR.fullmatch(part) else printable(part) for part in COLOUR.split(text))
        return super().write(text)


@contextmanager
def lasting_output() -> Iterator[None]:
    """In this block, a standard output or error whose reader goes away stops nothing, and standard output escapes
    control characters."""
    before = sys.stdout, sys.stderr
    sys.stdout = before[0] and _Printable(before[0])                   # type: ignore[assignment]
    sys.stderr = before[1] and _Lasting(before[1])                     # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
