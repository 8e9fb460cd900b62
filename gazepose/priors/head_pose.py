"""Head pose: a classifier's bins -> an angle."""

import numpy as np

BINS = 66                    # of 3 degrees, from -99


def expected_angle(logits: np.ndarray) -> np.ndarray:
    """Hopenet's angle: the mean of its bins under their softmax.

    Args:
        logits: float [..., 66].

    Returns:
        Degrees in -99..96, float64 [...]. Source: Ruiz et al., Fine-Grained Head Pose Estimation Without Keypoints.
    """
    logits = np.asarray(logits, np.float64)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return 3 * (weight @ np.arange(BINS)) / weight.sum(axis=-1) - 99
