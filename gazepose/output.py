"""Standard output and error: what nobody reads, as with `| head`, is dropped, and no text from a file or from another
process controls the terminal."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")        # of help texts


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
