"""Goal 14: how far the rendered world is from real faces, and which features tell them apart.

The rendered faces are single states of a preset and a seed. The real ones lie beside the checkout, in ../shared/real
(benchmarks/real_faces.py); nothing is trained on them that is kept. Both kinds go the same way: the same detector finds
the face, the same rule moves its box, the crop gets the same size and the same JPEG. --sheet draws both side by side.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import simplejpeg

from benchmarks import real_faces
from benchmarks.measure import ROOT, Aim, Goal, main, parser
from benchmarks.real_faces import BOX, WHOLE, Trained, drawn, pictures, shrunk
from benchmarks.tells import SHAPES, Features, picture_features, scores_apart, shape_features, tells
from gazepose.data.crops import as_cut, cut_face, stored_crop
from gazepose.data.shards import decode, encode
from gazepose.evaluation.metrics import evaluate
from gazepose.priors.face_landmarker import LEAST_PRESENCE, FaceLandmarker, FaceReading, five_points
from gazepose.priors.model_files import find
from gazepose.synthetic.camera import draw_clip
from gazepose.synthetic.plan import plan_clip
from gazepose.synthetic.presets import PRESETS, find_preset
from gazepose.watch.detect import BOX as DETECTED
from gazepose.watch.detect import Detector
from gazepose.watch.tracker import overlaps

SIZES, SHEET_SIZES = (96, 64, 36), (128, 96, 64)
MAIN = 64                    # the size of the aims
PER_SOURCE = 8               # real faces of one source, at most: some clips have 40 of one person
LEAST_OVERLAP = 0.3          # of a known box and a found one, intersection over union
TURN = (40.0, 30.0)          # yaw and pitch in degrees up to which faces are compared; real ones are seldom turned more
CLIP = 900                   # number of the planned clip, whose people are in no other
STATISTICS, MAP, SHAPE, LENGTHS = "image statistics", "backbone", "blendshapes", "lengths in the face"
APART = "AUROC of rendered against real by {}, 64 px"
FOUND, PRESENCE = "share of rendered faces that YuNet finds", "presence, median of {} faces"
MARKS, POSE, EYES = ("landmarks' error, share of the distance of the eyes", "head pose's error, degrees",
                     "eye direction's error, degrees")
BLINK, AUROC, AP = "AUROC of closed eyes by the blink score", "AUROC of the run on real faces", "AP of it"
GOAL = Goal(14, "how far rendered faces are from real ones", (
    *(Aim(APART.format(name)) for name in (STATISTICS, MAP, SHAPE, LENGTHS)), Aim(FOUND),
    *(Aim(PRESENCE.format(kind)) for kind in ("rendered", "real")), Aim(MARKS), Aim(POSE), Aim(EYES), Aim(BLINK),
    Aim(AUROC), Aim(AP)),
    how="Real faces that are no part of the project, found, cut and compressed in the same way.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "real", help="default %(default)s")
FLAGS.add_argument("--preset", default="default", choices=sorted(PRESETS), help="default %(default)s")
FLAGS.add_argument("--seed", type=int, default=0, help="of the rendered world; default %(default)s")
FLAGS.add_argument("--pictures", type=int, default=110, help="rendered pictures; default %(default)s")
FLAGS.add_argument("--run", type=Path, help="a FaceGaze or GazePose run: its backbone's features, and its scores")
FLAGS.add_argument("--sheet", type=Path, help="write a PNG of rendered faces beside real ones; not in the repository")
FLAGS.add_argument("--most", type=int, default=25, help="features to list of each family; default %(default)s")


@dataclass
class Face:
    """One face that was found, as it is (size WHOLE) and at smaller sizes; a smaller face has fewer sizes."""

    group: str
    """the person or the source"""
    truth: dict[str, Any] | None
    """of a rendered face"""
    readings: dict[int, FaceReading] = field(default_factory=dict)
    crops: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def compared(self) -> bool:
        one = self.readings[WHOLE]
        return one.presence >= LEAST_PRESENCE and abs(one.yaw) <= TURN[0] and abs(one.pitch) <= TURN[1]


def rendered_pictures(preset: str, seed: int, count: int) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """Pictures uint8 [H, W, 3] RGB with the truth of each face: each picture is a state of its own, with other people.

    The truth has `box` (x, y, width, height) and `points` [5, 2] in pixels, `visible` [5], and plan.py's columns.
    """
    single = replace(find_preset(preset), frames=(1, 1), shots=count)
    clip = plan_clip(single, seed, "test", CLIP)
    quality = round(150 - 3.2 * single.crf)                        # as in stills.py: about the video codec's loss
    for number, picture in enumerate(draw_clip(clip)):
        truths = []
        for row in np.flatnonzero(clip.truth["frame"] == number).tolist():
            truth = {name: column[row] for name, column in clip.truth.items()}
            cut, (box, marks) = clip.crop_box[row], (truth["box"], truth["landmarks"])
            truths.append({**truth, "box": np.append(box[:2], box[2:] - box[:2]), "visible": marks[:, 2] > 0,
                           "points": cut[:2] + marks[:, :2] * (cut[2:] - cut[:2])})
        coded = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420")
        yield simplejpeg.decode_jpeg(coded), truths


def real_pictures(folder: Path, quick: bool) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """The same of the real faces: `box` and `source`; at most PER_SOURCE of a source, spread over it."""
    labels = pd.read_csv(folder / "labels.csv")
    places = [rows[np.unique(np.linspace(0, len(rows) - 1, PER_SOURCE).round().astype(int))]
              for rows in labels.groupby("source").indices.values()]
    labels = labels.iloc[np.sort(np.concatenate(places[-8:] if quick else places))]
    for picture, rows in pictures(folder, labels):
        yield picture, [{"box": box, "source": source} for box, source in
                        zip(rows[BOX].to_numpy(np.float64), rows["source"], strict=True)]


class Reader:
    """Finds the known faces of pictures with the detector, and reads each at all sizes."""

    def __init__(self) -> None:
        self.detector, self.network = Detector(find("yunet")), FaceLandmarker(find("face_landmarker"))
        self.known = {"rendered": 0, "real": 0}

    def faces(self, found: Iterator[tuple[np.ndarray, list[dict[str, Any]]]], kind: str) -> Iterator[Face]:
        for picture, truths in found:
            self.known[kind] += len(truths)
            boxes = self.detector.find(picture)[:, DETECTED]
            for truth in truths if len(boxes) else ():
                overlap = overlaps(np.asarray(truth["box"], np.float64)[None], boxes)[0]
                if overlap.max() >= LEAST_OVERLAP:
                    real = kind == "real"
                    face = Face(str(truth["source" if real else "identity"]), None if real else truth)
                    yield self._read(face, picture, boxes[overlap.argmax()])

    def _read(self, face: Face, picture: np.ndarray, box: np.ndarray) -> Face:
        face.readings[WHOLE] = self.network.read(picture, box)
        x, y, width, height = as_cut(box)
        cut = cut_face(picture, np.array([x, y, x + width, y + height]))
        for size in sorted({*SIZES, *SHEET_SIZES}):
            if cut is None or cut.shape[0] < size:
                continue
            face.crops[size] = decode(encode(stored_crop(cut, size, cut)))
            if size in SIZES and (small := shrunk(picture, box, round(size * box[3] / height))) is not None:
                face.readings[size] = self.network.read(*small)
        return face


# ---- the landmark network against the truth

def readings_against_truth(faces: list[Face], size: int) -> dict[str, Any]:
    """How far the landmark network is off on rendered faces of a size: medians over the faces up to TURN."""
    there = [face for face in faces if size in face.readings and face.compared]
    if len(there) < 20:
        return {"faces": len(there)}
    readings, truths = [face.readings[size] for face in there], [face.truth or {} for face in there]
    pose = np.array([[one.yaw, one.pitch, one.roll] for one in readings]) - [one["head_pose"] for one in truths]
    eyes = np.array([[one.eye_x, one.eye_y] for one in readings])
    turned = np.degrees([one["gaze"] for one in truths]) - [one["head_pose"][:2] for one in truths]
    closed = np.array([one["blink"] for one in truths]).reshape(len(truths), -1).mean(axis=1) > 0.5
    blink = np.array([one.blink for one in readings])
    found = {"faces": len(there), "head pose, median error of yaw, pitch, roll": medians(np.abs(pose)),
             "head pose, median of found minus true": medians(pose),
             **eye_errors(eyes[~closed], turned[~closed], np.array([face.group for face in there])[~closed]),
             "closed eyes": int(closed.sum()), "blink score of open eyes, median": medians(blink[~closed])}
    if size == WHOLE:
        found |= landmark_errors(readings, truths)
    if 5 <= closed.sum() < len(closed):
        found |= {BLINK: evaluate(closed.astype(int), blink)["auroc"],
                  "blink score of closed eyes, median": medians(blink[closed])}
    return found


def landmark_errors(readings: list[FaceReading], truths: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors of the five landmarks that the camera sees, in shares of the distance of the eyes in the picture."""
    off = np.array([(five_points(one.points) - truth["points"]) / np.hypot(*(truth["points"][1] - truth["points"][2]))
                    for one, truth in zip(readings, truths, strict=True)])             # [N, 5, 2]
    seen = np.array([truth["visible"] for truth in truths])
    names = ("nose", "left eye", "right eye", "left mouth corner", "right mouth corner")
    return {MARKS: float(np.median(np.hypot(off[..., 0], off[..., 1])[seen])),
            "landmarks, median of found minus true, right and down": {
                name: medians(off[seen[:, k], k]) for k, name in enumerate(names) if seen[:, k].any()}}


def eye_errors(eyes: np.ndarray, turned: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """How well the network's eye direction gives the true turn of the eyes in the head, in degrees, by a linear fit
    that has seen no face of the same person; and the error of the mean direction.

    Args:
        eyes: eye_x and eye_y, float [N, 2]. turned: yaw and pitch, degrees [N, 2]. group: the person, [N].
    """
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    guess = cross_val_predict(LinearRegression(), eyes, turned, groups=group, cv=GroupKFold(5))
    return {EYES: float(np.median(np.hypot(*(guess - turned).T))),
            "eye direction's error of the mean direction": float(np.median(np.hypot(*(turned - turned.mean(0)).T))),
            "correlation of eye direction, x and y": [correlation(eyes[:, k], turned[:, k]) for k in (0, 1)]}


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """None where one of them does not vary."""
    return round(float(np.corrcoef(one, other)[0, 1]), 3) if min(one.std(), other.std()) > 1e-9 else None


def medians(values: np.ndarray) -> Any:
    return np.round(np.median(values, axis=0), 3).tolist()


def presences(faces: list[Face]) -> dict[int, list[float]]:
    """The landmark network's probability of a face: 10th percentile and median, at each size."""
    found = {size: [face.readings[size].presence for face in faces if size in face.readings]
             for size in (WHOLE, *SIZES)}
    return {size: np.round(np.percentile(values, (10, 50)), 4).tolist() for size, values in found.items() if values}


# ---- rendered against real

def families(faces: list[Face], size: int, network: FaceLandmarker, run: Trained | None) -> dict[str, Features]:
    """The features of each family of the faces at a size."""
    readings = [face.readings[size] for face in faces]
    found = {STATISTICS: Features.of([picture_features(face.crops[size]) for face in faces]),
             SHAPE: Features(SHAPES, np.array([network.blendshapes(one.points) for one in readings], np.float64)),
             LENGTHS: Features.of([shape_features(one.points, network.face, network.weight) for one in readings])}
    if run:
        maps = np.array([pooled(run, face.crops[size]) for face in faces])
        found[MAP] = Features(tuple(f"channel {k}" for k in range(maps.shape[1])), maps)
    return found


def pooled(run: Trained, crop: np.ndarray) -> np.ndarray:
    """The mean of the backbone's map of a crop, float64 [C]."""
    import torch

    from gazepose.training.augment import normalise
    frame = torch.from_numpy(np.ascontiguousarray(stored_crop(crop, run.size, crop).transpose(2, 0, 1)[None]))
    with torch.inference_mode():
        return run.model.frames.maps_of(normalise(frame))[0].mean(dim=(1, 2)).double().numpy()


def told_apart(rendered: list[Face], real: list[Face], size: int, reader: Reader, run: Trained | None, most: int,
               draws: int) -> dict[str, Any]:
    """How well each family of features tells the kinds apart, and which of its features tell most."""
    sides = [[face for face in faces if face.compared and size in face.readings] for faces in (rendered, real)]
    faces = sides[0] + sides[1]
    is_real = np.arange(len(faces)) >= len(sides[0])
    group = np.array([f"{len(face.truth or '')} {face.group}" for face in faces])
    found: dict[str, Any] = {"rendered": len(sides[0]), "real": len(sides[1])}
    for name, features in families(faces, size, reader.network, run).items():
        scores, weights = scores_apart(features.values, is_real, group)
        auroc, = drawn(lambda rows, scores=scores: [evaluate(is_real[rows].astype(int), scores[rows])["auroc"]],
                       is_real.astype(int), group, draws)
        found[name] = {"AUROC": auroc}
        if name != MAP:                                          # a channel has no name that says what to change
            found[name]["tells"] = tells(features, is_real, weights, most)
    return found


# ---- the sheet

def sheet(rendered: list[Face], real: list[Face], across: int = 12, tile: int = 150) -> np.ndarray:
    """Two lines of rendered faces over two of real ones for each of SHEET_SIZES, uint8 [H, W, 3] RGB; small faces are
    enlarged without smoothing."""
    lines = []
    for size in SHEET_SIZES:
        for name, faces in (("rendered", rendered), ("real", real)):
            crops = {}
            for face in faces:                               # one of each person or source first
                if size in face.crops:
                    crops.setdefault(face.group, face.crops[size])
            spread = np.unique(np.linspace(0, len(crops) - 1, min(len(crops), 2 * across)).round().astype(int))
            chosen = [list(crops.values())[place] for place in spread]
            tiles = [cv2.resize(crop, (tile, tile), interpolation=cv2.INTER_NEAREST) for crop in chosen]
            tiles += [np.zeros((tile, tile, 3), np.uint8)] * (2 * across - len(tiles))
            block = np.vstack([np.hstack(tiles[:across]), np.hstack(tiles[across:])])
            cv2.putText(block, f"{name} {size} px", (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1)
            lines.append(block)
    return np.vstack(lines)


def write_sheet(path: Path, rendered: list[Face], real: list[Face]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), sheet(rendered, real)[..., ::-1]):
        raise SystemExit(f"error: {path} could not be written -> give a path that ends in .png")


# ---- all of it

def measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.sheet and options.sheet.resolve().is_relative_to(ROOT):
        raise SystemExit(f"error: {options.sheet} would show real people's faces in the repository -> give a path "
                         "outside it")
    cv2.setNumThreads(1)
    if not (options.real / "labels.csv").is_file():
        return {"measured": {}, "skipped": f"{options.real / 'labels.csv'} is not there"}
    try:
        reader = Reader()
    except (FileNotFoundError, ImportError) as error:
        return {"measured": {}, "skipped": str(error)}
    run = Trained(options.run) if options.run else None
    count = 30 if options.quick else options.pictures
    rendered = list(reader.faces(rendered_pictures(options.preset, options.seed, count), "rendered"))
    real = list(reader.faces(real_pictures(options.real, options.quick), "real"))
    if options.sheet:
        write_sheet(options.sheet, rendered, real)
    network = {"whole" if size == WHOLE else f"{size} px": readings_against_truth(rendered, size)
               for size in (WHOLE, *SIZES)}
    draws = 50 if options.quick else real_faces.DRAWS
    apart = {size: told_apart(rendered, real, size, reader, run, options.most, draws) for size in SIZES}
    presence = {"rendered": presences(rendered), "real": presences(real)}
    whole = network["whole"]
    measured = {**{APART.format(name): apart[MAIN][name]["AUROC"][0] for name in (STATISTICS, MAP, SHAPE, LENGTHS)
                   if name in apart[MAIN]},
                FOUND: len(rendered) / reader.known["rendered"],
                **{PRESENCE.format(kind): presence[kind][WHOLE][1] for kind in presence},
                **{name: whole.get(name) for name in (MARKS, EYES, BLINK)},
                POSE: max(whole["head pose, median error of yaw, pitch, roll"])}
    zero_shot = on_real_faces(options) if run else {}
    if "AUROC" in zero_shot:
        measured |= {AUROC: zero_shot["AUROC"][0], AP: zero_shot["AP"][0]}
    return {"measured": measured, "preset": options.preset, "seed": options.seed,
            "faces": {"rendered": len(rendered), "real": len(real)}, "share that YuNet finds": {
                kind: len(faces) / reader.known[kind] for kind, faces in (("rendered", rendered), ("real", real))},
            "presence, 10 % and median": presence, "landmark network on rendered faces": network,
            "apart": apart, "run on real faces": zero_shot}


def on_real_faces(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the run on the labelled faces, its box moved, from benchmarks/real_faces.py."""
    found = real_faces.measure(argparse.Namespace(real=options.real, run=options.run, students=[],
                                                  quick=options.quick))
    return found["scorers"][real_faces.MOVED]


if __name__ == "__main__":
    main("realism", GOAL, measure, FLAGS)
