"""Runs: what infer.py left of val and test, read once, checked, and of the same faces in all runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gazepose.evaluation.submission import Face, read_test_csv
from gazepose.io import read_arrays

SPLITS = ("val", "test")
SAME = ("row", "track", "clip", "frame", "label")
COLUMNS = (*SAME, "score", "head_pose", "quality", "size")
REMEDY = "infer both with the same data, policy and stride"
Scores = dict[str, np.ndarray]
"""split -> probability of looking, float64"""


class Run(NamedTuple):
    folder: Path
    faces: dict[str, dict[str, np.ndarray]]
    """split -> columns of the record (predictions.py)"""
    plain: Scores
    averaged: Scores | None
    """over the mirror; None without infer.py --flip_average"""


def record_of(folder: Path, split: str) -> Path:
    return folder / "pred" / f"{split}.npz"


def read_run(folder: Path) -> Run:
    """Raises FileNotFoundError with the command that makes a record that is not there; ValueError naming one that is
    damaged."""
    faces = {}
    for split in SPLITS:
        path = record_of(folder, split)
        again = f"python infer.py --checkpoint {folder} --split {split} --flip_average"
        if not path.is_file():
            part = path.with_name(f"{split}.partial.npz").is_file()
            raise FileNotFoundError(f"{path}: no record of the scores{' of the whole split' if part else ''} -> run "
                                    f"`{again}`")
        columns = read_arrays(path)
        scores = [columns[name] for name in ("score", "score_plain") if name in columns]
        if lost := [name for name in COLUMNS if name not in columns]:
            raise ValueError(f"{path}: no column {', '.join(lost)} -> run `{again}`")
        if any(len(column) != len(columns["row"]) for column in columns.values()):
            raise ValueError(f"{path}: columns of different lengths -> run `{again}`")
        if not all(((score >= 0) & (score <= 1)).all() for score in scores):                  # NaN is not either
            raise ValueError(f"{path}: scores that are no numbers from 0 to 1 -> run `{again}`")
        faces[split] = columns
    averaged = all("score_plain" in faces[split] for split in SPLITS)
    first, second = ({split: np.asarray(faces[split].get(name, faces[split]["score"]), np.float64) for split in SPLITS}
                     for name in ("score_plain", "score"))
    return Run(folder, faces, first, second if averaged else None)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Raises ValueError naming the record whose faces are not those of the first run's; as `read_run` too."""
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        for split in SPLITS:
            ours, others = runs[0].faces[split], run.faces[split]
            here, there = record_of(run.folder, split), record_of(runs[0].folder, split)
            if len(ours["row"]) != len(others["row"]):
                raise ValueError(f"{here}: {len(others['row'])} faces, but {there} has {len(ours['row'])} -> {REMEDY}")
            for name in SAME:
                if len(differing := np.flatnonzero(ours[name] != others[name])):
                    at = differing[0]
                    raise ValueError(f"{here}: face {at} has {name} {others[name][at]}, but {ours[name][at]} in "
                                     f"{there} ({len(differing)} differ) -> {REMEDY}")
    return runs


def names_of_test(run: Run) -> list[Face]:
    """Names of a run's test faces in the order of its record, from the pred.csv that infer.py wrote with it.

    Raises:
        ValueError: the table is of other scores than the record.
    """
    path, score = run.folder / "pred" / "test" / "pred.csv", run.faces["test"]["score"].tolist()
    table = read_test_csv(path)
    if [row[3] for row in table] != score:
        raise ValueError(f"{path}: {len(table)} faces with other scores than {record_of(run.folder, 'test')} has -> "
                         f"run `python infer.py --checkpoint {run.folder} --split test --flip_average`")
    return [row[:3] for row in table]
