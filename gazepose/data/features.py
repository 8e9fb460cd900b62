"""Features: the maps that a frozen backbone gave for some rows of an index, float16, memory-mapped, beside the index.

This is the read side, and it knows no network. training/feature_cache.py computes the maps, in chunks. A folder that
has its name is whole: chunks are written into a folder of another name, which is renamed last.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.columns import map_array, write_column
from gazepose.data.chunks import DIGITS, Chunks
from gazepose.io import read_object, sha256_of, sync_folder, write_json

FORMAT = 1
CONTENTS = "features.json"
CHUNKS, CHUNK_ROWS = 256, 512    # at most so many chunks, of at least so many rows
REMEDY = "delete the folder {}; it is made again"


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
        path, remedy = folder / CONTENTS, REMEDY.format(folder)
        contents = read_object(path, missing=remedy, remedy=remedy)
        try:
            if contents["format"] != FORMAT:
                raise ValueError(f"format {contents['format']}, this version reads {FORMAT}")
            self.facts: dict[str, Any] = contents["made_from"]
            self.shape: tuple[int, ...] = tuple(contents["shape"])
            self.files = [folder / os.path.basename(name) for name in contents["files"]]
            count = int(contents["rows"])
            self.chunk_rows = chunk_rows(count)
            lengths = [min(self.chunk_rows, count - start) for start in range(0, count, self.chunk_rows)]
            files = dict(zip(self.files[1:], lengths, strict=True))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the contents of features ({error}) -> {remedy}") from error
        try:
            self.rows = _mapped(self.files[0], np.int64, (count,))
            self.chunks = [_mapped(path, np.float16, (length, *self.shape)) for path, length in files.items()]
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error} -> {remedy}") from None

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type["Features"], tuple[Path]]:      # to a spawned worker: the folder, not the pages
        return Features, (self.folder,)

    def read(self, rows: np.ndarray, empty: Callable[..., np.ndarray] = np.empty) -> np.ndarray:
        """Maps of these rows, float16 [F, C, h, w].

        Args:
            rows: int64 [F]; windows.BLACK: what a black frame gives.
            empty: allocates the array of a shape and dtype that they are written into, as SharedBuffers.empty does.

        Raises:
            ValueError: a row that the folder does not have.
        """
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        if not np.array_equal(self.rows[place], rows):
            row = int(rows[self.rows[place] != rows][0])
            raise ValueError(f"{self.folder}: has no row {row} -> {REMEDY.format(self.folder)}")
        chunk, within = np.divmod(place, self.chunk_rows)
        maps = empty((len(rows), *self.shape), np.float16)
        for number in np.unique(chunk).tolist():
            maps[chunk == number] = self.chunks[number][within[chunk == number]]
        return maps

    def verify(self, rank: int = 0, world_size: int = 1) -> None:
        """Read this process's share of the files once.

        Raises:
            ValueError: naming the first whose SHA-256 is not the one it was written with.
        """
        for path in self.files[rank::world_size]:
            if not sha256_of(path).startswith(path.stem.rpartition("-")[2]):       # write_column
                raise ValueError(f"{path}: its bytes changed since it was written (SHA-256 differs) -> "
                                 f"{REMEDY.format(self.folder)}")


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    values = map_array(path)
    if values.dtype != dtype or values.shape != shape:
        raise ValueError(f"{path}: {values.dtype} {values.shape}, wanted {np.dtype(dtype)} {shape}")
    return values


def chunk_rows(rows: int) -> int:
    """Rows of each chunk of so many rows."""
    return max(CHUNK_ROWS, -(-rows // CHUNKS))


def chunks_of(folder: Path, rows: int, shape: tuple[int, ...]) -> Chunks:
    """The chunks of a folder that is not whole yet: maps [C, h, w] of so many rows."""
    return Chunks(folder.with_name(f".{folder.name}.chunks"), rows, chunk_rows(rows), shape, np.float16)


def finish(folder: Path, chunks: Chunks, rows: np.ndarray, made_from: Mapping[str, Any]) -> None:
    """Give the folder its name, once every chunk is computed. One process does this.

    Raises:
        RuntimeError: a chunk is missing.
    """
    files = chunks.whole_files()
    files.insert(0, chunks.folder / write_column(chunks.folder, "rows", np.int64, rows.shape, [rows], DIGITS)["file"])
    write_json(chunks.folder / CONTENTS, {"format": FORMAT, "made_from": dict(made_from), "rows": len(rows),
                                          "shape": list(chunks.shape), "files": [path.name for path in files]})
    for other in {*chunks.folder.iterdir()} - {*files, chunks.folder / CONTENTS}:   # of runs that were killed
        other.unlink()
    sync_folder(chunks.folder)
    os.replace(chunks.folder, folder)
    sync_folder(folder.parent)
