"""Goal 12: who looks, on real faces that were labelled by eye: the landmark score against others.

The faces lie beside the checkout, in ../shared/real: labels.csv (source, frame, face, x, y, width, height, label),
images/ and clips/. Intervals draw whole sources. Nothing here is tuned on these labels.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd

from benchmarks.measure import ROOT, Aim, Goal, main, parser
from gazepose.evaluation.metrics import evaluate, score_of_gaze
from gazepose.priors.face_landmarker import FaceLandmarker, FaceReading, five_points
from gazepose.priors.model_files import find
from gazepose.watch.codable import judge
from gazepose.watch.readout import READ, Readout
from gazepose.watch.table import as_cut

LANDMARKS, POSE, AS_IT_IS, MOVED = "landmarks", "head pose alone", "{} as the box is", "{} with the box moved"
SIZES = (96, 64, 48, 36, 28)
SIZE = "AUROC of landmarks, faces of {} px"
AUROC, COVERAGE, TIME = "AUROC of {}", "share codable", "milliseconds a face, one thread, CPU"
GOAL = Goal(12, "who looks, on real faces", (
    Aim(AUROC.format(LANDMARKS), least=0.95, unit=""), Aim(AUROC.format(POSE)), Aim(AUROC.format("GazePose")),
    Aim(AUROC.format("GazePose, box moved")), Aim(COVERAGE), Aim(TIME), *(Aim(SIZE.format(size)) for size in SIZES)))
FLAGS = parser(GOAL)
FLAGS.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "real", help="default %(default)s")
FLAGS.add_argument("--run", type=Path, help="a trained run or a checkpoint, scored too; its window repeats the face")
DRAWS = 200
BOX = ["x", "y", "width", "height"]


def pictures(folder: Path, labels: pd.DataFrame) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """(picture uint8 [H, W, 3] RGB, its rows of the table); clips are decoded in order."""
    for source, rows in labels.groupby("source", sort=False):
        image, wanted = folder / "images" / str(source), set(rows["frame"])
        if image.is_file():
            yield cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB), rows
            continue
        # PyAV itself: two of the clips are GIFs, which are no video to gazepose.data.video
        with av.open(str(folder / "clips" / str(source))) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    yield frame.to_ndarray(format="rgb24"), rows[rows["frame"] == number]
                if number >= max(wanted):
                    break


def columns_of(readings: list[FaceReading]) -> dict[str, np.ndarray]:
    names = (*READ, "presence", "light", "fit", "eye")
    return {name: np.array([getattr(reading, name) for reading in readings]) for name in names}


def shrunk(picture: np.ndarray, box: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The surroundings of a face and its box at a size of `height` pixels; None where the face is smaller."""
    x, y, width, tall = box
    if tall < height:
        return None
    x0, y0 = int(max(0, x - tall)), int(max(0, y - tall))
    part = picture[y0:int(y + 2 * tall), x0:int(x + width + tall)]
    scale = height / tall
    small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small, (box - [x0, y0, 0, 0]) * scale


class Trained:
    """Scores single faces with a trained model: its window shows the same crop everywhere."""

    def __init__(self, path: Path) -> None:
        import torch

        from gazepose.data.prepare import PrepareConfig
        from gazepose.models import ModelConfig
        from gazepose.training.checkpoint import from_json, read_model
        self.model, facts = read_model(path)
        self.reach = from_json(ModelConfig, facts["model"], path).reach
        prepared = from_json(PrepareConfig, facts.get("prepare"), path)
        self.size, self.scale = prepared.crop_size, prepared.rules.box_scale
        self.model.eval()
        torch.set_num_threads(1)

    def score(self, picture: np.ndarray, box: np.ndarray, reading: FaceReading) -> float:
        import torch

        from gazepose.data.crops import cut_face, grown, published_crop, stored_crop
        from gazepose.models import Priors
        from gazepose.training.augment import normalise
        corners = grown(np.append(box[:2], box[:2] + box[2:]), self.scale)
        face = cut_face(picture, corners)
        assert face is not None
        crop = stored_crop(face, self.size, published_crop(face))
        marks = (five_points(reading.points) - corners[:2]) / (corners[2:] - corners[:2])
        priors = Priors(torch.tensor([[reading.yaw, reading.pitch, reading.roll]]).float(),
                        torch.from_numpy(np.column_stack([marks, np.ones(5)])[None]).float())
        with torch.inference_mode():
            frames = normalise(torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)[None])))
            logits = self.model(frames, torch.zeros((1, 2 * self.reach + 1), dtype=torch.int64), priors).logits
        return float(torch.softmax(logits.double(), dim=1)[0, 1])


def kappa(confusion: dict[str, int]) -> float:
    """Cohen's kappa."""
    tp, fp, fn, tn = (confusion[name] for name in ("tp", "fp", "fn", "tn"))
    n = tp + fp + fn + tn
    by_chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
    return ((tp + tn) / n - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0


def figures(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """label int [N] of both classes, score float [N] -> the figures of a scorer."""
    found = evaluate(label, score)
    return {"AUROC": found["auroc"], "AP": found["ap_looking"], "accuracy": found["accuracy"],
            "kappa": kappa(found["confusion"]), "Brier": float(np.mean((score - label) ** 2))}


def with_intervals(label: np.ndarray, score: np.ndarray, source: np.ndarray, draws: int) -> dict[str, Any]:
    """Each figure as [value, low, high]: 95 % over draws of whole sources with replacement; and the faces."""
    known = np.isfinite(score)
    label, score, source = label[known], score[known], source[known]
    rows_of = [np.flatnonzero(source == name) for name in np.unique(source)]
    random, drawn = np.random.default_rng(0), []
    for _ in range(draws):
        rows = np.concatenate([rows_of[number] for number in random.integers(len(rows_of), size=len(rows_of))])
        if 0 < label[rows].sum() < len(rows):
            drawn.append(list(figures(label[rows], score[rows]).values()))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    values = figures(label, score)
    return {"faces": len(label), **{name: [round(float(number), 4) for number in (value, low[place], high[place])]
                                    for place, (name, value) in enumerate(values.items())}}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    if not (options.real / "labels.csv").is_file():
        return {"measured": {}, "skipped": f"{options.real / 'labels.csv'} is not there"}
    try:
        network = FaceLandmarker(find("face_landmarker"))
    except (FileNotFoundError, ImportError) as error:
        return {"measured": {}, "skipped": str(error)}
    labels = pd.read_csv(options.real / "labels.csv").query("label >= 0").reset_index(drop=True)
    if options.quick:
        labels = labels.groupby("label").head(8).reset_index(drop=True)
    label, source = labels["label"].to_numpy(), labels["source"].to_numpy()
    trained = Trained(options.run) if options.run else None
    names = [LANDMARKS, POSE, *((AS_IT_IS.format("GazePose"), MOVED.format("GazePose")) if trained else ())]
    scores = {name: np.full(len(labels), np.nan) for name in names}
    readings: list[Any] = [None] * len(labels)
    small: dict[int, list[Any]] = {size: [None] * len(labels) for size in SIZES}
    seconds = []
    for picture, rows in pictures(options.real, labels):
        for row, box in zip(rows.index.tolist(), rows[BOX].to_numpy(np.float64), strict=True):
            began = time.process_time()
            readings[row] = network.read(picture, box)
            seconds.append(time.process_time() - began)
            for size in SIZES:
                if (made := shrunk(picture, box, size)) is not None:
                    small[size][row] = network.read(*made)
            if trained:
                scores[names[2]][row] = trained.score(picture, box, readings[row])
                scores[names[3]][row] = trained.score(picture, as_cut(box), readings[row])
    readout, read_columns = Readout.shipped(), columns_of(readings)
    height = labels["height"].to_numpy(np.float64)
    scores[LANDMARKS] = readout.probability(*(read_columns[name] for name in READ))
    scores[POSE] = score_of_gaze(np.radians(np.column_stack([read_columns["yaw"], read_columns["pitch"]])))
    codable, reason = judge(height, **{name: read_columns[name]
                                       for name in ("light", "presence", "yaw", "pitch", "fit", "eye")})
    draws = 50 if options.quick else DRAWS
    found = {name: with_intervals(label, score, source, draws) for name, score in scores.items()}
    found[f"{LANDMARKS}, codable faces"] = with_intervals(
        label, np.where(codable, scores[LANDMARKS], np.nan), source, draws)
    by_size = {}
    for size, those in small.items():
        there = np.array([one is not None for one in those])
        columns = columns_of([one for one in those if one is not None])
        score = readout.probability(*(columns[name] for name in READ))
        by_size[size] = with_intervals(label[there], score, source[there], draws)
    auroc = {name: value["AUROC"][0] for name, value in found.items()}
    return {"measured": {
        AUROC.format(LANDMARKS): auroc[LANDMARKS], AUROC.format(POSE): auroc[POSE],
        AUROC.format("GazePose"): auroc.get(AS_IT_IS.format("GazePose")),
        AUROC.format("GazePose, box moved"): auroc.get(MOVED.format("GazePose")),
        COVERAGE: float(codable.mean()), TIME: 1000 * float(np.median(seconds)),
        **{SIZE.format(size): value["AUROC"][0] for size, value in by_size.items()}},
        "faces": len(labels), "sources": len(np.unique(source)), "looking": int(label.sum()), "scorers": found,
        "by size": by_size, "not codable": {name: int((reason == name).sum()) for name in np.unique(reason) if name},
        "looking among the faces that cannot be coded": int(label[~codable].sum()), "readout": readout.made}


if __name__ == "__main__":
    main("real_faces", GOAL, measure, FLAGS)
