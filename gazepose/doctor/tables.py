"""Tables of priors (and of the embedded world's gaze): do their rows meet faces, and are their values possible?"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.conventions import FEW, of_prior
from gazepose.data.index import COLUMNS, PRIORS
from gazepose.data.join import face_keys, match_keys, number_names
from gazepose.doctor.checks import Findings, Place
from gazepose.doctor.media import Faces
from gazepose.io import read_arrays
from gazepose.text import counted

JOINED = {"priors": tuple(PRIORS), "truth": ("gaze",)}
ANGLE, AROUND = 99.0, 0.5    # degrees a pose network can give; how far outside the crop a landmark may lie, in crops
NO_TRACK, NO_CLIP = -1, -2   # in place of a track's number
Table = dict[str, np.ndarray]


def check_table(root: Path, kind: str, split: str, faces: Faces, findings: Findings) -> dict[str, Any] | None:
    """Facts of DATA/<kind>/<split>.npz; None where it is not there, or cannot be used (then there is a finding)."""
    path = root / kind / f"{split}.npz"
    place: Place = {"split": split, "file": f"{kind}/{split}.npz"}
    table: Table = {}
    if path.is_file():
        with findings.catching("file_unusable", "table of priors", path, **place):
            content = read_arrays(path, ("clip", "track", "frame", *JOINED[kind]))
            _check_columns(content)
            table = content
    if not table:
        return None

    def where(row: int) -> Place:
        return {**place, "clip": str(table["clip"][row]), "track": str(table["track"][row]),
                "frame": int(table["frame"][row])}

    clips, tracks = {clip for clip, _ in faces}, {name: number for number, name in enumerate(faces)}
    names, number = number_names(table["clip"], table["track"])
    track_of_name = [tracks.get(name, NO_TRACK if name[0] in clips else NO_CLIP) for name in names]
    track = np.array(track_of_name, np.int64)[number]
    key = face_keys(track, table["frame"])
    clean, baseline = (np.concatenate([np.zeros(0, np.int64), *(
        face_keys(np.full(len(frames[policy]), number), frames[policy])
        for number, frames in enumerate(faces.values()))]) for policy in (0, 1))
    in_clean, in_baseline = match_keys(key, clean), match_keys(key, baseline)
    joined = in_clean.known | in_baseline.known
    for what, stray in (("no such clip in this split", track == NO_CLIP), ("no such track", track == NO_TRACK),
                        ("no face in that frame", (track >= 0) & ~joined)):
        findings.add_rows("prior_without_face", np.flatnonzero(stray), what, where)
    twice = np.flatnonzero(in_clean.twice | in_baseline.twice)
    findings.add_rows("face_twice", twice, "row of a table", where)
    facts: dict[str, Any] = {"rows": len(key), "joined": int(joined.sum()), "columns": {}}
    for name in (name for name in JOINED[kind] if name in table):
        known = ~np.isnan(table[name].reshape(len(key), -1)).all(axis=1)
        covered = len(np.unique(key[known & in_clean.known]))
        if fault := of_prior(name, table[name]):
            findings.add("convention", what="prior", **place, detail=f"{name} {fault}")
            findings.levels["convention"] = "must"                     # preparation stops at it
        elif 0 < known.sum() < FEW:
            findings.add("convention_unjudged", what="prior", **place,
                         detail=f"{name}: too few to judge: {counted(known.sum(), 'face')}, {FEW} are needed")
        for what, wrong in _out_of_range(name, table[name]).items():
            findings.add_rows("prior_out_of_range", np.flatnonzero(wrong), f"{name}: {what}", where)
        facts["columns"][name] = {"known": int(known.sum()), "faces": len(clean), "covered": covered,
                                  "coverage": round(covered / len(clean), 4) if len(clean) else None}
    return facts


def _check_columns(table: Table) -> None:
    missing = [name for name in ("clip", "track", "frame") if name not in table]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    if not np.issubdtype(table["frame"].dtype, np.integer):
        raise ValueError(f"frame is {table['frame'].dtype}, not whole numbers")
    rows = len(table["clip"])
    for name, values in table.items():
        shape = (rows, *(COLUMNS[name][1] if name in COLUMNS else ()))
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, wanted {shape}")
        if name in COLUMNS and not np.issubdtype(values.dtype, np.number):
            raise ValueError(f"{name} holds {values.dtype}, not numbers")


def _out_of_range(name: str, values: np.ndarray) -> dict[str, Any]:
    """What is wrong -> which rows, bool [n]; NaN is unknown, never wrong."""
    if name == "head_pose":
        return {f"an angle beyond {ANGLE:g} degrees": (np.abs(values) > ANGLE).any(axis=1)}
    if name == "gaze":
        return {"an angle beyond pi": (np.abs(values) > math.pi + 1e-3).any(axis=1)}
    if name != "landmarks":
        return {}
    place, confidence = values[..., :2], values[..., 2]
    return {"a place far outside the crop": ((place < -AROUND) | (place > 1 + AROUND)).any(axis=(1, 2)),
            "a confidence outside 0..1": ((confidence < 0) | (confidence > 1)).any(axis=1)}
