"""Goal 10: an epoch of a head on a frozen backbone, from cached features against from pixels.

GazePose goes on from a run that `bash launch/demo.sh` makes, with its world. Three ways in turn: on pixels flipped and
cut at random, as the demo does; on whole pixels, which is the training that features give; on features, once before
with filling the cache. Timed are the epoch and the validation, without start-up.
"""

import argparse
import shutil
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.measure import Aim, Goal, fresh_accelerator, main, parser, timed
from gazepose.compat.start import start_from
from gazepose.config import TrainConfig, parse_train
from gazepose.data.features import Features
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.prepare import PrepareConfig
from gazepose.data.windows import WindowRule
from gazepose.evaluation.metrics import class_weights, evaluate
from gazepose.models import build_model
from gazepose.processes import Processes
from gazepose.source import Source, chosen_rows
from gazepose.training.engine import predict, train_steps
from gazepose.training.feature_cache import cache_features
from gazepose.training.losses import LossRule
from gazepose.training.optim import make_optimizer

PIXELS, WHOLE, FEATURES = "pixels, flipped and cut", "whole pixels", "features"
WAYS = (PIXELS, WHOLE, FEATURES)
TRAINING, SCORING = "training from features against pixels, per CPU-second", "scoring likewise"
EPOCH, RATE = "seconds of a training epoch from {}", "windows a second in training from {}"
FILL, PACE, ROOM = "seconds to fill the cache, once", "crops a CPU-second to fill it", "bytes of the cache a crop"
SCORES, MAP = "largest difference of a score before training", "val mAP after one epoch from {}"
GOAL = Goal(10, "heads on a frozen backbone", (
    Aim(TRAINING, least=3), Aim(SCORING, least=3), Aim(EPOCH.format(FEATURES), most=20, unit="s"),
    Aim(EPOCH.format(PIXELS), unit="s"), *(Aim(RATE.format(way)) for way in (FEATURES, PIXELS)), Aim(FILL), Aim(PACE),
    Aim(ROOM), Aim(SCORES, most=2e-3, unit=""), *(Aim(MAP.format(way)) for way in WAYS)),
    how="The same training from pixels. Flip and crop are counted there; features have neither.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--data", type=Path, default=Path("data/embedded/default-0"), help="default %(default)s")
FLAGS.add_argument("--start", type=Path, default=Path("runs/demo-0"),
                   help="what the head starts from; default %(default)s")
HEAD = ["--model", "GazePose", "--prior_head", "--prior_landmark", "--freeze_backbone", "--lr", "1e-4", "--epochs", "1"]
SMALL = ["--backbone", "test_resnet", "--output_stride", "32", "--limit", "32", "--batch_size", "8"]


def an_epoch(way: str, config: TrainConfig, splits: tuple[Index, Index], start: Path | None, accelerator: Accelerator
             ) -> dict[str, Any]:
    """Wall and CPU-seconds of filling the cache, of training and of scoring, per call; scores before, mAP after."""
    data, run, cached = config.data, config.run, way == FEATURES
    torch.manual_seed(0)
    model: Any = build_model(config.model).to(memory_format=torch.channels_last)
    if start:
        start_from(model, start)
    model.frames.backbone.requires_grad_(False)
    rule = WindowRule(stride=data.train_stride, windows_per_segment=data.windows_per_segment, train=True,
                      flip=way == PIXELS, crop=way == PIXELS)
    rows = [chosen_rows(index, stride, data.limit, labelled=True)
            for index, stride in zip(splits, (data.train_stride, data.val_stride), strict=True)]
    loaders = [make_loader(index, one, some, batch_size=run.batch_size, crop_size=config.prepare.crop_size)
               for index, one, some in zip(splits, (rule, rule.for_evaluation(data.val_stride)), rows, strict=True)]
    model, optimizer, *loaders = accelerator.prepare(model, make_optimizer(model, config.optim), *loaders)
    filling = timed(lambda: cache_features(model.frames, loaders, Processes()) or 1) if cached else None
    before = predict(accelerator, model, loaders[1], rows[1]).score
    steps = train_steps(accelerator, model, optimizer, loaders[0], step=0, total=len(loaders[0]), seed=0,
                        loss=LossRule(class_weights(splits[0].label[rows[0]])), optim=config.optim)
    training = timed(lambda: deque(steps, 1) and 1)
    after: list[Any] = []
    scoring = timed(lambda: after.append(predict(accelerator, model, loaders[1], rows[1]).score) or 1)
    return {"filling": filling and filling[:2], "training": training[:2], "scoring": scoring[:2],
            "windows": len(rows[0]), "scored": len(rows[1]), "before": before,
            "mAP": evaluate(splits[1].label[rows[1]], after[0])["mAP"]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    world, start = options.work / "features-world", None if options.quick else options.start
    if options.quick:
        Source(world, "tiny").ready(Processes(notify=lambda line: None))
    elif missing := [str(path) for path in (options.data, options.start) if not path.is_dir()]:
        return {"measured": {}, "skipped": f"{missing[0]} is not there; bash launch/demo.sh makes it"}
    else:
        shutil.rmtree(world, ignore_errors=True)
        shutil.copytree(options.data, world, ignore=shutil.ignore_patterns("features"))
    config, source = parse_train(["--data", str(world), *HEAD, *(SMALL if options.quick else [])])
    train, val = (source.split(name, PrepareConfig(crop_size=config.prepare.crop_size, decoder="pyav"), Processes())
                  for name in ("train", "val"))
    accelerator = fresh_accelerator("no")
    first = an_epoch(FEATURES, config, (train, val), start, accelerator)      # fills the cache and warms up
    made = [Features(path.parent) for index in (train, val) for path in index.folder.glob("features/*/features.json")]
    crops, room = sum(map(len, made)), sum(file.stat().st_size for one in made for file in one.files)
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(options.repeats):
        for way in WAYS[:: -1 if number % 2 else 1]:
            rounds[way].append(an_epoch(way, config, (train, val), start, accelerator))
    before = {way: found[0].pop("before") for way, found in rounds.items()}

    def ratio(what: str, clock: int) -> float:
        return median(slow[what][clock] / fast[what][clock]
                      for slow, fast in zip(rounds[PIXELS], rounds[FEATURES], strict=True))

    epoch = {way: median(one["training"][0] for one in found) for way, found in rounds.items()}
    return {"measured": {
        TRAINING: ratio("training", 1), SCORING: ratio("scoring", 1),
        **{EPOCH.format(way): epoch[way] for way in (FEATURES, PIXELS)},
        **{RATE.format(way): first["windows"] / epoch[way] for way in (FEATURES, PIXELS)},
        FILL: first["filling"][0], PACE: crops / first["filling"][1], ROOM: room / crops,
        SCORES: float(abs(before[FEATURES] - before[WHOLE]).max()),
        **{MAP.format(way): median(one["mAP"] for one in found) for way, found in rounds.items()}},
        "wall_ratio": {what: ratio(what, 0) for what in ("training", "scoring")}, "bytes": room, "crops": crops,
        "rounds": {way: [{name: value for name, value in one.items() if name != "before"} for one in found]
                   for way, found in rounds.items()}, "fill": first["filling"]}


if __name__ == "__main__":
    main("features", GOAL, measure, FLAGS)
