"""A trained model for faces outside a data set: a face becomes a crop, and windows of crops become probabilities.

All that an application of a run needs is here: preprocessing, the window and the model. infer.py scores the rows of an
index in batches of a loader instead, with the same numbers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gazepose.data.crops import cut_face, published_crop, stored_crop
from gazepose.data.prepare import PrepareConfig
from gazepose.data.quality import laplacian_variance, quality_p, scaled
from gazepose.data.shards import decode, encode
from gazepose.models import Priors
from gazepose.models.config import ModelConfig
from gazepose.models.folded import fold
from gazepose.training.augment import normalise
from gazepose.training.checkpoint import WEIGHTS, from_json, read_model
from gazepose.training.hub import pinned
from gazepose.training.learnt_from import LearntFrom, learnt_from
from gazepose.training.run_config import CONFIG

BATCH = 32                   # windows that are scored at a time
APART = 1 / 30               # seconds between two frames of a window, as in all training data
Window = Literal["centred", "closed", "causal"]
"""which frames score frame t, with a reach of 3. centred: t-3 to t+3, as in training. closed: t-3 to t, where t stands
for the later ones too. causal: t-6 to t, so its centre, whose face and priors the model reads, is frame t-3"""


def seconds_around(window: Window, reach: int) -> tuple[float, float]:
    """How many seconds before and after a frame its window shows.

    Raises:
        ValueError: there is no such window.
    """
    sides = {"centred": (1, 1), "closed": (1, 0), "causal": (2, 0)}
    if window not in sides:
        raise ValueError(f"window {window!r} is unknown -> give {', '.join(sides)}")
    before, after = sides[window]
    return before * reach * APART, after * reach * APART


@dataclass(frozen=True)
class RunModel:
    """The model of a run, or of a published file, and how its crops are made."""

    model: Any
    network: ModelConfig
    crop_size: int
    """pixels per side"""
    box_scale: float
    """how much larger than its box a face is cut"""
    quality_scale: str
    quality_fit: tuple[float, float] | None
    """of Gaussian Temporal Dropout; None where the run does not use it"""
    least_height: float = np.inf
    """height of the smallest boxes that it was trained on, pixels; infinite if unknown"""
    learnt_from: LearntFrom = LearntFrom()
    source: str = ""
    """where it was read; of the hub hf:OWNER/NAME@COMMIT, with the commit that was used"""

    @classmethod
    def read(cls, path: Path) -> "RunModel":
        """Read a run's folder, a checkpoint's, or its weights, a published file, or hf:OWNER/NAME[@REVISION]. Raises as
        training.checkpoint.read_model."""
        path = pinned(path)
        if path.name == WEIGHTS and path.with_name(CONFIG).is_file():
            path = path.parent
        model, trained = read_model(path)
        prepared = from_json(PrepareConfig, trained.get("prepare"), path)
        data = trained.get("data") or {}
        scale = data.get("quality_scale", "variance")
        fit = trained.get("quality_fit") if data.get("gaussian_drop") and scale != "given" else None
        model = model.eval().to(memory_format=torch.channels_last)     # half the time on a CPU
        fold(model)
        return cls(model, from_json(ModelConfig, trained["model"], path), prepared.crop_size,
                   prepared.rules.box_scale, scale, None if fit is None else (float(fit[0]), float(fit[1])),
                   float((trained.get("face_heights") or (np.inf,))[0]), learnt_from(trained, path), path.as_posix())

    def cut(self, picture: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, float] | None:
        """The crop of a face, uint8 [S, S, 3], and p of its quality, NaN without dropout; None outside the picture.

        Args:
            picture: uint8 [H, W, 3] RGB. corners: x1, y1, x2, y2 in pixels, already grown by `box_scale`.
        """
        face = cut_face(picture, corners)
        if face is None:
            return None
        published, p = published_crop(face), np.nan
        if self.quality_fit is not None:
            variance = np.array([laplacian_variance(published)])
            p = float(quality_p(scaled(variance, self.quality_scale), *self.quality_fit)[0])   # type: ignore[arg-type]
        return decode(encode(stored_crop(face, self.crop_size, published))), p     # the pixels that preparation stores

    def resized(self, crop: np.ndarray) -> np.ndarray:
        """A crop of any size, uint8 [h, w, 3], at the model's size."""
        if crop.shape[:2] == (self.crop_size, self.crop_size):
            return crop
        return stored_crop(crop, self.crop_size, published_crop(crop))

    @torch.inference_mode()
    def maps(self, crops: np.ndarray) -> Tensor:
        """The backbone's maps of crops, which is most of the work; uint8 [F, S, S, 3] -> float32 [F, C, h, w]."""
        frames = torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))
        return self.model.frames.maps_of(normalise(frames))

    @torch.inference_mode()
    def probabilities(self, maps: Tensor, window: np.ndarray, head_pose: np.ndarray, landmarks: np.ndarray
                      ) -> np.ndarray:
        """Probability that the face at the centre of each window looks at the camera, float64 [B].

        Args:
            maps: of a pool of crops, [F, C, h, w]. window: which of them each window shows, int64 [B, T].
            head_pose: yaw, pitch, roll of the centres in degrees, [B, 3]; NaN unknown.
            landmarks: nose, left and right eye, left and right mouth corner of the centres: x, y in 0..1 of the crop
                and a confidence, [B, 5, 3]; NaN unknown.
        """
        priors = Priors(torch.from_numpy(head_pose).float(), torch.from_numpy(landmarks).float())
        logits = self.model(maps, torch.from_numpy(window), priors).logits
        return torch.softmax(logits.double(), dim=1)[:, 1].numpy()
