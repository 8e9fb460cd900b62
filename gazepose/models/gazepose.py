"""GazePose in one forward: crops, windows and priors in, a Prediction out.

Also the parts that other models share: FrameEncoder, FaceReader and GazeHead. Batches are normalised before they come
here (training/augment.py); losses are in training/losses.py.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazepose.models.backbone import counted_together, create_backbone, smoothed
from gazepose.models.config import ModelConfig
from gazepose.models.low_precision import weights_cast_once
from gazepose.models.queries import HeadPoseQueries, LandmarkQueries, LearnedQueries, Priors
from gazepose.models.transformer import Transformer

VECTOR = 256                                                              # numbers per frame in the sequence


class Prediction(NamedTuple):
    """logits [B, 2] (not looking, looking); gaze [B, 3] (yaw, pitch, spread; radians) or None without its head."""

    logits: Tensor
    gaze: Tensor | None


class GazeHead(nn.Linear):
    """Gaze360's output: yaw within +-pi, pitch within +-pi/2, spread within 0..pi, radians; [B, width] -> [B, 3]."""

    def __init__(self, width: int):
        super().__init__(width, 3)
        # An error within the spread has no gradient in the pinball loss, so a wide spread learns nothing at first:
        # start at the camera with a spread of about 5 degrees.
        with torch.no_grad():
            self.weight.mul_(0.1)
            self.bias.copy_(torch.tensor([0.0, 0.0, -3.5]))

    def forward(self, input: Tensor) -> Tensor:
        yaw, pitch, spread = super().forward(input).unbind(dim=-1)        # [B] each
        return torch.stack([math.pi * yaw.tanh(), math.pi / 2 * pitch.tanh(), math.pi * spread.sigmoid()], dim=-1)


class FaceReader(nn.Module):
    """One face's map and vector -> [B, 256]. Where the pupil is counts, so the map is flattened, not pooled."""

    CELLS = 4

    def __init__(self, width: int):
        super().__init__()
        self.narrow = nn.Conv2d(width, 64, kernel_size=1)
        self.hidden = nn.Linear(64 * self.CELLS**2 + VECTOR, VECTOR)

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """maps [B, C, h, w], vectors [B, 256] -> [B, 256]."""
        cells = F.adaptive_avg_pool2d(self.narrow(maps), self.CELLS)      # [B, 64, 4, 4]
        return F.relu(self.hidden(torch.cat([cells.flatten(1), vectors], dim=1)))


class FrameWeights(nn.Module):
    """How much each frame of a window counts: a softmax over its frames, of what each shows and of its place.

    At the start all frames count alike. It learns that closed eyes and smeared pictures say less. Both terms are ten
    times the numbers that are learnt: at the low rates of a start that has learnt, they would stay near zero.
    """

    GAIN = 10.0

    def __init__(self, frames: int):
        super().__init__()
        self.shown = nn.Linear(VECTOR, 1)
        self.place = nn.Parameter(torch.zeros(frames))
        for parameter in self.shown.parameters():
            nn.init.zeros_(parameter)

    def forward(self, faces: Tensor) -> Tensor:
        """Vectors of each frame [B, T, 256] -> their weighted mean [B, 256]."""
        weights = (self.GAIN * (self.shown(faces).squeeze(-1) + self.place)).softmax(dim=1)  # [B, T]
        return (weights.unsqueeze(1) @ faces).squeeze(1)


class FrameEncoder(nn.Module):
    """A pool of crops -> a map and a vector each, computed once however many windows show the frame."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.backbone, self.to_map = create_backbone(config.backbone, config.output_stride, config.image_size)
        self.name, self.output_stride, self.width = config.backbone, config.output_stride, self.backbone.num_features
        self.low_pass = config.low_pass
        if config.behaviour == "published":                               # timm starts each block's last norm at zero
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.ones_(module.weight)
        self.to_vector = nn.Sequential(nn.Linear(self.width, 1000), nn.ReLU(), nn.Linear(1000, VECTOR))
        self.folded: Callable[[Tensor], Tensor] | None = None             # while a model scores (folded.py)

    def train(self, mode: bool = True) -> "FrameEncoder":
        """As usual, but a frozen backbone keeps its BatchNorm statistics."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def maps_of(self, frames: Tensor) -> Tensor:
        """The backbone's maps: frames [F, 3, H, W] normalised -> [F, C, h, w]."""
        if self.low_pass:
            frames = smoothed(frames, self.low_pass)
        if (not torch.compiler.is_compiling() and self.folded is not None and torch.is_inference_mode_enabled()
                and not self.backbone.training and not torch.is_autocast_enabled(frames.device.type)):
            return self.to_map(self.folded(frames))
        # BatchNorm has no statistics of a single cell, so it uses the running ones
        one_cell = self.backbone.training and len(frames) == 1 and max(frames.shape[2:]) <= self.output_stride
        if one_cell:
            self.backbone.eval()
        with counted_together(self.backbone):
            features = self.backbone.forward_features(frames)             # [F, C, h, w], [F, h, w, C] or tokens
        if one_cell:
            self.backbone.train()
        return self.to_map(features)                                      # [F, C, h, w]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames [F, 3, H, W] normalised, or their maps [F, C, h, w] from `maps_of` -> maps [F, C, h, w], vectors
        [F, 256]."""
        maps = self.maps_of(frames) if frames.shape[1] == 3 else frames
        return maps, self.to_vector(maps.mean(dim=(-2, -1)))


class GazePose(nn.Module):
    """A BiLSTM over seven frames, and eight queries (three angles, five landmarks) to the map of the centre frame.

    With `config.reader` the logits are the sum of this head's and of FaceGaze's, which have the names that they have
    there. Both heads then start at zero, so that a start from FaceGaze's weights scores as FaceGaze does. With
    `config.window_reader` too, FaceGaze reads all frames of the window: such a start has the mean of its logits.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        d, published = config.dmodel, config.behaviour == "published"
        self.frames = FrameEncoder(config)
        self.lstm = nn.LSTM(VECTOR, VECTOR, num_layers=2, batch_first=True, bidirectional=True)
        self.input_proj = nn.Conv2d(self.frames.width, d, kernel_size=1)
        self.contents = nn.Parameter(torch.randn(8, d))
        self.head_queries = LearnedQueries(3, d) if not config.prior_head else HeadPoseQueries(
            d, split=config.split, unsigned=config.unsigned_pose, published=published)
        self.landmark_queries = LearnedQueries(5, d) if not config.prior_landmark else LandmarkQueries(
            d, dsplit=config.dsplit, csplit=config.csplit, published=published)
        self.transformer = Transformer(d, config.nheads, config.num_encoder_layers, config.num_decoder_layers,
                                       config.dim_feedforward, config.dropout, published)
        self.fusion_layer = nn.Linear(8 * d, 2 * VECTOR)
        self.combine_layer = nn.Linear(4 * VECTOR, VECTOR)
        self.last_layer = nn.Linear(VECTOR, 2)
        both = config.reader and not published
        self.reader = FaceReader(self.frames.width) if config.gaze_head or both else None
        self.gaze_head = GazeHead(VECTOR) if config.gaze_head else None
        self.label_layer = nn.Linear(VECTOR, 2) if both else None
        self.frame_weights = FrameWeights(2 * config.reach + 1) if both and config.window_reader else None
        if self.label_layer is not None:
            for parameter in (*self.last_layer.parameters(), *self.label_layer.parameters()):
                nn.init.zeros_(parameter)

    @weights_cast_once
    def forward(self, frames: Tensor, window: Tensor, priors: Priors) -> Prediction:
        """Is the face at the centre of each window looking at the camera?

        Args:
            frames: the pool, normalised, float [F, 3, H, W]; or its maps, as `FrameEncoder.forward` takes them.
            window: which frames of the pool make each window, int64 [B, T]; the centre is T // 2.
            priors: what is known of each window's centre besides its pixels.
        """
        centre = window.shape[1] // 2
        maps, vectors = self.frames(frames)                               # [F, C, h, w], [F, 256]
        sequence, _ = self.lstm(vectors[window])                          # [B, T, 512]
        face = maps[window[:, centre]]                                    # [B, C, h, w]
        queries = torch.cat([self.head_queries(priors.head_pose),
                             self.landmark_queries(priors.landmarks)], dim=1)  # [B, 8, d]
        answers = self.transformer(self.input_proj(face), self.contents, queries)  # [B, 8, d]
        spatial = self.fusion_layer(answers.flatten(1))                   # [B, 512]
        fused = self.combine_layer(torch.cat([sequence[:, centre], spatial], dim=1))  # [B, 256]
        logits = self.last_layer(fused)                                   # [B, 2]
        if self.reader is None:
            return Prediction(logits, None)
        if self.frame_weights is None:
            flat = seen = self.reader(face, vectors[window[:, centre]])   # [B, 256]
        else:
            flats = self.reader(maps, vectors)[window]                    # [B, T, 256]
            flat, seen = flats[:, centre], self.frame_weights(flats)      # [B, 256] each
        if self.label_layer is not None:
            logits = logits + self.label_layer(seen)
        return Prediction(logits, None if self.gaze_head is None else self.gaze_head(flat))


class FaceGaze(nn.Module):
    """Where one face looks, and whether at the camera, from its centre frame alone; pre-trains a backbone.

    Neighbouring frames and priors are not read.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.frames = FrameEncoder(config)
        self.reader = FaceReader(self.frames.width)
        self.gaze_head = GazeHead(VECTOR)
        self.label_layer = nn.Linear(VECTOR, 2)

    @weights_cast_once
    def forward(self, frames: Tensor, window: Tensor, priors: Priors) -> Prediction:
        """As GazePose.forward; only the centre frames are used."""
        centre = frames[window[:, window.shape[1] // 2]]                  # [B, 3, H, W]
        face = self.reader(*self.frames(centre))                          # [B, 256]
        return Prediction(self.label_layer(face), self.gaze_head(face))
