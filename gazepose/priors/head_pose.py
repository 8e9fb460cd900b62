"""Head pose: what its three angles mean, how a classifier's bins become one, and how five landmarks do.

The signs of the index's column: yaw > 0 turns the face to the right of the picture, pitch > 0 lifts it, roll > 0
tilts the top of the head to the right of the picture; (0, 0, 0) faces the camera upright. Hopenet and 6DRepNet, and
with them the published prior files, count yaw the other way round: `from_hopenet` turns it on the way in.
"""

import cv2
import numpy as np

from gazepose.data.head_angles import head_angles

BINS = 66                    # of 3 degrees, from -99
FACE = np.array([[0, -37.5, 34], [31.5, 0, 0], [-31.5, 0, 0], [24.6, -69.6, 2], [-24.6, -69.6, 2]], np.float64)
"""A common face's nose tip, left and right eye, left and right mouth corner, in mm [5, 3]: MediaPipe's canonical face,
from the middle of the eyes. x to the person's left, y up, z forward: the head's own axes."""
FOCAL = 5.0                  # heights of the crop: a face of 20 cm seen from one metre


def expected_angle(logits: np.ndarray) -> np.ndarray:
    """Hopenet's angle: the mean of its bins under their softmax.

    Args:
        logits: float [..., 66].

    Returns:
        Degrees in -99..96, float64 [...] (Ruiz et al., Fine-Grained Head Pose Estimation Without Keypoints, 2018).
    """
    logits = np.asarray(logits, np.float64)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return 3 * (weight @ np.arange(BINS)) / weight.sum(axis=-1) - 99


def from_hopenet(head_pose: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll [..., 3] with Hopenet's signs -> with the column's, and back."""
    return np.asarray(head_pose) * np.array([-1, 1, 1], np.float32)


def pose_from_landmarks(landmarks: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """Head pose of a common face whose five points fall on the landmarks (OpenCV: SQPnP, then Levenberg-Marquardt).

    The camera looks straight at the crop from afar, so the angles are against the line of sight.

    Args:
        landmarks: nose, left eye, right eye, left and right mouth corner, each x, y in 0..1 of the crop and a
            confidence (not read), float [n, 5, 3]; NaN unknown.
        aspect: width to height of what the crop was cut from, float [n]; NaN: taken as square.

    Returns:
        Yaw, pitch, roll in degrees, float32 [n, 3]; NaN where a landmark is unknown or no face fits.
    """
    turns = np.full((len(landmarks), 3, 3), np.nan)
    points = np.asarray(landmarks[..., :2], np.float64) - 0.5
    points[..., 0] *= np.where(np.isnan(aspect), 1.0, aspect)[:, None]
    camera = np.diag([FOCAL, FOCAL, 1.0])
    for n in np.flatnonzero(np.isfinite(points).all(axis=(1, 2))).tolist():
        found, turn, shift = cv2.solvePnP(FACE, points[n], camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if not found or shift[2, 0] <= 0:
            continue
        turn, shift = cv2.solvePnPRefineLM(FACE, points[n], camera, None, turn, shift)
        if np.isfinite(turn).all() and shift[2, 0] > 0:
            turns[n] = cv2.Rodrigues(turn)[0]
    return head_angles(turns).astype(np.float32)
