"""The table of faces that all steps of the wing share, and the facts of a video that it belongs to.

One row is one face in one picture. `looks.csv` and `people.csv` are made from it, and the page and the drawn video show
it. pandas is imported inside functions: it is slow to import.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Table = Any                  # a pandas.DataFrame
FACES = {"video": "str", "person": "str", "frame": "int64", "seconds": "float64", "x": "float64", "y": "float64",
         "width": "float64", "height": "float64", "yaw": "float64", "pitch": "float64", "eye_x": "float64",
         "eye_y": "float64", "blink": "float64", "looking": "float64", "codable": "int64", "reason": "str"}
"""Columns of faces.csv, in this order, sorted by video, frame, person.

video: name of the video's file or of the picture, each name once. person: P1, P2, ... of this video, in the order in
which they appear, or a name that the user gave. frame: number of the picture in the order of presentation, from 0.
seconds: its time of presentation, from the video's first picture. x, y, width, height: the detector's box in pixels of
the picture as it is shown (turned as the file says). yaw, pitch: head pose in degrees, as the index has them (positive:
to the picture's right, and up). eye_x, eye_y: eye direction in the head's axes, in -1..1 (same signs). blink: 0 open to
1 closed. looking: probability that the face looks at the camera, smoothed; NaN if it is not codable. codable: 1 or 0.
reason: why a face is not codable, one of REASONS; empty if it is.
"""
REASONS = ("too small", "too dark", "eyes not visible", "landmarks uncertain", "not detected", "marked by hand")
"""not detected: the box was filled in between two others; marked by hand: a user's correction says so"""


@dataclass(frozen=True)
class Video:
    """Facts of a video or a picture, as its pass found them."""

    name: str
    path: Path
    width: int
    """of the picture as it is shown, pixels"""
    height: int
    frames: int
    fps: float
    """mean over the file; 0 for a picture"""
    seconds: float
    """from its first picture to the end of its last; 0 for a picture"""
    cuts: tuple[float, ...] = ()
    """seconds at which a new shot begins"""


SIDES = ["x", "y", "width", "height"]
