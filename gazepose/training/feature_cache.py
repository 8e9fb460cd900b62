"""Cache the frozen backbone's feature maps on disk, and load them instead of pixels.

Many heads can then be trained on one backbone without decoding a JPEG or running the backbone again. data/features.py
reads the files. Here is what the maps depend on, and how the processes of a run compute them.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from gazepose.data.features import Features, chunks_of, finish
from gazepose.data.index import Index
from gazepose.data.loader import make_pools, use_features, windows_of
from gazepose.data.windows import shown_rows
from gazepose.models.gazepose import FrameEncoder
from gazepose.processes import Processes
from gazepose.text import counted
from gazepose.training.augment import normalise
from gazepose.training.engine import batches_of

FOLDER = "features"              # of an index
FRAMES = 64                      # that go through the backbone together


def cache_features(encoder: FrameEncoder, loaders: Iterable[DataLoader], processes: Processes, make: bool = True
                   ) -> None:
    """Have loaders deal out a frozen backbone's features instead of pixels. Call it before their first batch.

    Args:
        encoder: of the model, with its final weights, on its device.
        make: compute the features that are missing. Without it, a loader whose features are missing stays with pixels.

    Raises:
        As `features_of` and `use_features`.
    """
    for loader in loaders:
        windows = windows_of(loader)
        rows = shown_rows(windows.index, windows.rows, windows.rule.reach)
        features = features_of(encoder, windows.index, rows, windows.crop_size, processes,
                               num_workers=loader.num_workers, make=make)
        if features is not None:
            use_features(loader, features)


def features_of(encoder: FrameEncoder, index: Index, rows: np.ndarray, crop_size: int, processes: Processes,
                num_workers: int = 0, make: bool = True) -> Features | None:
    """The features of some rows of an index, in INDEX/features/FINGERPRINT-ROWS.

    The processes of a disk compute together what is missing there. Without `make`, missing features are None.

    Args:
        rows: int64 ascending, as `shown_rows` gives them.

    Raises:
        ValueError: the crops are not in shards; a feature is beyond float16; a file is damaged.
        FileNotFoundError: a file is gone. OSError: too little room on the disk.
    """
    if index.corners is not None:
        raise ValueError(f"{index.folder}: --cache_features needs prepared crops -> give --crops shards")
    folder = index.folder / FOLDER / folder_name(encoder, index, rows, crop_size)
    if all(processes.gather(folder.exists())):
        features = Features(folder)
        features.verify(processes.rank, processes.world_size)
        processes.notify(f"features: {counted(len(rows), 'crop')} of {index.facts['split']} from {folder}")
        return features
    if not make:
        return None
    with processes.in_turn(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():                          # another run may have made it while this one waited
            _compute(encoder, index, rows, crop_size, folder, processes, num_workers)
    return Features(folder)


def folder_name(encoder: FrameEncoder, index: Index, rows: np.ndarray, crop_size: int) -> str:
    """What the maps are made from, then of which rows."""
    return f"{fingerprint(encoder, index, crop_size)[:16]}-{hashlib.sha256(rows.tobytes()).hexdigest()[:8]}"


def fingerprint(encoder: FrameEncoder, index: Index, crop_size: int) -> str:
    """Of all that features depend on: the backbone by name and weights, its output stride, the crops, their size and
    how they are smoothed."""
    digest = hashlib.sha256()
    shards = [shard["sha256"] for shard in index.contents["shards"]]
    digest.update(repr((encoder.name, encoder.output_stride, crop_size, shards,
                        index.contents["files"]["offset"]["sha256"], *((encoder.low_pass,) if encoder.low_pass else ())
                        )).encode())
    for name, value in sorted(encoder.backbone.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _compute(encoder: FrameEncoder, index: Index, rows: np.ndarray, crop_size: int, folder: Path, processes: Processes,
             num_workers: int) -> None:
    began, split = time.monotonic(), index.facts["split"]
    shape = next(_maps(encoder, index, [rows[:1]], crop_size)).shape[1:]
    chunks = chunks_of(folder, len(rows), shape)
    crops = sum(len(span) for span, file in zip(chunks.spans(), chunks.files(), strict=True) if file is None)
    bytes_each = 2 * math.prod(shape)
    size, free = crops * bytes_each, shutil.disk_usage(folder.parent).free
    if size > free:
        raise OSError(f"{folder}: needs {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there -> make room "
                      "(features of other backbones beside it may be deleted), or leave out --cache_features")
    processes.notify(f"features: {counted(crops, 'crop')} of {split} go once, whole and unmirrored, through the frozen "
                     f"{encoder.name}, {bytes_each} bytes each, {size / 1e6:,.1f} MB, into {folder}")

    def blocks(spans: list[range]) -> Iterator[np.ndarray]:
        """One loader for all chunks, so that its workers decode the next chunk while this one is computed."""
        pools = [rows[at:min(at + FRAMES, span.stop)] for span in spans for at in span[::FRAMES]]
        return _maps(encoder, index, pools, crop_size, num_workers)

    chunks.compute(blocks, f"features of {split}", "crops", processes)
    if processes.rank == 0:
        seconds = time.monotonic() - began
        finish(folder, chunks, rows, {
            "backbone": encoder.name, "output_stride": encoder.output_stride, "crop_size": crop_size, "crops": crops,
            "seconds": round(seconds, 1), "processes": processes.world_size})
        processes.notify(f"features: {counted(crops, 'crop')} of {split} in {seconds:.0f} s")


@torch.inference_mode()
def _maps(encoder: FrameEncoder, index: Index, pools: list[np.ndarray], crop_size: int, num_workers: int = 0
          ) -> Iterator[np.ndarray]:
    """float16 [F, C, h, w] of each pool, computed in float32 whatever the run's precision."""
    encoder.backbone.eval()
    device = next(encoder.parameters()).device
    for rows, frames in zip(pools, batches_of(make_pools(index, pools, crop_size, num_workers)), strict=True):
        maps = encoder.maps_of(normalise(frames.to(device))).half()
        finite = maps.isfinite().flatten(1).all(1)
        if not finite.all():
            row = int(rows[int(finite.int().argmin())])
            raise ValueError(f"{index.folder}: row {row}: {encoder.name} gives values that float16 cannot hold (beyond "
                             "65504, or not a number) -> leave out --cache_features")
        yield maps.contiguous().cpu().numpy()
