"""Features: the maps that a frozen backbone gave for some rows of an index, float16 in memory-mapped files beside it.

Nothing here knows a network: what is computed, and by which processes, is training/feature_cache.py. A folder that
has its name is whole: its parts are written one by one into a folder of another name, which is renamed last, so that
an interruption leaves whole parts to go on from.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.io import sha256_of, sync_folder

FORMAT = 1
CONTENTS = "features.json"
PARTS, PART_ROWS = 256, 512      # at most so many parts, of at least so many rows
REMEDY = "delete the folder {}; it is made again"


def empty_array(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.empty(shape, dtype)


class Features:
    """Read side of a folder. Pickles as the folder; shares its pages with all workers.

    Attributes:
        folder, facts: where it is; what the maps were made from.
        rows: int64 [N] ascending, those of the index, and before them windows.BLACK.
        shape: (C, h, w) of a map.
    """

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError or ValueError, naming the file and the remedy, when the folder is not whole."""
        self.folder = folder
        path = folder / CONTENTS
        try:
            contents = json.loads(path.read_bytes())
            if contents["format"] != FORMAT:
                raise ValueError(f"format {contents['format']}, this version reads {FORMAT}")
            self.facts: dict[str, Any] = contents["made_from"]
            self.shape: tuple[int, ...] = tuple(contents["shape"])
            self.files = [folder / os.path.basename(name) for name in contents["files"]]
            path, wanted = self.files[0], (int(contents["rows"]),)
            self.rows = _mapped(path, np.int64, wanted)
            self.per_part = part_rows(len(self.rows))
            self.parts: list[np.ndarray] = []
            for start in range(0, len(self.rows), self.per_part):
                path = self.files[1 + len(self.parts)]
                self.parts.append(_mapped(path, np.float16, (min(self.per_part, len(self.rows) - start), *self.shape)))
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: not there -> {REMEDY.format(folder)}") from None
        except (ValueError, KeyError, TypeError, IndexError, EOFError, RecursionError) as error:
            raise ValueError(f"{path}: not whole features ({error}) -> {REMEDY.format(folder)}") from error

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type["Features"], tuple[Path]]:      # to a spawned worker: the folder, not the pages
        return Features, (self.folder,)

    def read(self, rows: np.ndarray, empty: Callable[..., np.ndarray] = empty_array) -> np.ndarray:
        """Maps of these rows, float16 [F, C, h, w].

        Args:
            rows: int64 [F]; windows.BLACK: what a black frame gives.
            empty: makes the array of a shape and dtype that they are written into.

        Raises:
            ValueError: a row that the folder does not have.
        """
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        if not np.array_equal(self.rows[place], rows):
            row = int(rows[self.rows[place] != rows][0])
            raise ValueError(f"{self.folder}: has no row {row} -> {REMEDY.format(self.folder)}")
        part, within = np.divmod(place, self.per_part)
        maps = empty((len(rows), *self.shape), np.float16)
        for number in np.unique(part).tolist():
            chosen = part == number
            maps[chosen] = self.parts[number][within[chosen]]
        return maps

    def verify(self, rank: int = 0, world_size: int = 1) -> None:
        """Read this process's share of the files once.

        Raises:
            ValueError: naming the first whose SHA-256 is not the one it was written with.
        """
        for path in self.files[rank::world_size]:
            if sha256_of(path)[:16] != path.stem.rpartition("-")[2]:
                raise ValueError(f"{path}: its bytes changed since it was written (SHA-256 differs) -> "
                                 f"{REMEDY.format(self.folder)}")


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(np.lib.format.open_memmap(path, mode="r"))     # np.memmap costs 10 times as much per access
    if values.dtype != dtype or values.shape != shape:
        raise ValueError(f"{values.dtype} {values.shape}, wanted {np.dtype(dtype)} {shape}")
    return values


def part_rows(rows: int) -> int:
    """How many rows each part has, of so many; the last one what is left."""
    return max(PART_ROWS, -(-rows // PARTS))


def staging_of(folder: Path) -> Path:
    """Where the parts of a folder are written."""
    return folder.with_name(f".{folder.name}.making")


def written(staging: Path, name: str) -> Path | None:
    """The whole file of that name in a staging folder, if it is there."""
    return next(iter(sorted(staging.glob(f"{name}-{'[0-9a-f]' * 16}.npy"))), None)


def part_name(number: int) -> str:
    return f"maps-{number:05d}"


def write_array(staging: Path, name: str, dtype: type, shape: Sequence[int], blocks: Iterable[np.ndarray]) -> None:
    """Write blocks along the first axis as NAME-<SHA-256>.npy: under another name, synced, renamed.

    Written and not mapped: on a full disk that is an OSError, and not the end of the process.
    """
    temporary = staging / f"{name}.part-{os.getpid()}"
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(shape)}
    try:
        with open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, staging / f"{name}-{sha256_of(temporary)[:16]}.npy")
    finally:
        temporary.unlink(missing_ok=True)


def finish(folder: Path, rows: np.ndarray, shape: Sequence[int], made_from: Mapping[str, Any]) -> None:
    """Give the folder its name, once every part is written; one process does.

    Raises:
        RuntimeError: a part is missing.
    """
    staging = staging_of(folder)
    write_array(staging, "rows", np.int64, rows.shape, [rows])
    names = ["rows", *map(part_name, range(-(-len(rows) // part_rows(len(rows)))))]
    files = [written(staging, name) for name in names]
    if None in files:
        raise RuntimeError(f"{staging}: {names[files.index(None)]} was not written -> the processes do not see one "
                           "disk: give --data_disk local where each machine has its own; finished parts are kept")
    contents = {"format": FORMAT, "made_from": dict(made_from), "rows": len(rows), "shape": list(shape),
                "files": [path.name for path in files if path]}
    with open(staging / CONTENTS, "w", encoding="utf-8") as file:
        json.dump(contents, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for left in {*staging.iterdir()} - {*files, staging / CONTENTS}:   # of a run that was killed here
        left.unlink()
    sync_folder(staging)
    os.replace(staging, folder)
    sync_folder(folder.parent)


def room_for(folder: Path, size: int) -> None:
    """Raises OSError where the disk has not so many bytes left."""
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise OSError(f"{folder}: needs {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there -> make room "
                      "(what is beside it, of other backbones, may go), or leave out --cache_features")


def name_of(digest: str, rows: np.ndarray) -> str:
    """A folder's name: what the maps are made from, then of which rows."""
    return f"{digest[:16]}-{hashlib.sha256(rows.tobytes()).hexdigest()[:8]}"
