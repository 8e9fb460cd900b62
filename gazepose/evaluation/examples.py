"""Chosen: which tracks, faces and mistakes of a split are worth a look; places in arrays, no pictures.

predictions.py keeps the crops of what is chosen here; records.py chooses again, without crops, where none were kept.
"""

import numpy as np

from gazepose.evaluation.metrics import THRESHOLD

FRAMES_PER_SECOND = 30  # of every Ego4D clip and of the embedded world
TRACKS = 4
CANDIDATES = 24  # the most even tracks, of which the best, the worst and two between are shown
LONGEST = 400  # scored frames of a track
FACES = 8  # under it
MISTAKES = 12  # of each kind


def telling_tracks(label: np.ndarray, score: np.ndarray, track: np.ndarray, frame: np.ndarray) -> list[np.ndarray]:
    """Places of the frames of a few tracks, each by time, from the one whose scores are nearest to its labels on.

    They are evenly spread over the CANDIDATES tracks in which looking and not looking are most even; where fewer have
    both classes, the longest others come after them.

    Args:
        label: int [N], -1 unknown. score: float [N]. track, frame: int [N].

    Returns:
        At most TRACKS arrays int64 [<= LONGEST].
    """
    numbers, inverse, count = np.unique(track, return_inverse=True, return_counts=True)
    looking, away = (np.bincount(inverse, weights=label == value, minlength=len(numbers)) for value in (1, 0))
    even = np.minimum(looking, away)
    order = np.lexsort((-count, -even))[:CANDIDATES]
    found = [_by_time(np.flatnonzero(inverse == number), label, frame) for number in order.tolist()]
    off = [distance(label[places], score[places]) for places in found[:(even > 0).sum()]]
    both = np.argsort(off, kind="stable").tolist()
    shown = [both[k] for k in np.unique(np.linspace(0, len(both) - 1, min(TRACKS, len(both))).astype(int))]
    rest = [k for k in range(len(found)) if k not in both]
    return [found[k] for k in [*shown, *rest[:TRACKS - len(shown)]]]


def distance(label: np.ndarray, score: np.ndarray) -> float:
    """Mean distance of score and label, in [0, 1], of rows of which some label is known."""
    known = label >= 0
    return float(np.abs(score[known] - label[known]).mean())


def _by_time(places: np.ndarray, label: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The places by frame; of a long track, the part around its first change of label."""
    places = places[np.argsort(frame[places], kind="stable")]
    change = np.flatnonzero(np.diff(label[places]))
    first = min(max(0, (int(change[0]) if len(change) else 0) - LONGEST // 3), max(0, len(places) - LONGEST))
    return places[first:first + LONGEST]


def spread(frame: np.ndarray, label: np.ndarray, count: int = FACES) -> np.ndarray:
    """One row of each of `count` equal stretches of time, int64 [k]: near its middle, a looking one if there is one."""
    place = (frame - frame[0]) / max(1, frame[-1] - frame[0]) * count
    cell = np.minimum(place.astype(int), count - 1)
    order = np.lexsort((np.abs(place - cell - 0.5), label != 1, cell))
    return order[np.unique(cell[order], return_index=True)[1]]


def worst_mistakes(label: np.ndarray, score: np.ndarray, track: np.ndarray, clip: np.ndarray,
                   frame: np.ndarray) -> np.ndarray:
    """Places of the most confident mistakes, int64 [k]: MISTAKES false "looking", then as many false "not looking".

    No two of a kind are of one track or within a second of one clip, or they would all show one moment.
    """
    found: list[int] = []
    for wrong, doubt in (((label == 0) & (score >= THRESHOLD), -score), ((label == 1) & (score < THRESHOLD), score)):
        places = np.flatnonzero(wrong)
        places = places[np.argsort(doubt[places], kind="stable")]
        firsts = places[np.sort(np.unique(track[places], return_index=True)[1])]  # each track's most confident one
        kept: list[int] = []
        for place in firsts.tolist():
            apart = np.abs(frame[kept] - frame[place]) >= FRAMES_PER_SECOND
            if (apart | (clip[kept] != clip[place])).all():
                kept.append(place)
            if len(kept) == MISTAKES:
                break
        found += kept
    return np.array(found, np.int64)
