"""Shared buffers: a worker writes the frames of a batch into shared memory that it uses again for a later batch.

New pages of shared memory cost as much as decoding the JPEGs into them. So each worker keeps a few buffers. A buffer is
free again when its batch is garbage-collected in the training process. If that process keeps its batches, the worker
allocates new buffers.
"""

import math
import weakref
from collections.abc import Callable

import numpy as np
import torch

BUFFERS = 5                      # of a worker: two batches on their way, two received, one being made
ROOM = 1.25                      # bytes of a buffer per byte of its first batch
_HEADER = 4096                   # bytes before the frames; the first byte says whether a batch uses the buffer


class SharedBuffers:
    """The buffers of one worker: `empty` gives the array to write a batch into, then `sent` what to send."""

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._current: tuple[torch.Tensor, tuple[int, ...], type] | None = None

    def empty(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array of that shape in a free buffer, with whatever it contains."""
        size = _HEADER + math.prod(shape) * np.dtype(dtype).itemsize
        free = [buffer for buffer in self._buffers if not buffer[0]]
        buffer = next((buffer for buffer in free if len(buffer) >= size), None)
        if buffer is None:
            if free:                                                   # batches have grown: a larger one replaces it
                self._buffers = [other for other in self._buffers if other is not free[0]]
            storage = torch.UntypedStorage._new_shared(int(size * ROOM))
            buffer = torch.empty(0, dtype=torch.uint8).set_(storage)   # type: ignore[call-overload]
            buffer[0] = 0
            if len(self._buffers) < BUFFERS:
                self._buffers.append(buffer)
        self._current = buffer, shape, dtype
        return _array_in(buffer, shape, dtype)

    def sent(self) -> "SentFrames":
        """The frames of the last `empty`, to be sent to the training process."""
        assert self._current is not None, "call empty first"
        buffer, shape, dtype = self._current
        buffer[0] = 1
        return SentFrames(buffer, shape, dtype)


class SentFrames:
    """Frames to be pickled; they arrive as a tensor, uint8 [F, 3, S, S] (NHWC in memory) or float16 [F, C, h, w]."""

    def __init__(self, buffer: torch.Tensor, shape: tuple[int, ...], dtype: type) -> None:
        self.buffer, self.shape, self.dtype = buffer, shape, dtype

    def __reduce__(self) -> tuple[Callable[[torch.Tensor, tuple[int, ...], type], torch.Tensor], tuple]:
        return _received, (self.buffer, self.shape, self.dtype)


def _array_in(buffer: torch.Tensor, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer.numpy(), _HEADER)


def _received(buffer: torch.Tensor, shape: tuple[int, ...], dtype: type) -> torch.Tensor:
    array = _array_in(buffer, shape, dtype)
    # every tensor that uses the memory keeps this array alive; when the last one is gone, the buffer is free
    weakref.finalize(array, buffer.numpy().__setitem__, 0, 0).atexit = False
    return torch.from_numpy(array).permute(0, 3, 1, 2) if dtype is np.uint8 else torch.from_numpy(array)
