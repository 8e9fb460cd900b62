"""The index: one row per face in a frame, one memory-mapped file per column. It is the data set.

Rows of one track are neighbours, ascending in frame. Names (clip, track, unique id) are looked up when data comes in
and when results go out; in between a face is its int64 row. Where its pixels lie is (shard, offset, length); the bytes
are data/shards.py.

A folder that has its name is whole. index.json is its table of contents, and a column counts only if it is listed
there, so columns are added by one rename of index.json.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.shards import Shards, decode
from gazepose.io import (
    is_id,
    map_array,
    read_object,
    sha256_of,
    sync_folder,
    write_column,
    write_json,
    writing_folder,
)

FORMAT = 1
Columns = dict[str, tuple[type, tuple[int, ...]]]                     # name -> dtype, shape of one row
PRIORS: Columns = {"head_pose": (np.float32, (3,)), "landmarks": (np.float32, (5, 3))}  # models.queries.Priors
COLUMNS: Columns = {
    "frame": (np.int32, ()), "box": (np.float32, (4,)), "label": (np.int8, ()),
    "offset": (np.uint32, ()), "length": (np.uint32, ()),
    "quality": (np.float32, ()), **PRIORS,
    "gaze": (np.float32, (2,)), "quality_p": (np.float32, ()), "unique_id": (np.bytes_, ()),
    "position": (np.int32, ()), "black": (np.bool_, ()), "corners": (np.int32, (4,)),
}
REQUIRED = ("frame", "box", "label", "offset", "length")
TABLES = ("track_clip", "track_start", "clip_shard", "clip_base")
CONTENTS = {"rows": int, "facts": dict, "clips": list, "track_name": list, "files": dict, "shards": list}
REMEDY = "delete the folder and run `python -m gazepose prepare` again"


class Index:
    """Read side of an index folder. Opens in milliseconds, pickles as its folder, shares its pages with all workers.

    Columns have one entry per row. NaN is unknown; a column that the folder lacks is unknown throughout. Rows of track
    t are track_start[t]:track_start[t + 1]. Two pieces of one split track have the same name. A row's crop starts at
    byte clip_base[clip] + offset[row] of shard clip_shard[clip].

    Attributes:
        folder, facts: where it is, and what it was made from: split, policy, crop_size, decoder, fingerprint,
            quality_fit {"mean", "std"} or None, counts; priors: column -> its source, if not preparation.
        clips, track_name: names of all clips, and of all tracks.
        columns: names of those in the folder.
    """

    frame: np.ndarray                    # number in the clip
    box: np.ndarray                      # x1, y1, x2, y2 in pixels
    label: np.ndarray                    # 1 looking, 0 not, -1 unknown
    offset: np.ndarray                   # bytes
    length: np.ndarray                   # bytes
    quality: np.ndarray                  # Laplacian variance
    quality_p: np.ndarray                # given with the data, in 0..1
    head_pose: np.ndarray                # yaw, pitch, roll in degrees; signs as in priors/head_pose.py
    landmarks: np.ndarray                # five points of x, y, confidence
    gaze: np.ndarray                     # yaw, pitch in radians
    unique_id: np.ndarray | None         # bytes
    position: np.ndarray                 # in the cleaned track, frames without a crop included; absent: crops alone
    black: np.ndarray                    # all pixels are black, as of a face outside the picture; absent: False
    corners: np.ndarray                  # x1, y1, x2, y2 in the picture, where no shard holds the crop; absent: None
    track_clip: np.ndarray               # number of the clip, int32 [tracks]
    track_start: np.ndarray              # row, int64 [tracks + 1]
    track_position: np.ndarray           # number of positions in all tracks before, int64 [tracks + 1]
    clip_shard: np.ndarray               # int32 [clips]
    clip_base: np.ndarray                # int64 [clips]

    def __init__(self, folder: Path, contents: dict[str, Any]) -> None:
        self.folder = folder
        self.contents = contents
        self.facts: dict[str, Any] = contents["facts"]
        self.clips: list[str] = contents["clips"]
        self.track_name: list[str] = contents["track_name"]
        self.rows: int = contents["rows"]
        self.columns = [name for name in COLUMNS if name in contents["files"]]
        for name in TABLES:
            setattr(self, name, _load(folder, contents, name, mapped=False))
        if fault := _table_fault(vars(self), self.rows, len(self.clips), len(self.track_name), len(contents["shards"])):
            raise ValueError(f"{folder}: {fault} -> {REMEDY}")
        for name, (dtype, tail) in COLUMNS.items():
            if name in contents["files"]:
                column = _load(folder, contents, name)
                if column.shape != (self.rows, *tail) or not np.issubdtype(column.dtype, dtype):
                    raise ValueError(f"{folder}: {name}: {column.dtype} {column.shape}, wanted {dtype.__name__} "
                                     f"{(self.rows, *tail)} -> {REMEDY}")
            elif name == "position":
                column = np.arange(self.rows, dtype=dtype) - np.repeat(self.track_start[:-1], np.diff(self.track_start))
            else:
                unknown = {"unique_id": None, "corners": None, "black": np.False_}.get(name, np.nan)
                column = None if unknown is None else np.broadcast_to(dtype(unknown), (self.rows, *tail))
            setattr(self, name, column)
        filled = np.diff(self.track_start) > 0
        positions = np.zeros(len(filled), np.int64)
        positions[filled] = self.position[self.track_start[1:][filled] - 1] + 1
        self.track_position = np.r_[0, np.cumsum(positions)]
        self.shards = Shards([folder / shard["file"] for shard in contents["shards"]])

    @classmethod
    def open(cls, folder: str | Path) -> "Index":
        """Open a folder.

        Raises:
            FileNotFoundError: no index; names the folder and the command that makes it. ValueError: it is not whole.
            EOFError: a shard is shorter than it was.
        """
        folder = Path(folder)
        contents = _contents(folder)
        for shard in contents["shards"]:
            path = folder / shard["file"]
            if not path.is_file():
                raise FileNotFoundError(f"{path}: this shard of the index is gone -> {REMEDY}")
            if path.stat().st_size < shard["bytes"]:
                raise EOFError(f"{path}: {path.stat().st_size} bytes, written with {shard['bytes']}: cut short "
                               f"-> {REMEDY}")
        return cls(folder, contents)

    def __len__(self) -> int:
        return self.rows

    def __reduce__(self) -> tuple[Any, tuple[Path]]:                  # to a spawned worker: the folder, not the pages
        return Index.open, (self.folder,)

    def track_of(self, rows: np.ndarray | int) -> np.ndarray:
        """Number of the track each row belongs to, int64 like rows."""
        return np.searchsorted(self.track_start, rows, side="right") - 1

    def where(self, rows: np.ndarray | int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(shard, byte, length) of each row's crop, int64 like rows."""
        clip = self.track_clip[self.track_of(rows)]
        return (self.clip_shard[clip].astype(np.int64), self.clip_base[clip] + self.offset[rows],
                self.length[rows].astype(np.int64))

    def name_of(self, row: int) -> str:
        """"clip X track Y frame Z" for messages."""
        track = int(self.track_of(row))
        return f"clip {self.clips[self.track_clip[track]]} track {self.track_name[track]} frame {self.frame[row]}"

    def jpeg(self, row: int) -> bytes:
        """The crop's bytes.

        Raises:
            EOFError: the shard ends inside it.
        """
        if not 0 <= row < self.rows:
            raise IndexError(f"{self.folder}: row {row}: the index has {self.rows} rows")
        shard, offset, length = self.where(row)
        return self.shards.read(int(shard), int(offset), int(length))

    def crop(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """The crop, uint8 [S, S, 3] RGB, into `out` when given.

        Raises:
            ValueError: it is damaged; names folder, row, clip, track and frame.
        """
        try:
            return decode(self.jpeg(row), out)
        except ValueError as error:
            raise ValueError(f"{self.folder}: row {row} ({self.name_of(row)}): {error} -> {REMEDY}") from error

    def verify(self) -> None:
        """Read everything once.

        Raises:
            ValueError: naming the first file whose SHA-256 is not the recorded one.
        """
        for entry in [*self.contents["files"].values(), *self.contents["shards"]]:
            if sha256_of(self.folder / entry["file"]) != entry["sha256"]:
                raise ValueError(f"{self.folder / entry['file']}: its bytes changed since it was written "
                                 f"(SHA-256 differs) -> {REMEDY}")


def write_index(folder: Path, *, columns: Mapping[str, np.ndarray], clips: Sequence[str], track_name: Sequence[str],
                track_clip: np.ndarray, track_start: np.ndarray, clip_shard: np.ndarray, clip_base: np.ndarray,
                shards: Sequence[Path], facts: Mapping[str, Any]) -> Index:
    """Write an index folder atomically. The shard files are moved into it.

    Args:
        columns: at least REQUIRED, each [n, ...] as in COLUMNS; rows of a track are neighbours, ascending in frame.

    Raises:
        FileExistsError: the folder is there. ValueError: tables and columns do not fit together.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: there is an index already -> delete it to make it again")
    tables = {"track_clip": np.asarray(track_clip, np.int32), "track_start": np.asarray(track_start, np.int64),
              "clip_shard": np.asarray(clip_shard, np.int32), "clip_base": np.asarray(clip_base, np.int64)}
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(f"{folder}: columns missing: {', '.join(missing)}")
    rows = len(columns["frame"])
    typed = {name: _typed(folder, rows, name, values) for name, values in columns.items()}
    _check(folder, rows, typed, tables, clips, track_name, shards)
    with writing_folder(folder) as part:
        contents: dict[str, Any] = {
            "format": FORMAT, "rows": rows, "facts": dict(facts), "clips": list(clips), "track_name": list(track_name),
            "files": {name: _save(part, name, values) for name, values in {**tables, **typed}.items()}, "shards": []}
        for number, path in enumerate(shards):
            entry = {"file": f"shard-{number:05d}.bin", "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            shutil.move(path, part / entry["file"])
            contents["shards"].append(entry)
        _write_contents(part, contents)
    return Index.open(folder)


def add_columns(folder: str | Path, columns: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> None:
    """Add columns, or replace them: first new files, then index.json by one rename. Old files are deleted last.

    Args:
        facts: new values of some facts, written by the same rename.

    Raises:
        ValueError: a column is unknown, of another shape, or does not fit its type.
    """
    folder = Path(folder)
    contents = _contents(folder)
    contents["facts"].update(facts or {})
    old = [contents["files"][name]["file"] for name in columns if name in contents["files"]]
    for name, values in columns.items():
        contents["files"][name] = _save(folder, name, _typed(folder, contents["rows"], name, values))
    _write_contents(folder, contents)
    for file in set(old) - {entry["file"] for entry in contents["files"].values()}:
        (folder / file).unlink()


def _typed(folder: Path, rows: int, name: str, values: np.ndarray) -> np.ndarray:
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
    typed = np.ascontiguousarray(values, dtype)
    if np.issubdtype(dtype, np.floating) and np.isinf(typed).any():    # NaN is unknown; this would be learnt from
        row = int(np.argmax(np.isinf(typed).reshape(len(typed), -1).any(axis=1)))
        raise ValueError(f"column {name}: row {row} is not finite ({typed[row]})")
    return typed


def _check(folder: Path, rows: int, columns: dict[str, np.ndarray], tables: dict[str, np.ndarray], clips: Sequence[str],
           track_name: Sequence[str], shards: Sequence[Path]) -> None:
    """Check what every reader relies on, besides the columns' types."""
    start = tables["track_start"]
    if fault := _table_fault(tables, rows, len(clips), len(track_name), len(shards)):
        raise ValueError(f"{folder}: {fault}")
    if len(set(clips)) != len(clips):
        raise ValueError(f"{folder}: a clip occurs twice")
    inside = np.ones(rows, bool)
    inside[start[start < rows]] = False                                # the first row of a track may fall
    for name in sorted({"frame", "position"} & set(columns)):
        falls = np.flatnonzero(inside[1:] & (np.diff(columns[name]) < 0))
        if len(falls):
            raise ValueError(f"{folder}: row {falls[0] + 1}: {name}s of a track must ascend")
    if rows and "corners" not in columns:
        clip = np.repeat(tables["track_clip"], np.diff(start))
        ends = tables["clip_base"][clip] + columns["offset"] + columns["length"]
        sizes = np.array([Path(path).stat().st_size for path in shards], np.int64)
        beyond = np.flatnonzero(ends > sizes[tables["clip_shard"][clip]])
        if len(beyond):
            raise ValueError(f"{folder}: row {beyond[0]}: its crop ends at byte {ends[beyond[0]]}, past its shard")


def _table_fault(tables: Mapping[str, np.ndarray], rows: int, clips: int, tracks: int, shards: int) -> str:
    """What is wrong with the tables that lead from a row to its clip and shard; "" if nothing is."""
    expected = {"track_clip": (tracks, clips), "track_start": (tracks + 1, rows + 1),
              "clip_shard": (clips, max(shards, 1)), "clip_base": (clips, 1 << 62)}
    for name, (length, top) in expected.items():
        table = tables[name]
        if table.shape != (length,) or not np.issubdtype(table.dtype, np.integer):
            return f"{name}: {table.dtype} {table.shape}, whole numbers {(length,)} are wanted"
        if length and not 0 <= table.min() <= table.max() < top:
            return f"{name}: numbers {table.min()} to {table.max()}, within 0 and {top - 1} is wanted"
    start = tables["track_start"]
    if start[0] != 0 or start[-1] != rows or (np.diff(start) < 0).any():
        return f"track_start must rise from 0 to {rows}, the number of rows"
    return ""


def _contents(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no index here (index.json is missing) -> make it with "
                                "`python -m gazepose prepare`")
    contents = read_object(path, remedy=REMEDY)
    if contents.get("format") != FORMAT:
        raise ValueError(f"{path}: format {contents.get('format')}, this version reads {FORMAT} -> {REMEDY}")
    if missing := set(CONTENTS) - set(contents):
        raise ValueError(f"{path}: lacks {', '.join(sorted(missing))} -> {REMEDY}")
    wrong = [name for name, kind in CONTENTS.items() if type(contents[name]) is not kind]
    if not wrong:
        files, shards = contents["files"], contents["shards"]
        wrong += ["a file's entry" for entry in [*files.values(), *shards] if not _is_entry(entry)]
        wrong += ["a shard's size" for shard in shards if not wrong and type(shard.get("bytes")) is not int]
        wrong += [f"no {name}" for name in (*TABLES, *REQUIRED) if name not in files]
        wrong += ["the name of a clip or track" for name in chain(contents["clips"], contents["track_name"])
                  if not is_id(name)]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} is not as this version writes it -> {REMEDY}")
    return contents


def _is_entry(entry: Any) -> bool:
    """A file of the folder itself, with its checksum: no name leads out of the folder."""
    return isinstance(entry, dict) and is_id(entry.get("file")) and isinstance(entry.get("sha256"), str)


def _write_contents(folder: Path, contents: dict[str, Any]) -> None:
    """Write index.json atomically. The fingerprint is a SHA-256 over names, tables, columns and shards."""
    digests = [entry["sha256"] for _, entry in sorted(contents["files"].items())]
    digests += [entry["sha256"] for entry in contents["shards"]]
    named = json.dumps([contents["clips"], contents["track_name"], sorted(contents["files"]), digests])
    contents["facts"]["fingerprint"] = hashlib.sha256(named.encode()).hexdigest()
    write_json(folder / "index.json", contents, indent=None)
    sync_folder(folder)


def _save(folder: Path, name: str, values: np.ndarray) -> dict[str, Any]:
    """Write a column. Its checksum in the name keeps a new version from overwriting the one in use."""
    path, digest = write_column(folder, name, values.dtype, values.shape, [values])
    return {"file": path.name, "sha256": digest}


def _load(folder: Path, contents: dict[str, Any], name: str, mapped: bool = True) -> np.ndarray:
    path = folder / contents["files"][name]["file"]
    try:
        if mapped and contents["rows"]:
            return map_array(path)
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:                           # damaged bytes make numpy raise anything
        raise ValueError(f"{path}: not a whole column ({error}) -> {REMEDY}") from error
