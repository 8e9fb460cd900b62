"""The package in Python: load a scorer, then give it crops, pictures, a video or the frames of a camera.

    import gazepose
    scorer = gazepose.load("runs/mine")          # or a published file, or "landmarks"
    faces, looks, people = scorer.video("visit.mp4")

A door only: infer.py, `watch` and `live` use the same parts, so the numbers are the same. docs/python.md has examples.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from gazepose.data.video_times import is_still, pictures_with_times
from gazepose.priors.face_landmarker import FaceLandmarker
from gazepose.priors.landmarks import read_crop
from gazepose.training.scoring import BATCH, RunModel, Window
from gazepose.watch import bouts, tables
from gazepose.watch.bouts import LookRules
from gazepose.watch.codable import judge
from gazepose.watch.config import DETECT_SECONDS, LANDMARKS
from gazepose.watch.faces import faces_of, read_pass, video_of
from gazepose.watch.jobs import load_networks
from gazepose.watch.live import JUDGED, Face, Watcher
from gazepose.watch.readout import READ, Readout
from gazepose.watch.scorers import TrainedScorer
from gazepose.watch.table import Table
from gazepose.watch.video_pass import Tools, watch_video

RUN = "run"                  # name of a run's score among the parts of a video


class Watched(NamedTuple):
    """What is in a video: the tables of `watch`, as pandas.DataFrame."""

    faces: Table
    """one row per face and picture, columns as watch.table.FACES"""
    looks: Table
    """one row per look, columns as watch.bouts.LOOKS"""
    people: Table
    """one row per person, columns as watch.bouts.PEOPLE"""


def load(source: str | Path = LANDMARKS) -> "Scorer":
    """Load a scorer.

    Args:
        source: folder of a run or of a checkpoint; a published file (.pth, .safetensors); hf:OWNER/NAME[@REVISION];
            or "landmarks", which needs no training.

    Raises:
        FileNotFoundError: there is no such run or file.
        ValueError: it is damaged, or of another kind.
    """
    return Scorer(source)


class Scorer:
    """Tells whether faces look at the camera; `load` makes one. Its probabilities are from 0 to 1.

    The landmark score, and all that finds faces, need the model files: `python -m gazepose models` gets them, and
    FileNotFoundError says where they are missing.
    """

    def __init__(self, source: str | Path = LANDMARKS) -> None:
        self.run = None if source == LANDMARKS else RunModel.read(Path(source))
        """the trained model; None: the landmark score"""
        self.source = str(source) if self.run is None else self.run.source
        """where it was read; of the hub hf:OWNER/NAME@COMMIT, which means the same weights for ever"""

    def crops(self, crops: np.ndarray | Sequence[np.ndarray], head_pose: np.ndarray | None = None,
              landmarks: np.ndarray | None = None) -> np.ndarray:
        """Score faces that are cut out already.

        Args:
            crops: windows, RGB uint8 [N, T, 3, H, W], with T frames 1/30 s apart around the face that is scored (seven
                of most runs), or T = 1; or a list of single faces, RGB uint8 [h, w, 3], of any sizes.
            head_pose: yaw, pitch, roll of the middle frames in degrees, [N, 3]; NaN unknown.
            landmarks: nose, left and right eye, left and right mouth corner (the person's own left and right): x, y in
                0..1 of the crop and a confidence, [N, 5, 3]; NaN unknown. The landmark score reads neither.

        Returns:
            Probability of looking, float64 [N]. Of the landmark score NaN where a face cannot be judged.

        Raises:
            ValueError: an array of another shape or type; a run that queries with a prior which is not given.
        """
        windows = _windows(crops)
        if self.run is None:
            return self._by_landmarks([window[len(window) // 2] for window in windows])
        run, length, scores = self.run, 2 * self.run.network.reach + 1, []
        pose = _prior("head_pose", head_pose, (len(windows), 3), run.network.prior_head)
        points = _prior("landmarks", landmarks, (len(windows), 5, 3), run.network.prior_landmark)
        for start in range(0, len(windows), BATCH):
            batch = windows[start:start + BATCH]
            if any(len(window) not in (1, length) for window in batch):
                raise ValueError(f"crops have {len(batch[0])} frames a window -> this run takes {length}, or 1")
            maps = run.maps(np.stack([run.resized(crop) for window in batch for crop in window]))
            places = np.arange(len(maps)).reshape(len(batch), -1)
            window = places if places.shape[1] == length else np.repeat(places, length, axis=1)
            here = slice(start, start + len(batch))
            scores.append(run.probabilities(maps, window, pose[here], points[here]))
        return np.concatenate([np.zeros(0), *scores])

    def pictures(self, pictures: Iterable[np.ndarray | str | Path], detector_size: int | None = None
                 ) -> list[list[Face]]:
        """Find and score the faces of single pictures.

        Args:
            pictures: RGB uint8 [H, W, 3], or paths of picture files.
            detector_size: long side in pixels at which faces are searched; default as `watch`.

        Returns:
            The faces of each picture, from left to right. A picture has no looks: `looking` is False, see
            `probability`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a picture.
        """
        networks, found = load_networks(detector_size), []
        for given in pictures:
            picture = given if isinstance(given, np.ndarray) else _picture(Path(given))
            found.append(Watcher(*networks, self._scorer("closed"), smooth=0.0).step(picture, 0.0))
        return found

    def video(self, path: str | Path, causal: bool = False, smooth: float = 0.1, looks: LookRules | None = None,
              detector_size: int | None = None) -> Watched:
        """Watch a video: who is in it, and when each person looks at the camera. The tables are those of `watch`.

        Args:
            path: a video, or a picture.
            causal: the score of a picture uses no later picture.
            smooth: seconds on each side over which the median smooths the scores; 0: not.
            looks: how looks are found.
            detector_size: long side in pixels at which faces are searched; default as `watch`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a video that can be read.
        """
        path = Path(path).absolute()
        scorer = self._scorer("closed" if causal else "centred")
        with TemporaryDirectory(prefix="gazepose-") as folder:
            detector, reader = load_networks(detector_size)
            watch_video(path, Path(folder), Tools(reader, detector, scorers={} if scorer is None else {RUN: scorer},
                                                  detect_seconds=0.0 if causal else DETECT_SECONDS))
            done = read_pass(Path(folder), [] if scorer is None else [RUN])
        video = video_of(path.stem, path, done)
        table = faces_of(path.stem, done, [LANDMARKS if scorer is None else RUN])
        table = tables.rounded(bouts.smooth(table, smooth, causal, [video]))
        found = bouts.find_looks(table, [video], looks or LookRules())
        return Watched(table, found, bouts.count_people(table, found, [video]))

    def stream(self, window: Window = "closed", smooth: float = 0.1, looks: LookRules | None = None,
               detector_size: int | None = None) -> Watcher:
        """A watcher for the frames of one camera: `watcher.step(frame, seconds)` returns the faces, and
        `watcher.events` what changed.

        Args:
            window: of a run: closed (t-3 to t) or causal (t-6 to t, so that it scores what was 0.1 s ago);
                docs/live.md has what each costs.
            smooth: the probability is the median of the last 2 * smooth seconds; 0: as it is.
            looks: how looks are found.
            detector_size: long side in pixels at which faces are searched; default as `watch`.

        Raises:
            ValueError: a window that needs later frames.
        """
        if window not in ("closed", "causal"):
            raise ValueError(f"window {window!r} needs frames that have not come yet, or is unknown -> give closed or "
                             "causal")
        return Watcher(*load_networks(detector_size), self._scorer(window), smooth, looks or LookRules())

    def _scorer(self, window: Window) -> TrainedScorer | None:
        return None if self.run is None else TrainedScorer(self.run, window)

    def _by_landmarks(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        network, scores = FaceLandmarker(), np.full(len(crops), np.nan)
        for place, crop in enumerate(crops):
            reading = read_crop(network, crop, crop.shape[1] / crop.shape[0])
            if reading is None:
                continue
            height = np.array([float(len(crop))])
            codable, _ = judge(height, **{name: np.array([getattr(reading, name)]) for name in JUDGED})
            if codable[0]:
                scores[place] = Readout.shipped().probability(*(np.array([getattr(reading, name)]) for name in READ))[0]
        return scores


def _windows(crops: Any) -> list[np.ndarray]:
    """Windows, uint8 [T, H, W, 3] each, of what `Scorer.crops` takes."""
    if isinstance(crops, np.ndarray) and crops.dtype == np.uint8 and crops.ndim == 5 and crops.shape[2] == 3:
        return list(crops.transpose(0, 1, 3, 4, 2))
    singles = [crops] if isinstance(crops, np.ndarray) else list(crops)
    for number, crop in enumerate(singles):
        if not isinstance(crop, np.ndarray) or crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 \
                or not crop.size:
            shape = f"{getattr(crop, 'dtype', type(crop).__name__)} {getattr(crop, 'shape', '')}"
            raise ValueError(f"crop {number} is {shape} -> give uint8 [N, T, 3, H, W], or a list of uint8 [h, w, 3]")
    return [crop[None] for crop in singles]


def _prior(name: str, given: np.ndarray | None, shape: tuple[int, ...], queried: bool) -> np.ndarray:
    if given is None:
        if queried and shape[0]:
            raise ValueError(f"this run queries the face with its {name} -> give {name}={list(shape)}, NaN where it is "
                             "unknown")
        return np.full(shape, np.nan)
    values = np.asarray(given, np.float64)
    if values.shape != shape or np.isinf(values).any():
        raise ValueError(f"{name} is {list(values.shape)}, or infinite -> give {list(shape)}, NaN where it is unknown")
    return values


def _picture(path: Path) -> np.ndarray:
    if not is_still(path):
        raise ValueError(f"{path}: not a picture by its name -> give videos to `video`")
    return next(pictures_with_times(path.absolute())).picture
