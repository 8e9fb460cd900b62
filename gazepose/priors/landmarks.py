"""Five landmarks of a face: nose, left and right eye, left and right mouth corner (the person's own left and right).

They are points 0, 2, 5, 9 and 10 of MediaPipe Pose. The index's column has x and y in 0..1 of the crop, and a
confidence. This file turns MediaPipe's forms, from files or from the detector, into that column.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

POSE_POINTS = (0, 2, 5, 9, 10)


def five_landmarks(points: np.ndarray) -> np.ndarray:
    """MediaPipe's points (x, y, z, visibility), all 33 or the five, [..., 33 or 5, 4] -> [..., 5, 3]."""
    if points.shape[-2] == 33:
        points = points[..., POSE_POINTS, :]
    return points[..., (0, 1, 3)]


def from_eye_centred(numbers: np.ndarray) -> np.ndarray:
    """The published code's 15 numbers (five x, five y from the middle of the eyes, five confidences) -> landmarks.

    The place of the eyes is not in these numbers, so their middle is put at the middle of the crop.
    `models.queries.eye_centred` gives the same numbers back, unless an eye had been clamped. All zeros is the published
    "unknown".

    Args:
        numbers: float [..., 15].

    Returns:
        [..., 5, 3]; NaN unknown.
    """
    x, y, confidence = numbers[..., :5] + 0.5, numbers[..., 5:10] + 0.5, numbers[..., 10:]
    unknown = (numbers == 0).all(axis=-1, keepdims=True)[..., None]
    return np.where(unknown, np.nan, np.stack([x, y, confidence], axis=-1))


def detected_landmarks(result: Any) -> np.ndarray:
    """The five landmarks of a PoseLandmarkerResult's first person, float32 [5, 3]; NaN when it found no one."""
    if not result.pose_landmarks:
        return np.full((5, 3), np.nan, np.float32)
    points = [result.pose_landmarks[0][number] for number in POSE_POINTS]
    return np.array([(point.x, point.y, point.visibility) for point in points], np.float32)


@contextmanager
def open_landmarker(model: Path) -> Iterator[Callable[[np.ndarray], Any]]:
    """MediaPipe's pose landmarker: uint8 [H, W, 3] RGB -> its result.

    Args:
        model: your own pose landmarker .task file; none is downloaded.

    Raises:
        FileNotFoundError: no such file. ImportError: MediaPipe is not installed. ValueError: not such a model.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model -> give a pose landmarker file of MediaPipe "
                                "(pose_landmarker_heavy.task); none is downloaded")
    try:
        import mediapipe  # type: ignore[import-not-found]
        from mediapipe.tasks.python import BaseOptions, vision  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(f"MediaPipe cannot be imported ({error}) -> it is the optional extra `landmarks`: "
                          "pip install 'gazepose[landmarks]'") from error
    options = vision.PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)))
    try:
        landmarker = vision.PoseLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise ValueError(f"{model}: not a pose landmarker of MediaPipe ({detail}) -> give a "
                         "pose_landmarker_*.task file") from error

    def detect(crop: np.ndarray) -> Any:
        return landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB,
                                                 data=np.ascontiguousarray(crop)))

    with landmarker:
        yield detect
