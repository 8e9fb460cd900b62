"""Records: what a run's folder holds, read once and checked; arrays and dicts, no pictures.

What is made of them is tables.py and the pictures beside it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.report.kept import Track, arrays, chosen_tracks, saved_mistakes, saved_tracks


@dataclass
class Records:
    """What the run's folder holds; empty where it holds nothing, and `notes` says so in sentences."""

    run: Path
    config: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    train: dict[str, np.ndarray] = field(default_factory=dict)
    """columns by step: step, loss, lr, samples_per_s, waited"""
    val: list[dict[str, Any]] = field(default_factory=list)
    """lines of kind "val" by step"""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """pred/val.npz, rows of known label only"""
    clips: list[str] = field(default_factory=list)
    """names of the clips that scores["clip"] numbers; empty where they were not recorded"""
    tracks: list[Track] = field(default_factory=list)
    """pred/timeline.npz, or chosen from the scores, without crops"""
    mistakes: dict[str, np.ndarray] = field(default_factory=dict)
    """pred/mistakes.npz: crops, score, label, frame, clip_name, track_name"""
    limited: bool = False
    """the scores are of a part of the split (--limit)"""
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.run.resolve().name

    @property
    def baselines(self) -> dict[str, Any]:
        """Name -> metrics of the last validation that recorded them."""
        return next((line["baselines"] for line in reversed(self.val) if line.get("baselines")), {})

    @property
    def head_pose(self) -> np.ndarray | None:
        """Scores of head pose alone for the rows of `scores`."""
        return self.scores.get("head_pose_score")


def read_records(run: Path) -> Records:
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
        for key in ("step", "loss", "lr", "samples_per_s", "waited"):
            records.train[key] = np.array([np.nan if line.get(key) is None else line[key] for line in train], float)
    records.val = [line for line in lines if line.get("kind") == "val"]
    whole, part = run / "pred" / "val.npz", run / "pred" / "val.partial.npz"
    scored = whole if whole.exists() else part
    if not (records.config or records.status or lines or scored.exists()):
        raise FileNotFoundError(f"{run}: no config.json, metrics.jsonl, status.json or pred/val.npz -> give the folder "
                                "of a training run (runs/<name>)")
    if scored.exists():
        everything = arrays(scored)
        known = everything["label"] >= 0
        records.scores = {name: column[known] for name, column in everything.items() if len(column) == len(known)}
        records.limited = scored == part
        if not known.all():
            records.notes.append(f"{(~known).sum():,} of {len(known):,} validation rows have no label and are left "
                                 "out.")
    marks = (".partial", "") if records.limited else ("",)
    timeline, mistakes = (next((path for mark in marks if (path := run / "pred" / f"{name}{mark}.npz").exists()), None)
                          for name in ("timeline", "mistakes"))
    if timeline:
        records.tracks, records.clips = saved_tracks(timeline)
    else:
        records.tracks = chosen_tracks(records.scores)
    records.mistakes = saved_mistakes(mistakes) if mistakes else {}
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
