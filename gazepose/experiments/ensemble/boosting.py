"""Boosting: trees over what several runs say of a face and what is known of it.

Fitted on val. Val itself is scored by trees that saw no face of the same clip; test by trees of all of val.
"""

from typing import Any, NamedTuple

import numpy as np

from gazepose.experiments.ensemble.folds import cross_fitted

# small trees of large leaves: val has few clips, and faces of one clip are no independent evidence
TREES: dict[str, Any] = {"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 40,
                         "l2_regularization": 1.0, "early_stopping": False, "random_state": 0}


class Features(NamedTuple):
    """Columns of val and test; NaN unknown, which is a value of its own to the trees."""

    names: list[str]
    val: np.ndarray
    """float64 [N, C]"""
    test: np.ndarray
    """float64 [M, C]"""
    rising: list[int]
    """1: a higher value never makes looking less likely, 0: anything goes; [C]"""
    left_out: list[str]
    """known in one split only (the challenge's crops have no boxes, so no size), which trees cannot carry over"""


def features(scores: dict[str, dict[str, np.ndarray]], faces: dict[str, dict[str, np.ndarray]]) -> Features:
    """Scores and what is known of the faces, side by side.

    Args:
        scores: by name, of "val" and "test", float.
        faces: of "val" and "test", the columns head_pose [n, 3], quality [n] and size [n] of their records.
    """
    columns = {name: (both["val"], both["test"], 1) for name, both in scores.items()}
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        columns[name] = (faces["val"]["head_pose"][:, axis], faces["test"]["head_pose"][:, axis], 0)
    for name in ("quality", "size"):
        columns[name] = (faces["val"][name], faces["test"][name], 0)
    known = [name for name, (val, test, _) in columns.items() if np.isfinite(val).any() and np.isfinite(test).any()]
    val, test = (np.column_stack([columns[name][split] for name in known]).astype(np.float64) for split in (0, 1))
    return Features(known, val, test, [columns[name][2] for name in known], [n for n in columns if n not in known])


def boost(columns: Features, label: np.ndarray, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Probability of looking by gradient boosting, of val cross-fitted over clips and of test: float64 each.

    Args:
        label: of val, int [N], -1 unknown (scored, but not learnt from).
        clip: of val, int [N]; `folds.lacks` says whether there are enough of them.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import, and only this step needs it

    def trees(rows: np.ndarray) -> Any:
        rows = rows & (label >= 0)
        model = HistGradientBoostingClassifier(monotonic_cst=columns.rising, **TREES)
        return model.fit(columns.val[rows], label[rows])

    val = cross_fitted(clip, lambda rest, rows: trees(rest).predict_proba(columns.val[rows])[:, 1])
    return {"val": val, "test": trees(np.ones(len(label), bool)).predict_proba(columns.test)[:, 1]}
