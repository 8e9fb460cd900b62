"""Postprocessing of scores: smoothing over a track, calibration, gradient boosting over runs.

Everything here is fitted on val. ensemble.py chooses which of it is used, and measures the gains.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDS = 5
LARGEST_LOGIT = 20.0    # a logit beyond it is cut for the fit, so that one confident mistake cannot decide it alone
TEMPERATURES = (0.05, 20.0)
BIASES = (-10.0, 10.0)
# small trees of large leaves: val has few clips, and faces of one clip are no independent evidence
TREES: dict[str, Any] = {"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 40,
                         "l2_regularization": 1.0, "early_stopping": False, "random_state": 0}
Scores = dict[str, np.ndarray]
"""split -> probability of looking, float64"""
Faces = Mapping[str, Mapping[str, np.ndarray]]
"""split -> columns of its record (evaluation/predictions.py)"""


# ---- smoothing

def smooth(score: np.ndarray, track: np.ndarray, frame: np.ndarray, width: int, causal: bool = False) -> np.ndarray:
    """Running median over the scored faces of a track, by frame number.

    The window of a face is `width` frames around it (width // 2 on each side); if causal, the `width` frames that end
    with its own. A stride or a gap leaves fewer faces in a window, and so do the ends of a track; nothing is repeated.
    The median of an even number is the mean of the two in the middle.

    Args:
        score: float [N]. track, frame: int [N]; rows in any order.
        width: frames, odd; 1 returns the scores, even if a track has several faces in one frame.

    Returns:
        float64 [N].

    Raises:
        ValueError: a width that is even or below 1.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width {width} -> give an odd number of frames, 1 or more")
    score = np.asarray(score, np.float64)
    if width == 1 or not len(score):
        return score.copy()
    from pandas import Series  # slow to import
    from pandas.api.indexers import BaseIndexer

    before, after = (width - 1, 0) if causal else (width // 2, width // 2)
    order = np.lexsort((frame, track))
    time = np.asarray(frame, np.int64)[order] - np.min(frame)
    # tracks lie so far apart on one axis that no window reaches the next
    place = np.unique(track, return_inverse=True)[1][order] * (time.max() + width + 1) + time

    class Near(BaseIndexer):
        """Our own windows, because those of pandas leave out later rows of the same frame."""

        def get_window_bounds(self, num_values=0, min_periods=None, center=None, closed=None, step=None):
            return np.searchsorted(place, place - before, "left"), np.searchsorted(place, place + after, "right")

    median = np.empty(len(score))
    median[order] = Series(score[order]).rolling(Near(), min_periods=1).median()
    return median


# ---- fitting on val: folds, calibration, boosting

def folds_of(label: np.ndarray, clip: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-fitting: (rows to learn from, rows to score) of each fold, int [n]. Folds are whole clips and about equal.

    Unknown labels (-1) are scored but not learnt from. Empty where some fold leaves no labels of both classes to learn
    from.
    """
    from sklearn.model_selection import GroupKFold  # slow to import

    clips = len(np.unique(clip))
    if clips < 2:
        return []
    splits = GroupKFold(min(FOLDS, clips)).split(label, groups=clip)
    folds = [(rest[label[rest] >= 0], rows) for rest, rows in splits]
    return folds if all(len(np.unique(label[rest])) == 2 for rest, _ in folds) else []


def logit(score: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) in float64; finite for 0 and 1 too, and rising wherever the scores rise."""
    score = np.clip(np.asarray(score, np.float64), 1e-300, 1 - 2.0 ** -53)
    return np.log(score) - np.log1p(-score)


class Calibration(NamedTuple):
    """Turns scores into probabilities without changing their order.

    A temperature makes a model less or more sure. A bias moves the threshold: a model trained with class weights
    prefers the rarer class, by the logarithm of their ratio.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Scores float [N] -> float64 [N] in the same order."""
        return np.exp(-np.logaddexp(0, -(logit(score) / self.temperature + self.bias)))


def likelihood(label: np.ndarray, score: np.ndarray) -> float:
    """Mean negative log-likelihood of the known labels in nats; logits beyond +-20 count as 20.

    Args:
        label: int [N], -1 unknown (left out). score: float [N].
    """
    sign = np.where(label == 1, -1.0, 1.0)[label >= 0]
    return float(np.logaddexp(0, sign * np.clip(logit(score)[label >= 0], -LARGEST_LOGIT, LARGEST_LOGIT)).mean())


def calibrate(label: np.ndarray, score: np.ndarray, bias: bool = False) -> Calibration:
    """The temperature, and with `bias` the bias too, under which the labels are likeliest.

    Args:
        label: int [N], -1 unknown (left out).
        score: probability of looking, float [N].

    Raises:
        ValueError: without a label of each class there is nothing to fit.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017; with a bias Platt's scaling.
    """
    from scipy.optimize import minimize  # slow to import
    from scipy.special import expit

    label = np.asarray(label)
    if not (label == 1).any() or not (label == 0).any():
        raise ValueError(f"calibration: {(label == 1).sum()} looking and {(label == 0).sum()} not looking -> both are "
                         "needed; give it a labelled split")
    sign = np.where(label == 1, -1.0, 1.0)[label >= 0]
    logits = np.clip(logit(score)[label >= 0], -LARGEST_LOGIT, LARGEST_LOGIT)

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Convex in (1 / temperature, bias); with its gradient."""
        exponent = sign * (logits * values[0] + values[1])
        slope = sign * expit(exponent)
        return np.logaddexp(0, exponent).mean(), np.array([(slope * logits).mean(), slope.mean()])

    # bounded, to keep the order: logistic regression may find a weight below zero, or none if the classes separate
    bounds = [tuple(1 / limit for limit in reversed(TEMPERATURES)), BIASES if bias else (0.0, 0.0)]
    best = minimize(cost, [1.0, 0.0], jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-9}).x
    return Calibration(float(1 / best[0]), float(best[1]))


def cross_fitted_likelihood(label: np.ndarray, score: np.ndarray, clip: np.ndarray, bias: bool = False) -> float:
    """`likelihood` of scores that are calibrated by the numbers of the other clips; as `calibrate`, clip int [N]."""
    calibrated = np.empty(len(score))
    for rest, rows in folds_of(label, clip):
        calibrated[rows] = calibrate(label[rest], score[rest], bias).apply(score[rows])
    return likelihood(label, calibrated)


def features(scores: Mapping[str, Scores], faces: Faces) -> tuple[dict[str, "DataFrame"], list[str]]:
    """Scores by name and what is known of the faces, as columns. NaN unknown, which is a value of its own to the trees.

    Args:
        faces: columns head_pose [n, 3], quality [n] and size [n] of val and test.

    Returns:
        (split -> float64 table, names left out). A column that is known in one split only is left out: trees cannot
        carry it over. The challenge's crops have no boxes, so no size.
    """
    from pandas import DataFrame  # slow to import

    tables = {}
    for split, columns in faces.items():
        yaw, pitch, roll = columns["head_pose"].T
        tables[split] = DataFrame({**{name: both[split] for name, both in scores.items()}, "yaw": yaw, "pitch": pitch,
                                   "roll": roll, "quality": columns["quality"], "size": columns["size"]}, dtype=float)
    names = [name for name in tables["val"] if all(table[name].notna().any() for table in tables.values())]
    return ({split: table[names] for split, table in tables.items()},
            [name for name in tables["val"] if name not in names])


def boost(tables: Mapping[str, "DataFrame"], rising: Iterable[str], label: np.ndarray, clip: np.ndarray) -> Scores:
    """Gradient boosting: val is scored by trees that saw no face of the same clip, test by trees of all of val.

    Args:
        tables: as `features` makes them.
        rising: columns of which a higher value never makes looking less likely.
        label: of val, int [N], -1 unknown (scored, but not learnt from).
        clip: of val, int [N]; enough of them for `folds_of`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import
    from sklearn.model_selection import cross_val_predict

    trees = HistGradientBoostingClassifier(monotonic_cst=dict.fromkeys(rising, 1), **TREES)
    val = cross_val_predict(trees, tables["val"], label == 1, cv=folds_of(label, clip), method="predict_proba")
    trees.fit(tables["val"][label >= 0], label[label >= 0])
    return {"val": np.asarray(val)[:, 1], "test": trees.predict_proba(tables["test"])[:, 1]}
