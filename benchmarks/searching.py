"""Goal 13: what it costs to search faces 15 times a second instead of in every picture, on real labelled clips.

The same clips are watched twice by the same code. In the pictures between two searches, boxes are interpolated; the
landmarks are read in every picture both times. The clips are those of benchmarks/real_faces.py.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from benchmarks.measure import ROOT, Aim, Goal, cpu_seconds, main, parser
from benchmarks.real_faces import BOX, DRAWS, gain, with_intervals
from gazepose.priors.model_files import find
from gazepose.watch import bouts
from gazepose.watch.command import DETECT_SECONDS
from gazepose.watch.faces import faces_of, read_pass, video_of
from gazepose.watch.jobs import Pass, make_tools
from gazepose.watch.tracker import overlaps
from gazepose.watch.video_pass import watch_video

COST = "AUROC that searching 15 times a second costs, {}"
SAVED = "CPU-seconds of watching, part that it saves"
SCORES = ("raw", "smoothed")
GOAL = Goal(13, "searching faces 15 times a second", (
    *(Aim(COST.format(name), most=0.005, unit="") for name in SCORES), Aim(SAVED)),
    how="Itself with a search in every picture.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "real", help="default %(default)s")
WAYS = {"every picture": 0.0, "15 times a second": DETECT_SECONDS}
LEAST_OVERLAP = 0.3          # of a labelled box and a found one, intersection over union


def measure(options: argparse.Namespace) -> dict[str, Any]:
    if not (options.real / "labels.csv").is_file():
        return {"measured": {}, "skipped": f"{options.real / 'labels.csv'} is not there"}
    try:
        models = {name: find(name) for name in ("yunet", "face_landmarker")}
    except (FileNotFoundError, ImportError) as error:
        return {"measured": {}, "skipped": str(error)}
    cv2.setNumThreads(1)
    labels = pd.read_csv(options.real / "labels.csv").query("label >= 0")
    clips = [path for path in sorted((options.real / "clips").iterdir()) if path.name in set(labels["source"])]
    clips = clips[-2:] if options.quick else clips
    labels = labels[labels["source"].isin([path.name for path in clips])].reset_index(drop=True)
    found = {}
    for name, every in WAYS.items():
        began = cpu_seconds()
        found[name] = scores_of(clips, labels, models, every, options.work / "searching")
        found[name]["cpu_s"] = cpu_seconds() - began
    label, source = labels["label"].to_numpy(), labels["source"].to_numpy()
    often, seldom = found.values()
    cost = {name: gain(label, often[name], seldom[name], source, DRAWS) for name in SCORES}
    both = np.isfinite(often["raw"]) & np.isfinite(seldom["raw"])
    return {"measured": {**{COST.format(name): value[0] for name, value in cost.items()},
                         SAVED: 1 - seldom["cpu_s"] / often["cpu_s"]},
            "clips": len(clips), "labelled faces": len(labels), "scored by both": int(both.sum()),
            "looking among them": int(label[both].sum()), "cost": cost,
            "ways": {name: {"cpu_s": way["cpu_s"], "not found": int(way["missing"].sum()),
                            **{score: with_intervals(label, way[score], source, DRAWS) for score in SCORES}}
                     for name, way in found.items()}}


def scores_of(clips: list[Path], labels: pd.DataFrame, models: dict[str, Path], every: float, work: Path
              ) -> dict[str, Any]:
    """The landmark score of each labelled face that can be coded, float [n], as it is and smoothed; NaN: not coded; and
    whether a face was not found, bool [n]. every: seconds between two searches."""
    found: dict[str, Any] = {name: np.full(len(labels), np.nan) for name in SCORES}
    found["missing"] = np.ones(len(labels), bool)
    for clip in clips:
        shutil.rmtree(work, ignore_errors=True)
        watch_video(clip, work, make_tools(Pass("clip", clip, work, models, {}, detect_seconds=every)))
        done = read_pass(work)
        raw = faces_of("clip", done, ["landmarks"])
        smooth = bouts.smooth(raw, videos=[video_of("clip", clip, done)])
        for row, label in labels[labels["source"] == clip.name].iterrows():
            there = np.flatnonzero(raw["frame"] == label["frame"])
            overlap = overlaps(label[BOX].to_numpy(np.float64)[None], raw[BOX].to_numpy()[there])[0]
            if len(overlap) and overlap.max() >= LEAST_OVERLAP:
                face, found["missing"][row] = there[overlap.argmax()], False
                found["raw"][row], found["smoothed"][row] = raw["looking"].iloc[face], smooth["looking"].iloc[face]
    shutil.rmtree(work, ignore_errors=True)
    return found


if __name__ == "__main__":
    main("searching", GOAL, measure, FLAGS)
