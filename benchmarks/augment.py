"""Goal 16: what each random change of a training picture's look is worth, by leaving one out at a time.

A FaceGaze learns from rendered faces that are not changed. From its weights several go on, with equal faces in equal
order: with all changes, with none, and with all but one. Each then scores other rendered faces, as they are and changed
in one way at a time, and real faces where they lie beside the checkout (benchmarks/real_faces.py).
"""

import argparse
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.measure import ROOT, Aim, Goal, fresh_accelerator, main, parser
from gazepose.config import TrainConfig, parse_train
from gazepose.data import random_changes
from gazepose.data.random_changes import LOOKS, ZOOM_OUT
from gazepose.machine import core_numbers

KINDS: dict[str, tuple[str, ...]] = {
    "brightness": ("brightness",), "contrast": ("contrast",), "colour": ("colour", "red", "blue"), "grey": ("grey",),
    "gamma": ("gamma",), "blur": ("blur_x", "blur_y"), "downscaling": ("pixels",), "noise": ("noise",),
    "JPEG": ("quality",), "occlusion": ("cover",), "surroundings": ("oval",), "larger boxes": ()}
"""a change -> the amounts of LOOKS that make it; larger boxes are part of the random crop"""
ALL, NONE = "all changes", "no changes"
UNCHANGED, REAL = "faces as they are", "real faces"
GAIN_CHANGED = "AUROC that all changes gain against none, faces with one change each, mean"
GAIN, GAIN_REAL = (f"AUROC that all changes gain against none, {name}" for name in (UNCHANGED, REAL))
SPREAD = f"spread of that AUROC over seeds, all changes, {UNCHANGED}"
LOSES = "AUROC on faces with {0} that training without {0} loses"
GOAL = Goal(16, "what each change of the look is worth", (
    *(Aim(what, unit="") for what in (GAIN_CHANGED, GAIN, GAIN_REAL, SPREAD)),
    *(Aim(LOSES.format(kind), unit="") for kind in KINDS)),
    how="The same training with all changes. AUROC of the label on rendered faces that no training has seen.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--faces", type=int, nargs=3, default=(60_000, 10_000, 4_000), metavar="N",
                   help="to learn from unchanged, to go on with, and to score; default %(default)s")
FLAGS.add_argument("--seeds", type=int, default=3, help="trainings with all changes and with none; default %(default)s")
FLAGS.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "real", help="default %(default)s")
PIXELS, SEED = 64, 2000


@contextmanager
def only(kinds: Mapping[str, float | None]) -> Iterator[None]:
    """Within the block only the changes of `kinds` are drawn, with the chance that is given; None: with their own."""
    chances = {name: chance for kind, chance in kinds.items() for name in KINDS[kind]}
    partners = tuple(name for name in LOOKS if name.startswith("cover_") or name == "scene")
    looks = {name: values if name in partners else
             (0.0 if name not in chances else values[0] if chances[name] is None else chances[name], *values[1:])
             for name, values in LOOKS.items()}
    zoom = ZOOM_OUT if "larger boxes" in kinds else (0.0, ZOOM_OUT[1])
    with patch.dict(LOOKS, looks), patch.object(random_changes, "ZOOM_OUT", zoom):
        yield


def configured(quick: bool) -> TrainConfig:
    """FaceGaze, learning the gaze and the label of single faces, with random crops."""
    config, _ = parse_train(["--task", "gaze", "--label_loss", "1", "--gaze_loss", "3", "--crop_size", str(PIXELS),
                             "--epochs", "1", "--pretrained", "no", *(["--backbone", "test_resnet"] if quick else [])])
    return config


def learn(stills: Path, start: Path | None, out: Path, rows: tuple[int, int], kinds: tuple[str, ...], seed: int,
          quick: bool) -> Path:
    """Train FaceGaze on some rows of the stills with the changes of `kinds`; its weights are written to `out`."""
    import torch

    from gazepose.data.index import Index
    from gazepose.data.loader import make_loader
    from gazepose.data.windows import WindowRule
    from gazepose.evaluation.metrics import class_weights
    from gazepose.models import build_model
    from gazepose.training.engine import train_steps
    from gazepose.training.optim import make_optimizer
    config = configured(quick)
    index, chosen = Index.open(stills), np.arange(*rows)
    torch.manual_seed(seed)
    model: Any = build_model(config.model).to(memory_format=torch.channels_last)
    if start:
        model.load_state_dict(torch.load(start, weights_only=True))
    rule = WindowRule.of(config.data, reach=config.model.reach, stride=1, train=True, seed=seed)
    loader = make_loader(index, replace(rule, augment="standard" if kinds else "off"), chosen,
                         batch_size=config.run.batch_size, crop_size=PIXELS)
    accelerator = fresh_accelerator("no")
    wrapped, optimizer, loader = accelerator.prepare(model, make_optimizer(model, config.optim), loader)
    loss = config.run.rule(class_weights(index.label[chosen]))
    with only(dict.fromkeys(kinds)):
        deque(train_steps(accelerator, wrapped, optimizer, loader, step=0, total=len(loader), seed=seed, loss=loss,
                          optim=config.optim), 0)
    torch.save(model.state_dict(), out)
    return out


def changed(pixels: np.ndarray, rows: np.ndarray, kind: str) -> np.ndarray:
    """Pictures uint8 [N, S, S, 3] with one change each, of an amount that is drawn for every one of them; the rows are
    their keys."""
    import torch

    from gazepose.data.random_changes import random_looks
    from gazepose.training.augment import warp
    from gazepose.training.photometric import change_look
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with only({kind: 1.0}):
        looks = torch.from_numpy(random_looks(rows, rows, 0, 0))
    if kind == "larger boxes":
        whole = np.tile(np.array([0, 0, 1, 1], np.float32), (len(rows), 1))
        factor = 1 + (ZOOM_OUT[1] - 1) * np.linspace(0, 1, len(rows), dtype=np.float32)[:, None]
        whole = np.concatenate([whole[:, :2] - (factor - 1) / 2, whole[:, 2:] * factor], axis=1)
        frames = warp(frames, torch.zeros(len(rows), dtype=torch.bool), torch.from_numpy(whole))
    else:
        frames = change_look(frames, looks)
    return (255 * frames).round().byte().permute(0, 2, 3, 1).numpy()


def real_crops(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labelled real faces as crops, uint8 [N, S, S, 3], their labels and their sources; none where the folder is
    not there."""
    import pandas as pd

    from benchmarks.real_faces import BOX, crop_of, pictures
    if not (folder / "labels.csv").is_file():
        return np.zeros((0, PIXELS, PIXELS, 3), np.uint8), np.zeros(0, int), np.zeros(0, str)
    crops, label, source = [], [], []
    for picture, rows in pictures(folder, pd.read_csv(folder / "labels.csv").query("label >= 0")):
        for x, y, width, height in rows[BOX].to_numpy(np.float64):
            crops.append(crop_of(picture, np.array([x, y, x + width, y + height]), PIXELS))
        label += rows["label"].tolist()
        source += rows["source"].tolist()
    return np.stack(crops), np.array(label), np.array(source)


def on_real_faces(found: Iterable[tuple[str, int, dict[str, np.ndarray]]], label: np.ndarray, source: np.ndarray
                  ) -> dict[str, list[dict[str, Any]]]:
    """AUROC, AP and more of each training on the real faces, with 95 % intervals over sources."""
    from benchmarks.real_faces import DRAWS, with_intervals
    figures: dict[str, list[dict[str, Any]]] = {}
    for name, seed, by_set in found:
        if REAL in by_set:
            figures.setdefault(name, []).append({"seed": seed, **with_intervals(label, by_set[REAL], source, DRAWS)})
    return figures


def scores(weights: Path, sets: Mapping[str, np.ndarray], quick: bool) -> dict[str, np.ndarray]:
    """The score of each picture of each set, by FaceGaze with these weights."""
    import torch

    from gazepose.models import Priors, build_model
    from gazepose.training.augment import normalise
    config = configured(quick).model
    model: Any = build_model(config)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    found = {}
    for name, pixels in sets.items():
        logits = []
        for some in torch.from_numpy(pixels).permute(0, 3, 1, 2).split(256):
            window = torch.arange(len(some))[:, None].repeat(1, 2 * config.reach + 1)
            priors = Priors(torch.full((len(some), 3), np.nan), torch.full((len(some), 5, 3), np.nan))
            with torch.inference_mode():
                logits.append(model(normalise(some), window, priors).logits.double())
        found[name] = torch.softmax(torch.cat(logits), dim=1)[:, 1].numpy()
    return found


def on_one_core(cores: Any) -> None:
    """A worker takes a core from the queue, so that the trainings of two workers do not wait for each other."""
    os.sched_setaffinity(0, [cores.get()])


def trained_and_scored(name: str, kinds: tuple[str, ...], seed: int, folder: Path, rows: tuple[int, int],
                       quick: bool) -> tuple[str, int, dict[str, np.ndarray]]:
    """Go on from the start with some changes, then score all sets of pictures."""
    weights = learn(folder / "stills" / str(PIXELS), folder / "start.pt", folder / f"{name}-{seed}.pt", rows, kinds,
                    seed, quick)
    with np.load(folder / "sets.npz") as sets:
        return name, seed, scores(weights, dict(sets), quick)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from gazepose.data.index import Index
    from gazepose.data.windows import read_pool
    from gazepose.evaluation.metrics import evaluate
    from gazepose.synthetic.stills import render_stills
    counts = (64, 64, 64) if options.quick else options.faces
    folder = options.work / "augment-{}-{}-{}".format(*counts)
    first, then, end = np.cumsum(counts).tolist()
    stills = render_stills(folder, "default", SEED, end, PIXELS)
    index = Index.open(stills)
    scored = np.arange(then, end)
    pixels, label = read_pool(index, scored, PIXELS), index.label[scored]
    real, real_label, real_source = real_crops(options.real)
    sets = {UNCHANGED: pixels, **{kind: changed(pixels, scored, kind) for kind in KINDS},
            **({REAL: real} if len(real) else {})}
    np.savez(folder / "sets.npz", **sets)                              # type: ignore[arg-type]
    learn(stills, None, folder / "start.pt", (0, first), (), 0, options.quick)
    seeds = range(1 if options.quick else options.seeds)
    ways = [(ALL, tuple(KINDS), seed) for seed in seeds] + [(NONE, (), seed) for seed in seeds]
    ways += [(kind, tuple(other for other in KINDS if other != kind), 0) for kind in KINDS]
    spawn = get_context("spawn")
    free, cores = spawn.Queue(), core_numbers()
    for core in cores:
        free.put(core)
    with ProcessPoolExecutor(len(cores), spawn, on_one_core, (free,)) as pool:
        tasks = [pool.submit(trained_and_scored, *way, folder, (first, then), options.quick) for way in ways]
        found = []
        for task in tasks:
            found.append(task.result())
            print(f"{len(found)} of {len(ways)}: {found[-1][0]}, seed {found[-1][1]}", flush=True)
    auroc: dict[str, list[dict[str, float]]] = {}
    for name, _, by_set in found:
        auroc.setdefault(name, []).append({one: evaluate(real_label if one == REAL else label, score)["auroc"]
                                           for one, score in by_set.items()})

    def of(way: str, *names: str) -> float:
        return mean(one[name] for one in auroc[way] for name in names)

    spread = stdev(one[UNCHANGED] for one in auroc[ALL]) if len(auroc[ALL]) > 1 else None
    gains = {name: of(ALL, *those) - of(NONE, *those) for name, those in
             ((GAIN_CHANGED, tuple(KINDS)), (GAIN, (UNCHANGED,)), (GAIN_REAL, (REAL,))) if set(those) <= set(sets)}
    # against the training of the same seed, so of the same order of faces
    lost = {LOSES.format(kind): auroc[ALL][0][kind] - auroc[kind][0][kind] for kind in KINDS}
    return {"measured": {**gains, SPREAD: spread, **lost}, "faces": counts, "AUROC": auroc,
            REAL: on_real_faces(found, real_label, real_source), "looking": float(label.mean())}


if __name__ == "__main__":
    main("augment", GOAL, measure, FLAGS)
