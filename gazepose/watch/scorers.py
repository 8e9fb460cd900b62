"""Score faces with a trained run or a published checkpoint while their video is watched.

A model sees windows of frames 1/30 s apart, whatever the video's rate: for each the crop that is nearest in time.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from gazepose.data.crops import as_cut, grown
from gazepose.data.quality import drop_in_evaluation
from gazepose.data.video_times import TimedPicture
from gazepose.data.windows import close_up
from gazepose.training.scoring import APART, BATCH, RunModel, Window, seconds_around
from gazepose.watch.codable import LEAST_HEIGHT


@dataclass
class _Face:
    """A face that is held until all windows that show it are scored."""

    row: int
    track: int
    seconds: float
    lasts: float
    """seconds until the next picture"""
    crop: np.ndarray
    """uint8 [S, S, 3]"""
    pose: np.ndarray
    """yaw, pitch, roll, [3]"""
    landmarks: np.ndarray
    """[5, 3], as models.Priors has them"""
    p: float
    """of its quality, for Gaussian Temporal Dropout; NaN where that is off"""
    scored: bool = False
    map: torch.Tensor | None = None
    """of the crop, [C, h, w], once a window has shown it"""


STATE = [field.name for field in fields(_Face) if field.name != "map"]


class TrainedScorer:
    """A trained model as a scorer of video_pass.py. The backbone reads each crop once, however many windows show it.

    Args:
        run: a RunModel, or a path as RunModel.read takes it; raises as that.
        window: which frames score a face. Those that are missing, or later than the window allows, are closed up.
        own_boxes: the boxes are the user's, and are used as they are; else they are the detector's (as_cut).
    """

    def __init__(self, run: Path | RunModel, window: Window = "centred", own_boxes: bool = False) -> None:
        self.run = RunModel.read(run) if isinstance(run, Path) else run
        reach = self.run.network.reach
        self.offsets = APART * np.arange(-reach, reach + 1)
        self.window, self.own_boxes = window, own_boxes
        self.before, self.after = seconds_around(window, reach)
        self.faces: list[_Face] = []

    def add(self, row: int, track: int, timed: TimedPicture, box: np.ndarray, pose: np.ndarray, points: np.ndarray
            ) -> None:
        """Take a face; of a track, in the order of time.

        Args:
            row: its number in the pass.
            box: x, y, width, height, [4]. pose: yaw, pitch, roll, [3]; NaN unknown.
            points: nose, eyes, mouth corners in pixels, [5, 2]; NaN unknown.
        """
        x, y, width, height = box if self.own_boxes else as_cut(box)
        # a small face that it was not trained on gets no score, but its neighbours see it
        too_small = box[3] < LEAST_HEIGHT and height < self.run.least_height
        corners = grown(np.array([x, y, x + width, y + height]), self.run.box_scale)
        cut = self.run.cut(timed.picture, corners)
        if cut is None:
            return
        size = np.maximum(corners[2:] - corners[:2], 1e-6)
        landmarks = np.column_stack([(points - corners[:2]) / size, np.where(np.isnan(points[:, 0]), np.nan, 1.0)])
        self.faces.append(_Face(row, track, timed.seconds, timed.duration, cut[0], pose, landmarks, cut[1],
                                scored=bool(too_small)))

    def end_all(self) -> None:
        """A new shot begins: windows that lack later frames will get none."""
        self._score([face for face in self.faces if not face.scored])
        self.faces = []

    def take(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows whose score is known since the last call, int64 [n], and their probabilities, float64 [n].

        Args:
            seconds: up to where faces were added; infinite at the end.
        """
        ready = [face for face in self.faces
                 if not face.scored and face.seconds + self.after + max(APART, face.lasts) / 2 <= seconds]
        if len(ready) >= BATCH or (ready and np.isinf(seconds)):
            self._score(ready)
            self._forget(min((face.seconds for face in self.faces if not face.scored), default=seconds))
        return self._taken()

    def take_now(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """As `take`, of all faces that were added: nothing waits for a batch, or for later frames."""
        self._score([face for face in self.faces if not face.scored])
        self._forget(seconds)
        return self._taken()

    _done: tuple[list[int], list[float]] | None = None

    def _taken(self) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = self._done if self._done else ([], [])
        self._done = None
        return np.array(rows, np.int64), np.array(scores, np.float64)

    def _forget(self, first: float) -> None:
        """Drop the faces that no window of a face from `first` on shows."""
        self.faces = [face for face in self.faces
                      if face.seconds >= first - self.before - max(APART, face.lasts) / 2]

    def _score(self, faces: list[_Face]) -> None:
        rows, scores = self._done or ([], [])
        for start in range(0, len(faces), BATCH):
            batch = faces[start:start + BATCH]
            rows += [face.row for face in batch]
            scores += self._probabilities(batch)
            for face in batch:
                face.scored = True
        self._done = rows, scores

    def _probabilities(self, faces: list[_Face]) -> list[float]:
        of_track: dict[int, list[int]] = {}
        for place, face in enumerate(self.faces):
            of_track.setdefault(face.track, []).append(place)
        window = np.stack([self._window(face, of_track[face.track]) for face in faces])          # [B, T]
        pool, window = np.unique(window, return_inverse=True)
        shown = [self.faces[place] for place in pool.tolist()]
        if fresh := [face for face in shown if face.map is None]:
            for face, cells in zip(fresh, self.run.maps(np.stack([face.crop for face in fresh])), strict=True):
                face.map = cells
        maps = torch.stack([face.map for face in shown if face.map is not None])                 # [F, C, h, w]
        window = window.reshape(len(faces), -1)
        centres = [shown[place] for place in window[:, window.shape[1] // 2].tolist()]
        return self.run.probabilities(maps, window, np.stack([face.pose for face in centres]),
                                      np.stack([face.landmarks for face in centres])).tolist()

    def _window(self, face: _Face, places: list[int]) -> np.ndarray:
        """Places of the crops that the window of a face shows, int64 [T]."""
        seconds = np.array([self.faces[place].seconds for place in places])
        centre, latest = face.seconds, np.inf if self.window == "centred" else face.seconds
        if self.window == "causal":              # at the start of a track, its first frame
            centre = seconds[np.abs(seconds - (face.seconds + self.offsets[0])).argmin()]
        wanted = centre + self.offsets
        nearest = np.abs(seconds[None] - wanted[:, None]).argmin(axis=1)                         # [T]
        present = np.abs(seconds[nearest] - wanted) <= max(APART, face.lasts) / 2 + 1e-6
        present &= seconds[nearest] <= latest
        dropped = drop_in_evaluation(np.array([self.faces[places[place]].p for place in nearest.tolist()]))
        dropped[len(dropped) // 2] = False       # the centre is never dropped
        present &= ~dropped
        return np.array(places)[nearest[close_up(present[None])[0]]]

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` takes, to go on after the same picture; the scores must have been taken."""
        for face in self.faces:
            face.map = None                      # made again after a stop and without one, so that the bits agree
        return {name: np.array([getattr(face, name) for face in self.faces]) for name in STATE}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.faces = [
            _Face(int(row), int(track), float(seconds), float(lasts), crop, pose, points, float(p), bool(done))
            for row, track, seconds, lasts, crop, pose, points, p, done
            in zip(*(state[name] for name in STATE), strict=True)]
