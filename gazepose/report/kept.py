"""Kept: arrays of a run's pred folder: the table of scores, and the tracks and mistakes whose faces were kept.

predictions.py writes them; records.py reads them with the rest of the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gazepose.evaluation.examples import spread, telling_tracks
from gazepose.io import read_arrays

AGAIN = "predict again with infer.py --split val"
NO_CROPS = np.zeros((0, 1, 1, 3), np.uint8)


@dataclass
class Track:
    """Scored frames of one face, by time, and some of its crops."""

    clip: str
    name: str
    columns: dict[str, np.ndarray]
    """frame, score, label and, if recorded, head_pose_score, each [n]"""
    crop_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """places in the columns, [k]"""
    crops: np.ndarray = field(default_factory=lambda: NO_CROPS)
    """uint8 [k, h, w, 3]"""


def arrays(path: Path, wanted: Sequence[str] = ("row", "score", "label")) -> dict[str, np.ndarray]:
    """Columns of a file of pred/; ValueError naming it where one is missing or its crops are no crops."""
    columns = read_arrays(path)
    if lost := [name for name in wanted if name not in columns]:
        raise ValueError(f"{path}: no column {', '.join(lost)} -> {AGAIN}")
    crops = columns.get("crops", NO_CROPS)
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3:
        raise ValueError(f"{path}: crops: {crops.dtype} {crops.shape}, wanted uint8 [k, h, w, 3] -> {AGAIN}")
    return columns


def saved_tracks(path: Path) -> tuple[list[Track], list[str]]:
    """Tracks of timeline.npz, and the names of the clips that the table of scores numbers. In earlier versions it held
    one track, without start and names, and a crop of every frame.

    Raises:
        ValueError: its columns do not fit together.
    """
    saved = arrays(path, ("frame", "score", "label"))
    columns = _columns(saved)
    n = len(columns["frame"])
    if "start" not in saved:
        order = np.argsort(columns["frame"], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        if "crops" not in saved:
            return [Track("", "", columns)], []
        at = spread(columns["frame"], columns["label"])
        return [Track("", "", columns, at, saved["crops"][order][at])], []
    start, at, crops = saved["start"], saved.get("crop_at", np.zeros(0, np.int64)), saved.get("crops", NO_CROPS)
    names = [saved.get(f"{what}_name", np.zeros(0, str)).tolist() for what in ("clip", "track")]
    fits = (len(start) and start[0] == 0 and start[-1] == n and (np.diff(start) > 0).all()
            and all(len(column) == n for column in columns.values()) and all(len(it) == len(start) - 1 for it in names)
            and len(crops) == len(at) and ((at >= 0) & (at < n)).all())
    if not fits:
        raise ValueError(f"{path}: its columns do not fit together -> {AGAIN}")
    tracks = []
    for clip, name, low, high in zip(*names, start[:-1], start[1:], strict=True):
        inside = (at >= low) & (at < high)
        tracks.append(Track(clip, name, {key: column[low:high] for key, column in columns.items()},
                            at[inside] - low, crops[inside]))
    return tracks, saved.get("clips", np.zeros(0, str)).tolist()


def chosen_tracks(scores: Mapping[str, np.ndarray]) -> list[Track]:
    """Tracks chosen as infer.py chooses them, without crops and names."""
    if not {"clip", "track", "frame"} <= scores.keys() or not len(scores["row"]):
        return []
    columns = _columns(scores)
    return [Track(f"number {scores['clip'][places[0]]}", f"number {scores['track'][places[0]]}",
                  {name: column[places] for name, column in columns.items()})
            for places in telling_tracks(scores["label"], scores["score"], scores["track"], scores["frame"])]


def clip_name(clips: Sequence[str], number: int) -> str:
    """The clip of that number by name, or by number where names were not recorded."""
    return clips[number] if number < len(clips) else f"number {number}"


def _columns(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: saved[name] for name in ("frame", "score", "label", "head_pose_score") if name in saved}


def saved_mistakes(path: Path) -> dict[str, np.ndarray]:
    """Columns of mistakes.npz, of one length; ValueError naming it where they are not."""
    wanted = ("crops", "score", "label", "frame", "clip_name", "track_name")
    saved = arrays(path, wanted)
    if len({len(saved[name]) for name in wanted}) > 1:
        raise ValueError(f"{path}: its columns differ in length -> {AGAIN}")
    return {name: saved[name] for name in wanted}
