"""The landmark score: head pose, eye direction and blink -> the probability that a face looks at the camera.

A logistic regression on the 21 terms of a quadratic. It is fitted on the rendered world only, where it is known who
looks, by `python -m gazepose fit_readout`. readout.json beside this file holds it, with the command and the figures.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote

import numpy as np

from gazepose.data.crops import as_detected
from gazepose.data.video import frames_in_order
from gazepose.evaluation.metrics import evaluate
from gazepose.io import read_arrays, read_object, sha256_of, write_json
from gazepose.output import inform
from gazepose.priors.face_landmarker import FaceLandmarker
from gazepose.priors.model_files import find
from gazepose.progress import Progress
from gazepose.text import counted

SHIPPED = Path(__file__).with_name("readout.json")
FEATURES = ("yaw", "pitch", "eye_x", "eye_y", "blink")
READ = (*FEATURES, "roll")                   # the head is tilted back first
UNITS = np.array([30.0, 30, 1, 1, 1])        # about the spread of each
MIRRORED = np.array([-1.0, 1, -1, 1, 1])     # a mirrored face looks as much as the face itself
PAIRS = [(a, b) for a in range(len(FEATURES)) for b in range(a, len(FEATURES))]
RIDGE = 1.0                                  # of the coefficients of terms with mean 0 and variance 1
CLOSED = 4.0
"""What a wholly closed eye takes from the logit. The world hardly has closed eyes, so that the fit alone takes too
little; people who look down or blink are then taken for looking. Any value from 2 to 10 serves."""
STEPS = {"train": 6, "val": 5}               # every sixth frame; neighbours are alike


@dataclass(frozen=True)
class Readout:
    """The fitted score and where it comes from."""

    intercept: float
    coefficients: list[float]
    """of the terms in their order, see `terms`, without the constant one"""
    closed: float = CLOSED
    made: dict[str, object] | None = None
    """command, date, world, model file, figures"""

    @classmethod
    def shipped(cls, path: Path = SHIPPED) -> "Readout":
        """The readout that is part of the project.

        Raises:
            FileNotFoundError, ValueError: the file is not there or holds something else.
        """
        facts = read_object(path)
        try:
            readout = cls(**facts)
            good = np.isfinite([readout.intercept, readout.closed, *readout.coefficients]).all()
        except TypeError:
            readout, good = None, False
        if readout is None or not good or len(readout.coefficients) != len(FEATURES) + len(PAIRS):
            raise ValueError(f"{path}: not a readout -> install gazepose again, or make it with `python -m gazepose "
                             f"fit_readout --out {quote(str(path))}`")
        return readout

    def probability(self, yaw: np.ndarray, pitch: np.ndarray, eye_x: np.ndarray, eye_y: np.ndarray, blink: np.ndarray,
                    roll: np.ndarray | None = None) -> np.ndarray:
        """Probability of looking at the camera, float64 [n]; NaN where a value is.

        Args:
            yaw, pitch: of the head, degrees. eye_x, eye_y, blink: as in FaceReading. All [n].
            roll: of the head, degrees; it matters for tilted heads. None: upright.
        """
        features = np.stack([*in_the_heads_axes(yaw, pitch, roll), eye_x, eye_y, blink], axis=-1).astype(np.float64)
        logit = self.intercept + terms(features) @ np.array(self.coefficients) - self.closed * features[..., 4]
        return 1 / (1 + np.exp(-np.clip(logit, -50, 50)))


def in_the_heads_axes(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch to the picture's right and up -> to the head's own, in degrees, as the eyes' direction is."""
    if roll is None:
        return yaw, pitch
    yaw, pitch, roll = (np.radians(np.asarray(angle, np.float64)) for angle in (yaw, pitch, roll))
    right, up = np.sin(yaw) * np.cos(pitch), np.sin(pitch)
    own_right, own_up = np.cos(roll) * right - np.sin(roll) * up, np.sin(roll) * right + np.cos(roll) * up
    forward = np.cos(yaw) * np.cos(pitch)
    return np.degrees(np.arctan2(own_right, forward)), np.degrees(np.arcsin(np.clip(own_up, -1, 1)))


def terms(features: np.ndarray) -> np.ndarray:
    """The five features in their units, then all products of two of them; [..., 5] -> [..., 20]."""
    scaled = features / UNITS
    return np.concatenate([scaled, np.stack([scaled[..., a] * scaled[..., b] for a, b in PAIRS], axis=-1)], axis=-1)


def fit(values: np.ndarray, looking: np.ndarray) -> Readout:
    """Logistic regression of the terms with a ridge, by Newton's method; each face also counts mirrored.

    Args:
        values: READ of each face, float [n, 6]. looking: bool [n].
    """
    features = np.column_stack([*in_the_heads_axes(values[:, 0], values[:, 1], values[:, 5]), values[:, 2:5]])
    values = terms(np.concatenate([features, features * MIRRORED]))
    target = np.concatenate([looking, looking]).astype(np.float64)
    mean, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
    rows = np.concatenate([np.ones((len(values), 1)), (values - mean) / spread], axis=1)
    ridge = np.diag(np.append(0, np.full(values.shape[1], RIDGE)))
    weights = np.zeros(rows.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-rows @ weights))
        gradient = rows.T @ (chance - target) + ridge @ weights
        step = np.linalg.solve((rows * (chance * (1 - chance))[:, None]).T @ rows + ridge, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    coefficients = weights[1:] / spread
    coefficients[np.abs(coefficients) < 1e-9] = 0        # odd in the mirrored features: nothing but rounding
    return Readout(float(weights[0] - coefficients @ mean), coefficients.round(9).tolist())


# ---- fitting it on the world

def fit_on_world(root: Path, out: Path, command: str, notify: Callable[[str], None] = inform) -> Readout:
    """Fit the readout on the training clips of a rendered world, check it on the validation clips, and write it.

    The faces are where the world says, by boxes moved to where a face detector's lie.

    Args:
        root: the world's folder. out: the JSON file. command: how it was called, for the file.
    """
    facts, model = read_object(root / "world.json"), find("face_landmarker")
    network = FaceLandmarker(model)
    read = {split: read_faces(root, split, step, network, notify) for split, step in STEPS.items()}
    fitted = fit(*read["train"])
    values, looking = read["val"]
    score = fitted.probability(*values.T)
    metrics = evaluate(looking.astype(np.int64), score)
    figures = {name: round(float(metrics[name]), 4) for name in ("auroc", "mAP", "accuracy")}
    figures["brier"] = round(float(np.mean((score - looking)**2)), 4)
    made = {"command": command, "date": time.strftime("%Y-%m-%d"),
            "world": {name: facts[name] for name in ("preset", "seed", "version")},
            "faces": {split: len(looking) for split, (_, looking) in read.items()},
            "face_landmarker": sha256_of(model), "validation clips": figures}
    readout = Readout(fitted.intercept, fitted.coefficients, made=made)
    write_json(out, asdict(readout))
    notify(f"{counted(len(read['train'][1]), 'face')} -> {out}; on {counted(len(looking), 'face')} of the validation "
           "clips: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    return readout


def read_faces(root: Path, split: str, step: int, network: FaceLandmarker, notify: Callable[[str], None] = inform
               ) -> tuple[np.ndarray, np.ndarray]:
    """READ of each face, float64 [n, 6], and whether it looks, bool [n], of every step-th frame of a world's split."""
    truth = read_arrays(root / "truth" / f"{split}.npz", ("clip", "frame", "box", "label"))
    chosen = np.flatnonzero(truth["frame"] % step == 0)
    found: dict[int, list[float]] = {}
    with Progress(f"faces of {split}", len(chosen), "faces", notify) as progress:
        for clip in dict.fromkeys(truth["clip"][chosen].tolist()):
            rows = chosen[truth["clip"][chosen] == clip]
            numbers = np.unique(truth["frame"][rows]).tolist()
            for number, picture in frames_in_order((root / "videos" / f"{clip}.mp4").absolute(), numbers, "pyav"):
                for row in rows[truth["frame"][rows] == number].tolist():
                    x1, y1, x2, y2 = truth["box"][row]
                    reading = network.read(np.asarray(picture), as_detected(np.array([x1, y1, x2 - x1, y2 - y1])))
                    found[row] = [getattr(reading, name) for name in READ]
                    progress.add(1)
    rows = sorted(found)
    return np.array([found[row] for row in rows]), truth["label"][rows] == 1
