"""The loader: in what order windows come, and in which batches.

`BatchOrder` is the global sequence, a function of (seed, epoch, windows per segment). `accelerator.prepare(loader)`
deals its batches out to the processes, and nothing else does. Crops that come straight from videos have an order of
their own, `ClipOrder`, in which every reader goes through its clips one after another.
"""

import faulthandler
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from gazepose.data.clip_crops import watch
from gazepose.data.features import Features, empty_array
from gazepose.data.index import Index
from gazepose.data.shared_buffers import SharedBuffers
from gazepose.data.streaming import VideoIndex
from gazepose.data.windows import WindowRule, make_batch, neighbours, read_pool, segments
from gazepose.processes import WORKERS, shield_workers, start_loader_worker

BUFFER_WINDOWS = 4096            # from how many windows of its clips a reader draws the next segment in training
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
        self.in_use = False                              # whether batches have been asked for

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
        self.in_use = True
        order = self.order()
        left = order[self.start:][:len(self) * self.batch_size]
        filled = np.concatenate([left, ~np.resize(order, len(self) * self.batch_size - len(left))])
        for batch in filled.reshape(-1, self.batch_size).tolist():
            yield [(self.epoch, row) for row in batch]


class WindowBatches(Dataset):
    """Turns a batch of (epoch, row) into its tensors; holds no state but the open index and a worker's buffers."""

    def __init__(self, index: Index, rule: WindowRule, rows: np.ndarray, crop_size: int):
        self.index, self.rule, self.rows, self.crop_size = index, rule, rows, crop_size
        self.buffers: SharedBuffers | None = None
        self.features: Features | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, torch.Tensor]:
        return self.__getitems__([place])

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        rows = np.array([row for _, row in places], np.int64)
        if get_worker_info() is None:
            return make_batch(self.index, self.rule, rows, places[0][0], self.crop_size, features=self.features)
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)      # the training process notices within seconds
        try:
            self.buffers = self.buffers or SharedBuffers()
            batch = make_batch(self.index, self.rule, rows, places[0][0], self.crop_size, self.buffers.empty,
                               self.features)
            return {**batch, "frames": self.buffers.sent()}              # type: ignore[dict-item] # arrives as a tensor
        finally:
            faulthandler.cancel_dump_traceback_later()


class ClipOrder(BatchOrder):
    """Batches for readers of videos: a lane of batches for each worker of each process, each lane going through clips.

    Batch b goes to process b % world_size, and there to worker b // world_size % num_workers, so batches that are
    `lanes` apart meet in one worker. Rows are put in order of clips (shuffled for training, and so are the segments of
    a clip), cut into lanes of as many batches as each will get, so that a clip is read by one worker, or by two at a
    border; a training lane then draws each segment from a buffer of BUFFER_WINDOWS windows. All of it is a function of
    (seed, epoch, world size, workers). In evaluation the batches are those of BatchOrder, dealt out in another order.

    Args:
        num_workers: loader processes of each process; 0 reads in the process itself.
    """

    index: VideoIndex

    def __init__(self, index: VideoIndex, rule: WindowRule, rows: np.ndarray, batch_size: int, world_size: int = 1,
                 num_workers: int = 0):
        super().__init__(index, rule, rows, batch_size, world_size)
        self.lanes = world_size * max(num_workers, 1)
        self._plan: tuple[int, np.ndarray] | None = None

    def order(self) -> np.ndarray:
        """Rows and fillers of this epoch, int64 [batches x batch_size]."""
        return self.batches(self.epoch).ravel()

    def batches(self, epoch: int) -> np.ndarray:
        """Rows and fillers of all batches of an epoch, int64 [batches, batch_size]."""
        if self._plan is None or self._plan[0] != epoch:
            order = self._by_clip(epoch) if self.rule.train else self.rows
            number = -(-len(order) // (self.batch_size * self.world_size)) * self.world_size
            order = np.concatenate([order, ~np.resize(order, number * self.batch_size - len(order))])
            count = np.bincount(np.arange(number) % self.lanes, minlength=self.lanes)           # batches of each lane
            lanes = np.split(order, np.cumsum(count)[:-1] * self.batch_size)
            batches = np.empty((number, self.batch_size), np.int64)
            for lane, rows in enumerate(lanes):
                if self.rule.train:
                    rows = self._drawn(rows, epoch, lane)
                batches[lane::self.lanes] = rows.reshape(-1, self.batch_size)
            self._plan = epoch, batches
        return self._plan[1]

    def from_here(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Centre rows of the batch that is `rows` and of those after it in its lane, in order."""
        batches = self.batches(epoch)
        here = int(np.flatnonzero((batches == rows).all(1))[0])
        rest = batches[here::self.lanes].ravel()
        return np.where(rest < 0, ~rest, rest)

    def _by_clip(self, epoch: int) -> np.ndarray:
        """Rows with clips shuffled, and the segments of each clip."""
        border, sizes = _runs(segments(self.index, self.rule, self.rows, epoch))
        chance = np.random.Generator(np.random.PCG64([self.rule.seed, epoch]))
        clip = chance.permutation(len(self.index.clips))[self.index.clip_of(self.rows[border])]
        place = np.empty(len(border), np.int64)
        place[np.lexsort((chance.random(len(border)), clip))] = np.arange(len(border))
        return self.rows[np.argsort(np.repeat(place, sizes), kind="stable")]

    def _drawn(self, rows: np.ndarray, epoch: int, lane: int) -> np.ndarray:
        """Rows of a lane as its buffer gives them: a segment is delayed by a random part of the buffer, so that never
        more than a buffer of them has come and not gone."""
        if not len(rows):
            return rows
        _, sizes = _runs(segments(self.index, self.rule, np.where(rows < 0, ~rows, rows), epoch))
        buffer = max(BUFFER_WINDOWS // int(sizes.max()), 1)
        chance = np.random.Generator(np.random.PCG64([self.rule.seed, epoch, lane]))
        leaves = np.arange(len(sizes)) + buffer * chance.random(len(sizes))
        return rows[np.argsort(np.repeat(leaves, sizes), kind="stable")]


def _runs(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal names starts, and its length."""
    border = np.flatnonzero(np.diff(names, prepend=-1))
    return border, np.diff(np.append(border, len(names)))


class ClipBatches(WindowBatches):
    """As WindowBatches, reading a clip when the first of its crops is needed; batches come as ClipOrder has them.

    Memory of a reader: the JPEG bytes of the crops that the lane needs of the clip read last, and in training those of
    BUFFER_WINDOWS windows of earlier ones (at 224 px and 8 windows to a segment some 15,000 crops, 130 MB). Nothing
    depends on what came before: a reader that starts in the middle of an epoch (resume, with the first batches left
    out) reads the clips it needs from there.

    Rows of a clip that proves damaged become fillers in training (neither learnt from nor counted), and are an error
    in evaluation (VideoIndex.give_up).
    """

    index: VideoIndex

    def __init__(self, index: VideoIndex, rule: WindowRule, rows: np.ndarray, crop_size: int, order: ClipOrder):
        super().__init__(index, rule, rows, crop_size)
        self.order = order

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        epoch, rows = places[0][0], np.array([row for _, row in places], np.int64)
        return super().__getitems__([(epoch, row) for row in self._ready(rows, epoch).tolist()])

    def _ready(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Have the crops of a batch at hand; returns its rows, those of damaged clips replaced by fillers."""
        index, centre = self.index, np.where(rows < 0, ~rows, rows)
        while True:
            good = self._good(centre)
            wanted = centre[good]
            if not len(wanted):                                        # the fillers have to be some face or other
                later = self.order.from_here(rows, epoch)
                wanted = later[self._good(later)][:1]
                if not len(wanted):
                    raise ValueError(f"{index.folder}: no clip that a reader still has to read is whole -> look at the "
                                     "warnings above")
            lacking = index.lacking(self._shown(wanted))
            if not lacking:
                return np.where(good, rows, ~np.resize(wanted, len(rows)))
            later, clip = self.order.from_here(rows, epoch), lacking[0]
            if get_worker_info() is not None:
                watch()
            try:
                index.read(clip, self._shown(later[np.isin(index.clip_of(later), [clip, *index.held])]))
            except (ValueError, FileNotFoundError) as error:
                index.give_up(clip, error, goes_on=self.rule.train)

    def _good(self, rows: np.ndarray) -> np.ndarray:
        return ~np.isin(self.index.clip_of(rows), list(self.index.bad))

    def _shown(self, rows: np.ndarray) -> np.ndarray:
        """Rows of all crops that windows of these centres may show."""
        shown = np.unique(neighbours(self.index, rows, self.rule.reach))
        return shown[shown >= 0]


class Pools(Dataset):
    """Crops to be computed with: number n is uint8 [F, 3, S, S], those of the n-th rows."""

    def __init__(self, index: Index, rows: Sequence[np.ndarray], crop_size: int) -> None:
        self.index, self.rows, self.crop_size = index, rows, crop_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> torch.Tensor:
        pool = read_pool(self.index, self.rows[number], self.crop_size, empty_array)
        return torch.from_numpy(pool).permute(0, 3, 1, 2)                                 # NHWC in memory


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
    if isinstance(index, VideoIndex):
        if rule.gaussian_drop and rule.quality_fit is None:
            raise ValueError(f"{index.folder}: --Gaussiandrop needs the quality of all faces of a split, which is not "
                             "known before they are cut -> give --crops shards, or score a checkpoint that was "
                             "trained with it, by its fit (--quality_from train)")
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
    """Loader of the crops of rows, in their order."""
    return DataLoader(Pools(index, rows, crop_size), batch_size=None, num_workers=num_workers,
                      worker_init_fn=start_loader_worker, multiprocessing_context=WORKERS if num_workers else None)


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
