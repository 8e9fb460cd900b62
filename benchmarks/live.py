"""Goal 12: live: what a frame costs by part, memory over a long time, and what each window costs in mAP.

The mAP is that of a run on the validation clips of its world (`bash launch/demo.sh` makes both): --run and --data. The
costs need the model files (`python -m gazepose models`) and ../shared/real. What is not there is skipped.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.measure import ROOT, Aim, Goal, MemoryWatch, in_child, main, parser
from benchmarks.watch import REAL, wide
from gazepose.data.index import Index
from gazepose.data.quality import drop_in_evaluation, quality_p, scaled
from gazepose.data.windows import centre_rows, close_up, neighbours
from gazepose.evaluation.metrics import evaluate
from gazepose.training.scoring import RunModel, Window
from gazepose.watch.detect import BOX, COLUMNS, POINTS, SCORE_AT
from gazepose.watch.jobs import load_networks
from gazepose.watch.live import Watcher
from gazepose.watch.scorers import TrainedScorer

STEP = "720p with 2 to 3 faces, landmarks: CPU-milliseconds of a step, median"
STEP_95 = "the same, 95 of 100 steps below"
RUN_STEP = "with a run's score: CPU-milliseconds of a step, median"
RUN_STEP_95 = "with a run's score, 95 of 100 steps below"
GROWTH = "growth of memory from the second to the last fifth of 20,000 steps"
MAP = {"centred": "mAP of a run, window centred (t-3 to t+3)", "closed": "window closed (t-3 to t)",
       "causal": "window causal (t-6 to t)"}
GOAL = Goal(12, "live: each frame scored when it comes", (
    Aim(STEP, most=100, unit="ms"), Aim(STEP_95, most=100, unit="ms"), Aim(RUN_STEP, most=100, unit="ms"),
    Aim(RUN_STEP_95, most=100, unit="ms"), Aim(GROWTH, most=5, unit="MB"), *map(Aim, MAP.values())),
    how="No reference. From a frame to its answer; reading the camera is not counted.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--run", type=Path, default=ROOT / "runs" / "demo-0", help="trained run; default %(default)s")
FLAGS.add_argument("--data", type=Path, default=ROOT / "data" / "embedded" / "default-0" / "prepared" / "clean-64",
                   help="its prepared data; default %(default)s")
CLIP = "hysts_video01.mp4"                               # 2.6 faces a picture
PEOPLE = (((.3, .4), (.7, .4), (.5, .6), (.35, .8), (.65, .8)), 2)
"""five points of a face as parts of its box, and how many faces a picture of the long run has"""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    measured, skipped, parts, windows = {}, [], {}, {}
    run = RunModel.read(options.run) if options.run.is_dir() else None
    index = options.data / "val"
    if run is None or not index.is_dir():
        skipped.append(f"{options.run.name} or its data are not there")
    else:
        windows = window_scores(run, Index.open(index), 60 if options.quick else None)
        measured |= {MAP[name]: found["mAP"] for name, found in windows.items()}
    try:
        steps = 20 if options.quick else 300
        parts["landmarks"] = steps_of(None, steps)
        measured |= {STEP: parts["landmarks"]["cpu_ms"]["step"]["median"],
                     STEP_95: parts["landmarks"]["cpu_ms"]["step"]["95"]}
        if run is not None:
            parts["run"] = steps_of(run, steps)
            measured |= {RUN_STEP: parts["run"]["cpu_ms"]["step"]["median"],
                         RUN_STEP_95: parts["run"]["cpu_ms"]["step"]["95"]}
    except FileNotFoundError as error:
        skipped.append(str(error))
    memory = in_child(long_run, 300 if options.quick else 20_000)
    measured[GROWTH] = memory["growth_mb"]
    return {"measured": measured, "windows": windows, "steps": parts, "memory": memory,
            **({"skipped": "; ".join(skipped)} if skipped else {})}


# ---- windows

def window_scores(run: RunModel, index: Index, limit: int | None) -> dict[str, Any]:
    """mAP and AUROC of each window on every third face of the clips."""
    rows = centre_rows(index, 3)[:limit]
    shown = {window: shown_rows(run, index, rows, window) for window in MAP}
    pool = np.unique(np.concatenate([each.ravel() for each in shown.values()]))
    crops = (np.stack([run.resized(index.crop(row)) for row in part.tolist()])
             for part in np.array_split(pool, max(1, len(pool) // 64)))
    maps = torch.cat([run.maps(some) for some in crops])
    found = {}
    for window, frames in shown.items():
        centre = frames[:, frames.shape[1] // 2]
        places = np.searchsorted(pool, frames)
        score = np.concatenate([run.probabilities(maps, places[part], index.head_pose[centre[part]],
                                                  index.landmarks[centre[part]])
                                for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 64))])
        result = evaluate(np.asarray(index.label[rows]), score)
        found[window] = {name: result[name] for name in ("mAP", "auroc", "n")}
    return found


def shown_rows(run: RunModel, index: Index, rows: np.ndarray, window: Window) -> np.ndarray:
    """Rows of the crops that each window shows, int64 [B, T]: as watch/scorers.py makes them."""
    reach, centre = run.network.reach, rows
    if window == "causal":                               # at the start of a track, its first frame
        before = neighbours(index, rows, reach)[:, :reach + 1]
        centre = before[np.arange(len(rows)), (before >= 0).argmax(axis=1)]
    frames = neighbours(index, centre, reach)
    present = frames >= 0
    if run.quality_fit is not None:
        quality = scaled(index.quality[np.maximum(frames, 0)], run.quality_scale)         # type: ignore[arg-type]
        dropped = drop_in_evaluation(quality_p(quality, *run.quality_fit))
        dropped[:, reach] = False
        present &= ~dropped
    if window != "centred":
        present &= index.frame[np.maximum(frames, 0)] <= index.frame[rows][:, None]
    return np.take_along_axis(frames, close_up(present), axis=1)


# ---- costs

def steps_of(run: RunModel | None, steps: int) -> dict[str, Any]:
    """CPU-milliseconds and wall milliseconds of a step by part: median, and below what 95 of 100 stay."""
    if not (REAL / "clips").is_dir():
        raise FileNotFoundError(f"{REAL}: not there")
    scorer = None if run is None else TrainedScorer(run, "closed")
    watcher = Watcher(*load_networks(), scorer)
    pictures = list(islice(wide(REAL / "clips" / CLIP, (1280, 720), 1), 30))
    spent: dict[str, list[float]] = {}
    for name, owner, method in (("cuts", watcher._cuts, "add"), ("find", watcher.detector, "find"),
                                ("follow", watcher._tracker, "step"), ("read", watcher.reader, "read"),
                                ("crop", scorer, "add"), ("score", scorer, "take_now")):
        if owner is not None:
            setattr(owner, method, counted(getattr(owner, method), spent, name))
    cpu: dict[str, list[float]] = {}
    wall, faces = [], 0
    for number in range(steps + 10):
        spent.clear()
        began, clock = time.process_time(), time.perf_counter()
        found = watcher.step(pictures[number % len(pictures)], number / 30)
        if number < 10:                                  # the first ones make buffers
            continue
        faces += len(found)
        wall.append(1000 * (time.perf_counter() - clock))
        cpu.setdefault("step", []).append(1000 * (time.process_time() - began))
        for name, each in spent.items():
            cpu.setdefault(name, []).append(1000 * sum(each))
    return {"faces": faces / steps, "cpu_ms": {name: spread(each) for name, each in cpu.items()},
            "wall_ms": spread(wall)}


def counted(work: Callable[..., Any], spent: dict[str, list[float]], name: str) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        began = time.process_time()
        try:
            return work(*args)
        finally:
            spent.setdefault(name, []).append(time.process_time() - began)
    return run


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 2), "95": round(float(np.percentile(values, 95)), 2)}


# ---- memory

class Drawn:
    """Two faces that come and go, and a landmark network for them."""

    number = 0

    def find(self, picture: np.ndarray) -> np.ndarray:
        self.number += 1
        points, count = PEOPLE
        there = [place for place in range(count) if (self.number // 200 + place) % 3]
        faces = np.ones((len(there), COLUMNS))
        faces[:, BOX] = [[40 + 120 * place + self.number % 7, 60, 60, 60] for place in there]
        faces[:, POINTS] = (faces[:, None, :2] + np.array(points) * faces[:, None, 2:4]).reshape(-1, 10)
        faces[:, SCORE_AT] = 0.9
        return faces

    def read(self, picture: np.ndarray, place: np.ndarray, five: np.ndarray | None = None) -> Any:
        return SimpleNamespace(points=np.zeros((478, 3), np.float32), presence=.99, pitch=0.0, roll=0.0, eye_x=0.0,
                               yaw=float(40 * np.sin(self.number / 30)), eye_y=0.0, blink=0.0, light=120.0, fit=.02,
                               eye=15.0)


def long_run(steps: int) -> dict[str, Any]:
    """Memory of so many steps of the watcher; finding and reading are stood in for."""
    drawn = Drawn()
    watcher, events = Watcher(drawn, drawn), 0
    watcher.warm_up()
    pictures = [np.full((240, 320, 3), level, np.uint8) for level in (90, 91, 92)]
    with MemoryWatch() as memory:
        for number in range(steps):
            watcher.step(pictures[number % 3], number / 30)
            events += len(watcher.events)
    return {"growth_mb": memory.growth() / 1e6, "peak_mb": memory.peak / 1e6, "steps": steps, "events": events}


if __name__ == "__main__":
    main("live", GOAL, measure, FLAGS)
