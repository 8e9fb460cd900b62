"""From a loader's worker to the training process: pools of pixels in shared memory that is used again.

Fresh pages of shared memory cost as much as decoding the JPEGs into them. So each worker keeps a few buffers, and takes
one again once the training process has let go of every tensor on it. Nobody has to say when that is: who keeps batches
keeps their buffers, and the worker makes others.
"""

import math
import weakref
from collections.abc import Callable

import numpy as np
import torch

BUFFERS = 5                      # of a worker: two batches on their way, two taken, one being made
_HEADER = 4096                   # bytes before the pixels; the first says whether a batch is on the buffer


class Buffers:
    """The buffers of one worker. After `take` has given an array, `lend` gives what goes to the training process."""

    def __init__(self) -> None:
        self._kept: list[torch.Tensor] = []
        self._taken: tuple[torch.Tensor, tuple[int, ...]] | None = None

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Memory for uint8 of that shape, with whatever is in it."""
        size = _HEADER + math.prod(shape)
        free = [buffer for buffer in self._kept if not buffer[0]]
        buffer = next((buffer for buffer in free if len(buffer) >= size), None)
        if buffer is None:
            if free:                                                   # too small for what batches have grown to
                self._kept = [kept for kept in self._kept if kept is not free[0]]
            storage = torch.UntypedStorage._new_shared(size + size // 4)
            buffer = torch.empty(0, dtype=torch.uint8).set_(storage)   # type: ignore[call-overload]
            buffer[0] = 0
            if len(self._kept) < BUFFERS:
                self._kept.append(buffer)
        self._taken = buffer, shape
        return buffer.numpy()[_HEADER:size].reshape(shape)

    def lend(self) -> "Lent":
        """What was taken last, to be sent."""
        assert self._taken is not None, "take comes first"
        buffer, shape = self._taken
        buffer[0] = 1
        return Lent(buffer, shape)


class Lent:
    """A pool on its way: pickled, it arrives as a tensor uint8 [F, 3, S, S] (NHWC in memory)."""

    def __init__(self, buffer: torch.Tensor, shape: tuple[int, ...]) -> None:
        self.buffer, self.shape = buffer, shape

    def __reduce__(self) -> tuple[Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor], tuple]:
        return _arrived, (self.buffer, self.shape)


def _arrived(buffer: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    memory = buffer.numpy()
    pixels = memory[_HEADER:_HEADER + math.prod(shape)].reshape(shape)
    # the array lives as long as any tensor on it does, since torch keeps what it was made from
    weakref.finalize(pixels, memory.__setitem__, 0, 0).atexit = False
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
