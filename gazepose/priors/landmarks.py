"""Five landmarks of a face: nose, left and right eye, left and right mouth corner (the person's own left and right).

They are points 0, 2, 5, 9 and 10 of MediaPipe Pose, which made the published files. The index's column has x and y in
0..1 of the crop, and a confidence. This file turns the forms of the published files, and what the landmark network
reads in stored crops, into that column.
"""

from dataclasses import replace

import cv2
import numpy as np

from gazepose.priors.face_landmarker import LEAST_PRESENCE, FaceLandmarker, FaceReading, five_points

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


def read_crop(network: FaceLandmarker, crop: np.ndarray, aspect: float) -> FaceReading | None:
    """Read the face of a stored crop, which was stretched to a square.

    Args:
        crop: uint8 [S, S, 3] RGB. aspect: width to height of its box; NaN is taken as square.

    Returns:
        The reading, its points in 0..1 of the crop; None where the network sees no face.
    """
    side = len(crop)
    width = max(1, round(side * aspect)) if np.isfinite(aspect) else side
    picture = cv2.resize(crop, (width, side), interpolation=cv2.INTER_LINEAR)
    reading = network.read(picture, np.array([0.0, 0, width, side]))
    if reading.presence < LEAST_PRESENCE:
        return None
    return replace(reading, points=reading.points / [width, side, side])


def landmarks_of(reading: FaceReading | None) -> np.ndarray:
    """The five landmarks of a reading and its presence as their confidence, float32 [5, 3]; NaN for None."""
    if reading is None:
        return np.full((5, 3), np.nan, np.float32)
    return np.column_stack([five_points(reading.points), np.full(5, reading.presence)]).astype(np.float32)


def pose_of(reading: FaceReading | None) -> np.ndarray:
    """Yaw, pitch, roll of a reading in degrees, float32 [3]; NaN for None."""
    if reading is None:
        return np.full(3, np.nan, np.float32)
    return np.array([reading.yaw, reading.pitch, reading.roll], np.float32)
