"""Order: which windows of an epoch come when, and in which batches, as a function of seed, epoch and settings.

`BatchOrder` is the one global sequence. `accelerator.prepare(loader)` deals its batches out to the processes.
`ClipOrder` is for crops that come straight from videos: every loader worker goes through its clips one by one.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from gazepose.data.index import Index
from gazepose.data.streaming import VideoIndex
from gazepose.data.windows import WindowRule, segments

BUFFER_WINDOWS = 4096            # from how many windows of its clips a lane draws the next segment in training
ROUND = 16                       # pictures; full pools are a multiple of it, so that few epochs differ in it


class BatchOrder(Sampler[list[tuple[int, ...]]]):
    """Batches of (epoch, row) for all processes, in order.

    Every batch is full and their number is a multiple of the world size. The last ones are filled up with rows from
    the start of the epoch, marked as fillers (bitwise complement), so every row counts exactly once. `start` windows
    of the epoch are left out: a run resumes there, on this or another number of processes.

    With `full_pools` all pools of an epoch have one size, for CUDA graphs: beside epoch and row stands that size.

    Args:
        rows: centre rows, int64 [N].
        batch_size: windows per batch and process; at most what the rows can fill.
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
        self.full_pools = False
        self.in_use = False                              # whether batches have been asked for

    def order(self) -> np.ndarray:
        """Rows of this epoch in order: those of the index for evaluation, whole segments shuffled for training."""
        if not self.rule.train:
            return self.rows
        length = _run_lengths(segments(self.index, self.rule, self.rows, self.epoch))
        shuffled = np.random.Generator(np.random.PCG64([self.rule.seed, self.epoch])).permutation(len(length))
        return _segments_in_order(self.rows, length, shuffled)

    def fingerprint(self) -> str:
        """Tells one order of the epoch from another."""
        return hashlib.sha256(self.order().tobytes()).hexdigest()[:16]

    def after(self, batches: int) -> int:
        """Windows of the epoch that are used up once each process has had so many batches from `start` on."""
        return min(len(self.rows), self.start + batches * self.batch_size * self.world_size)

    def __len__(self) -> int:
        return -(-(len(self.rows) - self.start) // (self.batch_size * self.world_size)) * self.world_size

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        self.in_use = True
        order = self.order()
        left = order[self.start:][:len(self) * self.batch_size]
        filled = np.concatenate([left, ~np.resize(order, len(self) * self.batch_size - len(left))])
        size: tuple[int, ...] = ()
        if self.full_pools:                              # a run that resumes in the epoch has the same size
            whole = np.concatenate([order, ~np.resize(order, -len(order) % self.batch_size)])
            size = (-(-self.most_frames(np.concatenate([whole, filled])) // ROUND) * ROUND,)
        for batch in filled.reshape(-1, self.batch_size):              # a list of all rows would delay the first batch
            yield [(self.epoch, row, *size) for row in batch.tolist()]

    def most_frames(self, rows: np.ndarray) -> int:
        """A bound of the pictures in a batch's pool (`pool_of`), over all batches of this epoch.

        It is computed from row numbers, because to find each window would take seconds in a large epoch. It is reached
        by whole tracks without gaps, and without temporal dropout.

        Args:
            rows: of whole batches, int64; fillers too.
        """
        reach, index = self.rule.reach, self.index
        if not self.rule.behaviour.share_frames:
            return self.batch_size * (2 * reach + 1)
        rows = np.where(rows < 0, ~rows, rows)
        new = np.diff(segments(index, self.rule, rows, self.epoch), prepend=-1) != 0
        new[::self.batch_size] = True
        piece = np.flatnonzero(new)                      # the windows of one segment in one batch: where they begin
        count = np.diff(np.append(piece, len(rows)))
        first, last = np.minimum.reduceat(rows, piece), np.maximum.reduceat(rows, piece)
        track = index.track_of(first)
        before, after = first - index.track_start[track], index.track_start[track + 1] - 1 - last
        # of a frame that the track has several times, the last row is shown beside the centre's own
        again = index.frame[np.minimum(last + 1, len(index) - 1)] == index.frame[last]
        frames = last - first + 1 + np.minimum(before, reach) + np.minimum(after, reach + again)
        frames = np.minimum(frames, count * (2 * reach + 1))
        return int(np.add.reduceat(frames, np.searchsorted(piece, np.arange(0, len(rows), self.batch_size))).max())


class ClipOrder(BatchOrder):
    """Batches in lanes: each worker of each process has a lane, and each lane goes through its own clips.

    Batch b goes to process b % world_size, and there to worker b // world_size % num_workers. So batches that are
    `lanes` apart meet in one worker. The rows are sorted by clip (in training clips are shuffled, and so are the
    segments of a clip), then cut into lanes: one worker reads a clip, or two at the border of their lanes. In
    training, each lane draws its segments from a buffer of BUFFER_WINDOWS windows. Everything is a function of seed,
    epoch, world size and workers. In evaluation the batches are those of BatchOrder, dealt out in another order.

    Args:
        num_workers: loader workers of each process; 0: the process reads by itself.
    """

    index: VideoIndex

    def __init__(self, index: VideoIndex, rule: WindowRule, rows: np.ndarray, batch_size: int, world_size: int = 1,
                 num_workers: int = 0):
        super().__init__(index, rule, rows, batch_size, world_size)
        self.lanes = world_size * max(num_workers, 1)
        self._batches: tuple[int, np.ndarray] | None = None            # of which epoch

    def order(self) -> np.ndarray:
        """Rows and fillers of this epoch, int64 [batches x batch_size]."""
        return self.batches(self.epoch).ravel()

    def batches(self, epoch: int) -> np.ndarray:
        """Rows and fillers of all batches of an epoch, int64 [batches, batch_size]."""
        if self._batches is None or self._batches[0] != epoch:
            order = self._by_clip(epoch) if self.rule.train else self.rows
            count = -(-len(order) // (self.batch_size * self.world_size)) * self.world_size
            order = np.concatenate([order, ~np.resize(order, count * self.batch_size - len(order))])
            batches = np.empty((count, self.batch_size), np.int64)
            lengths = [len(batches[lane::self.lanes]) * self.batch_size for lane in range(self.lanes)]
            for lane, rows in enumerate(np.split(order, np.cumsum(lengths)[:-1])):
                if self.rule.train and len(rows):
                    rows = self._shuffled_by_buffer(rows, epoch, lane)
                batches[lane::self.lanes] = rows.reshape(-1, self.batch_size)
            self._batches = epoch, batches
        return self._batches[1]

    def from_here(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Centre rows of the batch that is `rows` and of those after it in its lane, in order."""
        batches = self.batches(epoch)
        here = int(np.flatnonzero((batches == rows).all(1))[0])
        rest = batches[here::self.lanes].ravel()
        return np.where(rest < 0, ~rest, rest)

    def _by_clip(self, epoch: int) -> np.ndarray:
        """Rows with clips shuffled, and the segments of each clip."""
        length = _run_lengths(segments(self.index, self.rule, self.rows, epoch))
        generator = np.random.Generator(np.random.PCG64([self.rule.seed, epoch]))
        first = self.rows[np.cumsum(length) - length]
        clip = generator.permutation(len(self.index.clips))[self.index.clip_of(first)]
        return _segments_in_order(self.rows, length, np.lexsort((generator.random(len(length)), clip)))

    def _shuffled_by_buffer(self, rows: np.ndarray, epoch: int, lane: int) -> np.ndarray:
        """Rows of a lane, each segment delayed by a random part of the buffer: so many wait at most at any time."""
        length = _run_lengths(segments(self.index, self.rule, np.where(rows < 0, ~rows, rows), epoch))
        buffer = max(BUFFER_WINDOWS // int(length.max()), 1)           # segments
        generator = np.random.Generator(np.random.PCG64([self.rule.seed, epoch, lane]))
        place = np.arange(len(length)) + buffer * generator.random(len(length))
        return _segments_in_order(rows, length, np.argsort(place, kind="stable"))


def _run_lengths(names: np.ndarray) -> np.ndarray:
    """Length of each run of equal names."""
    starts = np.flatnonzero(np.diff(names, prepend=-1))
    return np.diff(np.append(starts, len(names)))


def _segments_in_order(rows: np.ndarray, length: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows whose consecutive segments, of these lengths, come in another order; their own rows keep theirs.

    Only the segments have been sorted: sorting millions of rows would delay the first batch.
    """
    first, length = (np.cumsum(length) - length)[order], length[order]
    return rows[np.arange(len(rows)) + np.repeat(first - (np.cumsum(length) - length), length)]
