"""Shards: the face crops of a clip as JPEG bytes, one after another in one file.

A shard knows nothing but bytes. Where each crop lies in it, and its checksum, is in the index (data/index.py).
The encoder's setting (quality 90, chroma halved both ways) was chosen by measurement: 8.4 KB for a 224 x 224 face at
44.8 dB, and the fastest decoder of all formats tried.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

QUALITY = 90
SUBSAMPLING = "420"
MAX_PIXELS = 1 << 26         # 8192 x 8192
MAX_OPEN = 256               # shards that a process holds open; systems often allow 1024 files


def encode(rgb: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB -> JPEG bytes."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=QUALITY, colorspace="RGB",
                                  colorsubsampling=SUBSAMPLING)


def decode(jpeg: bytes | memoryview, out: np.ndarray | None = None) -> np.ndarray:
    """JPEG bytes -> uint8 [H, W, 3] RGB, into `out` when given (a reused buffer is half the cost).

    Raises:
        ValueError: not a JPEG, damaged, absurdly large, or not of out's size. It names no file; the caller knows it.
    """
    if out is None:
        jpeg_size(jpeg)                                                # before memory is taken for it
    try:
        rgb = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=out)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"not a JPEG: {error}") from error
    if out is not None and rgb.shape != out.shape:
        raise ValueError(f"not a JPEG of the wanted size: it is {rgb.shape[1]} x {rgb.shape[0]} pixels, "
                         f"wanted {out.shape[1]} x {out.shape[0]}")
    return rgb


def jpeg_size(jpeg: bytes | memoryview) -> tuple[int, int]:
    """(height, width) by the header alone; ValueError when that is damaged, or states more than MAX_PIXELS."""
    try:
        height, width = map(int, simplejpeg.decode_jpeg_header(jpeg)[:2])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"not a JPEG: {error}") from error
    if height * width > MAX_PIXELS:
        raise ValueError(f"not a JPEG of a size that is read: it is {width} x {height} pixels")
    return height, width


_pread: Any = getattr(os, "pread", None)         # Windows has none
_position = threading.Lock()


def _read_at(descriptor: int, length: int, offset: int) -> bytes:
    if _pread:
        return _pread(descriptor, length, offset)
    with _position:                              # one thread at a time moves it
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)


class Shards:
    """Read side: opens each file on its first read, in the process that reads.

    Reads at a place (`pread`) instead of through a map: a file cut short under a map kills the process with SIGBUS
    instead of raising, and forked workers share a descriptor's position but not a place.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._descriptors: dict[int, int] = {}

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """The crop's bytes; fewer where the shard ends inside it.

        Raises:
            FileNotFoundError: the shard is gone.
        """
        descriptor = self._descriptors.get(shard)
        if descriptor is not None:
            return _read_at(descriptor, length, offset)
        descriptor = os.open(self.paths[shard], os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if len(self._descriptors) < MAX_OPEN:
            self._descriptors[shard] = descriptor
            return _read_at(descriptor, length, offset)
        try:                                                           # opening takes a hundredth of decoding
            return _read_at(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def __reduce__(self) -> tuple[type["Shards"], tuple[list[Path]]]:      # to a spawned worker: paths, not descriptors
        return Shards, (self.paths,)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", {}).values():
            os.close(descriptor)
