"""Predictions: scores by row become pred.csv, with names from the index, and a table of scores for later reading.

RUN/pred/ holds the run's own: its best weights, its data, its settings; RUN/pred-flip/ the same with flip averaging.
Others get a folder of their own beside them. In each, val/about.json says what the scores were made with. Beside the
table val.npz stands val.source.json, which says of which index its rows are.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.index import Index
from gazepose.evaluation.metrics import head_pose_scores
from gazepose.evaluation.submission import Face, write_test_csv, write_val_csv
from gazepose.io import read_arrays, read_object, write_arrays, write_json

MAX_SCORES = 2 << 30         # bytes of a table of scores, unpacked: about 25 million faces
PLAIN, FLIPPED = "pred", "pred-flip"
"""folders of a run's own predictions: of the picture, and averaged with its mirror image (--flip_average)"""
WHOLE = ("row", "track", "clip", "frame", "label")


def names(index: Index, rows: np.ndarray) -> list[tuple[str, str]]:
    """(clip, track) of each row."""
    track = index.track_of(rows)
    return [(index.clips[index.track_clip[t]], index.track_name[t]) for t in track.tolist()]


def faces(index: Index, rows: np.ndarray) -> list[Face]:
    """(video_id, unique_id, track_id) of each row of a test index: a face's name in a submission.

    Raises:
        ValueError: the index has no unique ids.
    """
    if index.unique_id is None:
        raise ValueError(f"{index.folder}: there are no unique ids, so this is not a test set -> name "
                         "the prepared folder of the test split, or run `python -m gazepose infer --split test`")
    return [(clip, unique.decode(), track) for (clip, track), unique in
            zip(names(index, rows), index.unique_id[rows].tolist(), strict=True)]


def predictions_folder(home: Path, index: Index, settings: Mapping[str, Any], usual: Mapping[str, Any], *,
                       own_data: bool, weights: str | None, flip_average: bool) -> Path:
    """Where predictions go: HOME/pred or HOME/pred-flip; HOME/pred-<data>-<checkpoint>-<digest>, or pred-flip-..., if
    HOME is a run and they are not its own.

    Args:
        index: of the split that is scored.
        settings: what the scores depend on, by name; usual: the same of the run's own predictions.
        own_data: the index is of the run's data set. weights: name of a checkpoint that is not the run's best.
    """
    name = FLIPPED if flip_average else PLAIN
    other = {setting: value for setting, value in settings.items() if value != usual[setting]}
    if not own_data:
        other["data"] = str(index.folder.parent.resolve())
    if weights is not None:
        other["checkpoint"] = weights
    if not other or not (home / "status.json").exists():
        return home / name
    digest = hashlib.sha256(json.dumps(other, sort_keys=True, default=str).encode()).hexdigest()[:8]
    data = index.folder.resolve().parents[2].name
    parts = [name, data[:60], *([weights] if weights is not None else []), digest]
    return home / re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(parts))


def record_of(run: Path, split: str) -> Path:
    """The table of a run's own scores of a split: with flip averaging if the run was scored so."""
    return run / (FLIPPED if (run / FLIPPED).is_dir() else PLAIN) / f"{split}.npz"


def write_about(path: Path, facts: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Write what predictions were made with, and return what that changes in an older file: name -> both values."""
    older = read_object(path) if path.exists() else {}
    write_json(path, facts)
    new = json.loads(json.dumps(facts))
    return {name: [older[name], value] for name, value in new.items() if name in older and older[name] != value}


def write_csv(path: Path, index: Index, rows: np.ndarray, label: np.ndarray, score: np.ndarray) -> None:
    """Write pred.csv of a split in the form of the original guide: val with a header and labels, test without."""
    if index.facts["split"] == "test":
        write_test_csv(path, [(*face, value) for face, value in zip(faces(index, rows), score.tolist(), strict=True)])
    else:
        table = zip(names(index, rows), index.frame[rows].tolist(), index.box[rows].tolist(), label.tolist(),
                    score.tolist(), strict=True)
        write_val_csv(path, [(clip, track, frame, *box, known, value)
                             for (clip, track), frame, box, known, value in table])


def save_scores(folder: Path, index: Index, rows: np.ndarray, label: np.ndarray, score: np.ndarray, partial: str = "",
                plain: np.ndarray | None = None, head_pose_fit: Sequence[float] | None = None) -> None:
    """Write <split>.npz, which the report, sweeps and ensembles read, and <split>.source.json beside it.

    Args:
        label: of each row, -1 unknown; of an embedded world's test set it is known, though its index has none.
        partial: comes into the files' names when the rows are limited.
        plain: the scores without the mirror, where `score` is an average with it; becomes the column score_plain.
        head_pose_fit: weights of `metrics.fit_head_pose`; with them there is a column head_pose_score.
    """
    box, pose = np.asarray(index.box[rows]), np.asarray(index.head_pose[rows])
    track = index.track_of(rows)
    columns = {"row": rows, "score": score, "label": label, "frame": np.asarray(index.frame[rows]), "track": track,
               "clip": index.track_clip[track], "head_pose": pose, "quality": np.asarray(index.quality[rows]),
               "size": box[:, 3] - box[:, 1]}
    if plain is not None:
        columns["score_plain"] = plain
    if head_pose_fit is not None:
        columns["head_pose_score"] = head_pose_scores(head_pose_fit, pose)
    path = folder / f"{index.facts['split']}{partial}.npz"
    write_arrays(path, columns, compressed=True)
    source = {"index": str(index.folder.resolve()), "fingerprint": index.facts["fingerprint"]}
    write_json(beside(path, "source.json"), source)


def read_scores(path: Path, columns: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
    """A table of scores as `save_scores` wrote it: numbers, all columns of one length, scores from 0 to 1.

    Args:
        columns: those that must be there.

    Raises:
        FileNotFoundError; ValueError naming the file and the first column that is otherwise, with the remedy.
    """
    table = read_arrays(path, most=MAX_SCORES)
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{path}: no column {', '.join(missing)} -> {remedy}")
    shapes = {name: column.shape for name, column in table.items()}
    rows = shapes.get("row") or next(iter(shapes.values()), ())
    if any(shape[1:] != ((3,) if name == "head_pose" else ()) or shape[:1] != rows for name, shape in shapes.items()):
        raise ValueError(f"{path}: its columns differ in length, or are no columns -> {remedy}")
    for name, column in table.items():
        if column.dtype.kind not in ("iu" if name in WHOLE else "iufb"):
            raise ValueError(f"{path}: {name} is {column.dtype}, not {'whole ' * (name in WHOLE)}numbers -> {remedy}")
        if name in ("row", "track", "clip") and (column < 0).any():
            raise ValueError(f"{path}: {name} {column.min()} is below 0 -> {remedy}")
        if name in ("score", "score_plain") and not ((column >= 0) & (column <= 1)).all():       # false for NaN too
            raise ValueError(f"{path}: scores that are no numbers from 0 to 1 -> {remedy}")
    return table


def refuse_links(run: Path, split: str) -> None:
    """Raises ValueError: a folder of predictions of a run, or the split's folder in it, is a link: what it leads to is
    not the run's."""
    for folder in run.glob("pred*"):
        for path in (folder, folder / split):
            if path.is_symlink():
                raise ValueError(f"{path}: is a link, and results are not written through one -> remove the link, or "
                                 "give another folder with --exp_path")


def beside(scores: Path, end: str) -> Path:
    """val.npz and "source.json" -> val.source.json."""
    return scores.with_name(f"{scores.name.removesuffix('.npz')}.{end}")
