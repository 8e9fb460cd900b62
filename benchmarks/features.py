"""Goal 10: an epoch of a head on a frozen backbone, from cached features against from pixels.

Trains the demo's last stage, from the stage before it, which `bash launch/demo.sh` makes with its world. Three ways: as
the demo does, on pixels flipped and cut at random; on whole pixels, which is the training that features give; on
features, once before with filling the cache. Times are those of the recorded steps, without start-up.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Aim, Goal, main, parser

PIXELS, WHOLE, FEATURES = "pixels, flipped and cut", "whole pixels", "features"
WAYS = {PIXELS: [], WHOLE: ["--no_flip", "--no_random_crop"], FEATURES: ["--cache_features"]}
RATE = "windows a second in training from {}"
FASTER = "training from features against pixels"
EPOCH, VALIDATION = "seconds of a training epoch from {}", "seconds of a validation from {}"
FILL, ROOM = "seconds to fill the cache, once", "bytes of the cache a crop"
START, MAP = "difference of val mAP before the first step", "val mAP after one epoch from {}"
GOAL = Goal(10, "heads on a frozen backbone", (
    Aim(FASTER, least=3), Aim(EPOCH.format(FEATURES), most=20, unit="s"), Aim(EPOCH.format(PIXELS), unit="s"),
    Aim(VALIDATION.format(FEATURES), unit="s"), Aim(VALIDATION.format(PIXELS), unit="s"),
    *(Aim(RATE.format(way), unit="windows/s") for way in (FEATURES, PIXELS)), Aim(FILL, unit="s"),
    Aim(ROOM, unit="bytes"), Aim(START, most=1e-3, unit=""), *(Aim(MAP.format(way)) for way in WAYS)))
FLAGS = parser(GOAL)
FLAGS.add_argument("--data", type=Path, default=Path("data/embedded/default-0"), help="default %(default)s")
FLAGS.add_argument("--start", type=Path, default=Path("runs/demo-0-head"),
                   help="what the head starts from; default %(default)s")
SMALL = ["--preset", "tiny", "--backbone", "test_resnet", "--output_stride", "32", "--limit", "32", "--batch_size", "8"]


def train(run: Path, flags: list[str]) -> dict[str, float | None]:
    """One epoch in a process of its own; its figures by their names."""
    shutil.rmtree(run, ignore_errors=True)
    subprocess.run([sys.executable, str(ROOT / "train.py"), "--exp_path", str(run), "--model", "GazePose",
                    "--prior_head", "--prior_landmark", "--freeze_backbone", "--lr", "1e-4", "--epochs", "1", *flags],
                   cwd=run.parent, check=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps, scored = ([line for line in lines if line["kind"] == kind] for kind in ("train", "val"))
    samples = json.loads((run / "status.json").read_text())["samples"]
    seconds = samples / len(steps) * sum(1 / step["samples_per_s"] for step in steps)
    before = scored[0] if len(scored) > 1 else None                    # only a start that is given is scored
    return {"epoch": seconds, "rate": samples / seconds, "mAP": scored[-1]["mAP"],
            "start": before and before["mAP"],
            "validation": before and scored[-1]["seconds"] - before["seconds"] - seconds}


def filled(world: Path) -> dict[str, Any]:
    """What the cache of a world took: crops, seconds and bytes."""
    made = [json.loads(path.read_text()) for path in world.glob("prepared/*/*/features/*/features.json")]
    size = sum(path.stat().st_size for path in world.glob("prepared/*/*/features/*/*"))
    return {"crops": sum(one["made_from"]["crops"] for one in made), "bytes": size,
            "seconds": sum(one["made_from"]["seconds"] for one in made), "shapes": [one["shape"] for one in made]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    world, flags = options.work / "features-world", SMALL
    if not options.quick:
        if missing := [str(path) for path in (options.data, options.start) if not path.is_dir()]:
            return {"measured": {}, "skipped": f"{missing[0]} is not there; bash launch/demo.sh makes it"}
        shutil.rmtree(world, ignore_errors=True)
        shutil.copytree(options.data, world, ignore=shutil.ignore_patterns("features"))
        flags = ["--data", str(world), "--checkpoint", str(options.start.resolve())]
    train(options.work / "features-run", [*flags, *WAYS[FEATURES]])       # fills it, and warms up the files
    cache = filled(world if not options.quick else options.work / "data" / "embedded" / "tiny-0")
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(options.repeats):
        for way in list(WAYS)[:: -1 if number % 2 else 1]:
            rounds[way].append(train(options.work / "features-run", [*flags, *WAYS[way]]))
    middle = {way: {name: median(one[name] for one in found) if found[0][name] is not None else None
                    for name in found[0]} for way, found in rounds.items()}
    return {"measured": {
        FASTER: median(one["rate"] / other["rate"]
                       for one, other in zip(rounds[FEATURES], rounds[PIXELS], strict=True)),
        **{EPOCH.format(way): middle[way]["epoch"] for way in (FEATURES, PIXELS)},
        **{VALIDATION.format(way): middle[way]["validation"] for way in (FEATURES, PIXELS)},
        **{RATE.format(way): middle[way]["rate"] for way in (FEATURES, PIXELS)},
        FILL: cache["seconds"], ROOM: cache["bytes"] / cache["crops"],
        START: None if options.quick else abs(middle[FEATURES]["start"] - middle[WHOLE]["start"]),
        **{MAP.format(way): middle[way]["mAP"] for way in WAYS}},
        "cache": cache, "rounds": rounds}


if __name__ == "__main__":
    main("features", GOAL, measure, FLAGS)
