"""Pictures -> an H.264 video that every decoder here numbers alike."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def write_mp4(path: Path, pictures: Iterable[np.ndarray], size: tuple[int, int], crf: int,
              fps: Fraction | int = 30) -> int:
    """Write pictures, uint8 [H, W, 3] RGB, as H.264 at a constant rate and return their number.

    No frame is predicted from a later one: so presentation times start at 0 and no edit list is needed, which decord
    does not follow. One thread, so the bytes depend on the pictures alone.

    Args:
        size: width and height, both even.
        crf: x264's quality; 18 is nearly lossless, 30 is poor.
    """
    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={
            "preset": "veryfast", "crf": str(crf), "g": "15", "bf": "0", "threads": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = 1 / Fraction(fps)
        for count, picture in enumerate(pictures, start=1):
            planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = count - 1, 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return count
