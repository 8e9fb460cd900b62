"""Videos whose faces are white squares, with a detector and a landmark network for them. No model file is needed."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from gazepose.priors.face_landmarker import FaceReading
from gazepose.watch.detect import BOX, COLUMNS, POINTS, SCORE_AT
from gazepose.watch.video_pass import Tools

Square = tuple[float, float, float]                                    # x, y of the corner, side
SIZE = (320, 240)
FIVE = np.array([[.3, .4], [.7, .4], [.5, .6], [.35, .8], [.65, .8]])    # as the detector has them, parts of the box


def picture(squares: Sequence[Square], ground: int = 40, size: tuple[int, int] = SIZE) -> np.ndarray:
    """White squares on a ground of one colour, uint8 [H, W, 3]."""
    drawn = np.full((size[1], size[0], 3), ground, np.uint8)
    for x, y, side in squares:
        drawn[round(y):round(y + side), round(x):round(x + side)] = 255
    return drawn


def film(path: Path, pictures: Iterable[np.ndarray], rate: int = 30, times: Sequence[float] = (),
         codec: str = "libx264", pixels: str = "yuv420p", **options: str) -> Path:
    """A video of these pictures; `times`: seconds of each, instead of the rate."""
    with av.open(str(path), "w") as container:
        stream: Any = None
        for number, shown in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options={"crf": "10", **options})
                stream.height, stream.width = shown.shape[:2]
                stream.pix_fmt, stream.codec_context.time_base = pixels, Fraction(1, 1000 if times else rate)
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts = round(1000 * times[number]) if times else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving(frames: int, *squares: Callable[[int], Square | None], ground: Callable[[int], int] = lambda number: 40
           ) -> list[np.ndarray]:
    """Pictures of squares whose places are functions of the number of the picture; None: not there."""
    return [picture([place for square in squares if (place := square(number)) is not None], ground(number))
            for number in range(frames)]


def still(x: float, y: float, side: float = 60) -> Callable[[int], Square]:
    return lambda number: (x, y, side)


class Squares:
    """A detector of white squares of at least `least` pixels."""

    def __init__(self, least: int = 4) -> None:
        self.least, self.calls = least, 0

    def find(self, shown: np.ndarray) -> np.ndarray:
        self.calls += 1
        _, _, stats, _ = cv2.connectedComponentsWithStats((shown.min(axis=2) > 170).astype(np.uint8))
        boxes = stats[1:, :4].astype(np.float64)
        boxes = boxes[(boxes[:, 2:] >= self.least).all(axis=1)]
        faces = np.ones((len(boxes), COLUMNS))
        faces[:, BOX] = boxes
        faces[:, POINTS] = (boxes[:, None, :2] + FIVE * boxes[:, None, 2:]).reshape(-1, 10)
        faces[:, SCORE_AT] = 0.9
        return faces[np.lexsort(boxes.T[::-1])]


class Reader:
    """A landmark network that sees every face look at the camera; `fails` is called with the number of each reading."""

    def __init__(self, fails: Callable[[int], None] = lambda number: None) -> None:
        self.calls, self.fails = 0, fails

    def read(self, shown: np.ndarray, place: np.ndarray, five: np.ndarray | None = None) -> FaceReading:
        self.fails(self.calls)
        self.calls += 1
        middle = place.mean(axis=0) if place.shape == (5, 2) else place[:2] + place[2:] / 2
        return FaceReading(points=np.tile(np.append(middle, 0), (478, 1)).astype(np.float32), presence=0.99,
                           yaw=float(middle[0] / 100), pitch=0.0, roll=0.0, eye_x=0.0, eye_y=0.0, blink=0.0,
                           light=120.0, fit=0.02, eye=15.0)


def tools(**how: Any) -> Tools:
    return Tools(how.pop("reader", None) or Reader(), **{"detector": Squares(), **how})
