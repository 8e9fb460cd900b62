"""Which faces can be coded at all, and why the others cannot. A face that cannot is never given a guess.

The limits come from the rendered world, where the truth is known, and from what a picture can show. They were not tuned
on real faces; benchmarks/real_faces.py says what part of these they keep.
"""

import numpy as np

from gazepose.priors.face_landmarker import LEAST_PRESENCE
from gazepose.watch.table import REASONS

SMALL, DARK, HIDDEN, UNCERTAIN, FILLED = REASONS[:5]
LEAST_HEIGHT = 40.0
"""pixels of a detector's box. An iris is a twentieth of it. Rendered faces of 90 px give an AUROC of .84; shrunk to 64
px .82, 48 px .80, 40 px .78, 28 px .72, 20 px .61"""
LEAST_LIGHT = 24.0
"""mean brightness, 0..255. Rendered faces of 108 give an AUROC of .84; darkened to 54, with a sensor's noise and
compressed, .80, to 27 .74"""
LEAST_EYE = 4.0
"""pixels of the nearer eye's width: of a head in profile, or of a small face"""
MOST_YAW, MOST_PITCH = 75.0, 60.0
"""degrees of a head beyond which no iris is to be seen"""
MOST_MISFIT = 0.2
"""of FaceReading.fit; above it the points do not form a face: median error in the rendered world 12 degrees"""


def judge(height: np.ndarray, light: np.ndarray, presence: np.ndarray, yaw: np.ndarray, pitch: np.ndarray,
          fit: np.ndarray, eye: np.ndarray, scored: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Judge faces by their box and their reading.

    Args:
        height: of the detector's box in pixels. The others are fields of FaceReading. All [n]; NaN where a face was
            filled in between two others.
        scored: of a trained run, whether it scores each face, bool [n]: it takes faces as small as those it was trained
            on. Of those below LEAST_HEIGHT no landmarks are asked for. None: the landmark score.

    Returns:
        codable, bool [n]; reason, str [n], one of table.REASONS or empty.
    """
    values = [np.asarray(value, np.float64) for value in (height, light, presence, yaw, pitch, fit, eye)]
    height, light, presence, yaw, pitch, fit, eye = values
    # the first that applies; a small or dark face is not said to have uncertain landmarks, though it mostly does
    low = height < LEAST_HEIGHT
    too_small = low if scored is None else low & ~scored
    rules = [(np.isnan(values).any(axis=0), FILLED), (too_small, SMALL), (light < LEAST_LIGHT, DARK),
             (~low & ((presence < LEAST_PRESENCE) | (fit > MOST_MISFIT)), UNCERTAIN),
             (~low & ((eye < LEAST_EYE) | (np.abs(yaw) > MOST_YAW) | (np.abs(pitch) > MOST_PITCH)), HIDDEN)]
    reason = np.select([rule for rule, _ in rules], [name for _, name in rules], "")
    return reason == "", reason
