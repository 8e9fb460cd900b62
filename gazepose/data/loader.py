"""The loader: in what order windows come, and in which batches.

`BatchOrder` is the global sequence, a function of (seed, epoch, windows per segment). `accelerator.prepare(loader)`
deals its batches out to the processes, and nothing else does.
"""

import faulthandler
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from gazepose.data.index import Index
from gazepose.data.windows import WindowRule, make_batch, segments
from gazepose.process import shield_workers, start_loader_worker

STUCK_SECONDS = 120              # a loader worker that makes one batch for longer ends, with its traceback


class BatchOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, row) for all processes, in order.

    Every batch is full and their number is a multiple of the world size: the last ones are filled up with rows from
    the start of the epoch, marked as fillers (bitwise complement), so every row counts exactly once. With `start`
    windows already learnt from, the rest of the epoch is dealt out, on this or another number of processes.

    Args:
        rows: centre rows, int64 [N].
        batch_size: windows per batch and process; cut to what the rows can fill.
        world_size: number of processes.
    """

    drop_last = False

    def __init__(self, index: Index, rule: WindowRule, rows: np.ndarray, batch_size: int, world_size: int = 1):
        if batch_size < 1:
            raise ValueError(f"--batch_size {batch_size} -> give 1 or more")
        self.index, self.rule, self.rows, self.world_size = index, rule, rows, world_size
        self.batch_size = max(1, min(batch_size, -(-len(rows) // world_size)))
        self.epoch = 0
        self.start = 0

    def order(self) -> np.ndarray:
        """Rows of this epoch in order: as they lie for evaluation, whole segments shuffled for training."""
        if not self.rule.train:
            return self.rows
        segment = segments(self.index, self.rule, self.rows, self.epoch)
        border = np.flatnonzero(np.diff(segment, prepend=-1))
        shuffled = np.random.Generator(np.random.PCG64([self.rule.seed, self.epoch])).permutation(len(border))
        ends = np.append(border[1:], len(self.rows))
        return np.concatenate([self.rows[border[s]:ends[s]] for s in shuffled]) if len(border) else self.rows

    def fingerprint(self) -> str:
        """Tells one order of the epoch from another."""
        return hashlib.sha256(self.order().tobytes()).hexdigest()[:16]

    def after(self, batches: int) -> int:
        """Windows of the epoch that are used up once each process has had so many batches from `start` on."""
        return min(len(self.rows), self.start + batches * self.batch_size * self.world_size)

    def __len__(self) -> int:
        return -(-(len(self.rows) - self.start) // (self.batch_size * self.world_size)) * self.world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order()
        left = order[self.start:]
        filled = np.concatenate([left, ~np.resize(order, len(self) * self.batch_size - len(left))])
        for batch in filled.reshape(-1, self.batch_size).tolist():
            yield [(self.epoch, row) for row in batch]


class WindowBatches(Dataset):
    """Turns a batch of (epoch, row) into its tensors; holds no state but the open index."""

    def __init__(self, index: Index, rule: WindowRule, rows: np.ndarray, crop_size: int):
        self.index, self.rule, self.rows, self.crop_size = index, rule, rows, crop_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, torch.Tensor]:
        return self.__getitems__([place])

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        rows = np.array([row for _, row in places], np.int64)
        if get_worker_info() is None:
            return make_batch(self.index, self.rule, rows, places[0][0], self.crop_size)
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)      # the training process notices within seconds
        try:
            return make_batch(self.index, self.rule, rows, places[0][0], self.crop_size)
        finally:
            faulthandler.cancel_dump_traceback_later()


def as_it_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The collate function: `WindowBatches` has already made the batch."""
    return batch


def make_loader(index: Index, rule: WindowRule, rows: np.ndarray, *, batch_size: int, crop_size: int,
                num_workers: int = 0, world_size: int = 1, pin_memory: bool = False) -> DataLoader:
    """Loader of all processes' batches; give it to `accelerator.prepare`. Set `order_of(loader).epoch`, and
    `.start` in its middle, per epoch."""
    if len(rows) == 0:
        raise ValueError(f"{index.folder}: no rows to load -> look at the counts in index.json there, "
                         "or prepare the data again")
    if num_workers:
        shield_workers()
    return DataLoader(
        WindowBatches(index, rule, rows, crop_size), collate_fn=as_it_is,  # type: ignore[arg-type]
        num_workers=num_workers,
        batch_sampler=BatchOrder(index, rule, rows, batch_size, world_size), pin_memory=pin_memory,
        persistent_workers=num_workers > 0, worker_init_fn=start_loader_worker,
        multiprocessing_context="forkserver" if num_workers else None)


def order_of(loader: DataLoader) -> BatchOrder:
    """The `BatchOrder` under a loader, also once `accelerator.prepare` has wrapped it."""
    sampler = loader.batch_sampler
    while not isinstance(sampler, BatchOrder):
        sampler = sampler.batch_sampler                                      # type: ignore[union-attr]
    return sampler
