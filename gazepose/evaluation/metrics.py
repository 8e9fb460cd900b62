"""Metrics: average precision of both classes, accuracy, AUROC, and the trivial baselines to compare them with.

Arrays in, floats out. METRICS is the one list of metrics: a new one is one line there, and the run log, the report and
the tables of the experiments show it. Several sets of scores are compared in comparison.py.

Faces of equal score have no order, so no metric depends on how the rows lie. The challenge's evaluation keeps the order
of the rows; `mAP_in_order` is its number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

COLLAPSED = 1e-3  # scores that differ by less are the noise of a constant
THRESHOLD = 0.5  # a score of exactly one half counts as looking, as in the published evaluation
BASELINES = {"head_pose": "head pose alone", "prevalence": "same score for every face"}


class Ranking:
    """Rows by falling score, and which of them are hits: order int64 [N], score float64 [N], hit bool [N]."""

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        self.order = np.argsort(-score)  # ties in any order, several times faster than kind="stable"
        self.positive, self.score, self.hit = positive, score[self.order], positive[self.order]
        self.new = self.score[1:] != self.score[:-1]
        self.mixed = bool((~self.new & (self.hit[1:] != self.hit[:-1])).any())
        """a score is that of a hit and of another row"""

    def precision(self) -> float:
        """Average precision. Hits among rows of equal score are spread evenly over these: their mean places."""
        if not self.mixed:
            return _precision_at_hits(np.flatnonzero(self.hit) + 1)
        first = np.flatnonzero(np.append(True, self.new))
        size, hits = np.diff(np.append(first, len(self.hit))), np.add.reduceat(self.hit.astype(np.int64), first)
        number = np.arange(1, hits.sum() + 1) - np.repeat(np.cumsum(hits) - hits, hits)  # of a hit among its equals
        return _precision_at_hits(np.repeat(first, hits) + number * np.repeat(size / np.maximum(hits, 1), hits))

    def precision_in_order(self) -> float:
        """Average precision, with rows of equal score in their order."""
        hit = self.hit
        if self.mixed:
            group, rows = np.append(0, np.cumsum(self.new)), len(hit)
            hit = self.positive[np.sort(group * rows + self.order) % rows]               # by group, then by row
        return _precision_at_hits(np.flatnonzero(hit) + 1)


def _precision_at_hits(rank: np.ndarray) -> float:
    precision = np.arange(1, len(rank) + 1) / rank  # between hits it only falls, so the envelope needs hits alone
    return float(np.maximum.accumulate(precision[::-1]).mean())


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the interpolated precision-recall curve (PASCAL VOC 2010 and later, all points).

    Args:
        positive: bool [N].
        score: higher is more confident, float [N]. Ties keep their order.

    Returns:
        AP in [0, 1].

    Raises:
        ValueError: there is no positive row, so recall is not defined; or a score is not finite.
    """
    positive, score = np.asarray(positive, bool), _finite(score, len(positive))
    if not positive.any():
        raise ValueError(f"average precision of {len(positive)} rows without a positive is not defined")
    return Ranking(positive, score).precision_in_order()


def _finite(score: np.ndarray, rows: int) -> np.ndarray:
    score = np.asarray(score, np.float64)
    if score.shape != (rows,):
        raise ValueError(f"scores: one per label was expected, shape ({rows},), not {score.shape}")
    if not np.isfinite(score).all():
        bad = np.flatnonzero(~np.isfinite(score))
        raise ValueError(f"scores: {len(bad)} of {rows} are not finite, the first is row {bad[0]}: {score[bad[0]]} "
                         "-> the model diverged, or rows were never predicted; lower --lr, or predict again")
    return score


@dataclass(frozen=True)
class Scored:
    """Scores of faces with known labels. What several metrics need is computed once."""

    looking: np.ndarray
    """bool [N]"""
    score: np.ndarray
    """probability of looking, float64 [N]"""

    @cached_property
    def confusion(self) -> dict[str, int]:
        """Counts {tp, fp, fn, tn} at THRESHOLD; looking is the positive class."""
        predicted = self.score >= THRESHOLD
        tp, positives = int((self.looking & predicted).sum()), int(self.looking.sum())
        fp = int(predicted.sum()) - tp
        return {"tp": tp, "fp": fp, "fn": positives - tp, "tn": len(self.score) - positives - fp}

    @cached_property
    def by_looking(self) -> Ranking:
        return Ranking(self.looking, self.score)

    @cached_property
    def by_not_looking(self) -> Ranking:
        # ranked by 1 - score, as published: subtraction rounds, so scores that differ by 1e-17 become ties
        return Ranking(~self.looking, 1.0 - self.score)

    @cached_property
    def ap_looking(self) -> float:
        return self.by_looking.precision()

    @cached_property
    def ap_not_looking(self) -> float:
        return self.by_not_looking.precision()


class Metric(NamedTuple):
    """What a metric is called and how it is computed; every value is in [0, 1] and higher is better."""

    label: str
    compute: Callable[[Scored], float]
    one_class: bool = False
    """defined too where all faces are of one class"""


def _accuracy(faces: Scored) -> float:
    counts = faces.confusion
    return (counts["tp"] + counts["tn"]) / len(faces.score)


def _balanced_accuracy(faces: Scored) -> float:
    tp, fp, fn, tn = (faces.confusion[name] for name in ("tp", "fp", "fn", "tn"))
    return (tp / (tp + fn) + tn / (tn + fp)) / 2


def _auroc(faces: Scored) -> float:
    """Part of all pairs of a looking and another face whose scores are in that order; ties count half."""
    hit, new = faces.by_looking.hit, faces.by_looking.new
    last = np.flatnonzero(np.append(new, True))  # a threshold takes all rows of one score
    above = np.concatenate([[0], np.cumsum(hit)[last]])
    below = np.concatenate([[0], last + 1]) - above
    return float((np.diff(below) * (above[1:] + above[:-1])).sum() / (2.0 * above[-1] * below[-1]))


METRICS = {
    "mAP": Metric("mAP", lambda faces: (faces.ap_looking + faces.ap_not_looking) / 2),
    "ap_looking": Metric("AP looking", lambda faces: faces.ap_looking),
    "ap_not_looking": Metric("AP not looking", lambda faces: faces.ap_not_looking),
    "accuracy": Metric("accuracy", _accuracy, one_class=True),
    "balanced_accuracy": Metric("balanced accuracy", _balanced_accuracy),
    "auroc": Metric("AUROC", _auroc),
}


def percent(value: float | None, signed: bool = False) -> str:
    """A share in [0, 1] as percent, or a difference of shares as points with its sign; one decimal. None is a dash."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def metrics_line(result: Mapping[str, Any]) -> str:
    """All metrics of `evaluate` in one line for the terminal; a metric that is not defined is a dash, and why.

    The challenge's own mAP stands beside ours where they differ, and a model that has collapsed is named.
    """
    cells = [f"{metric.label} {'-' if result[key] is None else format(result[key], '.3f')}"
             for key, metric in METRICS.items()]
    in_order = result.get("mAP_in_order")
    if in_order is not None and abs(in_order - result["mAP"]) >= 0.0005:
        cells[0] += f" (equal scores as the rows lie, as the challenge counts: {in_order:.3f})"
    return "  ".join([*cells, *(f"({result[why]})" for why in ("reason", "collapsed") if result.get(why))])


def evaluate(label: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Every metric of one set of faces.

    Args:
        label: int [N], 1 looking, 0 not looking, -1 unknown (left out and counted).
        score: probability of looking, float [N]. Faces of equal score have no order.

    Returns:
        Every key of METRICS (mAP is the mean of the two APs; accuracies count score >= 0.5 as looking; AUROC counts
        ties half), mAP_in_order (as the challenge counts: faces of equal score in the order of the rows), prevalence,
        confusion {tp, fp, fn, tn}, n, unknown, reason, collapsed. A metric that is not defined is None, and `reason`
        says why (otherwise None): with one class every order of the rows is perfect. `collapsed` says that the scores
        hardly differ (otherwise None).

    Raises:
        ValueError: a label other than -1, 0, 1; a score that is not finite; shapes that differ.
    """
    faces, unknown = known_faces(label, score)
    n, positives = len(faces.score), int(faces.looking.sum())
    both = 0 < positives < n
    values = {key: metric.compute(faces) if both or (n and metric.one_class) else None
              for key, metric in METRICS.items()}
    reason = None
    if not n:
        reason = f"no labelled rows ({unknown} of unknown label)"
    elif not both:
        reason = f"all {n} labelled rows are {'looking' if positives else 'not looking'}"
    in_order, collapsed = None, None
    if both:
        in_order = (faces.by_looking.precision_in_order() + faces.by_not_looking.precision_in_order()) / 2
    if n > 1 and np.ptp(faces.score) < COLLAPSED:
        collapsed = (f"collapsed: all {n} scores lie within {faces.score.min():.4f} and {faces.score.max():.4f}, so "
                     "the model tells no face from another -> lower --lr, or train longer")
    return {**values, "mAP_in_order": in_order, "prevalence": positives / n if n else None,
            "confusion": faces.confusion, "n": n, "unknown": unknown, "reason": reason, "collapsed": collapsed}


def known_faces(label: np.ndarray, score: np.ndarray) -> tuple[Scored, int]:
    """The faces of known label, and the number of the others. Args and errors as in `evaluate`."""
    label = np.asarray(label)
    score = _finite(score, len(label))
    if not np.isin(label, (-1, 0, 1)).all():
        raise ValueError("labels must be 1 looking, 0 not looking or -1 unknown, but there are "
                         f"{np.unique(label)[:5].tolist()} -> correct the label column of the scores")
    known = label >= 0
    if known.all():
        return Scored(label == 1, score), 0
    return Scored(label[known] == 1, score[known]), int((~known).sum())


def calibration_error(label: np.ndarray, score: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |part that looks - mean score| in bins of equal width, weighted by their faces.

    Args:
        label: int [N], -1 unknown (left out). score: probability of looking, float [N].

    Returns:
        In [0, 1]; NaN without a known label.
    """
    known = np.asarray(label) >= 0
    looking, score = np.asarray(label)[known] == 1, np.asarray(score, np.float64)[known]
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    apart = np.bincount(place, weights=looking - score, minlength=bins)
    return float(np.abs(apart).sum() / len(score)) if len(score) else float("nan")


def _pose_features(pose: np.ndarray) -> np.ndarray:
    """Even features of head pose [N, 11]; an unknown pose (any axis NaN) is one feature, all others 0."""
    size = np.minimum(np.abs(np.asarray(pose, np.float64)) / 30.0, 6.0)  # [N, 3]
    unknown = np.isnan(size.sum(1))
    size = np.where(unknown[:, None], 0.0, size)
    products = size[:, [0, 0, 1]] * size[:, [1, 2, 2]]
    return np.column_stack([np.logical_not(unknown), unknown, size, size**2, products])


def fit_head_pose(pose: np.ndarray, label: np.ndarray) -> np.ndarray | None:
    """Fit the trivial baseline "head pose alone": it knows where the head points and nothing else.

    A logistic regression on |angle|/30, squares and products. A penalty of one row keeps it finite where the classes
    separate.

    Args:
        pose: of the training split, float [N, 3] degrees (yaw, pitch, roll), NaN unknown.
        label: int [N], -1 unknown (left out).

    Returns:
        Its weights, float64 [11], for `head_pose_scores`; None without a labelled row of known head pose.
    """
    label, pose = np.asarray(label), np.asarray(pose)
    known = label >= 0
    if not np.isfinite(pose[known]).all(1).any():
        return None
    from sklearn.linear_model import LogisticRegression  # a second to import

    # scikit-learn refuses a single class; two rows whose features are all 0 add one of each and move no weight
    features = np.vstack([_pose_features(pose[known]), np.zeros((2, 11))])
    looking = np.append(label[known] == 1, [False, True])
    regression = LogisticRegression(C=1.0, fit_intercept=False, solver="newton-cholesky", tol=1e-10)
    return regression.fit(features, looking).coef_[0]


def head_pose_scores(fit: Sequence[float] | np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Probability of looking by head pose alone, float64 [M].

    Args:
        fit: weights that `fit_head_pose` fitted on the training split; config.json of a run has them.
        pose: float [M, 3] degrees, NaN unknown.

    Raises:
        ValueError: `fit` is not its 11 weights.
    """
    x = _pose_features(pose)
    weight = np.array(fit, np.float64)
    if weight.shape != (x.shape[1],) or not np.isfinite(weight).all():
        raise ValueError(f"head pose baseline: expected {x.shape[1]} finite weights, not {fit!r:.80} -> the run's "
                         "config.json was altered (head_pose_fit)")
    return 1.0 / (1.0 + np.exp(-np.clip(x @ weight, -30, 30)))


def trivial_baselines(
    train_label: np.ndarray, fit: np.ndarray | None, pose: np.ndarray, label: np.ndarray
) -> dict[str, dict[str, Any] | None]:
    """{"prevalence": evaluate(...), "head_pose": evaluate(...)}: what any model has to beat.

    "prevalence" gives every face the training split's rate of looking. A constant score has no order, so its AP is the
    class's share. "head_pose" is `head_pose_scores` of a fit. Without training labels or known head poses a baseline is
    None.
    """
    pose, train_label = np.asarray(pose), np.asarray(train_label)
    labelled = train_label >= 0
    if not labelled.any():
        return {"prevalence": None, "head_pose": None}
    constant = {**evaluate(label, np.full(len(pose), (train_label[labelled] == 1).mean())), "collapsed": None}
    if fit is None or not np.isfinite(pose).all(1).any():
        return {"prevalence": constant, "head_pose": None}
    return {"prevalence": constant, "head_pose": evaluate(label, head_pose_scores(fit, pose))}


def class_weights(label: np.ndarray) -> tuple[float, float]:
    """Published weights of not looking and looking: the part of the other class among the known labels.

    Raises:
        ValueError: a class without a single row; names the counts.
    """
    looking, away = int((np.asarray(label) == 1).sum()), int((np.asarray(label) == 0).sum())
    if not looking or not away:
        raise ValueError(f"training labels: {looking} looking and {away} not looking -> both are needed; raise "
                         "--limit, look at the annotations, or give --weights")
    return looking / (looking + away), away / (looking + away)


def gaze_degrees(gaze: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angle between two gazes in degrees.

    Args:
        gaze, truth: yaw and pitch in radians, [N, 2 or more]; NaN unknown.

    Returns:
        float64 [N]; NaN where one is unknown.
    """
    def direction(angles: np.ndarray) -> np.ndarray:
        yaw, pitch = np.asarray(angles, np.float64)[:, :2].T
        return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], axis=1)

    return np.degrees(np.arccos(np.clip((direction(gaze) * direction(truth)).sum(1), -1, 1)))


def score_of_gaze(gaze: np.ndarray) -> np.ndarray:
    """A score in (0, 1] that falls with the angle between the gaze and the camera; 0.5 at 12 degrees.

    For models that were trained on gaze alone. Args as in `gaze_degrees`.
    """
    return 1 / (1 + (gaze_degrees(gaze, np.zeros((len(gaze), 2))) / 12) ** 2)
