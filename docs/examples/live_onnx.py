"""Who looks at the camera, with numpy, OpenCV and onnxruntime only: one line of JSON for each picture.

    gazepose export runs/mine                                  # where gazepose is installed
    python live_onnx.py 0 runs/mine/export-onnx --detector face_detection_yunet_2023mar.onnx

The folder and the detector's file are all that the robot needs. The map of a crop is computed once; each window shows
the frames up to now. docs/export.md explains the rules, whose numbers are in export.json.
"""

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

LOST = 0.5                   # seconds after which a face that is not found is a new person
OVERLAP = 0.3                # IoU of a person's boxes in two pictures, at least
TO_PRIOR = [2, 1, 0, 4, 3]   # YuNet's points (right eye, left eye, nose, mouth right, left) in the order of the prior


@dataclass
class Person:
    number: int
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))       # YuNet's x, y, width, height in pixels
    points: np.ndarray = field(default_factory=lambda: np.zeros((5, 2)))  # in 0..1 of the crop
    scored: bool = True
    held: deque = field(default_factory=lambda: deque(maxlen=240))     # (seconds, map, p of its quality)


class Model:
    """The two halves of the exported model."""

    def __init__(self, folder: Path) -> None:
        self.facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.maps, self.head = (onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
                                for name in ("maps.onnx", "head.onnx"))

    def probabilities(self, maps: np.ndarray, window: np.ndarray, points: np.ndarray) -> np.ndarray:
        """maps [F, C, h, w], window int64 [B, T], points [B, 5, 2] -> [B]. The head pose stays unknown (NaN)."""
        priors = {"head_pose": np.full((len(window), 3), np.nan, np.float32),
                  "landmarks": np.insert(points, 2, 1, axis=2).astype(np.float32)}
        given = {name: priors[name] for name in self.facts["priors"]}
        return self.head.run(None, {"maps": maps, "window": window, **given})[0]


def find(detector: cv2.FaceDetectorYN, picture: np.ndarray) -> np.ndarray:
    """YuNet's faces in a BGR picture, [n, 15], in its pixels. A large picture is searched at 640 or 960 pixels."""
    height, width = picture.shape[:2]
    scale = min(1.0, (640 if max(height, width) <= 1280 else 960) / max(height, width))
    small = max(round(width * scale), 1), max(round(height * scale), 1)
    detector.setInputSize(small)
    resized = picture if scale == 1 else cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    faces = detector.detect(resized)[1]
    faces = np.zeros((0, 15)) if faces is None else faces.astype(np.float64)
    faces[:, :14] *= np.tile([width / small[0], height / small[1]], 7)
    return faces


def cut(picture: np.ndarray, box: np.ndarray, facts: dict) -> tuple[np.ndarray, np.ndarray, float] | None:
    """The crop of a YuNet box, RGB uint8 [S, S, 3]; the corner and size of its box, [4]; p of its quality."""
    rule, size = facts["box"], facts["crop"]["size"]
    width, height = box[2] * rule["width"], box[3] * rule["height"]
    centre = box[:2] + box[2:] * [rule["left"], rule["top"]] + [width / 2, height / 2]
    side = np.array([width, height]) * facts["crop"]["box_scale"]
    x1, y1, x2, y2 = (max(int(corner), 0) for corner in (*(centre - side / 2), *(centre + side / 2)))
    face = picture[y1:y2, x1:x2]
    if not face.size:
        return None
    crop = published = cv2.resize(face, (224, 224), interpolation=cv2.INTER_LINEAR)
    if size != 224:
        shrinks = min(face.shape[:2]) >= size
        crop = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    options = [cv2.IMWRITE_JPEG_QUALITY, facts["crop"]["jpeg"]["quality"],
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    crop = cv2.cvtColor(cv2.imdecode(cv2.imencode(".jpg", crop, options)[1], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return crop, np.concatenate([centre - side / 2, side]), quality(published, facts["quality_dropout"])


def quality(published: np.ndarray, fit: dict | None) -> float:
    """p of Gaussian Temporal Dropout: how sharp the face is among those of the training; 1 without it."""
    if fit is None:
        return 1.0
    value = float(cv2.Laplacian(published, cv2.CV_16S).astype(np.float64).var())
    if fit["scale"] == "log":
        value = math.log(value) if value else -math.inf
    return 0.5 + 0.5 * math.erf((value - fit["mean"]) / max(fit["std"], 1e-12) / math.sqrt(2))


def window_of(person: Person, lasts: float, rule: dict) -> list[int]:
    """Which of a person's held crops the window of the last one shows; frames to come are replaced by it."""
    reach, seconds = rule["frames"] // 2, np.array([seconds for seconds, _, _ in person.held])
    centre, before = len(seconds) - 1, []
    for step in range(1, reach + 1):
        away = np.abs(seconds - (seconds[-1] - step * rule["seconds_apart"]))
        nearest = int(away.argmin())
        sharp = nearest == centre or person.held[nearest][2] >= 0.2
        if sharp and away[nearest] <= max(rule["seconds_apart"], lasts) / 2 + 1e-6:
            before.append(nearest)
    before += [before[-1] if before else centre] * (reach - len(before))
    return before[::-1] + [centre] * (reach + 1)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes of x, y, width, height."""
    sides = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (np.prod(one[2:]) + np.prod(other[2:]) - shared)


class Live:
    """People in the pictures of one camera."""

    def __init__(self, model: Model, detector: cv2.FaceDetectorYN) -> None:
        self.model, self.detector = model, detector
        self.people: list[Person] = []
        self.count, self.before = 0, -math.inf

    def step(self, picture: np.ndarray, seconds: float) -> list[dict]:
        """The faces of the next picture, BGR uint8 [H, W, 3]."""
        facts, lasts = self.model.facts, min(seconds - self.before, 1 / 3)
        self.before = seconds
        self.people = [person for person in self.people if person.held[-1][0] >= seconds - LOST]
        shown, crops, sharp = [], [], []
        for face in find(self.detector, picture):
            made = cut(picture, face[:4], facts)
            if made is None:
                continue
            person = self.person_at(face[:4], shown)
            person.box, person.points = face[:4], ((face[4:14].reshape(5, 2)[TO_PRIOR] - made[1][:2]) / made[1][2:])
            known = made[1][3] / facts["crop"]["box_scale"] >= (facts["least_height"] or math.inf)
            person.scored = known or face[3] >= facts["box"]["least_height"]
            shown, crops, sharp = [*shown, person], [*crops, made[0]], [*sharp, made[2]]
        if not shown:
            return []
        maps = self.model.maps.run(None, {"crops": np.stack(crops)})[0]
        pool, windows = [], []
        for person, cells, p in zip(shown, maps, sharp, strict=True):
            person.held.append((seconds, cells, p))
            windows.append([len(pool) + place for place in window_of(person, lasts, facts["window"])])
            pool += [cells for _, cells, _ in person.held]
            while person.held[0][0] < seconds - 0.5:
                person.held.popleft()
        scores = self.model.probabilities(np.stack(pool), np.array(windows), np.stack([one.points for one in shown]))
        return [{"person": person.number, "box": person.box.round(1).tolist(),
                 "probability": float(score) if person.scored else None}
                for person, score in zip(shown, scores, strict=True)]

    def person_at(self, box: np.ndarray, taken: list[Person]) -> Person:
        """The person whose last box is nearest, or a new one."""
        free = [person for person in self.people if not any(person is one for one in taken)]
        best = max(free, key=lambda person: overlap(person.box, box), default=None)
        if best is None or overlap(best.box, box) < OVERLAP:
            self.count += 1
            best = Person(self.count)
            self.people.append(best)
        return best


def pictures(source: str) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds and BGR pictures of a camera's number, an address or a file."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise SystemExit(f"error: {source} cannot be opened -> give a camera number, an address, or a video file")
    file, rate, number = Path(source).is_file(), capture.get(cv2.CAP_PROP_FPS) or 30.0, 0
    start = time.monotonic()
    while True:
        there, picture = capture.read()
        if not there:
            return
        yield (number / rate if file else time.monotonic() - start), picture
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", help="number of a camera, an address (rtsp://...), or a video file")
    parser.add_argument("folder", type=Path, help="what gazepose export --to onnx wrote")
    parser.add_argument("--detector", type=Path, required=True, help="file of YuNet; `gazepose models` gets it")
    given = parser.parse_args()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)     # OpenCV 5 warns of YuNet's file
    try:
        live = Live(Model(given.folder), cv2.FaceDetectorYN.create(str(given.detector), "", (320, 320), 0.6, 0.3, 1000))
    except (OSError, cv2.error) as error:
        raise SystemExit(f"error: {error} -> give the folder that `gazepose export --to onnx` wrote, and YuNet's file "
                         "that `gazepose models` got") from None
    for seconds, picture in pictures(given.source):
        print(json.dumps({"seconds": round(seconds, 3), "faces": live.step(picture, seconds)}), flush=True)


if __name__ == "__main__":
    main()
