"""Examples: which tracks and mistakes of a split the report shows, and their crops and names.

The choice needs a table of scores only. The crops come from the index; the few that are shown are copied to
val.faces.npz beside the table, so that a run's folder can be copied to a machine without the data set.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gazepose.data.streaming import open_index
from gazepose.evaluation.metrics import THRESHOLD
from gazepose.evaluation.predictions import beside, names, refuse_links
from gazepose.io import read_arrays, read_object, write_arrays

FRAMES_PER_SECOND = 30  # of every Ego4D clip and of the embedded world
TRACKS = 4
CANDIDATES = 24  # the tracks in which both classes are most even; the best, the worst and two between are shown
LEAST, LONGEST = 16, 400  # scored frames of a track; shorter ones are shown only if there are too few others
FACES = 8  # under it
MISTAKES = 12  # of each kind
MAX_COPY = 256 << 20  # bytes of the copy of their crops, unpacked
AGAIN = "predict again with `python -m gazepose infer --split val`"


# ---- the choice: places in arrays

def tracks_to_show(label: np.ndarray, score: np.ndarray, track: np.ndarray, frame: np.ndarray) -> list[np.ndarray]:
    """Places of the frames of a few tracks, each by time; the track whose scores are nearest to its labels is first.

    They are evenly spread over the CANDIDATES tracks in which looking and not looking are most even. Where fewer
    tracks have both classes, the longest others follow.

    Args:
        label: int [N], -1 unknown. score: float [N]. track, frame: int [N].

    Returns:
        At most TRACKS arrays int64 [<= LONGEST].
    """
    numbers, inverse, count = np.unique(track, return_inverse=True, return_counts=True)
    looking, away = (np.bincount(inverse, weights=label == value, minlength=len(numbers)) for value in (1, 0))
    even = np.minimum(looking, away)
    order = np.lexsort((-count, -even))
    long = order[(even > 0)[order] & (count >= LEAST)[order]]
    order = (long if len(long) >= TRACKS else order)[:CANDIDATES]
    candidates = [_by_time(np.flatnonzero(inverse == number), label, frame) for number in order.tolist()]
    distances = [distance(label[places], score[places]) for places in candidates[:(even > 0).sum()]]
    both = np.argsort(distances, kind="stable").tolist()
    shown = [both[k] for k in np.unique(np.linspace(0, len(both) - 1, min(TRACKS, len(both))).astype(int))]
    rest = [k for k in range(len(candidates)) if k not in both]
    return [candidates[k] for k in [*shown, *rest[:TRACKS - len(shown)]]]


def distance(label: np.ndarray, score: np.ndarray) -> float:
    """Mean distance of score and label, in [0, 1], over the rows of known label, of which there is at least one."""
    known = label >= 0
    return float(np.abs(score[known] - label[known]).mean())


def _by_time(places: np.ndarray, label: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The places by frame; of a long track, the part around its first change of label."""
    places = places[np.argsort(frame[places], kind="stable")]
    change = np.flatnonzero(np.diff(label[places]))
    first = min(max(0, (int(change[0]) if len(change) else 0) - LONGEST // 3), max(0, len(places) - LONGEST))
    return places[first:first + LONGEST]


def faces_to_show(frame: np.ndarray, label: np.ndarray) -> np.ndarray:
    """One place of each of FACES equal stretches of a track, int64 [k]: near its middle, a looking face if any."""
    position = (frame - frame[0]) / max(1, frame[-1] - frame[0]) * FACES
    stretch = np.minimum(position.astype(int), FACES - 1)
    order = np.lexsort((np.abs(position - stretch - 0.5), label != 1, stretch))
    return order[np.unique(stretch[order], return_index=True)[1]]


def worst_mistakes(label: np.ndarray, score: np.ndarray, track: np.ndarray, clip: np.ndarray,
                   frame: np.ndarray) -> np.ndarray:
    """Places of the most confident mistakes, int64 [k]: MISTAKES false "looking", then as many false "not looking".

    No two of a kind are of one track or within a second of one clip, or they would all show one moment.
    """
    mistakes: list[int] = []
    for wrong, doubt in (((label == 0) & (score >= THRESHOLD), -score), ((label == 1) & (score < THRESHOLD), score)):
        places = np.flatnonzero(wrong)
        places = places[np.argsort(doubt[places], kind="stable")]
        firsts = places[np.sort(np.unique(track[places], return_index=True)[1])]  # each track's most confident one
        chosen: list[int] = []
        for place in firsts.tolist():
            far = np.abs(frame[chosen] - frame[place]) >= FRAMES_PER_SECOND
            if (far | (clip[chosen] != clip[place])).all():
                chosen.append(place)
            if len(chosen) == MISTAKES:
                break
        mistakes += chosen
    return np.array(mistakes, np.int64)


# ---- crops and names

class ShownFaces(NamedTuple):
    """Crops and names of some faces of a table of scores; empty where neither a copy nor the index is at hand."""

    crops: Mapping[int, np.ndarray] = {}
    """row -> uint8 [h, w, 3]"""
    clips: tuple[str, ...] = ()
    """name of each clip number"""
    tracks: Mapping[int, str] = {}
    """track number -> name, of the tracks of these rows"""


def shown_faces(scores: Path, rows: np.ndarray) -> ShownFaces:
    """Crops and names of rows of a table of scores: from the copy beside it, else from the index, and copied then.

    Raises:
        ValueError: the copy or the source file is damaged; the message names it.
    """
    copy, source = beside(scores, "faces.npz"), beside(scores, "source.json")
    if not source.exists() or not len(rows):
        return ShownFaces()
    facts = read_object(source, remedy=AGAIN)
    copied = read_copy(copy, facts.get("fingerprint")) if copy.exists() else ShownFaces()
    folder = Path(str(facts.get("index")))
    if set(rows.tolist()) <= copied.crops.keys() or not (folder / "index.json").exists():
        return copied
    index = open_index(folder)
    # other rows, where the data set was prepared again
    if index.facts["fingerprint"] != facts.get("fingerprint") or rows.max() >= len(index):
        return copied
    refuse_links(scores.parent.parent, "")
    rows = np.unique(rows)
    track, first = np.unique(index.track_of(rows), return_index=True)
    arrays = {"row": rows, "crops": np.stack([index.crop(row) for row in rows.tolist()]),
              "clips": np.array(index.clips, str), "track": track,
              "track_name": np.array([name for _, name in names(index, rows[first])], str),
              "fingerprint": np.array(index.facts["fingerprint"])}
    write_arrays(copy, arrays, compressed=True)
    return _unpacked(arrays)


def read_copy(copy: Path, fingerprint: object) -> ShownFaces:
    """The faces of a copy; none where it was made of an index with another fingerprint."""
    arrays = read_arrays(copy, most=MAX_COPY)
    try:
        return _unpacked(arrays) if str(arrays["fingerprint"]) == fingerprint else ShownFaces()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{copy}: its columns do not fit together ({error}) -> delete it, and report again where the "
                         "data set is") from None


def _unpacked(arrays: Mapping[str, np.ndarray]) -> ShownFaces:
    crops = arrays["crops"]
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3:
        raise ValueError(f"crops are {crops.dtype} {crops.shape}, not uint8 [k, h, w, 3]")
    return ShownFaces(dict(zip(arrays["row"].tolist(), crops, strict=True)), tuple(arrays["clips"].tolist()),
                      dict(zip(arrays["track"].tolist(), arrays["track_name"].tolist(), strict=True)))
