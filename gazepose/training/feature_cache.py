"""Frozen: what a frozen backbone gives for each crop is computed once, kept beside the index, and dealt out from there.

Many heads can then be trained on one backbone without decoding a JPEG or running it again. The files are
data/features.py; here is what they hold and which process computes which of them.
"""

import hashlib
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from gazepose.data.features import (
    Features,
    finish,
    name_of,
    part_name,
    part_rows,
    room_for,
    staging_of,
    write_array,
    written,
)
from gazepose.data.index import Index
from gazepose.data.loader import WindowBatches, make_pools
from gazepose.data.windows import shown_rows
from gazepose.io import lock
from gazepose.models.gazepose import FrameEncoder
from gazepose.processes import Processes
from gazepose.progress import SECONDS
from gazepose.training.augment import normalise

FOLDER = "features"              # of an index
FRAMES = 64                      # that go through the backbone together


def cache_features(encoder: FrameEncoder, loaders: Iterable[DataLoader], processes: Processes, make: bool = True
                   ) -> None:
    """Have loaders deal out a frozen backbone's features instead of pixels, from the next time they are asked for
    batches.

    Args:
        encoder: of the model, with its final weights, on its device.
        make: compute what is not there yet; without it the loaders of such rows go on dealing out pixels.

    Raises:
        As `features_of`.
    """
    for loader in loaders:
        windows = loader.dataset
        assert isinstance(windows, WindowBatches)
        rows = shown_rows(windows.index, windows.rows, windows.rule.reach)
        windows.features = features_of(encoder, windows.index, rows, windows.crop_size, processes,
                                       num_workers=loader.num_workers, make=make)


def features_of(encoder: FrameEncoder, index: Index, rows: np.ndarray, crop_size: int, processes: Processes,
                num_workers: int = 0, make: bool = True) -> Features | None:
    """The features of some rows of an index, INDEX/features/<fingerprint>-<rows>; computed by all processes of a disk
    together where they are not there yet. None without them and without `make`.

    Args:
        rows: int64 ascending, as `shown_rows` gives them.

    Raises:
        ValueError: the crops are not in shards; a feature beyond float16; a file that is not what was written.
        FileNotFoundError: a file is gone. OSError: too little room on the disk.
    """
    if index.corners is not None:
        raise ValueError(f"{index.folder}: --cache_features wants crops that are there -> give --crops shards")
    digest = fingerprint(encoder, index, crop_size)
    folder = index.folder / FOLDER / name_of(digest, rows)
    there = all(processes.gather(folder.exists()))
    if not there and not make:
        return None
    if not there:
        with _alone(folder, processes):
            if not folder.exists():                                     # by now; the same on all processes of a disk
                _compute(encoder, index, rows, crop_size, folder, processes, num_workers)
    features = Features(folder)
    if there:
        features.verify(processes.rank, processes.world_size)
        processes.notify(f"features: {len(rows)} crops of {index.facts['split']} from {folder}")
    return features


def fingerprint(encoder: FrameEncoder, index: Index, crop_size: int) -> str:
    """Of all that features depend on: the backbone by name and weights, its output stride, the crops and their size."""
    digest = hashlib.sha256()
    shards = [shard["sha256"] for shard in index.contents["shards"]]
    digest.update(repr((encoder.name, encoder.output_stride, crop_size, shards,
                        index.contents["files"]["offset"]["sha256"])).encode())
    for name, value in sorted(encoder.backbone.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path, processes: Processes) -> Iterator[None]:
    """Runs that want the same features at the same time take turns; the first process holds the lock for all."""
    if processes.rank:
        processes.barrier()
        yield
        processes.barrier()
        return
    held = lock(folder.with_name(f".{folder.name}.lock"), processes.notify)
    processes.barrier()
    yield
    processes.barrier()
    held.release()


def _compute(encoder: FrameEncoder, index: Index, rows: np.ndarray, crop_size: int, folder: Path, processes: Processes,
             num_workers: int) -> None:
    """Every process takes every world-size-th of the parts that are not there yet."""
    began, split, staging = time.monotonic(), index.facts["split"], staging_of(folder)
    shape = next(_maps(encoder, index, [rows[:1]], crop_size)).shape[1:]
    parts = np.split(rows, range(part_rows(len(rows)), len(rows), part_rows(len(rows))))
    left = [(part_name(number), part) for number, part in enumerate(parts)
            if not written(staging, part_name(number))]
    crops, size = sum(len(part) for _, part in left), 2 * math.prod(shape)
    room_for(folder, crops * size)
    processes.notify(f"features: {crops} crops of {split} go once, whole and unmirrored, through the frozen "
                  f"{encoder.name}, {size} bytes each, {crops * size / 1e6:,.1f} MB -> {folder}")
    processes.barrier()                                                    # all have looked before one writes
    staging.mkdir(exist_ok=True)
    ours = left[processes.rank::processes.world_size]
    pools = [np.split(part, range(FRAMES, len(part), FRAMES)) for _, part in ours]
    maps = _told(_maps(encoder, index, list(chain.from_iterable(pools)), crop_size, num_workers),
                 sum(len(part) for _, part in ours), split, processes)
    for (name, part), some in zip(ours, pools, strict=True):
        write_array(staging, name, np.float16, (len(part), *shape), islice(maps, len(some)))
    processes.barrier()
    if processes.rank == 0:
        seconds = time.monotonic() - began
        finish(folder, rows, shape, {
            "backbone": encoder.name, "output_stride": encoder.output_stride, "crop_size": crop_size, "crops": crops,
            "seconds": round(seconds, 1), "processes": processes.world_size})
        processes.notify(f"features: {crops} crops of {split} in {seconds:.0f} s")
    processes.barrier()


@torch.inference_mode()
def _maps(encoder: FrameEncoder, index: Index, pools: list[np.ndarray], crop_size: int, num_workers: int = 0
          ) -> Iterator[np.ndarray]:
    """float16 [F, C, h, w] of each pool, computed in float32 whatever the run's precision."""
    encoder.backbone.eval()
    device = next(encoder.parameters()).device
    for rows, frames in zip(pools, make_pools(index, pools, crop_size, num_workers), strict=True):
        maps = encoder.maps_of(normalise(frames.to(device))).half()
        finite = maps.isfinite().flatten(1).all(1)
        if not finite.all():
            row = int(rows[int(finite.int().argmin())])
            raise ValueError(f"{index.folder}: row {row}: {encoder.name} gives what float16 cannot hold (beyond "
                             "65504, or not a number) -> leave out --cache_features")
        yield maps.contiguous().cpu().numpy()


def _told(maps: Iterator[np.ndarray], crops: int, split: str, processes: Processes) -> Iterator[np.ndarray]:
    """The same, with a line every half minute; all processes have as much to do as the first, give or take a part."""
    began = told = time.monotonic()
    done = 0
    for some in maps:
        yield some
        done, now = done + len(some), time.monotonic()
        if now - told > SECONDS:
            told = now
            processes.notify(f"features of {split}: {done / crops:.0%}, about "
                          f"{max(1, round((crops - done) * (now - began) / done / 60))} min left")
