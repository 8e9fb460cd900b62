"""Records: what a run's folder holds, read once and checked; arrays and dicts, no pictures.

What is made of them is tables.py and the pictures beside it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.gate import read_arrays

Crops = Callable[[np.ndarray], np.ndarray]
LONGEST = 300  # scored frames of the timeline
SHOWN = 12  # faces under it


@dataclass
class Records:
    """What the run's folder holds; empty where it holds nothing, and `notes` says so in sentences."""

    run: Path
    config: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    train: dict[str, np.ndarray] = field(default_factory=dict)
    """columns by step: step, loss, lr, samples_per_s"""
    val: list[dict[str, Any]] = field(default_factory=list)
    """lines of kind "val" by step"""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """pred/val.npz, rows of known label only"""
    timeline: dict[str, np.ndarray] = field(default_factory=dict)
    """frame, score, label of one track; crops [k, h, w, 3] and crop_at [k] into them"""
    limited: bool = False
    """the scores are of a part of the split (--limit)"""
    notes: list[str] = field(default_factory=list)

    @property
    def baselines(self) -> dict[str, Any]:
        """Name -> metrics of the last validation that recorded them."""
        return next((line["baselines"] for line in reversed(self.val) if line.get("baselines")), {})


def read_records(run: Path, crops: Crops | None = None) -> Records:
    """Raises FileNotFoundError for a folder that holds no record at all, ValueError for one that is damaged."""
    records = Records(run)
    for name in ("config", "status"):
        path = run / f"{name}.json"
        if path.exists():
            setattr(records, name, _json(path))
        else:
            records.notes.append(f"{path.name} is missing, so the table of facts is short.")
    lines = _lines(run / "metrics.jsonl", records.notes)
    train = [line for line in lines if line.get("kind") == "train"]
    if train:
        for key in ("step", "loss", "lr", "samples_per_s"):
            records.train[key] = np.array([np.nan if line.get(key) is None else line[key] for line in train], float)
    records.val = [line for line in lines if line.get("kind") == "val"]
    whole, part = run / "pred" / "val.npz", run / "pred" / "val.partial.npz"
    scored = whole if whole.exists() else part
    if not (records.config or records.status or lines or scored.exists()):
        raise FileNotFoundError(f"{run}: no config.json, metrics.jsonl, status.json or pred/val.npz -> give the folder "
                                "of a training run (runs/<name>)")
    if scored.exists():
        everything = _arrays(scored)
        known = everything["label"] >= 0
        records.scores = {name: column[known] for name, column in everything.items() if len(column) == len(known)}
        records.limited = scored == part
        if not known.all():
            records.notes.append(f"{(~known).sum():,} of {len(known):,} validation rows have no label and are left "
                                 "out.")
    saved = run / "pred" / "timeline.npz"
    records.timeline = _saved_timeline(saved) if saved.exists() else _chosen_timeline(records.scores, crops)
    return records


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}) -> the file is damaged; remove it and report again") from None


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Lines by (kind, step); a resumed run repeats steps, and the last word counts."""
    if not path.exists():
        return []
    kept: dict[tuple[str, float], dict[str, Any]] = {}
    broken = 0
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            kept[line["kind"], line["step"]] = line
        except (ValueError, KeyError, TypeError):
            broken += 1
    if broken:
        notes.append(f"{broken} lines of {path.name} could not be read (a run that is stopped may leave one) and are "
                     "left out.")
    return [kept[key] for key in sorted(kept)]


def _arrays(path: Path, wanted: Sequence[str] = ("row", "score", "label")) -> dict[str, np.ndarray]:
    columns = read_arrays(path)
    if lost := [name for name in wanted if name not in columns]:
        raise ValueError(f"{path}: no column {', '.join(lost)} -> predict again with infer.py --split val")
    return columns


def _saved_timeline(path: Path) -> dict[str, np.ndarray]:
    columns = _arrays(path, ("frame", "score", "label"))
    order = np.argsort(columns["frame"], kind="stable")
    timeline = {name: columns[name][order] for name in ("frame", "score", "label")}
    if "crops" in columns:
        at = spread(timeline["frame"], timeline["label"], SHOWN)
        timeline |= {"crops": columns["crops"][order][at], "crop_at": at}
    return timeline


def _chosen_timeline(scores: dict[str, np.ndarray], crops: Crops | None) -> dict[str, np.ndarray]:
    """The track that has most of both classes tells most; of a long one, the part around its first change."""
    if not {"clip", "track", "frame"} <= scores.keys() or not len(scores["row"]):
        return {}
    _, track, count = np.unique(np.stack([scores["clip"], scores["track"]]), axis=1, return_inverse=True,
                                return_counts=True)
    looking = np.bincount(track, weights=scores["label"])
    rows = np.flatnonzero(track == np.lexsort((count, np.minimum(looking, count - looking)))[-1])
    rows = rows[np.argsort(scores["frame"][rows], kind="stable")]
    change = np.flatnonzero(np.diff(scores["label"][rows]))
    first = min(max(0, (int(change[0]) if len(change) else 0) - LONGEST // 3), max(0, len(rows) - LONGEST))
    rows = rows[first:first + LONGEST]
    timeline = {name: scores[name][rows] for name in ("frame", "score", "label")}
    if crops is not None:
        at = spread(timeline["frame"], timeline["label"], SHOWN)
        timeline |= {"crops": np.asarray(crops(scores["row"][rows[at]])), "crop_at": at}
    return timeline


def spread(frame: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """One row of each of `count` equal stretches of time, int64 [k]: near its middle, a looking one if there is one."""
    place = (frame - frame[0]) / max(1, frame[-1] - frame[0]) * count
    cell = np.minimum(place.astype(int), count - 1)
    order = np.lexsort((np.abs(place - cell - 0.5), label != 1, cell))
    return order[np.unique(cell[order], return_index=True)[1]]
