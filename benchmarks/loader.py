"""Goal 2: training input through the real loader, against one file per face and seven float copies per window."""

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.material import FACES, face_files, faces, many_rows, rows_of
from benchmarks.measure import ROOT, Aim, Goal, Timing, both_clocks, interleaved, main, summaries, times_faster
from benchmarks.reference import loading as reference
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.windows import WindowRule, centre_rows, make_batch

WORKERS, BATCH, SEGMENT = 2, 64, 8
SINGLE, AT3, AT1 = (f"windows a second, {way} against files, two workers" for way in (
    "single windows", "segments at stride 3", "segments at stride 1"))
NEVER = "segments against single windows at stride 13"
LENGTH = "a test item of the longest track against one of the shortest"
WAITED = "share of a training step that waits for data, the demo's model"
FIRST, READY = "first batch under spawn, {} rows", "first batch in train.py's order, {} rows"
TORCH = "importing torch alone, which every spawned worker does"
ROWS = ("10 thousand", "3.5 million")
GOAL = Goal(2, "training input through the loader", (
    Aim(SINGLE, least=6), Aim(AT3, least=13), Aim(AT1, least=20), Aim(NEVER, least=0.95),
    Aim(LENGTH, most=1.2, unit="times the CPU-seconds"), Aim(WAITED, most=0.05, unit="of the time"),
    *(Aim(named.format(rows), most=2, unit="s") for named in (FIRST, READY) for rows in ROWS), Aim(TORCH, unit="s")),
    how="One JPEG file a face and seven float copies a window. Flip, crop and normalisation are counted there; "
        "here they are part of the step (goal 4).")


def an_epoch(loader: DataLoader, windows: Callable[[Any], int]) -> Callable[[], int]:
    """Runs a loader once and counts its windows; its workers stay."""
    return lambda: sum(windows(batch) for batch in loader)


def ours(index: Index, stride: int, segment: int) -> Callable[[], int]:
    rule = WindowRule(stride=stride, windows_per_segment=segment, train=True)
    loader = make_loader(index, rule, centre_rows(index, stride), batch_size=BATCH, crop_size=FACES,
                         num_workers=WORKERS)
    return an_epoch(loader, lambda batch: int((batch["row"] >= 0).sum()))


def plain(index: Index, folder: Path, windows: int) -> Callable[[], int]:
    rows = rows_of(index)
    chosen = [rows[n] for n in np.random.default_rng(0).choice(len(rows), min(windows, len(rows)), replace=False)]
    data = reference.FaceWindows(face_files(index, folder), chosen, train=True)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True,
                        multiprocessing_context="forkserver")
    return an_epoch(loader, lambda batch: len(batch[1]))


def throughput(options: argparse.Namespace) -> tuple[dict[str, Timing], float]:
    """Windows through two workers, and the frames that a window of segments needs, at stride 3."""
    index = faces(options.work, options.quick)
    folder = options.work / f"face-files-{FACES}"
    shared = make_batch(index, WindowRule(stride=3, windows_per_segment=SEGMENT, train=True),
                        centre_rows(index, 3)[:BATCH], 0, FACES)
    timings = interleaved({
        "files": plain(index, folder, BATCH if options.quick else 8 * BATCH),
        "single, stride 3": ours(index, 3, 1), "segments, stride 3": ours(index, 3, SEGMENT),
        "segments, stride 1": ours(index, 1, SEGMENT), "single, stride 13": ours(index, 13, 1),
        "segments, stride 13": ours(index, 13, SEGMENT)}, options.repeats)
    return timings, len(shared["frames"]) / len(shared["window"])


def test_items(options: argparse.Namespace) -> dict[str, dict[str, Timing]]:
    """One window of a test set, on a short track and on a long one."""
    source = faces(options.work, options.quick)
    found: dict[str, dict[str, Timing]] = {"files": {}, "ours": {}}
    ways: dict[str, Callable[[], int]] = {}
    lengths = {"short": 120, "long": 600 if options.quick else 9000}
    items = 4 if options.quick else 32
    for name, length in lengths.items():
        index = many_rows(source, options.work / f"track-{length}", tracks=1, length=length)
        folder = face_files(index, options.work / f"track-files-{length}", "{frame:05d}_unique{row}.jpg")
        places = np.linspace(10, length - 10, items).astype(int).tolist()
        data = reference.ChallengeWindows(folder, rows_of(index), train=False)

        def by_files(data: reference.ChallengeWindows = data, places: list[int] = places) -> int:
            return len([data[place] for place in places])

        def by_index(index: Index = index, places: list[int] = places) -> int:
            return len([make_batch(index, WindowRule(), np.array([place]), 0, FACES) for place in places])

        ways[f"files {name}"], ways[f"ours {name}"] = by_files, by_index
    for name, timing in interleaved(ways, options.repeats).items():
        way, track = name.split()
        found[way][track] = timing
    return found


def first_batch(index: Index, context: str) -> float:
    """Seconds from asking a new loader to its first batch; its workers import and open everything anew."""
    said = subprocess.run([sys.executable, "-m", "benchmarks.first_batch", str(index.folder), context], cwd=ROOT,
                          check=True, capture_output=True, text=True)
    return float(said.stdout)


def import_torch() -> float:
    """Seconds of a process that imports torch and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def demo_waits(options: argparse.Namespace) -> float:
    """Share of the steps' time without data: the model, crops and workers that an embedded world gets here."""
    # imported here: the loader's workers import this module too
    from gazepose.config import TrainConfig, train_defaults
    from gazepose.models import build_model
    from gazepose.training.distributed import start_accelerator
    from gazepose.training.engine import train_steps
    from gazepose.training.losses import LossRule
    from gazepose.training.optim import make_optimizer

    accelerator = start_accelerator()
    config = train_defaults(TrainConfig(), embedded=True, gpu=accelerator.device.type == "cuda")
    data = config.data
    index = faces(options.work, options.quick, config.prepare.crop_size)
    steps = 4 if options.quick else 40
    rows = centre_rows(index, data.train_stride)[:steps * config.run.batch_size]
    rule = WindowRule(stride=data.train_stride, windows_per_segment=data.windows_per_segment, train=True)
    loader = make_loader(index, rule, rows, batch_size=config.run.batch_size, crop_size=config.prepare.crop_size,
                         num_workers=data.num_workers)
    model = build_model(config.model).to(memory_format=torch.channels_last)
    model, optimizer, loader = accelerator.prepare(model, make_optimizer(model, config.optim), loader)
    taken = train_steps(accelerator, model, optimizer, loader, step=0, total=steps, seed=0,
                        loss=LossRule((0.5, 0.5)), optim=config.optim)
    next(taken)                                                                         # the first one warms up
    measured = list(chain.from_iterable(taken))
    return sum(step.waited for step in measured) / sum(step.seconds for step in measured)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    timings, frames = throughput(options)
    gc.collect()                                                       # ends the workers
    items = test_items(options)
    source = faces(options.work, options.quick)
    sizes = dict(zip(ROWS, (1_000, 10_000) if options.quick else (10_000, 3_500_000), strict=True))
    started = {}
    for name, rows in sizes.items():
        index = many_rows(source, options.work / f"rows-{rows}", tracks=rows // 500, length=500)
        started[name] = {context: [first_batch(index, context) for _ in range(options.repeats)]
                         for context in ("spawn", "forkserver")}
    ratio = {name: both_clocks(timings["files"], timing) for name, timing in timings.items() if name != "files"}
    return {"measured": {
        SINGLE: ratio["single, stride 3"]["wall"], AT3: ratio["segments, stride 3"]["wall"],
        AT1: ratio["segments, stride 1"]["wall"],
        NEVER: times_faster(timings["single, stride 13"], timings["segments, stride 13"], "wall"),
        LENGTH: times_faster(items["ours"]["long"], items["ours"]["short"]), WAITED: demo_waits(options),
        **{FIRST.format(name): median(started[name]["spawn"]) for name in ROWS},
        **{READY.format(name): median(started[name]["forkserver"]) for name in ROWS}, TORCH: import_torch()},
        "ratio": ratio, "seconds_per_window": summaries(timings), "windows_per_segment": SEGMENT,
        "frames_per_window": {"single": 7, "segments, stride 3": frames},
        "files_long_against_short": times_faster(items["files"]["long"], items["files"]["short"]),
        "seconds_per_test_item": {way: summaries(tracks) for way, tracks in items.items()},
        "first_batch_rows": sizes, "first_batch_seconds": started}


if __name__ == "__main__":
    main("loader", GOAL, measure)
