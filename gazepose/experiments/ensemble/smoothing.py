"""Smoothing: the running median of the scores of a track, by frame number.

What a face's neighbours are is decided here; how wide to look is chosen on val (experiments/ensemble/__init__.py).
"""

import numpy as np

CELLS = 1 << 22         # of the matrix of neighbours that is sorted at once


def smooth(score: np.ndarray, track: np.ndarray, frame: np.ndarray, width: int, causal: bool = False) -> np.ndarray:
    """The median of the scored faces of the same track whose frame is near.

    Near is within `width` frames around the face (width // 2 on each side), or causal: in the `width` frames that end
    with its own. So a stride only thins the neighbours out, and a gap separates what lies further apart. At the ends of
    a track and beside gaps the window holds fewer faces: nothing is repeated or made up, the first face of a track is
    its own causal median, and of an even number the mean of the two in the middle is taken.

    Args:
        score: float [N]. track, frame: int [N]; rows in any order.
        width: frames, odd; 1 returns the scores, also where a track has several faces of one frame.

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
    before, after = (width - 1, 0) if causal else (width // 2, width // 2)
    order = np.lexsort((frame, track))
    time = np.asarray(frame, np.int64)[order] - np.min(frame)
    # tracks lie so far apart on one axis that no window reaches the next
    place = np.unique(track, return_inverse=True)[1][order] * (time.max() + width + 1) + time
    first = np.searchsorted(place, place - before, side="left")
    end = np.searchsorted(place, place + after, side="right")
    count, sorted_score = end - first, score[order]
    median = np.empty(len(score))
    for rows in np.array_split(np.arange(len(score)), 1 + len(score) * int(count.max()) // CELLS):
        near = first[rows, None] + np.arange(count[rows].max(initial=0))                        # [n, most]
        values = np.where(near < end[rows, None], sorted_score[np.minimum(near, len(score) - 1)], np.inf)
        values.sort(axis=1)
        middle = np.stack([(count[rows] - 1) // 2, count[rows] // 2], 1)                        # [n, 2]
        median[order[rows]] = np.take_along_axis(values, middle, axis=1).mean(1)
    return median
