"""What the three angles of a head pose mean.

Signs: yaw > 0 turns the face to the right of the picture, pitch > 0 lifts it, roll > 0 tilts the top of the head to the
right of the picture. (0, 0, 0) faces the camera upright. Degrees; NaN is unknown.
Head axes: x to the person's left, y up, z out of the face. Camera axes: x right, y down, z along the line of sight.
"""

import numpy as np


def head_angles(rotation: np.ndarray) -> np.ndarray:
    """Rotations head -> camera, float [..., 3, 3] -> yaw, pitch, roll in degrees [..., 3]."""
    x, y, z = rotation[..., 0, 2], -rotation[..., 1, 2], -rotation[..., 2, 2]   # where the face points: right, up, back
    yaw, pitch = np.arctan2(x, z), np.arcsin(np.clip(y, -1, 1))
    right = np.stack([np.cos(yaw), np.zeros_like(yaw), np.sin(yaw)], -1)
    up = np.stack([-np.sin(yaw) * np.sin(pitch), -np.cos(pitch), np.cos(yaw) * np.sin(pitch)], -1)
    top = rotation[..., :, 1]
    roll = np.arctan2(np.einsum("...i,...i->...", top, right), np.einsum("...i,...i->...", top, up))
    return np.degrees(np.stack([yaw, pitch, roll], -1))
