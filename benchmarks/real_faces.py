"""Goal 15: who looks, on real faces that were labelled by eye: the landmark score against others.

The faces lie beside the checkout, in ../shared/real: labels.csv (source, frame, face, x, y, width, height, label),
images/ and clips/. Intervals draw whole sources. Nothing here is tuned on these labels.

A student is a run that was trained on the landmark scores of some of the sources (`watch --dataset --small`). It is
scored on the other sources only; two students, each of one half, together score all.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd

from benchmarks.measure import ROOT, Aim, Goal, main, parser
from gazepose.data.crops import as_cut, cut_face, grown, published_crop, stored_crop
from gazepose.evaluation.comparison import draws_of_clips
from gazepose.evaluation.metrics import evaluate, score_of_gaze
from gazepose.io import read_object
from gazepose.priors.face_landmarker import FaceLandmarker, FaceReading, five_points
from gazepose.priors.model_files import find
from gazepose.watch.codable import judge
from gazepose.watch.dataset import clip_name
from gazepose.watch.readout import READ, Readout

LANDMARKS, POSE, STUDENT = "landmarks", "head pose alone", "student"
AS_IT_IS, MOVED = "GazePose as the box is", "GazePose with the box moved"
SIZES = (96, 64, 48, 36, 28)
WHOLE = 0                    # stands for the size that a face has
LARGER = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""how many times a detector's box, about its centre, a run is shown: how much depends on where boxes lie"""
CUT = "AUROC of GazePose, box times {}"
SIZE, SIZE_OF_STUDENT = "AUROC of landmarks, faces of {} px", "AUROC of students, faces of {} px"
AUROC, COVERAGE, TIME = "AUROC of {}", "share codable", "milliseconds a face, one thread, CPU"
GOAL = Goal(15, "who looks, on real faces", (
    Aim(AUROC.format(LANDMARKS), least=0.95, unit=""), Aim(AUROC.format(POSE)), Aim(AUROC.format("GazePose")),
    Aim(AUROC.format("GazePose, box moved")), Aim(COVERAGE), Aim(TIME),
    *(Aim(CUT.format(factor)) for factor in LARGER),
    *(Aim(what.format(size)) for what in (SIZE, SIZE_OF_STUDENT) for size in SIZES)),
    how="Head pose alone, on the same faces. Nothing is tuned on them.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "real", help="default %(default)s")
FLAGS.add_argument("--run", type=Path, help="a trained run or a checkpoint, scored too; its window repeats the face")
FLAGS.add_argument("--students", type=Path, nargs="+", default=[], help="runs that were trained on data sets of "
                   "`watch`; each is scored on the sources that its data set lacks")
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


def crop_of(picture: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """A face as training stores it, uint8 [size, size, 3]; corners x1, y1, x2, y2, with something of the picture."""
    face = cut_face(picture, corners)
    assert face is not None
    return stored_crop(face, size, published_crop(face))


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
        self.root = Path(str(facts.get("root")))
        torch.set_num_threads(1)

    def score(self, picture: np.ndarray, box: np.ndarray, reading: FaceReading) -> float:
        import torch

        from gazepose.models import Priors
        from gazepose.training.augment import normalise
        corners = grown(np.append(box[:2], box[:2] + box[2:]), self.scale)
        crop = crop_of(picture, corners, self.size)
        marks = (five_points(reading.points) - corners[:2]) / (corners[2:] - corners[:2])
        priors = Priors(torch.tensor([[reading.yaw, reading.pitch, reading.roll]]).float(),
                        torch.from_numpy(np.column_stack([marks, np.ones(5)])[None]).float())
        with torch.inference_mode():
            frames = normalise(torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)[None])))
            logits = self.model(frames, torch.zeros((1, 2 * self.reach + 1), dtype=torch.int64), priors).logits
        return float(torch.softmax(logits.double(), dim=1)[0, 1])


def lacks(student: Trained, sources: np.ndarray) -> np.ndarray:
    """Whether the data set that a student learnt from was made without each source, bool [n].

    Raises:
        FileNotFoundError: its data set is not there, or was not made by `watch`.
    """
    facts = student.root / "boxes" / "train.json"
    if not facts.is_file():
        raise FileNotFoundError(f"{facts}: not there, so nobody knows which sources the student has seen")
    watched = set(read_object(facts)["watched"])
    return np.array([clip_name(Path(source).stem) not in watched for source in sources])


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
    found = drawn(lambda rows: list(figures(label[rows], score[rows]).values()), label, source, draws)
    return {"faces": len(label), **dict(zip(figures(label, score), found, strict=True))}


def drawn(figures_of: Callable[[Any], list[float]], label: np.ndarray, source: np.ndarray, draws: int
          ) -> list[list[float]]:
    """[value, low, high] of each figure: of all rows, and the bounds of 95 % of the draws of whole sources. Of fewer
    than five sources only the value."""
    values = figures_of(slice(None))
    several = [figures_of(rows) for rows in draws_of_clips(source, draws) if 0 < label[rows].sum() < len(rows)]
    bounds = np.percentile(several, (2.5, 97.5), axis=0).tolist() if several else []
    return [[round(float(number), 4) for number in each] for each in zip(values, *bounds, strict=True)]


def gain(label: np.ndarray, new: np.ndarray, old: np.ndarray, source: np.ndarray, draws: int) -> list[float]:
    """How much AUROC one score has above another on the faces that both score: [value, low, high], as above."""
    both = np.isfinite(new) & np.isfinite(old)
    label, new, old, source = label[both], new[both], old[both], source[both]

    def more(rows: Any) -> list[float]:
        return [evaluate(label[rows], new[rows])["auroc"] - evaluate(label[rows], old[rows])["auroc"]]
    return drawn(more, label, source, draws)[0]


class Faces:
    """The labelled faces, whole and shrunk: their readings, and the scores of trained models.

    Attributes:
        readings: size -> FaceReading of each row, None where the face is smaller. scores: name -> size -> float [n].
        by_box: times the box -> score of the run on whole faces, float [n]. seconds: CPU-seconds of each reading.
    """

    def __init__(self, labels: pd.DataFrame, network: FaceLandmarker, run: Trained | None,
                 students: list[Trained]) -> None:
        self.labels, self.network, self.run, self.students = labels, network, run, students
        self.readings: dict[int, list[Any]] = {size: [None] * len(labels) for size in (WHOLE, *SIZES)}
        names = (*((AS_IT_IS, MOVED) if run else ()), *((STUDENT,) if students else ()))
        self.scores = {name: {size: np.full(len(labels), np.nan) for size in self.readings} for name in names}
        self.by_box = {factor: np.full(len(labels), np.nan) for factor in LARGER if run}
        self.seconds: list[float] = []
        unseen = np.array([lacks(student, labels["source"].to_numpy()) for student in students])
        self.student = np.where(unseen.any(axis=0), unseen.argmax(axis=0), -1) if students else np.full(len(labels), -1)

    def read(self, folder: Path) -> None:
        for picture, rows in pictures(folder, self.labels):
            for row, box in zip(rows.index.tolist(), rows[BOX].to_numpy(np.float64), strict=True):
                for size in self.readings:
                    if (made := (picture, box) if size == WHOLE else shrunk(picture, box, size)) is not None:
                        self._read(row, size, *made)

    def _read(self, row: int, size: int, picture: np.ndarray, box: np.ndarray) -> None:
        began = time.process_time()
        reading = self.readings[size][row] = self.network.read(picture, box)
        if size == WHOLE:
            self.seconds.append(time.process_time() - began)
        for factor, scores in self.by_box.items() if size == WHOLE and self.run else ():
            corners = grown(np.append(box[:2], box[:2] + box[2:]), factor)
            scores[row] = self.run.score(picture, np.append(corners[:2], corners[2:] - corners[:2]), reading)
        if self.run:
            self.scores[AS_IT_IS][size][row] = self.run.score(picture, box, reading)
            self.scores[MOVED][size][row] = self.run.score(picture, as_cut(box), reading)
        if self.student[row] >= 0:
            student = self.students[self.student[row]]
            self.scores[STUDENT][size][row] = student.score(picture, as_cut(box), reading)

    def of_landmarks(self, readout: Readout) -> None:
        """Add the scores that are made of readings: of the readout, and of the head pose alone."""
        self.scores |= {name: {size: np.full(len(self.labels), np.nan) for size in self.readings}
                        for name in (LANDMARKS, POSE)}
        for size, readings in self.readings.items():
            there = np.array([one is not None for one in readings])
            columns = columns_of([one for one in readings if one is not None])
            self.scores[LANDMARKS][size][there] = readout.probability(*(columns[name] for name in READ))
            pose = np.radians(np.column_stack([columns["yaw"], columns["pitch"]]))
            self.scores[POSE][size][there] = score_of_gaze(pose)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    if not (options.real / "labels.csv").is_file():
        return {"measured": {}, "skipped": f"{options.real / 'labels.csv'} is not there"}
    labels = pd.read_csv(options.real / "labels.csv").query("label >= 0").reset_index(drop=True)
    if options.quick:
        labels = labels.groupby("label").head(8).reset_index(drop=True)
    try:
        faces = Faces(labels, FaceLandmarker(find("face_landmarker")), Trained(options.run) if options.run else None,
                      [Trained(run) for run in options.students])
    except (FileNotFoundError, ImportError) as error:
        return {"measured": {}, "skipped": str(error)}
    faces.read(options.real)
    readout = Readout.shipped()
    faces.of_landmarks(readout)
    label, source = labels["label"].to_numpy(), labels["source"].to_numpy()
    read = columns_of(faces.readings[WHOLE])
    codable, reason = judge(labels["height"].to_numpy(np.float64), **{
        name: read[name] for name in ("light", "presence", "yaw", "pitch", "fit", "eye")})
    draws = 50 if options.quick else DRAWS
    found = {name: with_intervals(label, score[WHOLE], source, draws) for name, score in faces.scores.items()}
    found[f"{LANDMARKS}, codable faces"] = with_intervals(
        label, np.where(codable, faces.scores[LANDMARKS][WHOLE], np.nan), source, draws)
    by_box = {factor: with_intervals(label, score, source, draws) for factor, score in faces.by_box.items()}
    by_size = {size: by_scorer(faces, size, label, source, draws) for size in SIZES}
    auroc = {name: value["AUROC"][0] for name, value in found.items()}
    sized = {what.format(size): value[name]["AUROC"][0]
             for what, name in ((SIZE, LANDMARKS), (SIZE_OF_STUDENT, STUDENT))
             for size, value in by_size.items() if name in value}
    sized |= {CUT.format(factor): value["AUROC"][0] for factor, value in by_box.items()}
    return {"measured": {
        AUROC.format(LANDMARKS): auroc[LANDMARKS], AUROC.format(POSE): auroc[POSE],
        AUROC.format("GazePose"): auroc.get(AS_IT_IS), AUROC.format("GazePose, box moved"): auroc.get(MOVED),
        COVERAGE: float(codable.mean()), TIME: 1000 * float(np.median(faces.seconds)), **sized},
        "faces": len(labels), "sources": len(np.unique(source)), "looking": int(label.sum()), "scorers": found,
        "by box": by_box, "by size": by_size,
        "not codable": {name: int((reason == name).sum()) for name in np.unique(reason) if name},
        "looking among the faces that cannot be coded": int(label[~codable].sum()), "readout": readout.made}


def by_scorer(faces: Faces, size: int, label: np.ndarray, source: np.ndarray, draws: int) -> dict[str, Any]:
    """The figures of each scorer on faces of a size; of students also what they are above their teacher, the landmarks,
    on the same faces, of all students and of each."""
    found: dict[str, Any] = {name: with_intervals(label, score[size], source, draws)
                             for name, score in faces.scores.items()}
    if not faces.students:
        return found
    new, old = faces.scores[STUDENT][size], faces.scores[LANDMARKS][size]
    found["AUROC of students above landmarks"] = gain(label, new, old, source, draws)
    found["each student"] = []
    for number in range(len(faces.students)):
        own = faces.student == number
        found["each student"].append({
            "looking": int(label[own & np.isfinite(new)].sum()),
            **{name: with_intervals(label[own], score[own], source[own], draws)
               for name, score in ((STUDENT, new), (LANDMARKS, old))},
            "AUROC above landmarks": gain(label[own], new[own], old[own], source[own], draws)})
    return found


if __name__ == "__main__":
    main("real_faces", GOAL, measure, FLAGS)
