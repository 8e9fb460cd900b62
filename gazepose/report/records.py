"""Records: the files in a run's folder, read once and checked; arrays and dicts, no pictures."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.evaluation.examples import AGAIN, ShownFaces, faces_to_show, shown_faces, tracks_to_show, worst_mistakes
from gazepose.evaluation.predictions import FLIPPED, PLAIN, read_scores
from gazepose.io import read_object
from gazepose.text import counted, read_json_lines

NAMED = ("frame", "score", "label", "head_pose_score")
NUMBERS = ("seconds", "world_size", "limit", "step", "epoch", "ema")
OBJECTS = ("model", "prepare", "data", "optim", "run", "fingerprint", "versions")
DAMAGED = "the file is damaged; remove it and report again"


@dataclass
class Track:
    """Scored frames of one face, by time, and some of its crops."""

    clip: str
    name: str
    columns: dict[str, np.ndarray]
    """frame, score, label and, where recorded, head_pose_score, each [n]"""
    faces: list[tuple[int, np.ndarray]]
    """(place in the columns, crop uint8 [h, w, 3])"""


@dataclass
class Mistake:
    """A face that was scored on the wrong side of one half."""

    clip: str
    track: str
    frame: int
    score: float
    label: int
    crop: np.ndarray
    """uint8 [h, w, 3]"""


@dataclass
class Records:
    """What a run's folder holds; a field is empty where there is no file, and `notes` says so in sentences."""

    run: Path
    config: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    train: dict[str, np.ndarray] = field(default_factory=dict)
    """columns by step: step, loss, lr, samples_per_s, waited"""
    val: list[dict[str, Any]] = field(default_factory=list)
    """lines of kind "val" by step"""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """pred/val.npz or pred-flip/val.npz, the run's own; rows of known label only"""
    clips: tuple[str, ...] = ()
    """names of the clips that scores["clip"] numbers; empty where they are not known"""
    tracks: list[Track] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    """those whose crops are at hand"""
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

    @property
    def has_both_classes(self) -> bool:
        """Whether saved scores of both classes are at hand."""
        return {0, 1} <= set(np.unique(self.scores.get("label", ())).tolist())


def read_records(run: Path) -> Records:
    """Read the folder of a training run.

    Raises:
        FileNotFoundError: the folder holds no record at all. ValueError: a record is damaged; the message names it.
    """
    records = Records(run)
    for name in ("config", "status"):
        path = run / f"{name}.json"
        if path.exists():
            setattr(records, name, _checked(path, read_object(path, remedy=DAMAGED)))
        else:
            records.notes.append(f"{path.name} is missing, so the table of facts is short.")
    lines = _lines(run / "metrics.jsonl", records.notes)
    train = [line for line in lines if line.get("kind") == "train"]
    if train:
        for key in ("step", "loss", "lr", "samples_per_s", "waited"):
            records.train[key] = np.array([np.nan if line.get(key) is None else line[key] for line in train], float)
    records.val = [line for line in lines if line.get("kind") == "val"]
    places = [run / folder / name for name in ("val.npz", "val.partial.npz") for folder in (PLAIN, FLIPPED)]
    scored = next((path for path in places if path.exists()), places[0])
    if not (records.config or records.status or lines or scored.exists()):
        raise FileNotFoundError(f"{run}: no config.json, metrics.jsonl, status.json or pred/val.npz -> give the folder "
                                "of a training run (runs/<name>)")
    for about in sorted(run.glob("pred*/*/about*.json")):
        if warning := read_object(about, remedy=AGAIN).get("warning"):
            records.notes.append(f"{about.parent.relative_to(run)}: {str(warning)[:300]}.")
    if scored.exists():
        records.limited = scored.name != "val.npz"
        if scored.parent.name == FLIPPED:
            records.notes.append("Scores are averages of each picture and its mirror image (--flip_average).")
        _read_scores(scored, records)
    return records


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Lines by (kind, step); a resumed run repeats steps, and the last line of a step counts."""
    if not path.exists():
        return []
    objects, broken = read_json_lines(path)
    lines: dict[tuple[str, float], dict[str, Any]] = {}
    for line in objects:
        kind, step = line.get("kind"), line.get("step")
        if kind in ("train", "val") and step is not None and _holds_numbers({**line, "kind": None}):
            lines[kind, step] = line
        else:
            broken += 1
    if broken:
        notes.append(f"{counted(broken, 'line')} of {path.name} could not be read: left out. A run that is stopped may "
                     "leave one.")
    return [lines[key] for key in sorted(lines)]


def _holds_numbers(value: Any) -> bool:
    """Whether a value is a finite number, a truth value or null, or an object of such."""
    if isinstance(value, dict):
        return all(map(_holds_numbers, value.values()))
    return value is None or (isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value))


def _checked(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record, if what is computed with in it is of its kind."""
    def check(values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name in NUMBERS and (isinstance(value, dict) or not _holds_numbers(value)):
                raise ValueError(f"{path}: {name} is {value!r:.80}, not a number -> {DAMAGED}")
            if isinstance(value, dict):
                check(value)

    for name in OBJECTS:
        if name in record and not isinstance(record[name], dict | None):
            raise ValueError(f"{path}: {name} is {record[name]!r:.80}, not an object -> {DAMAGED}")
    check(record)
    return record


def _read_scores(path: Path, records: Records) -> None:
    """Fill scores, tracks and mistakes from a table of scores and the crops that belong to it."""
    columns = read_scores(path, ("row", "score", "label"), AGAIN)
    known = columns["label"] >= 0
    records.scores = {name: column[known] for name, column in columns.items()}
    if not known.all():
        records.notes.append(f"{(~known).sum():,} of {len(known):,} validation faces have no label and are left out.")
    if not {"clip", "track", "frame"} <= columns.keys() or not len(known):
        return
    row, score, label, clip, track, frame = (columns[name] for name in
                                             ("row", "score", "label", "clip", "track", "frame"))
    shown = tracks_to_show(label, score, track, frame)
    under = [faces_to_show(frame[places], label[places]) for places in shown]
    wrong = worst_mistakes(label, score, track, clip, frame)
    crops = ShownFaces()
    places_of_faces = [places[some] for places, some in zip(shown, under, strict=True)]
    try:
        crops = shown_faces(path, row[np.concatenate([*places_of_faces, wrong])])
    except (OSError, EOFError) as error:
        records.notes.append(f"Faces are not shown, because the data set could not be read: {error}")

    def named(place: int) -> tuple[str, str]:
        return clip_name(crops.clips, int(clip[place])), crops.tracks.get(int(track[place]), f"number {track[place]}")

    records.clips, rows = crops.clips, row.tolist()
    for places, some in zip(shown, under, strict=True):
        faces = [(k, crops.crops[rows[places[k]]]) for k in some.tolist() if rows[places[k]] in crops.crops]
        own = {name: columns[name][places] for name in NAMED if name in columns}
        records.tracks.append(Track(*named(places[0]), own, faces))
    records.mistakes = [Mistake(*named(k), int(frame[k]), float(score[k]), int(label[k]), crops.crops[rows[k]])
                        for k in wrong.tolist() if rows[k] in crops.crops]


def clip_name(clips: tuple[str, ...], number: int) -> str:
    """The clip of that number by name, or by number where names are not known."""
    return clips[number] if number < len(clips) else f"number {number}"
