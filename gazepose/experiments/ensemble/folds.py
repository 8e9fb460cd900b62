"""Folds: val is scored by what was fitted to its other clips."""

from collections.abc import Callable

import numpy as np

FOLDS = 5


def fold_of(clip: np.ndarray) -> np.ndarray:
    """Fold of each face, int64 [N]: whole clips, the largest first, each to the fold that has the fewest faces."""
    _, inverse, count = np.unique(clip, return_inverse=True, return_counts=True)
    fold, filled = np.zeros(len(count), np.int64), np.zeros(min(FOLDS, len(count)), np.int64)
    for number in np.argsort(-count, kind="stable"):
        fold[number] = filled.argmin()
        filled[fold[number]] += count[number]
    return fold[inverse]


def lacks(label: np.ndarray, clip: np.ndarray) -> str | None:
    """The sentence where nothing can be fitted: beside some fold there are not faces of both classes left."""
    fold = fold_of(clip)
    fewest = min(len(np.unique(label[(fold != number) & (label >= 0)])) for number in range(fold.max() + 1))
    return None if fewest == 2 else (f"val's {len(np.unique(clip))} clips are too few to fit anything: without a fold "
                                     "of them one class is missing")


def cross_fitted(clip: np.ndarray, fitted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Scores of all faces, float64 [N], no clip's by what saw it.

    Args:
        clip: int [N].
        fitted: (rows to learn from, rows to score), both bool [N] -> scores of the latter.
    """
    fold, score = fold_of(clip), np.empty(len(clip))
    for number in range(fold.max() + 1):
        score[fold == number] = fitted(fold != number, fold == number)
    return score
