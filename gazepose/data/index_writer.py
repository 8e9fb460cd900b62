"""Write an index: its columns, and the table of contents, which one rename of index.json changes.

Whoever writes holds the lock of the folder. Files that a new table of contents does not list stay for GRACE seconds,
because a training may read them. Reading is data/index.py.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.columns import write_column
from gazepose.data.index import (
    COLUMNS,
    FORMAT,
    REQUIRED,
    SHARDS,
    TABLES,
    Entry,
    Index,
    checksums_of,
    digest_of,
    read_contents,
    table_fault,
)
from gazepose.io import lock, sync_folder, write_json
from gazepose.output import inform
from gazepose.text import counted

LOCK = ".lock"               # of an index folder
GRACE = 7 * 24 * 3600        # seconds after which a file that is listed no more is removed


def write_index(folder: Path, *, columns: Mapping[str, np.ndarray], clips: Sequence[str], track_name: Sequence[str],
                track_clip: np.ndarray, track_start: np.ndarray, shards: Sequence[Entry], facts: Mapping[str, Any],
                beside: Callable[[Index], tuple[dict[str, np.ndarray], dict[str, Any]]] | None = None) -> Index:
    """Write an index folder, or replace the index in it, by one rename of index.json.

    Args:
        columns: at least REQUIRED, each [n, ...] as in COLUMNS; rows of a track are neighbours, ascending in frame.
        shards: of each clip its entry; the files lie in FOLDER/clips already. Empty: `columns` has corners instead.
        beside: gives more columns for the new rows, and more facts.

    Raises:
        ValueError: tables and columns do not fit together.
    """
    folder = Path(folder)
    tables = {"track_clip": np.asarray(track_clip, np.int32), "track_start": np.asarray(track_start, np.int64)}
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(f"{folder}: columns missing: {', '.join(missing)}")
    rows = len(columns["frame"])
    ready = {name: typed(folder, rows, name, values) for name, values in columns.items()}
    _check(folder, rows, ready, tables, clips, track_name, shards)
    before = read_contents(folder) if (folder / "index.json").is_file() else None
    contents = {"format": FORMAT, "rows": rows, "facts": dict(facts), "clips": list(clips),
                "track_name": list(track_name), "shards": list(shards), "superseded": {},
                "files": {name: _column(folder, name, values) for name, values in {**tables, **ready}.items()}}
    if beside is not None:
        more, found = beside(Index(folder, contents))
        _put(folder, contents, more)
        contents["facts"] |= found
    _write_contents(folder, contents, before)
    return Index.open(folder)


def add_columns(index: Index, columns: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None,
                source: str | None = None) -> None:
    """Add columns to an index on the disk, or replace them: first new files, then index.json by one rename.

    Args:
        index: whose rows the values are for. facts: new values of some facts, written by the same rename.
        source: where the columns come from, for facts["priors"].

    Raises:
        ValueError: a column is unknown, of another shape, or does not fit its type; or the rows are others by now.
    """
    folder = index.folder
    held = lock(folder / LOCK, inform)
    try:
        before = read_contents(folder)
        if rows_of(before) != rows_of(index.contents):
            raise ValueError(f"{folder}: was prepared again with other rows in the meantime -> run the command again")
        contents = {**before, "files": {**before["files"]}, "facts": {**before["facts"], **(facts or {})}}
        if source is not None:
            contents["facts"]["priors"] = {**contents["facts"].get("priors", {}), **dict.fromkeys(columns, source)}
        _put(folder, contents, columns)
        _write_contents(folder, contents, before)
    finally:
        held.release()


def rows_of(contents: Mapping[str, Any]) -> list[Any]:
    """What says which face each row is."""
    return [contents["clips"], contents["track_name"],
            *(contents["files"][name]["sha256"] for name in (*TABLES, "frame"))]


def _put(folder: Path, contents: dict[str, Any], columns: Mapping[str, np.ndarray]) -> None:
    """Write the files of columns and list them."""
    for name, values in columns.items():
        contents["files"][name] = _column(folder, name, typed(folder, contents["rows"], name, values))


def _column(folder: Path, name: str, values: np.ndarray) -> Entry:
    entry = write_column(folder, name, values.dtype, values.shape, [values])
    return {**entry, "crc32": checksums_of(folder / entry["file"])[0]}


def typed(folder: Path, rows: int, name: str, values: np.ndarray) -> np.ndarray:
    """A column of so many rows, in the type of COLUMNS."""
    if name not in COLUMNS:
        raise ValueError(f"column {name} is unknown: columns are {', '.join(COLUMNS)}")
    values = np.asarray(values)
    dtype, tail = COLUMNS[name]
    if values.shape != (rows, *tail):
        raise ValueError(f"{folder}: {name}: shape {values.shape}, wanted {(rows, *tail)}")
    if name == "unique_id":
        return values.astype(np.bytes_)                                # as wide as the longest, never cut
    if np.issubdtype(dtype, np.integer) and len(values) and (
            not np.issubdtype(values.dtype, np.integer)
            or int(values.min()) < np.iinfo(dtype).min or int(values.max()) > np.iinfo(dtype).max):
        raise ValueError(f"column {name}: values {values.min()}..{values.max()} ({values.dtype}) do not fit "
                         f"{dtype.__name__}")
    column = np.ascontiguousarray(values, dtype)
    if np.issubdtype(dtype, np.floating) and np.isinf(column).any():   # NaN is unknown; this would be learnt from
        row = int(np.argmax(np.isinf(column).reshape(len(column), -1).any(axis=1)))
        raise ValueError(f"column {name}: row {row} is not finite ({column[row]})")
    return column


def _check(folder: Path, rows: int, columns: dict[str, np.ndarray], tables: dict[str, np.ndarray], clips: Sequence[str],
           track_name: Sequence[str], shards: Sequence[Entry]) -> None:
    """Check what every reader relies on, besides the columns' types."""
    start = tables["track_start"]
    if fault := table_fault(tables, rows, len(clips), len(track_name)):
        raise ValueError(f"{folder}: {fault}")
    if len(set(clips)) != len(clips):
        raise ValueError(f"{folder}: a clip occurs twice")
    if "corners" not in columns and len(shards) != len(clips):
        raise ValueError(f"{folder}: {counted(len(shards), 'shard')} for {counted(len(clips), 'clip')}")
    inside = np.ones(rows, bool)
    inside[start[start < rows]] = False                                # the first row of a track may fall
    for name in sorted({"frame", "position"} & set(columns)):
        falls = np.flatnonzero(inside[1:] & (np.diff(columns[name]) < 0))
        if len(falls):
            raise ValueError(f"{folder}: row {falls[0] + 1}: {name}s of a track must ascend")
    if rows and "corners" not in columns:
        clip = np.repeat(tables["track_clip"], np.diff(start))
        ends = columns["offset"].astype(np.int64) + columns["length"]
        beyond = np.flatnonzero(ends > np.array([shard["bytes"] for shard in shards], np.int64)[clip])
        if len(beyond):
            raise ValueError(f"{folder}: row {beyond[0]}: its crop ends at byte {ends[beyond[0]]}, past its shard")


def _listed(contents: Mapping[str, Any]) -> set[str]:
    """Names of all files of an index, within its folder."""
    return {entry["file"] for entry in contents["files"].values()} | {
        f"{SHARDS}/{shard['file']}" for shard in contents["shards"]}


def _write_contents(folder: Path, contents: dict[str, Any], before: Mapping[str, Any] | None) -> None:
    """Write index.json atomically. The fingerprint is a SHA-256 over names, tables, columns and shards.

    Args:
        before: the contents that it replaces. Files that only these list are removed GRACE seconds later.
    """
    digests = [entry["sha256"] for _, entry in sorted(contents["files"].items())]
    digests += [entry["sha256"] for entry in contents["shards"]]
    named = json.dumps([contents["clips"], contents["track_name"], sorted(contents["files"]), digests])
    now, old = time.time(), dict(before["superseded"]) if before else {}
    for name in _listed(before) if before else ():
        old.setdefault(name, now)
    due = {name for name, since in old.items() if since <= now - GRACE} - _listed(contents)
    contents = {**contents, "facts": {**contents["facts"], "fingerprint": hashlib.sha256(named.encode()).hexdigest()},
                "superseded": {name: old[name] for name in sorted(old.keys() - _listed(contents) - due)}}
    write_json(folder / "index.json", {**contents, "sha256": digest_of(contents)}, indent=None)
    sync_folder(folder)
    for name in due:
        (folder / name).unlink(missing_ok=True)
