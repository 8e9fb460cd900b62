"""The index: one row per face in a frame, one memory-mapped file per column. It is the data set.

Rows of one track are neighbours, ascending in frame. Names (clip, track, unique id) are looked up when data comes in
and when results go out; in between a face is its int64 row. Its pixels lie in the shard of its clip at (offset,
length); the bytes are data/shards.py.

index.json is the table of contents. A column or shard counts only if it is listed there, with its SHA-256.
Writing is data/index_writer.py.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.columns import map_array
from gazepose.data.shards import Shards, decode
from gazepose.io import is_id, open_regular, read_object, sha256_of
from gazepose.text import counted

FORMAT = 2
SHARDS = "clips"             # the folder of the shards
PIECE = 16 << 20             # bytes of a column that have a checksum
Columns = dict[str, tuple[type, tuple[int, ...]]]                     # name -> dtype, shape of one row
PRIORS: Columns = {"head_pose": (np.float32, (3,)), "landmarks": (np.float32, (5, 3))}  # models.queries.Priors
COLUMNS: Columns = {
    "frame": (np.int32, ()), "box": (np.float32, (4,)), "label": (np.int8, ()),
    "offset": (np.uint32, ()), "length": (np.uint32, ()), "checksum": (np.uint32, ()),
    "quality": (np.float32, ()), **PRIORS,
    "gaze": (np.float32, (2,)), "quality_p": (np.float32, ()), "unique_id": (np.bytes_, ()),
    "position": (np.int32, ()), "black": (np.bool_, ()), "corners": (np.int32, (4,)),
}
REQUIRED = ("frame", "box", "label", "offset", "length", "checksum")
TABLES = ("track_clip", "track_start")
CONTENTS = {"rows": int, "facts": dict, "clips": list, "track_name": list, "files": dict, "shards": list,
            "superseded": dict}
Entry = dict[str, Any]
"""a file of the folder: its name, "bytes" and "sha256", as io.writing_by_checksum gives them"""
REMEDY = "delete index.json there; it is made again when the data set is used, and whole crops are kept"
CUT_AGAIN = "delete this file; its clip is cut again when the data set is used"


class Index:
    """Read side of an index folder. Opens in milliseconds, pickles as its folder, shares its pages with all workers.

    Columns have one entry per row. NaN is unknown; a column that the folder lacks is unknown throughout. Rows of track
    t are track_start[t]:track_start[t + 1]. Two pieces of one split track have the same name. A row's crop is the bytes
    offset[row]:offset[row] + length[row] of its clip's shard.

    Attributes:
        folder, facts: where it is, and what it was made from: split, policy, crop_size, decoder, fingerprint,
            quality_fit {"mean", "std"} or None, counts; sources: file -> its stamp; priors: column -> its source, if
            not preparation.
        clips, track_name: names of all clips, and of all tracks.
        columns: names of those in the folder.
    """

    frame: np.ndarray                    # number in the clip
    box: np.ndarray                      # x1, y1, x2, y2 in pixels
    label: np.ndarray                    # 1 looking, 0 not, -1 unknown
    offset: np.ndarray                   # bytes
    length: np.ndarray                   # bytes
    checksum: np.ndarray                 # CRC-32 of them
    quality: np.ndarray                  # Laplacian variance
    quality_p: np.ndarray                # given with the data, in 0..1
    head_pose: np.ndarray                # yaw, pitch, roll in degrees; signs as in priors/head_pose.py
    landmarks: np.ndarray                # five points of x, y, confidence
    gaze: np.ndarray                     # yaw, pitch in radians
    unique_id: np.ndarray | None         # bytes
    black: np.ndarray                    # all pixels are black, as of a face outside the picture; absent: False
    corners: np.ndarray                  # x1, y1, x2, y2 in the picture, where no shard holds the crop; absent: None
    track_clip: np.ndarray               # number of the clip, int32 [tracks]
    track_start: np.ndarray              # row, int64 [tracks + 1]
    track_position: np.ndarray           # number of positions in all tracks before, int64 [tracks + 1]

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
        if fault := table_fault(vars(self), self.rows, len(self.clips), len(self.track_name)):
            raise ValueError(f"{folder}: {fault} -> {REMEDY}")
        for name, (dtype, tail) in COLUMNS.items():
            if name in contents["files"]:
                column = _load(folder, contents, name)
                if column.shape != (self.rows, *tail) or not np.issubdtype(column.dtype, dtype):
                    raise ValueError(f"{folder}: {name}: {column.dtype} {column.shape}, wanted {dtype.__name__} "
                                     f"{(self.rows, *tail)} -> {REMEDY}")
            elif name == "position":
                continue                                               # see below
            else:
                unknown = {"unique_id": None, "corners": None, "black": np.False_}.get(name, np.nan)
                column = None if unknown is None else np.broadcast_to(dtype(unknown), (self.rows, *tail))
            setattr(self, name, column)
        positions = np.diff(self.track_start)
        filled = np.flatnonzero(positions)
        positions[filled] = self.position_of(self.track_start[1:][filled] - 1) + 1
        self.track_position = np.r_[0, np.cumsum(positions)]
        self.shards = Shards([folder / SHARDS / shard["file"] for shard in contents["shards"]])

    @classmethod
    def open(cls, folder: str | Path) -> "Index":
        """Open a folder: every column must have its checksum, and every shard its size.

        Raises:
            FileNotFoundError: no index; names the folder and the command that makes it. ValueError: it is not whole.
            EOFError: a shard is shorter than it was.
        """
        folder = Path(folder)
        contents = read_contents(folder)
        for shard in contents["shards"]:
            path = folder / SHARDS / shard["file"]
            if not path.is_file():
                raise FileNotFoundError(f"{path}: this shard of the index is gone -> {REMEDY}")
            if path.stat().st_size < shard["bytes"]:
                raise EOFError(f"{path}: {path.stat().st_size} bytes, written with {shard['bytes']}: cut short "
                               f"-> {REMEDY}")
        verify_columns(folder, contents)
        return cls(folder, contents)

    def __len__(self) -> int:
        return self.rows

    def __reduce__(self) -> tuple[Any, tuple[Path, dict[str, Any]]]:
        return type(self), (self.folder, self.contents)               # to a worker: the files that this process reads

    @cached_property
    def position(self) -> np.ndarray:
        """In the cleaned track, frames without a crop included; in a folder without it, crops alone. int32 [rows]."""
        first = self.track_start.astype(np.int32)
        return np.arange(self.rows, dtype=np.int32) - np.repeat(first[:-1], np.diff(first))

    def position_of(self, rows: np.ndarray) -> np.ndarray:
        """`position` of some rows: a loader worker that needs a few of an absent column does not hold all of it."""
        return self.position[rows] if "position" in self.columns else rows - self.track_start[self.track_of(rows)]

    def track_of(self, rows: np.ndarray | int) -> np.ndarray:
        """Number of the track each row belongs to, int64 like rows."""
        return np.searchsorted(self.track_start, rows, side="right") - 1

    def clip_of(self, rows: np.ndarray | int) -> np.ndarray:
        """Number of the clip each row belongs to, int32 like rows."""
        return self.track_clip[self.track_of(rows)]

    def name_of(self, row: int) -> str:
        """"clip X track Y frame Z" for messages."""
        track = int(self.track_of(row))
        return f"clip {self.clips[self.track_clip[track]]} track {self.track_name[track]} frame {self.frame[row]}"

    def jpeg(self, row: int) -> bytes:
        """The crop's bytes.

        Raises:
            ValueError: they are not those that were written; EOFError: the shard ends inside them; OSError.
        """
        if not 0 <= row < self.rows:
            raise IndexError(f"{self.folder}: row {row}: the index has {counted(self.rows, 'row')}")
        clip, length = int(self.clip_of(row)), int(self.length[row])
        jpeg = self.shards.read(clip, int(self.offset[row]), length)
        if zlib.crc32(jpeg) != self.checksum[row]:
            path, where = self.shards.paths[clip], f"the crop of row {row} ({self.name_of(row)})"
            if len(jpeg) != length:
                raise EOFError(f"{path}: ends inside {where}, so it was cut short -> {CUT_AGAIN}")
            raise ValueError(f"{path}: the bytes of {where} changed since they were written -> {CUT_AGAIN}")
        return jpeg

    def crop(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """The crop, uint8 [S, S, 3] RGB, into `out` when given.

        Raises:
            As `jpeg`; ValueError: it is no JPEG of out's size.
        """
        jpeg = self.jpeg(row)
        try:
            return decode(jpeg, out)
        except ValueError as error:
            raise ValueError(f"{self.folder}: row {row} ({self.name_of(row)}): {error} -> delete that clip's file in "
                             f"{SHARDS}/; the clip is cut again when the data set is used") from error

    def verify(self) -> None:
        """Read everything once.

        Raises:
            ValueError: naming the first file whose SHA-256 is not the recorded one.
        """
        files = [(self.folder / entry["file"], entry, REMEDY) for entry in self.contents["files"].values()]
        files += [(self.folder / SHARDS / shard["file"], shard, CUT_AGAIN) for shard in self.contents["shards"]]
        for path, entry, remedy in files:
            if sha256_of(path) != entry["sha256"]:
                raise ValueError(f"{path}: its bytes changed since it was written (SHA-256 differs) -> {remedy}")


def verify_columns(folder: Path, contents: Mapping[str, Any]) -> None:
    """Compare the columns' checksums; raises ValueError."""
    entries = [entry for entry in contents["files"].values() if (folder / entry["file"]).is_file()]
    paths = [folder / entry["file"] for entry in entries]
    for path, entry, checksums in zip(paths, entries, checksums_of(*paths), strict=True):
        if checksums != entry.get("crc32"):
            raise ValueError(f"{path}: its bytes changed since it was written (CRC-32 differs) -> {REMEDY}")


def checksums_of(*paths: Path) -> list[list[int]]:
    """CRC-32 of each PIECE bytes of each file, by several threads: faster than SHA-256, and as good against damage."""
    def checksum(piece: tuple[Path, int]) -> int:
        path, at = piece
        with open_regular(path, "column") as file:
            file.seek(at)
            return zlib.crc32(file.read(PIECE))

    starts = [range(0, path.stat().st_size, PIECE) for path in paths]
    pieces = [(path, at) for path, places in zip(paths, starts, strict=True) for at in places]
    if max(map(len, starts), default=0) < 2:                           # small files: threads take longer to start
        found = map(checksum, pieces)
    else:
        with ThreadPoolExecutor() as threads:
            found = iter(list(threads.map(checksum, pieces)))
    return [list(islice(found, len(places))) for places in starts]


def table_fault(tables: Mapping[str, np.ndarray], rows: int, clips: int, tracks: int) -> str:
    """What is wrong with the tables that lead from a row to its clip; "" if nothing is."""
    for name, length, top in (("track_clip", tracks, clips), ("track_start", tracks + 1, rows + 1)):
        table = tables[name]
        if table.shape != (length,) or not np.issubdtype(table.dtype, np.integer):
            return f"{name}: {table.dtype} {table.shape}, whole numbers {(length,)} are wanted"
        if length and not 0 <= table.min() <= table.max() < top:
            return f"{name}: numbers {table.min()} to {table.max()}, within 0 and {top - 1} is wanted"
    start = tables["track_start"]
    if start[0] != 0 or start[-1] != rows or (np.diff(start) < 0).any():
        return f"track_start must rise from 0 to {rows}, the number of rows"
    return ""


def read_contents(folder: Path) -> dict[str, Any]:
    """index.json of a folder, checked; no other file is opened.

    Raises:
        As `Index.open`.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no index here (index.json is missing) -> make it with "
                                "`python -m gazepose prepare --split SPLIT --data DATA`")
    contents = read_object(path, remedy=REMEDY)
    if contents.get("format") != FORMAT:
        raise ValueError(f"{path}: format {contents.get('format')}, this version reads {FORMAT} -> {REMEDY}")
    if contents.pop("sha256", None) != digest_of(contents):
        raise ValueError(f"{path}: its content changed since it was written (SHA-256 differs) -> {REMEDY}")
    if missing := set(CONTENTS) - set(contents):
        raise ValueError(f"{path}: lacks {', '.join(sorted(missing))} -> {REMEDY}")
    wrong = [name for name, kind in CONTENTS.items() if type(contents[name]) is not kind]
    if not wrong:
        files, shards = contents["files"], contents["shards"]
        wrong += ["a file's entry" for entry in [*files.values(), *shards] if not _is_entry(entry)]
        wrong += [f"no {name}" for name in (*TABLES, *REQUIRED) if name not in files]
        wrong += ["a clip's name" for name in contents["clips"] if not is_id(name)]
        wrong += ["a track's name" for name in contents["track_name"] if not is_id(name)]
        wrong += ["an old file's name" for name in contents["superseded"] if not is_id(name.removeprefix(SHARDS + "/"))]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} is not as this version writes it -> {REMEDY}")
    return contents


def _is_entry(entry: Any) -> bool:
    """A file of the folder itself, with its checksum: no name leads out of the folder."""
    return (isinstance(entry, dict) and is_id(entry.get("file")) and isinstance(entry.get("sha256"), str)
            and type(entry.get("bytes")) is int)


def digest_of(contents: Mapping[str, Any]) -> str:
    """SHA-256 of a table of contents, for index.json itself."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _load(folder: Path, contents: dict[str, Any], name: str, mapped: bool = True) -> np.ndarray:
    path = folder / contents["files"][name]["file"]
    try:
        if mapped and contents["rows"]:
            return map_array(path)
        with open_regular(path, "column") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:                           # damaged bytes make numpy raise anything
        raise ValueError(f"{path}: not a whole column ({error}) -> {REMEDY}") from error
