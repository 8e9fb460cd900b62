"""Chunks: values computed row by row, saved chunk by chunk. A killed run resumes with the chunks that are missing.

Each chunk is one .npy file, named by its first row and its checksum, in a folder of its own. Name that folder by all
that the values depend on, so that chunks of other settings are never mixed. What is computed is the caller's:
columns of priors (priors/chunked_column.py) and features of a frozen backbone (training/feature_cache.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gazepose.columns import map_array, write_column
from gazepose.processes import Processes
from gazepose.progress import Progress

DIGITS = 16                  # of the checksum in a file's name


@dataclass(frozen=True)
class Chunks:
    """Values of `rows` rows, each of one shape and type, in chunks of `size` rows; the last one may be shorter."""

    folder: Path
    rows: int
    size: int
    shape: tuple[int, ...]
    """of one row's value"""
    dtype: type

    def spans(self) -> list[range]:
        """Rows of each chunk, in order."""
        return [range(first, min(first + self.size, self.rows)) for first in range(0, self.rows, self.size)]

    def files(self) -> list[Path | None]:
        """The file of each chunk, in order; None where it is missing, cut short, or not of this shape and type."""
        whole = {path.name[:10]: path for path in sorted(self.folder.glob(f"{'[0-9]' * 10}-*.npy"))
                 if self._is_whole(path)}
        return [whole.get(_name(span)) for span in self.spans()]

    def compute(self, blocks: Callable[[list[range]], Iterator[np.ndarray]], job: str, units: str,
                processes: Processes) -> None:
        """Compute the missing chunks. The processes share them out and wait for each other.

        Args:
            blocks: yields the values of the given chunks in order, as blocks [n, *shape]. A block never crosses the
                end of its chunk. The same rows must give the same values.
            job, units: for the progress line, such as "head_pose" and "faces".
        """
        spans = self.spans()
        missing = [span for span, file in zip(spans, self.files(), strict=True) if file is None]
        if len(missing) < len(spans):
            processes.notify(f"{job}: resuming, {len(spans) - len(missing)} of {len(spans)} chunks are there")
        processes.barrier()                            # every process lists the missing chunks before one is written
        self.folder.mkdir(parents=True, exist_ok=True)
        share = missing[processes.rank::processes.world_size]
        stream = blocks(share)
        with Progress(job, sum(map(len, share)), units, processes.notify, rank=processes.rank) as progress:
            for span in share:
                write_column(self.folder, _name(span), self.dtype, (len(span), *self.shape),
                            self._blocks_of(span, stream, progress), DIGITS)
        processes.barrier()

    def whole_files(self) -> list[Path]:
        """The file of each chunk, in order.

        Raises:
            RuntimeError: a chunk is missing, although every process has computed its share.
        """
        files = self.files()
        if None in files:
            first = self.spans()[files.index(None)].start
            raise RuntimeError(f"{self.folder}: the chunk of row {first} is missing -> the processes do not share one "
                               "disk; give --data_disk local if each machine has its own. Finished chunks are kept.")
        return [file for file in files if file]

    def values(self) -> np.ndarray:
        """All values, [rows, *shape]; raises as `whole_files`."""
        return np.concatenate([np.zeros((0, *self.shape), self.dtype), *map(map_array, self.whole_files())])

    def _is_whole(self, path: Path) -> bool:
        try:
            values = map_array(path)
        except ValueError:
            return False
        length = min(self.size, self.rows - int(path.name[:10]))
        return values.dtype == self.dtype and values.shape == (length, *self.shape)

    def _blocks_of(self, span: range, stream: Iterator[np.ndarray], progress: Progress) -> Iterator[np.ndarray]:
        left = len(span)
        while left > 0:
            block = next(stream)
            assert block.shape[1:] == self.shape and len(block) <= left, (block.shape, self.shape, left)
            left -= len(block)
            progress.add(len(block))
            yield block


def _name(span: range) -> str:
    return f"{span.start:010d}"
