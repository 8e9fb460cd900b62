"""Extract: a column of an index, computed row by row in chunks that survive an interruption.

Each chunk is a file of its own, named by its first row, in a folder beside the index that carries the column's key; a
run that was killed goes on with the chunks that are missing, and several could share them out. The column is added
when all are there. What is computed is the caller's affair (hopenet.py, landmarks.py, head_pose.py, quality.py).
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gazepose.data.index import COLUMNS, TABLES, Index, add_columns

CHUNK = 2048                 # rows
PLAIN_LINE_SECONDS = 10.0
PIXELS = ("offset", "length")


def extract(index: Index, column: str, measure: Callable[[np.ndarray], np.ndarray], *, source: str, depends: str,
            reads: tuple[str, ...] = PIXELS, chunk: int = CHUNK, notify: Callable[[str], None] = print) -> np.ndarray:
    """Compute a column for every row and add it to the index.

    Args:
        measure: rows int64 [n] -> values [n, ...] of the column's shape, NaN unknown; the same for the same rows.
        source: said in the index's facts.
        depends: what the values depend on beside the index: a chunk computed under another text is not used.
        reads: the columns that `measure` reads.

    Returns:
        The column [rows, ...].
    """
    dtype, tail = COLUMNS[column]
    entries = index.contents["files"]
    stands = [entries[name]["sha256"] for name in (*TABLES, *reads)]
    stands += [shard["sha256"] for shard in index.contents["shards"]]
    key = hashlib.sha256(json.dumps([column, depends, chunk, stands]).encode()).hexdigest()
    folder = index.folder.with_name(f"{index.folder.name}.{column}-{key[:16]}")
    folder.mkdir(exist_ok=True)
    starts = range(0, len(index), chunk)
    todo = [start for start in starts if not _is_made(folder / f"{start:010d}.npy", index, start, chunk, dtype, tail)]
    if len(todo) < len(starts):
        notify(f"{index.folder}: {column}: going on, {len(starts) - len(todo)} of {len(starts)} chunks are there")
    bar = tqdm(total=len(starts) * chunk, initial=(len(starts) - len(todo)) * chunk, unit="face", disable=None)
    told = time.monotonic()
    for done, start in enumerate(todo, 1):
        rows = np.arange(start, min(start + chunk, len(index)))
        values = np.ascontiguousarray(measure(rows), dtype)
        assert values.shape == (len(rows), *tail), (values.shape, column)
        _write(folder / f"{start:010d}.npy", values)
        bar.update(chunk)
        if bar.disable and time.monotonic() - told > PLAIN_LINE_SECONDS:
            told = time.monotonic()
            notify(f"{index.folder}: {column}: {start + len(rows)} of {len(index)} faces, "
                f"{len(todo) - done} of {len(starts)} chunks to go")
    bar.close()
    values = np.concatenate([np.zeros((0, *tail), dtype), *(np.load(folder / f"{start:010d}.npy") for start in starts)])
    put_column(index, column, values, source)
    shutil.rmtree(folder)
    return values


def put_column(index: Index, column: str, values: np.ndarray, source: str, **facts: Any) -> None:
    """Add or replace a column and say in the index's facts where it came from; other facts go with it."""
    stands = Index.open(index.folder).facts                           # another column may have come since
    add_columns(index.folder, {column: values}, {"priors": {**stands.get("priors", {}), column: source}, **facts})


def batches_of_crops(index: Index, rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Crops of some rows, uint8 [b, S, S, 3] RGB, decoded by threads one batch ahead."""
    parts = [rows[at:at + batch].tolist() for at in range(0, len(rows), batch)]
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as threads:
        waiting = [threads.submit(index.crop, row) for row in parts[0]] if parts else []
        for following in [*parts[1:], []][:len(parts)]:
            ready, waiting = waiting, [threads.submit(index.crop, row) for row in following]
            yield np.stack([crop.result() for crop in ready])


def _is_made(path: Path, index: Index, start: int, chunk: int, dtype: type, tail: tuple[int, ...]) -> bool:
    try:
        values = np.lib.format.open_memmap(path, mode="r")             # of nothing but numbers
    except Exception:                                                     # what damaged bytes do to numpy is open
        return False
    return values.dtype == dtype and values.shape == (min(chunk, len(index) - start), *tail)


def _write(path: Path, values: np.ndarray) -> None:
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    with open(temporary, "wb") as file:
        np.save(file, values, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
