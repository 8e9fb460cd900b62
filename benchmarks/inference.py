"""Goal 3: scoring every frame of tracks (stride 1): each frame through the backbone once, against seven times."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.material import FACES, faces
from benchmarks.measure import Aim, Goal, both_clocks, fresh_accelerator, interleaved, main, summaries
from benchmarks.reference import model as reference
from gazepose.data.windows import WindowRule, make_batch
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.training.augment import normalise
from gazepose.training.engine import predict

BATCH = 64
WANTED = {"GazePose": {"fp32": 7, "bf16": 15}, "GazeLSTM": {"fp32": 8, "bf16": 16}}
RATIO = "{} shared in {} against unshared in fp32, per CPU-second"
APART = "{} largest difference of a score in fp32"
GOAL = Goal(3, "inference at stride 1", tuple(
    aim for name, least in WANTED.items() for aim in (
        *(Aim(RATIO.format(name, kind), least=factor) for kind, factor in least.items()),
        Aim(APART.format(name), most=1e-5, unit=""))),
    how="Every frame of every window through the backbone, in fp32. Ours shares frames; the first figure is in "
        "fp32, as the default is. Normalisation is counted on our side only.")


def model_of(name: str) -> nn.Module:
    """At a random start, with BatchNorm statistics that are not trivial; scores spread as those of a trained one."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(model=name, prior_head=True, prior_landmark=True)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(0.6)
                module.running_var.uniform_(0.8, 1.2)                                  # type: ignore[union-attr]
    return model.to(memory_format=torch.channels_last)                                  # type: ignore[call-overload]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    index = faces(options.work, options.quick)
    batches = 1 if options.quick else 2
    rows = np.arange((8 if options.quick else BATCH) * batches, dtype=np.int64)
    # the frames of both ways are in memory: loading is goal 2
    shared = [make_batch(index, WindowRule(), part, 0, FACES) for part in np.split(rows, batches)]
    windows = [reference.as_windows(normalise(batch["frames"]), batch["window"]) for batch in shared]
    ways: dict[str, Callable[[], int]] = {}
    said: dict[str, np.ndarray] = {}

    def ours(model: nn.Module, key: str, precision: str) -> int:
        said[key] = predict(fresh_accelerator(precision), model, shared, rows).score       # type: ignore[arg-type]
        return len(rows)

    def plain(model: nn.Module, key: str) -> int:
        parts: list[Tensor] = [reference.scores(model, frames, Priors.of(batch))
                               for frames, batch in zip(windows, shared, strict=True)]
        said[key] = torch.cat(parts).numpy()
        return len(rows)

    fresh_accelerator("no")                                            # the cores are shared out before all ways
    for name in WANTED:
        model = model_of(name)
        ways[f"{name} unshared"] = partial(plain, reference.plain_model(model), f"{name} unshared")
        for kind, precision in (("fp32", "no"), ("bf16", "bf16")):
            ways[f"{name} {kind}"] = partial(ours, model, f"{name} {kind}", precision)
    timings = interleaved(ways, options.repeats, warm_up=not options.quick)
    measured: dict[str, float] = {}
    ratio = {}
    for name, kinds in WANTED.items():
        for kind in kinds:
            ratio[f"{name} {kind}"] = both_clocks(timings[f"{name} unshared"], timings[f"{name} {kind}"])
            measured[RATIO.format(name, kind)] = ratio[f"{name} {kind}"]["cpu"]
        measured[APART.format(name)] = float(np.abs(said[f"{name} fp32"] - said[f"{name} unshared"]).max())
    return {"measured": measured, "ratio": ratio, "windows": len(rows), "batch": len(rows) // batches,
            "frames": sum(len(batch["frames"]) for batch in shared), "seconds_per_window": summaries(timings),
            "spread_of_scores": {name: float(said[name].std()) for name in said},
            "bf16_apart": {name: float(np.abs(said[f"{name} bf16"] - said[f"{name} fp32"]).max()) for name in WANTED}}


if __name__ == "__main__":
    main("inference", GOAL, measure)
