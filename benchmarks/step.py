"""Goal 4: a training step per window, segments at stride 3 in bf16, against unshared windows in fp32 and plain Adam.

--seeds N also trains the model of `launch/demo.sh` N times with segments and N times without, and compares their mAP.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.material import FACES, faces
from benchmarks.measure import (
    ROOT,
    Aim,
    Goal,
    both_clocks,
    fresh_accelerator,
    interleaved,
    main,
    parser,
    summaries,
    times_faster,
)
from benchmarks.reference import model as reference
from gazepose.data.windows import BEHAVIOURS, WindowRule, centre_rows, make_batch
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.training.augment import to_model
from gazepose.training.engine import train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

STRIDE, SEGMENT = 3, 8
WEIGHTS = (0.2, 0.8)
MODELS = ("GazePose", "GazeLSTM")
WANTED = {"bf16": 8, "fp32": 4}
SHARED, EVERY = "segments", "segments of every face"
RATIO = "{} {} in {} against unshared in fp32, per CPU-second"
LOSS = "mAP lost by segments, in spreads of the seeds"
KINDS: dict[str, dict[str, Any]] = {"as published": {"behaviour": "published"},
                                    "that reads its frames": {"reader": True, "window_reader": True}}
COSTS = "GazePose {} against GazePose in segments, both in fp32, CPU-seconds"
GOAL = Goal(4, "a training step", (
    *(Aim(RATIO.format(name, SHARED, kind), least=least) for name in MODELS for kind, least in WANTED.items()),
    *(Aim(RATIO.format(name, EVERY, kind)) for name in MODELS for kind in WANTED),
    Aim(LOSS, most=1, unit="spreads"), *(Aim(COSTS.format(kind)) for kind in KINDS)),
    how="Unshared windows in fp32 with torch's own layers and plain Adam. Ours is in bf16 in the first figure, where "
        "the default is fp32. Flip, crop and normalisation are counted on our side only.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--seeds", type=int, default=0, help="trainings with and without segments; default none")


def model_of(name: str, **kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(model=name, prior_head=True, prior_landmark=True, **kind))  # type: ignore[arg-type]


def ours(name: str, batch: dict[str, torch.Tensor], precision: str, **kind: Any) -> Callable[[], int]:
    """Steps of the real training loop on one batch that is in memory."""
    model = model_of(name, **kind).to(memory_format=torch.channels_last)                # type: ignore[call-overload]
    optim = OptimConfig()
    optimizer = make_optimizer(model, optim)

    def work() -> int:
        accelerator = fresh_accelerator(precision)
        prepared, moved = accelerator.prepare(model, optimizer)
        taken = train_steps(accelerator, prepared, moved, [batch], step=0, total=10, seed=0,  # type: ignore[arg-type]
                            loss=LossRule(WEIGHTS), optim=optim)
        return sum(step.samples for steps in taken for step in steps)

    return work


def plain(name: str, batch: dict[str, torch.Tensor]) -> Callable[[], int]:
    """Steps of the reference way on the same windows, which its loader has normalised and cut."""
    model = reference.plain_model(model_of(name))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    done = to_model(dict(batch))
    windows = reference.as_windows(done["frames"], done["window"])

    def work() -> int:
        reference.train_step(model, optimizer, windows, Priors.of(done), done["label"], torch.tensor(WEIGHTS))
        return len(windows)

    return work


def reached(out: Path, seed: int, segment: int) -> float:
    """Validation mAP of the demo's training."""
    run = out / f"map-{segment}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    subprocess.run([sys.executable, "train.py", "--exp_path", str(run), "--seed", str(seed), "--prior_head",
                    "--prior_landmark", "--freeze_backbone", "--Gaussiandrop", "--windows_per_segment", str(segment)],
                   cwd=ROOT, check=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["mAP"] for line in lines if line["kind"] == "val"][-1]


def compare_maps(options: argparse.Namespace) -> dict[str, Any]:
    """mAP with and without segments."""
    found = {f"{segment} windows a segment": [reached(options.work, seed, segment)
                                              for seed in range(options.seeds)] for segment in (1, SEGMENT)}
    alone, shared = found.values()
    spread = max(stdev(alone), 1e-9) if len(alone) > 1 else None
    return {"mAP": found, "lost": None if spread is None else (mean(alone) - mean(shared)) / spread}


def top_operations(work: Callable[[], float], count: int = 10) -> list[dict[str, Any]]:
    """The operations in which a step spends most time by itself: name, milliseconds, share of all and calls."""
    torch.set_num_threads(1)
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    found = sorted(profiler.key_averages(), key=lambda each: -each.self_cpu_time_total)
    whole = sum(each.self_cpu_time_total for each in found)
    return [{"operation": each.key, "ms": each.self_cpu_time_total / 1000, "share": each.self_cpu_time_total / whole,
             "calls": each.count} for each in found[:count]]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    index = faces(options.work, options.quick)
    size = 8 if options.quick else 16
    rule = WindowRule(stride=STRIDE, windows_per_segment=SEGMENT, train=True)
    rows = centre_rows(index, STRIDE)[:size]
    shared = make_batch(index, rule, rows, 0, FACES)
    every = make_batch(index, replace(rule, stride=1), centre_rows(index, 1)[:size], 0, FACES)
    single = make_batch(index, WindowRule(stride=STRIDE, train=True), rows, 0, FACES)
    published = make_batch(index, replace(rule, behaviour=BEHAVIOURS["published"]), rows, 0, FACES)
    fresh_accelerator("no")                                            # the cores are shared out before all ways
    ways = {}
    for name in MODELS:
        ways |= {f"{name} unshared": plain(name, single), f"{name} segments, bf16": ours(name, shared, "bf16")}
        if not options.quick:
            ways |= {f"{name} segments, fp32": ours(name, shared, "no"),
                     f"{name} {EVERY}, fp32": ours(name, every, "no"),
                     f"{name} {EVERY}, bf16": ours(name, every, "bf16"),
                     f"{name} single windows, fp32": ours(name, single, "no"),
                     f"{name} single windows, bf16": ours(name, single, "bf16")}
    if not options.quick:
        ways |= {f"GazePose {kind}": ours("GazePose", published if "behaviour" in flags else shared, "no", **flags)
                 for kind, flags in KINDS.items()}
    timings = interleaved(ways, options.repeats, warm_up=not options.quick)
    ratio = {name: both_clocks(timings[f"{name.split()[0]} unshared"], timing) for name, timing in timings.items()
             if "unshared" not in name}
    maps = compare_maps(options) if options.seeds else {}
    measured = {RATIO.format(name, way, kind): ratio[f"{name} {way}, {kind}"]["cpu"]
                for name in MODELS for way in (SHARED, EVERY) for kind in WANTED if f"{name} {way}, {kind}" in ratio}
    measured |= {COSTS.format(kind): times_faster(timings[f"GazePose {kind}"], timings["GazePose segments, fp32"])
                 for kind in KINDS if f"GazePose {kind}" in timings}
    tops = {way: top_operations(work) for way, work in ways.items() if "segments," in way}
    return {"measured": {**measured, LOSS: maps.get("lost")},
            "ratio": ratio, "windows": size, "windows_per_segment": SEGMENT,
            "frames": {SHARED: len(shared["frames"]), EVERY: len(every["frames"]),
                       "single windows": len(single["frames"]), "published": len(published["frames"])},
            "seconds_per_window": summaries(timings), "maps": maps, "top operations, one thread": tops}


if __name__ == "__main__":
    main("step", GOAL, measure, FLAGS)
