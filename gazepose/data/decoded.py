"""Pictures as the decoders give them; faces are taken out without a copy of the whole. Decoding is data/video.py."""

from typing import Any

import numpy as np


class Planes:
    """A picture as PyAV decodes it: planes of luma and of chroma at half size, converted to RGB part by part."""

    ALIGNED = 16                 # pixels; narrower parts leave the converter's fast path, which rounds differently

    def __init__(self, frame: Any, reformatter: Any):
        self.frame, self.reformatter = frame, reformatter
        self.shape = (frame.height, frame.width, 3)
        self.planes = [_lines(plane) for plane in frame.planes]

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        frame, (height, width, _) = self.frame, self.shape
        y1, y2, _ = part[0].indices(height)
        x1, x2, _ = part[1].indices(width)
        if y2 <= y1 or x2 <= x1:
            return np.zeros((max(y2 - y1, 0), max(x2 - x1, 0), 3), np.uint8)
        top, left = y1 // 2 * 2, x1 // self.ALIGNED * self.ALIGNED
        bottom, right = min(y2 + y2 % 2, height), min(-(-x2 // self.ALIGNED) * self.ALIGNED, width)
        cut = type(frame)(right - left, bottom - top, frame.format.name)
        for source, new, halved in zip(self.planes, cut.planes, (0, 1, 1), strict=True):
            y, x = top >> halved, left >> halved
            _lines(new)[:, :new.width] = source[y:y + new.height, x:x + new.width]
        cut.colorspace, cut.color_range = frame.colorspace, frame.color_range
        rgb = self.reformatter.reformat(cut, format="rgb24", threads=1).planes[0]
        return _lines(rgb)[:, :3 * rgb.width].reshape(rgb.height, rgb.width, 3)[y1 - top:y2 - top, x1 - left:x2 - left]


def _lines(plane: Any) -> np.ndarray:
    """The bytes of a PyAV plane, uint8 [lines, bytes of a line]; they fill up a line at its end."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)


class NotCopied:
    """A picture of decord for numpy to read where it lies. It is held as long as numpy's array; a copy of a picture in
    1080p costs a tenth of its decoding."""

    def __init__(self, picture: Any):
        self.picture = picture

    def __dlpack__(self, **_: Any) -> Any:
        return self.picture.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0                                                    # the CPU
