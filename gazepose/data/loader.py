"""The loader: batches of windows as tensors, made by worker processes in the order of data/order.py."""

import faulthandler
import math
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gazepose.data.clip_crops import start_worker
from gazepose.data.features import Features
from gazepose.data.index import Index
from gazepose.data.order import BatchOrder, ClipOrder
from gazepose.data.shared_buffers import BUFFERS, ROOM, SharedBuffers
from gazepose.data.streaming import VideoIndex
from gazepose.data.windows import WindowRule, make_batch, neighbours, read_pool
from gazepose.io import UnusableFile
from gazepose.processes import WORKERS, shield_workers, start_loader_worker

STUCK_SECONDS = 120              # a loader worker that makes one batch for longer shows its traceback
SHARED_MEMORY = Path("/dev/shm")  # Linux


class WindowBatches(Dataset):
    """Turns a batch of (epoch, row), or (epoch, row, pictures in its pool), into its tensors. Its only state is the
    open index and a worker's buffers."""

    def __init__(self, index: Index, rule: WindowRule, rows: np.ndarray, crop_size: int):
        self.index, self.rule, self.rows, self.crop_size = index, rule, rows, crop_size
        self.buffers: SharedBuffers | None = None
        self.features: Features | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker: batches tell it its rows, and millions of them would be a copy in each."""
        return {**vars(self), "rows": range(len(self.rows))}

    def __getitem__(self, place: tuple[int, ...]) -> dict[str, torch.Tensor]:
        return self.__getitems__([place])

    def __getitems__(self, places: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
        rows, (epoch, _, *size) = np.array([place[1] for place in places], np.int64), places[0]
        make = partial(make_batch, self.index, self.rule, rows, epoch, self.crop_size, features=self.features,
                       size=sum(size))
        if get_worker_info() is None:
            return make()
        # it does not end: its clock goes on while the whole job is suspended; processes.Watchdog kills what hangs
        faulthandler.dump_traceback_later(STUCK_SECONDS)
        try:
            self.buffers = self.buffers or SharedBuffers()
            return {**make(empty=self.buffers.empty), "frames": self.buffers.sent()}  # type: ignore[dict-item] # arrives as a tensor
        finally:
            faulthandler.cancel_dump_traceback_later()


class ClipBatches(WindowBatches):
    """As WindowBatches, in the order of ClipOrder. A clip is read when the first of its crops is needed.

    Memory of a worker: the JPEG bytes of the crops that its lane needs of the clip read last, and in training of
    BUFFER_WINDOWS windows of earlier clips (at 224 px and 8 windows to a segment some 15,000 crops, 130 MB). Nothing
    depends on earlier batches: a worker that starts in the middle of an epoch reads the clips it needs from there.

    In training, rows of a damaged clip become fillers (neither learnt from nor counted). In evaluation a damaged clip
    is an error (VideoIndex.give_up).
    """

    index: VideoIndex

    def __init__(self, index: VideoIndex, rule: WindowRule, rows: np.ndarray, crop_size: int, order: ClipOrder):
        super().__init__(index, rule, rows, crop_size)
        self.order = order

    def __getitems__(self, places: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
        epoch, rows = places[0][0], np.array([place[1] for place in places], np.int64)
        return super().__getitems__([(epoch, row, *places[0][2:]) for row in self._ready(rows, epoch).tolist()])

    def _ready(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Read the crops of a batch; returns its rows, those of damaged clips replaced by fillers."""
        centre = np.where(rows < 0, ~rows, rows)
        # a clip that proves damaged while it is read changes which rows can be shown, so look again after each
        while True:
            good = self._is_good(centre)
            shown = centre[good] if good.any() else self._a_good_row(rows, epoch)
            missing = self.index.lacking(self._crops_of(shown))
            if not missing:
                return np.where(good, rows, ~np.resize(shown, len(rows)))
            self._read_clip(missing[0], rows, epoch)

    def _a_good_row(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """One later row of the lane, int64 [1]: fillers need some face too."""
        later = self.order.from_here(rows, epoch)
        later = later[self._is_good(later)]
        if not len(later):
            raise ValueError(f"{self.index.folder}: every clip that a reader still has to read is damaged -> look at "
                             "the warnings above")
        return later[:1]

    def _read_clip(self, clip: int, rows: np.ndarray, epoch: int) -> None:
        """Read the crops of a clip that the batch `rows` and the later ones of its lane need."""
        later = self.order.from_here(rows, epoch)
        needed = self._crops_of(later[np.isin(self.index.clip_of(later), [clip, *self.index.held])])
        if get_worker_info() is not None:
            start_worker()
        try:
            self.index.read(clip, needed)
        except (UnusableFile, FileNotFoundError) as error:
            self.index.give_up(clip, error, goes_on=self.rule.train)

    def _is_good(self, rows: np.ndarray) -> np.ndarray:
        return ~np.isin(self.index.clip_of(rows), list(self.index.bad))

    def _crops_of(self, rows: np.ndarray) -> np.ndarray:
        """Rows of all crops that windows of these centres may show."""
        crops = np.unique(neighbours(self.index, rows, self.rule.reach))
        return crops[crops >= 0]


class Pools(Dataset):
    """Crops of some sets of rows, without windows: item n is uint8 [F, 3, S, S] of the n-th set."""

    def __init__(self, index: Index, rows: Sequence[np.ndarray], crop_size: int) -> None:
        self.index, self.rows, self.crop_size = index, rows, crop_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> torch.Tensor:
        pool = read_pool(self.index, self.rows[number], self.crop_size)
        return torch.from_numpy(pool).permute(0, 3, 1, 2)                                 # NHWC in memory


def as_it_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The collate function: `WindowBatches` has already made the batch."""
    return batch


def make_loader(index: Index, rule: WindowRule, rows: np.ndarray, *, batch_size: int, crop_size: int,
                num_workers: int = 0, world_size: int = 1, pin_memory: bool = False) -> DataLoader:
    """Loader of the batches of all processes; give it to `accelerator.prepare`.

    Before each epoch set `order_of(loader).epoch`, and `.start` to resume in its middle.

    Raises:
        ValueError: no rows, too little shared memory, or a setting that crops straight from videos cannot have.
    """
    if len(rows) == 0:
        remedy = "give a smaller stride" if (index.label >= 0).any() else \
            f"write 1 looking or 0 not looking into the column label of boxes/{index.facts.get('split')}.csv"
        raise ValueError(f"{index.folder}: no rows to load, {np.count_nonzero(index.label >= 0)} of its {len(index)} "
                         f"faces have a label -> {remedy}")
    if num_workers:
        shield_workers()
    check_workers(num_workers, rule, batch_size, crop_size)
    if isinstance(index, VideoIndex):
        if rule.gaussian_drop and rule.quality_fit is None:
            raise ValueError(f"{index.folder}: --Gaussiandrop needs the quality of all faces of a split, which is not "
                             "known before they are cut -> give --crops shards, or score a checkpoint that was "
                             "trained with it and use its fit (--quality_from train)")
        order = ClipOrder(index, rule, rows, batch_size, world_size, num_workers)
        windows = ClipBatches(index, rule, rows, crop_size, order)
    else:
        order = BatchOrder(index, rule, rows, batch_size, world_size)
        windows = WindowBatches(index, rule, rows, crop_size)
    return DataLoader(
        windows, collate_fn=as_it_is,  # type: ignore[arg-type]
        num_workers=num_workers, batch_sampler=order, pin_memory=pin_memory,
        persistent_workers=num_workers > 0, worker_init_fn=start_loader_worker,
        multiprocessing_context=WORKERS if num_workers else None)


def make_pools(index: Index, rows: Sequence[np.ndarray], crop_size: int, num_workers: int = 0) -> DataLoader:
    """Loader of `Pools`, in order."""
    check_shared_memory(num_workers, max(map(len, rows), default=0) * 3 * crop_size ** 2, 1)
    return DataLoader(Pools(index, rows, crop_size), batch_size=None, num_workers=num_workers,
                      worker_init_fn=start_loader_worker, multiprocessing_context=WORKERS if num_workers else None)


def check_shared_memory(num_workers: int, batch: float, loaders: int) -> None:
    """Refuse more workers than shared memory holds the batches of: a worker that finds it full is killed.

    Args:
        batch: bytes of a batch. loaders: how many have so many workers each.

    Raises:
        ValueError: naming how many fit.
    """
    if not num_workers or not SHARED_MEMORY.is_dir():                  # elsewhere it is not a file system
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    each = math.ceil(batch * BUFFERS * ROOM) * loaders * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    need = num_workers * each
    if need > free:
        raise ValueError(f"{SHARED_MEMORY}: {free >> 20} MiB are free, and --num_workers {num_workers} needs up to "
                         f"{need >> 20} MiB -> give --num_workers {free // each} or a smaller --batch_size, or start "
                         f"docker with --shm-size={(need >> 30) + 1}g")


def check_workers(num_workers: int, rule: WindowRule, batch_size: int, crop_size: int) -> None:
    """As `check_shared_memory`, of a loader; windows of a segment share crops."""
    crops = 2 * rule.reach + 1                                         # of a window
    if rule.behaviour.share_frames:
        crops = min(crops, rule.stride + (2 * rule.reach / rule.windows_per_segment if rule.train else 0))
    loaders = 2 if rule.train else 1                                   # validation keeps its workers beside these
    check_shared_memory(num_workers, batch_size * crops * 3 * crop_size ** 2, loaders)


def order_of(loader: DataLoader) -> BatchOrder:
    """The `BatchOrder` under a loader, also once `accelerator.prepare` has wrapped it."""
    sampler = loader.batch_sampler
    while not isinstance(sampler, BatchOrder):
        sampler = sampler.batch_sampler                                      # type: ignore[union-attr]
    return sampler


def windows_of(loader: DataLoader) -> WindowBatches:
    """What a loader of `make_loader` makes its batches with."""
    assert isinstance(loader.dataset, WindowBatches)
    return loader.dataset


def use_features(loader: DataLoader, features: Features) -> None:
    """Have a loader of `make_loader` deal out features instead of pixels, from its first batch on.

    Raises:
        RuntimeError: batches have been asked for already; workers that are running would go on with pixels.
    """
    if order_of(loader).in_use:
        raise RuntimeError("use_features comes before a loader's first batch -> make a new loader")
    windows_of(loader).features = features
