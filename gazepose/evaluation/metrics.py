"""Metrics: average precision of both classes, accuracy, AUROC, and the trivial baselines to stand beside.

Numpy in, floats out; what a score is called and where it is stored is in submission.py. `score_csv` is the one
door for tables: a pred.csv, joined to the annotation by clip, track and frame.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

THRESHOLD = 0.5  # a score of exactly one half counts as looking, as in the published evaluation
BOX_TOLERANCE = 1e-9
BOX = ["x1", "y1", "x2", "y2"]
KEY = ["clip", "track", "frame"]
TRUTH_COLUMNS = ["clip", "frame", *BOX, "track", "label"]  # the headerless table of the published evaluation


def _best_first(score: np.ndarray) -> np.ndarray:
    """Row numbers by falling score, ties in row order: int64 [N]."""
    order = np.argsort(-score)  # not stable, several times faster than kind="stable"
    ranked = score[order]
    new = ranked[1:] != ranked[:-1]
    if not new.all():
        group = np.concatenate([[0], np.cumsum(new)])
        order = np.sort(group * len(score) + order) % len(score)  # by group, then by row
    return order


def _precision_at_hits(hit: np.ndarray) -> float:
    rank = np.flatnonzero(hit) + 1
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
        ValueError: without a single positive there is no recall to speak of; or a score is not a number.
    """
    positive, score = np.asarray(positive, bool), _finite(score, len(positive))
    if not positive.any():
        raise ValueError(f"average precision of {len(positive)} rows without a positive is not defined")
    return _precision_at_hits(positive[_best_first(score)])


def _finite(score: np.ndarray, rows: int) -> np.ndarray:
    score = np.asarray(score, np.float64)
    if score.shape != (rows,):
        raise ValueError(f"scores: wanted one per label, shape ({rows},), got {score.shape}")
    if not np.isfinite(score).all():
        bad = np.flatnonzero(~np.isfinite(score))
        raise ValueError(f"scores: {len(bad)} of {rows} are not finite, the first is row {bad[0]}: {score[bad[0]]} "
                         "-> the model diverged or rows were never predicted; do not score this file")
    return score


def _auroc(hit: np.ndarray, ranked: np.ndarray) -> float:
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # a threshold takes all rows of one score
    above = np.concatenate([[0], np.cumsum(hit)[last]])
    below = np.concatenate([[0], last + 1]) - above
    return float((np.diff(below) * (above[1:] + above[:-1])).sum() / (2.0 * above[-1] * below[-1]))


def evaluate(label: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Every number of the task for one set of faces.

    Args:
        label: int [N], 1 looking, 0 not looking, -1 unknown (left out and counted).
        score: probability of looking, float [N]. Ties keep their order.

    Returns:
        mAP (mean of ap_looking and ap_not_looking), accuracy and balanced_accuracy at score >= 0.5, auroc (ties count
        half), prevalence, confusion {tp, fp, fn, tn}, n, unknown, reason. A metric that is not defined is None, and
        `reason` says why (otherwise None): with one class every order of the rows is perfect, without rows there is
        nothing to count.

    Raises:
        ValueError: a label other than -1, 0, 1; a score that is not finite; shapes that differ.
    """
    label = np.asarray(label)
    score = _finite(score, len(label))
    known = label >= 0
    if not np.isin(label, (-1, 0, 1)).all():
        raise ValueError(f"labels: wanted 1 looking, 0 not looking, -1 unknown, got {np.unique(label)[:5].tolist()}")
    unknown = len(label) - int(known.sum())
    if unknown:
        label, score = label[known], score[known]
    looking, said = label == 1, score >= THRESHOLD
    n, positives = len(label), int(looking.sum())
    negatives = n - positives
    tp, fp = int((looking & said).sum()), int((~looking & said).sum())
    fn, tn = positives - tp, negatives - fp
    result: dict[str, Any] = {
        "mAP": None, "ap_looking": None, "ap_not_looking": None, "auroc": None, "balanced_accuracy": None,
        "accuracy": (tp + tn) / n if n else None, "prevalence": positives / n if n else None,
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn}, "n": n, "unknown": unknown, "reason": None,
    }
    if not positives or not negatives:
        result["reason"] = (f"all {n} labelled rows are {'looking' if positives else 'not looking'}" if n
                            else f"no labelled rows ({unknown} of unknown label)")
        return result
    order = _best_first(score)
    result["ap_looking"] = _precision_at_hits(looking[order])
    # 1 - score is sorted by itself: subtraction rounds, and scores that differ by 1e-17 become ties
    result["ap_not_looking"] = _precision_at_hits(~looking[_best_first(1.0 - score)])
    result["mAP"] = (result["ap_looking"] + result["ap_not_looking"]) / 2
    result["auroc"] = _auroc(looking[order], score[order])
    result["balanced_accuracy"] = (tp / positives + tn / negatives) / 2
    return result


def resampled(label: np.ndarray, scores: Sequence[np.ndarray], group: np.ndarray, draws: int = 200,
              metric: str = "mAP") -> np.ndarray | None:
    """A metric of several sets of scores of the same faces when whole groups (clips) are drawn with replacement: faces
    of one clip are no independent evidence. All sets see the same draws, so that their differences are paired.

    Args:
        label: int [N], -1 unknown (left out).
        scores: each float [N].
        group: int [N], the clip of each face.
        metric: a name of `evaluate`.

    Returns:
        float [draws, sets], draws without both classes left out; None with fewer than five groups or when the draws
        seldom hold both classes.
    """
    known = np.asarray(label) >= 0
    label, group = np.asarray(label)[known], np.asarray(group)[known]
    scores = [np.asarray(score)[known] for score in scores]
    names, inverse = np.unique(group, return_inverse=True)
    if len(names) < 5:
        return None
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    random = np.random.default_rng(0)
    rows = (np.concatenate([members[g] for g in random.integers(len(names), size=len(names))]) for _ in range(draws))
    found = [[evaluate(label[r], score[r])[metric] for score in scores] for r in rows
             if (label[r] == 1).any() and (label[r] == 0).any()]
    return np.array(found, float) if len(found) > draws / 2 else None


def interval(label: np.ndarray, score: np.ndarray, group: np.ndarray, draws: int = 200,
             metric: str = "mAP") -> tuple[float, float] | None:
    """95 % interval of a metric over whole groups (clips), as `resampled` draws them."""
    return _middle(found[:, 0]) if (found := resampled(label, [score], group, draws, metric)) is not None else None


def difference(label: np.ndarray, first: np.ndarray, second: np.ndarray, group: np.ndarray, draws: int = 200,
               metric: str = "mAP") -> tuple[float, float] | None:
    """95 % interval of how much a metric gains from the first scores to the second, on the same draws of clips."""
    found = resampled(label, [first, second], group, draws, metric)
    return None if found is None else _middle(found[:, 1] - found[:, 0])


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


def _middle(values: np.ndarray) -> tuple[float, float]:
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))


def _pose_features(pose: np.ndarray) -> np.ndarray:
    """Even features of head pose [N, 11]; an unknown pose (any axis NaN) is one feature, all others 0."""
    size = np.minimum(np.abs(np.asarray(pose, np.float64)) / 30.0, 6.0)  # [N, 3]
    unknown = np.isnan(size.sum(1))
    size = np.where(unknown[:, None], 0.0, size)
    products = size[:, [0, 0, 1]] * size[:, [1, 2, 2]]
    return np.column_stack([np.logical_not(unknown), unknown, size, size**2, products])


def fit_head_pose(pose: np.ndarray, label: np.ndarray, ridge: float = 1.0) -> np.ndarray | None:
    """The trivial baseline: how far does it get to see where the head points, and nothing else?

    A logistic regression on |angle|/30, squares and products, fitted by iteratively reweighted least squares.

    Args:
        pose: of the training split, float [N, 3] degrees (yaw, pitch, roll), NaN unknown.
        label: int [N], -1 unknown (left out).
        ridge: squared-weight penalty, in rows; keeps the fit finite where the classes separate.

    Returns:
        Its weights, float64 [11], for `head_pose_scores`; None without a labelled row of known head pose.
    """
    label, pose = np.asarray(label), np.asarray(pose)
    known = label >= 0
    if not np.isfinite(pose[known]).all(1).any():
        return None
    looking = (label[known] == 1).astype(np.float64)
    x = _pose_features(pose[known])  # [N, 11]
    weight = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weight, -30, 30)))
        gradient = x.T @ (looking - p) - ridge * weight
        curvature = (x * np.maximum(p * (1 - p), 1e-9)[:, None]).T @ x + ridge * np.eye(len(weight))
        step = np.linalg.solve(curvature, gradient)
        weight += step * min(1.0, 5.0 / np.abs(step).max(initial=1e-12))  # a full step may overshoot at the start
        if np.abs(step).max() < 1e-8:
            break
    return weight


def head_pose_scores(fit: Sequence[float] | np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Probability of looking by head pose alone, float64 [M].

    Args:
        fit: what `fit_head_pose` found in the training split; a run keeps it in config.json.
        pose: float [M, 3] degrees, NaN unknown.

    Raises:
        ValueError: `fit` is not its 11 weights.
    """
    x = _pose_features(pose)
    weight = np.array(fit, np.float64)
    if weight.shape != (x.shape[1],) or not np.isfinite(weight).all():
        raise ValueError(f"head pose baseline: wanted {x.shape[1]} finite weights, got {fit!r:.80} -> the run's "
                         "config.json was altered (head_pose_fit)")
    return 1.0 / (1.0 + np.exp(-np.clip(x @ weight, -30, 30)))


def trivial_baselines(
    train_label: np.ndarray, fit: np.ndarray | None, pose: np.ndarray, label: np.ndarray
) -> dict[str, dict[str, Any] | None]:
    """{"prevalence": evaluate(...), "head_pose": evaluate(...)}: what any model has to beat.

    "prevalence" gives every face the training split's rate of looking. A constant score has no order, so its AP is
    that of the one threshold it offers, the class's share, and not of the order the rows happen to lie in. "head_pose"
    is `head_pose_scores` of a fit. A baseline that cannot be had (no training labels, no known head pose) is None.
    """
    pose, train_label = np.asarray(pose), np.asarray(train_label)
    labelled = train_label >= 0
    if not labelled.any():
        return {"prevalence": None, "head_pose": None}
    constant = evaluate(label, np.full(len(pose), (train_label[labelled] == 1).mean()))
    if constant["mAP"] is not None:
        share = constant["prevalence"]
        constant |= {"ap_looking": share, "ap_not_looking": 1 - share, "mAP": 0.5}
    if fit is None or not np.isfinite(pose).all(1).any():
        return {"prevalence": constant, "head_pose": None}
    return {"prevalence": constant, "head_pose": evaluate(label, head_pose_scores(fit, pose))}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _read(path: Path, columns: list[str]) -> tuple["pandas.DataFrame", bool]:
    import pandas  # slow to import, and only tables need it

    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline().strip().split(",")
    headed = "clip" in first
    if not headed and len(first) != len(columns):
        raise ValueError(f"{path}: line 1: wanted a header or {len(columns)} columns ({','.join(columns)}), "
                         f"got {len(first)} -> give a pred.csv of the val split")
    try:
        table = pandas.read_csv(path, names=None if headed else columns, keep_default_na=False,
                                dtype={"clip": str, "track": str},  # a track called 007 is not the number 7
                                converters={"score": _number, "label": _number})  # every digit, in all of pandas
    except ValueError as error:  # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: not a table: {error} -> give a pred.csv of the val split") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)} -> give a pred.csv of the val split")
    wrong = np.flatnonzero(~np.isin(table["label"].to_numpy(np.float64), (-1, 0, 1)))
    if len(wrong):
        raise ValueError(f"{path}: line {wrong[0] + 1 + headed}: a label is none -> 1 looking, 0 not looking or -1 "
                         "unknown is wanted")
    table["label"] = table["label"].astype(np.int64)
    if "score" in columns:
        bad = np.flatnonzero(~np.isfinite(table["score"].to_numpy(np.float64)))
        if len(bad):
            raise ValueError(f"{path}: line {bad[0] + 1 + headed}: {len(bad)} of {len(table)} scores are no finite "
                             "number -> predict again")
        other = np.flatnonzero(table["label"].to_numpy() != 1)
        if not headed and len(other):
            raise ValueError(f"{path}: line {other[0] + 1}: a prediction's label must be 1, the class its score "
                             "speaks of")
    return table.drop_duplicates(KEY, ignore_index=True), headed  # the first row counts, as published


def score_csv(prediction: Path | str, truth: Path | str | None = None) -> dict[str, Any]:
    """Score a pred.csv.

    Args:
        prediction: our val table (header clip,track,frame,x1,y1,x2,y2,label,score; label is the annotation), or the
            headerless one of the published evaluation (clip,frame,x1,y1,x2,y2,track,1,score), which needs `truth`.
        truth: None to trust the labels in `prediction`; or a table with the same columns less the score. Rows meet by
            clip, track and frame, ids compared as text; ties in score keep the order of this table. A repeated face
            counts once, by its first row, in each table on its own.

    Returns:
        evaluate(...)

    Raises:
        ValueError: a face without prediction or without truth, a box that differs by more than 1e-9, a score that is
            no number, a column that is missing.
    """
    found, headed = _read(Path(prediction), [*TRUTH_COLUMNS, "score"])
    if truth is None:
        if not headed:
            raise ValueError(f"{prediction}: a table without header carries no annotation -> give the truth table too")
        return evaluate(found["label"].to_numpy(), found["score"].to_numpy(np.float64))
    wanted, _ = _read(Path(truth), TRUTH_COLUMNS)
    both = wanted.merge(found, on=KEY, how="outer", suffixes=("", "_found"), indicator=True)
    for side, words in (("left_only", "have no prediction"), ("right_only", "are not in the truth table")):
        lost = both.loc[both["_merge"] == side, KEY].to_numpy(str)
        if len(lost):
            raise ValueError(f"{prediction}: {len(lost)} faces {words}, the first is {':'.join(lost[0])} "
                             f"-> predict the same rows as {truth}")
    both = wanted.merge(found, on=KEY, how="left", suffixes=("", "_found"))  # in the order of the truth table
    apart = np.abs(both[BOX].to_numpy(np.float64) - both[[f"{b}_found" for b in BOX]].to_numpy(np.float64)).max(1)
    if (apart > BOX_TOLERANCE).any():
        worst = int(apart.argmax())
        raise ValueError(f"{prediction}: {':'.join(map(str, both[KEY].iloc[worst]))}: box is {apart[worst]:g} px from "
                         f"the one in {truth} -> the tables were made under different policies")
    return evaluate(both["label"].to_numpy(), both["score"].to_numpy(np.float64))


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
