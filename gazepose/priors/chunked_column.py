"""Compute a column of an index in chunks, so that a killed run resumes, and add it when it is complete.

What is computed is the caller's (head_pose.py, landmarks.py, data/quality.py); the chunks are data/chunks.py.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gazepose.data.chunks import Chunks
from gazepose.data.index import COLUMNS, TABLES, Index
from gazepose.data.index_writer import add_columns
from gazepose.data.quality import fit_gaussian
from gazepose.machine import cores
from gazepose.processes import Processes

CHUNK = 2048                 # rows
PIXELS = ("offset", "length")


def extract(index: Index, column: str, measure: Callable[[np.ndarray], np.ndarray], *, source: str, depends: str,
            reads: tuple[str, ...] = PIXELS, chunk: int = CHUNK) -> np.ndarray:
    """Compute a column for every row and add it to the index.

    The chunks lie beside the index, in a folder whose name carries a key of all that the values depend on.

    Args:
        measure: rows int64 [n] -> values [n, ...] of the column's shape, NaN unknown. The same rows must give the
            same values.
        source: where the column comes from, for the index's facts.
        depends: what the values depend on, apart from the index. Chunks of another text are not used.
        reads: the columns that `measure` reads.

    Returns:
        The column, [rows, ...].
    """
    dtype, shape = COLUMNS[column]
    entries = index.contents["files"]
    checksums = [entries[name]["sha256"] for name in (*TABLES, *reads)]
    checksums += [shard["sha256"] for shard in index.contents["shards"]]
    key = hashlib.sha256(json.dumps([column, depends, chunk, checksums]).encode()).hexdigest()[:16]
    chunks = Chunks(index.folder.with_name(f"{index.folder.name}.{column}-{key}"), len(index), chunk, shape, dtype)
    chunks.compute(lambda spans: (measure(np.arange(span.start, span.stop)) for span in spans),
                   f"{index.folder}: {column}", "faces", Processes())
    values = chunks.values()
    put_column(index, column, values, source)
    shutil.rmtree(chunks.folder)
    return values


def put_column(index: Index, column: str, values: np.ndarray, source: str) -> None:
    """Add or replace a column, and record in the index's facts where it came from; of quality also its fit."""
    fit = {"quality_fit": fit_gaussian(values)} if column == "quality" else {}
    add_columns(index, {column: values}, fit, source)


def batches_of_crops(index: Index, rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Crops of some rows, uint8 [b, S, S, 3] RGB, decoded by threads one batch ahead."""
    parts = [rows[at:at + batch].tolist() for at in range(0, len(rows), batch)]
    with ThreadPoolExecutor(min(8, cores())) as threads:
        waiting = [threads.submit(index.crop, row) for row in parts[0]] if parts else []
        for following in [*parts[1:], []][:len(parts)]:
            ready, waiting = waiting, [threads.submit(index.crop, row) for row in following]
            yield np.stack([crop.result() for crop in ready])
