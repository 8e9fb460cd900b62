"""Score faces with a trained run or a published checkpoint while their video is watched.

A model sees windows of frames 1/30 s apart, whatever the video's rate: for each the crop that is nearest in time.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from gazepose.data.crops import cut_face, grown, published_crop, stored_crop
from gazepose.data.prepare import PrepareConfig
from gazepose.data.quality import drop_in_evaluation, laplacian_variance, quality_p, scaled
from gazepose.data.shards import decode, encode
from gazepose.data.video_times import TimedPicture
from gazepose.data.windows import close_up
from gazepose.models import Priors
from gazepose.models.gazepose import ModelConfig
from gazepose.training.augment import normalise
from gazepose.training.checkpoint import from_json, read_model
from gazepose.watch.table import as_cut

APART = 1 / 30               # seconds between two frames of a window, as in all training data
BATCH = 32                   # windows that are scored at a time


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


class TrainedScorer:
    """A trained model as a scorer of video_pass.py.

    Args:
        path: as training.checkpoint.read_model takes it; raises as that.
        causal: no later frame is used; they count as missing.
        own_boxes: the boxes are the user's, and are used as they are; else they are the detector's (as_cut).
    """

    def __init__(self, path: Path, causal: bool = False, own_boxes: bool = False) -> None:
        torch.set_num_threads(1)                 # each process watches a video of its own
        self.model, trained = read_model(path)
        self.model.eval()
        network = from_json(ModelConfig, trained["model"], path)
        prepared = from_json(PrepareConfig, trained.get("prepare"), path)
        data = trained.get("data") or {}
        self.quality_scale, self.fit = data.get("quality_scale", "variance"), None
        if data.get("gaussian_drop") and self.quality_scale != "given":
            self.fit = trained.get("quality_fit")
        self.size, self.scale, reach = prepared.crop_size, prepared.rules.box_scale, network.reach
        self.offsets = APART * np.arange(-reach, reach + 1)
        self.causal, self.own_boxes, self.ended = causal, own_boxes, False
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
        corners = grown(np.array([x, y, x + width, y + height]), self.scale)
        face = cut_face(timed.picture, corners)
        if face is None:
            return
        published = published_crop(face)
        crop = decode(encode(stored_crop(face, self.size, published)))     # the pixels that preparation stores
        p = np.nan
        if self.fit is not None:
            p = float(quality_p(scaled(np.array([laplacian_variance(published)]), self.quality_scale), *self.fit)[0])
        size = np.maximum(corners[2:] - corners[:2], 1e-6)
        landmarks = np.column_stack([(points - corners[:2]) / size, np.where(np.isnan(points[:, 0]), np.nan, 1.0)])
        self.faces.append(_Face(row, track, timed.seconds, timed.duration, crop, pose, landmarks, p))

    def end_all(self) -> None:
        """A new shot begins: windows that lack later frames will get none."""
        self._score([face for face in self.faces if not face.scored])
        self.faces = []

    def take(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows whose score is known since the last call, int64 [n], and their probabilities, float64 [n].

        Args:
            seconds: up to where faces were added; infinite at the end.
        """
        reach = 0.0 if self.causal else float(self.offsets[-1])
        ready = [face for face in self.faces
                 if not face.scored and face.seconds + reach + max(APART, face.lasts) / 2 <= seconds]
        if len(ready) >= BATCH or (ready and np.isinf(seconds)):
            self._score(ready)
            first = min((face.seconds for face in self.faces if not face.scored), default=seconds)
            self.faces = [face for face in self.faces
                          if face.seconds >= first + float(self.offsets[0]) - max(APART, face.lasts) / 2]
        rows, scores = self._done if self._done else ([], [])
        self._done = None
        return np.array(rows, np.int64), np.array(scores, np.float64)

    _done: tuple[list[int], list[float]] | None = None

    def _score(self, centres: list[_Face]) -> None:
        rows, scores = self._done or ([], [])
        for start in range(0, len(centres), BATCH):
            batch = centres[start:start + BATCH]
            rows += [face.row for face in batch]
            scores += self._probabilities(batch)
            for face in batch:
                face.scored = True
        self._done = rows, scores

    def _probabilities(self, centres: list[_Face]) -> list[float]:
        of_track: dict[int, list[int]] = {}
        for place, face in enumerate(self.faces):
            of_track.setdefault(face.track, []).append(place)
        window = np.stack([self._window(face, of_track[face.track]) for face in centres])        # [B, T]
        pool, window = np.unique(window, return_inverse=True)
        crops = np.stack([self.faces[place].crop for place in pool.tolist()]).transpose(0, 3, 1, 2)
        priors = Priors(*(torch.from_numpy(np.stack([getattr(face, name) for face in centres])).float()
                          for name in ("pose", "landmarks")))
        with torch.inference_mode():
            frames = normalise(torch.from_numpy(np.ascontiguousarray(crops)))
            logits = self.model(frames, torch.from_numpy(window.reshape(len(centres), -1)), priors).logits
        return torch.softmax(logits.double(), dim=1)[:, 1].tolist()

    def _window(self, centre: _Face, places: list[int]) -> np.ndarray:
        """Places of the crops that the window of a face shows, int64 [T]."""
        seconds = np.array([self.faces[place].seconds for place in places])
        wanted = centre.seconds + self.offsets
        nearest = np.abs(seconds[None] - wanted[:, None]).argmin(axis=1)                         # [T]
        present = np.abs(seconds[nearest] - wanted) <= max(APART, centre.lasts) / 2 + 1e-6
        if self.causal:
            present &= seconds[nearest] <= centre.seconds
        dropped = drop_in_evaluation(np.array([self.faces[places[place]].p for place in nearest.tolist()]))
        dropped[len(dropped) // 2] = False       # the centre is never dropped
        present &= ~dropped
        return np.array(places)[nearest[close_up(present[None])[0]]]

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` takes, to go on after the same picture; the scores must have been taken."""
        return {field.name: np.array([getattr(face, field.name) for face in self.faces]) for field in fields(_Face)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        columns = [state[field.name] for field in fields(_Face)]
        self.faces = [
            _Face(int(row), int(track), float(seconds), float(lasts), crop, pose, points, float(p), bool(done))
            for row, track, seconds, lasts, crop, pose, points, p, done in zip(*columns, strict=True)]
