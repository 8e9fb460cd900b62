"""How a video's pictures are turned and mirrored when they are shown: the display matrix of its container."""

import struct
from typing import Any

import numpy as np


def display_turn(frame: Any) -> tuple[int, ...] | None:
    """The corner a, b, c, d of a frame's display matrix: a picture's point (p, q) is shown at (ap + cq, bp + dq), apart
    from a shift; None: as it is."""
    matrix = next((bytes(entry) for entry in frame.side_data if entry.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    return None if a > abs(b) and d > abs(c) else (a, b, c, d)


class DisplayTurn:
    """`display_turn` of one frame after another, read again only where the rotation changes.

    A frame whose side data were read refers to itself. It is freed late, after some hundred frames, which is gigabytes
    in 4K.
    """

    def __init__(self) -> None:
        self.rotation: int | None = None
        self.turned: tuple[int, ...] | None = None

    def __call__(self, frame: Any) -> tuple[int, ...] | None:
        if frame.rotation != self.rotation:
            self.rotation, self.turned = frame.rotation, display_turn(frame)
        return self.turned


def as_shown(picture: np.ndarray, turned: tuple[int, ...]) -> np.ndarray:
    """A picture [H, W, 3] under a display matrix, turned by the nearest quarter."""
    a, b, c, d = turned
    if abs(b) > abs(a):                                                # across becomes down
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[::-1 if d < 0 else 1, ::-1 if a < 0 else 1])
