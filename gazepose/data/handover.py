"""From a loader's worker to the training process: pools of pixels, or of features, in shared memory that is used again.

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
_HEADER = 4096                   # bytes before the pool; the first says whether a batch is on the buffer


class Buffers:
    """The buffers of one worker. After `take` has given an array, `lend` gives what goes to the training process."""

    def __init__(self) -> None:
        self._kept: list[torch.Tensor] = []
        self._taken: tuple[torch.Tensor, tuple[int, ...], type] | None = None

    def take(self, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
        """Memory for an array of that shape, with whatever is in it."""
        size = _HEADER + math.prod(shape) * np.dtype(dtype).itemsize
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
        self._taken = buffer, shape, dtype
        return _array_on(buffer, shape, dtype)

    def lend(self) -> "Lent":
        """What was taken last, to be sent."""
        assert self._taken is not None, "take comes first"
        buffer = self._taken[0]
        buffer[0] = 1
        return Lent(*self._taken)


class Lent:
    """A pool on its way: pickled, it arrives as a tensor, uint8 [F, 3, S, S] (NHWC in memory) or float16 [F, C, h, w].
    """

    def __init__(self, buffer: torch.Tensor, shape: tuple[int, ...], dtype: type = np.uint8) -> None:
        self.buffer, self.shape, self.dtype = buffer, shape, dtype

    def __reduce__(self) -> tuple[Callable[[torch.Tensor, tuple[int, ...], type], torch.Tensor], tuple]:
        return _arrived, (self.buffer, self.shape, self.dtype)


def _array_on(buffer: torch.Tensor, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer.numpy(), _HEADER)


def _arrived(buffer: torch.Tensor, shape: tuple[int, ...], dtype: type) -> torch.Tensor:
    array = _array_on(buffer, shape, dtype)
    # it lives as long as any tensor on it does, since torch keeps what it was made from
    weakref.finalize(array, buffer.numpy().__setitem__, 0, 0).atexit = False
    return torch.from_numpy(array).permute(0, 3, 1, 2) if dtype is np.uint8 else torch.from_numpy(array)
