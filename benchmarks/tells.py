"""What tells rendered faces from real ones: named features of a face, and a linear classifier that is read.

A feature's name says what to change in the renderer, so each is simple and has a unit that can be seen.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from gazepose.priors.face_landmarker import EYES, IRISES, LIDS, MOUTH, NOSE, rotation_of

FOLDS = 5
STRENGTH = 0.02              # C of the regression: a few hundred faces have up to 512 features
ROWS, COLUMNS = ("forehead", "eyes", "nose", "mouth"), ("left border", "left", "right", "right border")
"""of a crop, from the top and from the left of the picture"""
SHAPES = tuple("""neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
    cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft
    eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft
    eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft
    mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight
    mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
    mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight""".split())
"""the 52 blendshapes in the network's order, as MediaPipe's face_blendshapes_graph.cc has them"""
# places of MediaPipe's face mesh, the person's left first where there are two
BROWS, UNDER_BROWS, NOSTRILS, TEMPLES, JAWS = (334, 105), (282, 52), (358, 129), (454, 234), (397, 172)
TOP, BRIDGE, NOSE_BASE, CHIN, LIP_TOP, LIP_MIDDLE, LIP_LOW = 10, 168, 2, 152, 0, (13, 14), 17


def picture_features(crop: np.ndarray) -> dict[str, float]:
    """Colours, edges, sharpness and grain of a crop, uint8 [S, S, 3] RGB, and of the cells of a 4 x 4 grid."""
    planes = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
    light, red, yellow = (planes[..., k].astype(np.float32) for k in range(3))
    found: dict[str, float] = {}
    for name, plane, least, most in (("lightness", light, 0, 256), ("redness", red, 112, 168),
                                     ("yellowness", yellow, 104, 176)):
        found[f"{name}: mean"], found[f"{name}: spread"] = float(plane.mean()), float(plane.std())
        counts = np.histogram(plane.clip(least, most - 1), 8, (least, most))[0] / plane.size
        edges = np.linspace(least, most, 9).astype(int)
        found |= {f"{name}: share in {edges[k]} to {edges[k + 1]}": float(counts[k]) for k in range(8)}
    sharpness = cv2.Laplacian(light, cv2.CV_32F)
    found["sharpness: log of Laplacian variance"] = float(np.log1p(sharpness.var()))
    across, down = cv2.Sobel(light, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(light, cv2.CV_32F, 0, 1) / 8
    steep = np.hypot(across, down)
    for share in (10, 50, 90, 99):
        found[f"edges: log of the {share} % steepness"] = float(np.log1p(np.percentile(steep, share)))
    turn = np.histogram(np.arctan2(down, across) % np.pi, 8, (0, np.pi), weights=steep)[0]
    turn /= max(turn.sum(), 1e-9)
    found |= {f"edges: share at {180 * k / 8:g} degrees": float(turn[k]) for k in range(8)}
    grain = np.abs(light - cv2.medianBlur(planes[..., 0], 3))
    found["grain: log of the median difference"] = float(np.log1p(4 * grain[steep <= np.median(steep)].mean()))
    around = light - light.mean()
    found["mirrored: correlation"] = float((around * around[:, ::-1]).mean() / max(around.var(), 1e-9))
    bounds = np.linspace(0, len(crop), 5).round().astype(int)
    for r, row in enumerate(ROWS):
        for c, column in enumerate(COLUMNS):
            cell = np.s_[bounds[r]:bounds[r + 1], bounds[c]:bounds[c + 1]]
            place = f"{row}, {column}"
            found[f"lightness against the whole: {place}"] = float(light[cell].mean() - light.mean())
            found[f"redness against the whole: {place}"] = float(red[cell].mean() - red.mean())
            found[f"contrast: {place}"] = float(light[cell].std())
            found[f"sharpness: {place}"] = float(np.log1p(sharpness[cell].var()))
    return found


def shape_features(points: np.ndarray, common: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Lengths in a face, in parts of the distance of the eyes, after the head is turned to the front.

    Args:
        points: of a reading, [478, 3]. common, weight: the landmark network's rigid face, [468, 3] and [468].
    """
    rotation, _ = rotation_of(common, points[:len(common)], weight)
    own = points.astype(np.float64) @ rotation                        # head axes: left, up, out of the face
    left, right = (own[list(corners)].mean(axis=0) for corners in EYES)
    own /= np.linalg.norm(left - right)
    eyes = np.array([own[list(corners)].mean(axis=0) for corners in EYES])

    def apart(a: Any, b: Any) -> float:
        return float(np.linalg.norm(own[a, :2] - own[b, :2]))

    widths = np.array([apart(*corners) for corners in EYES])
    gaps = np.array([apart(*lids) for lids in LIDS]) / widths
    irises = np.array([apart(centre + 1, centre + 3) for centre in IRISES]) / widths
    brows = np.array([own[brow, 1] - eye[1] for brow, eye in zip(BROWS, eyes, strict=True)])
    slant = np.array([own[outer, 1] - own[inner, 1] for (inner, outer) in ((362, 263), (133, 33))]) / widths
    return {
        "eye: width": float(widths.mean()), "eye: opening, in widths": float(gaps.mean()),
        "eye: difference of the two openings": float(abs(gaps[0] - gaps[1])),
        "eye: iris, in widths": float(irises.mean()), "eye: outer corner above the inner one": float(slant.mean()),
        "brow: height above the eye": float(brows.mean()), "brow: difference of the two": float(abs(np.diff(brows)[0])),
        "brow: thickness": float(np.mean([apart(*pair) for pair in zip(BROWS, UNDER_BROWS, strict=True)])),
        "nose: length": apart(BRIDGE, NOSE), "nose: width": apart(*NOSTRILS),
        "nose: stands out": float(own[NOSE, 2] - own[BRIDGE, 2]),
        "nose: tip to base": apart(NOSE, NOSE_BASE), "mouth: width": apart(*MOUTH),
        "mouth: upper lip": apart(LIP_TOP, LIP_MIDDLE[0]), "mouth: lower lip": apart(LIP_MIDDLE[1], LIP_LOW),
        "mouth: opening": apart(*LIP_MIDDLE), "mouth: corners above the middle":
            float(own[list(MOUTH), 1].mean() - own[list(LIP_MIDDLE), 1].mean()),
        "face: nose to mouth": apart(NOSE_BASE, LIP_TOP), "face: mouth to chin": apart(LIP_LOW, CHIN),
        "face: eyes to the top": float(own[TOP, 1] - eyes[:, 1].mean()), "face: width": apart(*TEMPLES),
        "face: width of the jaw": apart(*JAWS), "face: height": apart(TOP, CHIN)}


@dataclass(frozen=True)
class Features:
    """The features of N faces."""

    names: tuple[str, ...]
    values: np.ndarray
    """float64 [N, names]"""

    @classmethod
    def of(cls, faces: list[dict[str, float]]) -> "Features":
        return cls(tuple(faces[0]), np.array([list(face.values()) for face in faces], np.float64))


def scores_apart(values: np.ndarray, real: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How real each face looks to a logistic regression that has seen no face of its group.

    Args:
        values: float [N, D]. real: bool [N]. group: of each face, [N]: the person or the source.

    Returns:
        Scores, higher is more real, float [N]; the weights of one regression on all faces, for features of unit
        spread, float [D].

    Raises:
        ValueError: fewer than FOLDS groups of a kind.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    fewest = min(len(np.unique(group[real == kind])) for kind in (True, False))
    if fewest < FOLDS:
        raise ValueError(f"{fewest} persons or sources of a kind, wanted {FOLDS} at least -> measure more faces")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, values, real, groups=group, cv=folds, method="decision_function")
    return np.asarray(scores), model.fit(values, real)[-1].coef_[0]


def tells(features: Features, real: np.ndarray, weight: np.ndarray, most: int) -> list[dict[str, Any]]:
    """The features that tell most by themselves: AUROC of each alone, from .5 to 1, and mean and spread of each kind.

    A spread of the rendered faces that is far below the real one is a lack of variety.
    """
    from sklearn.metrics import roc_auc_score
    found = []
    for place, name in enumerate(features.names):
        value = features.values[:, place]
        alone = float(roc_auc_score(real, value))
        found.append({"feature": name, "alone": round(max(alone, 1 - alone), 3),
                      "rendered": _mean_and_spread(value[~real]), "real": _mean_and_spread(value[real]),
                      "weight": round(float(weight[place]), 3)})
    return sorted(found, key=lambda one: (-one["alone"], one["feature"]))[:most]


def _mean_and_spread(values: np.ndarray) -> list[float]:
    return [float(f"{number:.4g}") for number in (values.mean(), values.std())]
