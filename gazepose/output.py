"""Standard output and error whose reader may go away, as with `| head`: what nobody reads is dropped."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


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


@contextmanager
def lasting_output() -> Iterator[None]:
    """In this block, a standard output or error whose reader goes away stops nothing."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _Lasting(stream) for stream in before)        # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
