"""ModelConfig, and GazePose in one forward: crops, windows and priors in, a Prediction out.

Also the two parts it shares with the baselines (gaze_lstm.py): FrameEncoder and GazeHead. Data is batched and
normalised before it comes here; losses are training/engine.py's.
"""

import copy
import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazepose.models.queries import HeadPoseQueries, LandmarkQueries, LearnedQueries, Priors
from gazepose.models.transformer import Transformer

ModelName = Literal["GazePose", "GazeLSTM", "BaselineLSTM", "FaceGaze"]
Behaviour = Literal["intended", "published"]
VECTOR = 256                                                              # numbers per frame in the sequence


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    model: ModelName = "GazePose"
    """GazePose, one of the two LSTM baselines, or FaceGaze to pre-train a backbone on single faces"""
    backbone: str = "resnet18"
    """any timm network that gives a feature map, or patches that make one (a ViT)"""
    output_stride: int = 32
    """pixels per cell of the feature map: 8, 16 or 32; crops of 64 px want 8. A ViT's cells are its patches: it takes
    their size, or 32, which leaves any network as it is"""
    image_size: int | None = None
    """pixels per side that a network of one size (a ViT) is made for; train.py gives it --crop_size"""
    behaviour: Behaviour = "intended"
    """published: with the faults of the published code, in the model and in its windows; intended: without"""
    prior_head: bool = False
    """query the face with its head pose; off: three learned queries"""
    prior_landmark: bool = False
    """query the face with its landmarks; off: five learned queries"""
    split: float = 1.0
    """degrees per head pose bin"""
    dsplit: float = 0.1
    """crop widths per landmark cell"""
    csplit: float = 0.1
    """landmark confidence per bin"""
    unsigned_pose: bool = False
    """drop the sign of the head pose; behaviour published always does"""
    num_encoder_layers: int = 6
    """transformer layers that read the feature map"""
    num_decoder_layers: int = 6
    """transformer layers that answer the queries"""
    dmodel: int = 512
    """width of the transformer"""
    dim_feedforward: int = 2048
    """width of its feed-forward layers"""
    nheads: int = 8
    """attention heads; they divide dmodel"""
    dropout: float = 0.1
    """inside the transformer; there is none elsewhere"""
    gaze_head: bool = False
    """add a head for the gaze itself: yaw, pitch and spread in radians"""
    reach: int = 3
    """frames on each side of the centre of a window"""

    def __post_init__(self) -> None:
        for name, allowed in (("model", get_args(ModelName)), ("behaviour", get_args(Behaviour)),
                              ("output_stride", (8, 16, 32))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is unknown -> one of {', '.join(map(str, allowed))}")
        for name, low, high in (("split", 0.1, 90), ("dsplit", 0.01, 2), ("csplit", 0.01, 1), ("dropout", 0, 1),
                                ("num_encoder_layers", 1, 64), ("num_decoder_layers", 1, 64), ("reach", 0, 64),
                                ("dim_feedforward", 1, 65536), ("nheads", 1, 128), ("dmodel", 4, 8192)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: {getattr(self, name)} is out of range -> within {low} and {high}")
        if not 16 <= (self.image_size or 16) <= 1024:
            raise ValueError(f"image_size: {self.image_size} is out of range -> within 16 and 1024")
        if self.dmodel % 4 or self.dmodel % self.nheads:
            raise ValueError(f"dmodel: {self.dmodel} does not divide into 4 parts and {self.nheads} heads "
                             "-> a multiple of both")


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


@torch.enable_grad()
def outline(backbone: Any, size: Sequence[int]) -> tuple[Any, list[str]]:
    """What one image [3, H, W] gives, on the meta device (shapes without arithmetic), and the children with no part in
    it."""
    sketch = copy.deepcopy(backbone).to("meta").eval()
    maps = sketch.forward_features(torch.zeros(1, *size, device="meta"))
    if not isinstance(maps, Tensor):
        return maps, []
    names, parameters = zip(*sketch.named_parameters(), strict=True)
    gradients = torch.autograd.grad(maps.sum(), parameters, allow_unused=True)
    seen = {name.split(".")[0] for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    return maps, [child for child in dict.fromkeys(name.split(".")[0] for name in names) if child not in seen]


def channels_first(maps: Tensor) -> Tensor:
    """[F, h, w, C] -> [F, C, h, w]"""
    return maps.permute(0, 3, 1, 2)


class PatchMap(nn.Module):
    """The patch tokens of a ViT, [F, prefix + h * w, C] in reading order -> [F, C, h, w]; class tokens and registers,
    which come before them, are left out."""

    def __init__(self, prefix: int, grid: tuple[int, int]):
        super().__init__()
        self.prefix, self.grid = prefix, grid

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.prefix:].transpose(1, 2).unflatten(2, self.grid)


def map_of(backbone: Any, features: Any) -> tuple[Callable[[Tensor], Tensor], Sequence[int]] | None:
    """What makes maps [F, C, h, w] of that which `forward_features` gave for one image, and (h, w); None: nothing."""
    shape, width = features.shape if isinstance(features, Tensor) else (), backbone.num_features
    if len(shape) == 4 and width in (shape[1], shape[3]):
        return (nn.Identity(), shape[2:]) if shape[1] == width else (channels_first, shape[1:3])
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    if grid and tuple(shape[1:]) == (prefix + math.prod(grid), width):
        return PatchMap(prefix, tuple(grid)), grid
    return None


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


def create_backbone(config: ModelConfig) -> tuple[Any, int, Callable[[Tensor], Tensor]]:
    """A timm network with random weights, the width of its map, and what makes the map of its features.

    What `forward_features` never uses (a classifier's own layers) is taken out, so that every parameter gets a
    gradient. A network that timm makes for one size of image is made for `image_size`.

    Raises:
        ValueError: unknown to timm, without that output stride, not for crops of that size, or without a feature map.
    """
    name, side = config.backbone, config.image_size
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"backbone: timm has no {name!r} -> {' or '.join(near) or 'a name from timm.list_models()'}")
    one_size = side if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False) else None
    made = _for_one_size(name, one_size) if one_size else _for_any_size(name, config.output_stride)
    backbone, features, unused = made
    found = map_of(backbone, features)
    if not found or isinstance(found[0], PatchMap) and not one_size:      # how many patches, the crop's size tells
        got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"backbone: {name} gives {got}, not a feature map -> a network such as resnet18"
                         + ("; for a ViT give image_size, as train.py does" if side is None else ""))
    to_map, grid = found
    if one_size and config.output_stride not in (32, one_size // grid[0]):
        raise ValueError(f"backbone: {name} does not do output_stride {config.output_stride}: its cells are "
                         f"{one_size // grid[0]} pixels -> output_stride 32, which leaves it as it is")
    for child in unused:
        setattr(backbone, child, nn.Identity())
    if config.behaviour == "published":                                   # timm starts each block's last norm at zero
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
    return backbone, backbone.num_features, to_map


def _for_any_size(name: str, output_stride: int) -> tuple[Any, Any, list[str]]:
    """A network that takes crops of any size, or is made for its own one; and what `outline` tells of it."""
    # 32 is what every network has; many do not take the option
    stride: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        backbone: Any = timm.create_model(name, pretrained=False, num_classes=0, **stride)
    except (TypeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"backbone: {name} does not do output_stride {output_stride} ({error}) "
                         "-> output_stride 32 or a network such as resnet18") from error
    return backbone, *outline(backbone, backbone.pretrained_cfg.get("input_size", (3, 224, 224)))


def _for_one_size(name: str, side: int) -> tuple[Any, Any, list[str]]:
    """A network made for crops of `side` pixels, and what `outline` tells of it."""
    try:
        backbone: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=side)
        patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)
        patch = patch if isinstance(patch, int) else patch[0]
        if side % patch:
            raise ValueError(f"its patches are {patch} pixels")
        return backbone, *outline(backbone, (3, side, side))
    except (TypeError, AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ValueError(f"backbone: {name} cannot be made for crops of {side} pixels ({error}) -> a --crop_size that "
                         "is a multiple of its patches, or a network such as resnet18") from error


class FrameEncoder(nn.Module):
    """A pool of crops -> a map and a vector each; what any window asks of a frame is computed once."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.backbone, self.width, self.to_map = create_backbone(config)
        self.name, self.output_stride = config.backbone, config.output_stride
        self.to_vector = nn.Sequential(nn.Linear(self.width, 1000), nn.ReLU(), nn.Linear(1000, VECTOR))

    def train(self, mode: bool = True) -> "FrameEncoder":
        """As usual, but a frozen backbone keeps its BatchNorm statistics."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def maps_of(self, frames: Tensor) -> Tensor:
        """frames [F, 3, H, W] normalised -> what the backbone gives for them, maps [F, C, h, w].

        A single frame whose map is a single cell has no statistics of its own: it is trained on the running ones.
        """
        lone = self.backbone.training and len(frames) == 1 and max(frames.shape[2:]) <= self.output_stride
        if lone:
            self.backbone.eval()
        features = self.backbone.forward_features(frames)                 # [F, C, h, w], [F, h, w, C] or tokens
        if lone:
            self.backbone.train()
        return self.to_map(features)                                      # [F, C, h, w]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames [F, 3, H, W] normalised, or maps [F, C, h, w] that `maps_of` gave for them before
        -> maps [F, C, h, w], vectors [F, 256]."""
        maps = self.maps_of(frames) if frames.shape[1] == 3 else frames
        return maps, self.to_vector(maps.mean(dim=(-2, -1)))


class GazePose(nn.Module):
    """Seven frames in time, and the centre frame's map asked by eight queries: three angles, five landmarks."""

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
        self.reader = FaceReader(self.frames.width) if config.gaze_head else None
        self.gaze_head = GazeHead(VECTOR) if config.gaze_head else None

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
        seen = maps[window[:, centre]]                                    # [B, C, h, w]
        place = self.input_proj(seen)                                     # [B, d, h, w]
        queries = torch.cat([self.head_queries(priors.head_pose),
                             self.landmark_queries(priors.landmarks)], dim=1)  # [B, 8, d]
        found = self.transformer(place, self.contents, queries)           # [B, 8, d]
        spatial = self.fusion_layer(found.flatten(1))                     # [B, 512]
        both = self.combine_layer(torch.cat([sequence[:, centre], spatial], dim=1))  # [B, 256]
        if self.reader is None or self.gaze_head is None:
            return Prediction(self.last_layer(both), None)
        return Prediction(self.last_layer(both), self.gaze_head(self.reader(seen, vectors[window[:, centre]])))


class FaceGaze(nn.Module):
    """Where one face looks, and whether at the camera, from its centre frame alone: trains a backbone for the others.

    Neighbouring frames and priors are not read.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.frames = FrameEncoder(config)
        self.reader = FaceReader(self.frames.width)
        self.gaze_head = GazeHead(VECTOR)
        self.label_layer = nn.Linear(VECTOR, 2)

    def forward(self, frames: Tensor, window: Tensor, priors: Priors) -> Prediction:
        """As GazePose.forward; only the centre frames are looked at."""
        read = self.reader(*self.frames(frames[window[:, window.shape[1] // 2]]))  # [B, 256]
        return Prediction(self.label_layer(read), self.gaze_head(read))
