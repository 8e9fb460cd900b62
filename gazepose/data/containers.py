"""Containers: what kind of file a video is, and what an mp4 states, before a decoder opens it.

Decoders are data/video.py.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

from gazepose.io import UnusableFile

MAX_FRAMES = 5_000_000       # a day at 58 frames a second; decoders take 100 bytes for each when they open the file
MAX_BOXES = 1_000_000        # of an mp4; one in fragments has a few a second
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
"""boxes of an mp4 that hold boxes"""


def check_stated_frames(name: str) -> None:
    """Refuse an mp4 or mov whose tables state far more frames than any video has: opening it would take the memory.

    Tables that list each sample are bounded by the file. Those that state one size for all are not.
    """
    size, pictures = os.stat(name).st_size, False
    with open(name, "rb") as file:
        for kind, body in _boxes(file):
            first, second = (int.from_bytes(body[at:at + 4], "big") for at in (4, 8))
            frames = 0
            if kind == b"trak":
                pictures = False
            elif kind == b"hdlr":
                pictures |= body[8:12] == b"vide"
            elif kind in (b"stsz", b"stz2") and (pictures or first * second > size):     # size of all, count
                frames = second
            elif kind == b"trun" and not body[2] & 15:                                   # without a table; count
                frames = first
            if frames > MAX_FRAMES:
                raise UnusableFile(f"{name}: states {frames} frames, at most {MAX_FRAMES} are read -> cut it into "
                                 "shorter videos, or make it again")


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(kind, first 12 bytes) of the boxes of an mp4, and of those in CONTAINERS, in their order."""
    start = 0
    for _ in range(MAX_BOXES):
        file.seek(start)
        head = file.read(8).ljust(8, b"\0")
        length, kind, header = int.from_bytes(head[:4], "big"), head[4:], 8
        if length == 1:
            length, header = int.from_bytes(file.read(8), "big"), 16
        if length < 8:                                                 # 0: to the end of the file
            return
        yield kind, file.read(12).ljust(12, b"\0")
        start += header if kind in CONTAINERS else length


def container_of(name: str) -> str:
    """"mov" (mp4 too), "matroska" or "avi", by the first bytes; ValueError for anything else."""
    with open(name, "rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    raise UnusableFile(f"{name}: not an mp4, mov, mkv or avi file (its first bytes are {head[:8]!r})")
