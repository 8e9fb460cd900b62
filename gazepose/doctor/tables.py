"""Tables of priors (and of the embedded world's gaze): do their rows meet faces, and are their values possible?"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.index import COLUMNS, PRIORS
from gazepose.doctor.checks import Findings, Place
from gazepose.doctor.crops import Faces
from gazepose.io import read_arrays

JOINED = {"priors": tuple(PRIORS), "truth": ("gaze",)}
ANGLE, AROUND = 99.0, 0.5    # degrees a pose network can give; how far outside the crop a landmark may lie, in crops


def examine_table(root: Path, kind: str, split: str, faces: Faces, findings: Findings) -> dict[str, Any] | None:
    """Facts of DATA/<kind>/<split>.npz; None where it is not there.

    Args:
        faces: frames of each clip and track under clean, and under baseline.
    """
    path = root / kind / f"{split}.npz"
    place: Place = {"split": split, "file": f"{kind}/{split}.npz"}
    if not path.is_file():
        return None
    try:
        table = read_arrays(path, ("clip", "track", "frame", *JOINED[kind]))
    except ValueError as error:
        findings.add("table_unusable", **place, detail=f"not readable: {str(error).removeprefix(f'{path}: ')}")
        return None
    if complaint := _complaint(table):
        findings.add("table_unusable", **place, detail=complaint)
        return None
    number = {name: n for n, name in enumerate(faces)}
    row_track = _numbers(table, number)
    key = (row_track << 32) + table["frame"].astype(np.int64)
    clean, baseline = (_keys(faces, policy) for policy in (0, 1))
    in_clean = (row_track >= 0) & np.isin(key, clean)
    joined = in_clean | (row_track >= 0) & np.isin(key, baseline)
    _report_strays(table, ~joined, {clip for clip, _ in faces}, set(faces), place, findings)
    order = np.argsort(key, kind="stable")
    twice = order[1:][(key[order][1:] == key[order][:-1]) & (row_track[order][1:] >= 0)]
    findings.add_rows("prior_twice", twice, lambda row: _at(table, row, place))
    facts: dict[str, Any] = {"rows": len(key), "joined": int(joined.sum()), "columns": {}}
    for name in (name for name in JOINED[kind] if name in table):
        values = table[name].reshape(len(key), -1)
        known = ~np.isnan(values).all(axis=1)
        covered = len(np.unique(key[known & in_clean]))
        for what, wrong in _wrong(name, table[name]):
            findings.add_rows("prior_out_of_range", np.flatnonzero(wrong),
                              partial(_at, table, place={**place, "detail": f"{name}: {what}"}))
        facts["columns"][name] = {"known": int(known.sum()), "faces": len(clean), "covered": covered,
                                  "coverage": round(covered / len(clean), 4) if len(clean) else None}
    return facts


def _complaint(table: dict[str, np.ndarray]) -> str:
    missing = [name for name in ("clip", "track", "frame") if name not in table]
    if missing:
        return f"lacks {', '.join(missing)}"
    if not np.issubdtype(table["frame"].dtype, np.integer):
        return f"frame is {table['frame'].dtype}, not whole numbers"
    rows = len(table["clip"])
    for name, values in table.items():
        wanted = (rows, *(COLUMNS[name][1] if name in COLUMNS else ()))
        if values.shape != wanted:
            return f"{name} has shape {values.shape}, wanted {wanted}"
        if name in COLUMNS and not np.issubdtype(values.dtype, np.number):
            return f"{name} holds {values.dtype}, not numbers"
    return ""


def _wrong(name: str, values: np.ndarray) -> list[tuple[str, Any]]:
    """(what is wrong, which rows); NaN is unknown, never wrong."""
    with np.errstate(invalid="ignore"):
        if name == "head_pose":
            return [(f"an angle beyond {ANGLE:g} degrees", (np.abs(values) > ANGLE).any(axis=1))]
        if name == "gaze":
            return [("an angle beyond pi", (np.abs(values) > math.pi + 1e-3).any(axis=1))]
        if name != "landmarks":
            return []
        place, confidence = values[..., :2], values[..., 2]
        return [("a place far outside the crop", ((place < -AROUND) | (place > 1 + AROUND)).any(axis=(1, 2))),
                ("a confidence outside 0..1", ((confidence < 0) | (confidence > 1)).any(axis=1))]


def _numbers(table: dict[str, np.ndarray], number: dict[tuple[str, str], int]) -> np.ndarray:
    """The track of each row, int64, -1 for none of ours; names are looked up once per run of equal ones."""
    clip, track = table["clip"], table["track"]
    if not len(clip):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, (clip[1:] != clip[:-1]) | (track[1:] != track[:-1])])
    known = np.array([number.get((str(clip[start]), str(track[start])), -1) for start in starts], np.int64)
    return np.repeat(known, np.diff(np.r_[starts, len(clip)]))


def _keys(faces: Faces, policy: int) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(
        (number << 32) + frames[policy] for number, frames in enumerate(faces.values()))])


def _report_strays(table: dict[str, np.ndarray], stray: np.ndarray, clips: set[str], tracks: set[tuple[str, str]],
                   place: Place, findings: Findings) -> None:
    def where(row: int) -> Place:
        clip, track = str(table["clip"][row]), str(table["track"][row])
        why = ("no such clip in this split" if clip not in clips else "no such track" if (clip, track) not in tracks
               else "no face in that frame")
        return _at(table, row, {**place, "detail": why})

    findings.add_rows("prior_without_face", np.flatnonzero(stray), where)


def _at(table: dict[str, np.ndarray], row: int, place: Place) -> Place:
    return {**place, "clip": str(table["clip"][row]), "track": str(table["track"][row]),
            "frame": int(table["frame"][row])}
