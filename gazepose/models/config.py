"""ModelConfig: which network, and its sizes. Importing it needs no torch, which takes seconds."""

from dataclasses import dataclass
from typing import Literal, get_args

ModelName = Literal["GazePose", "GazeLSTM", "BaselineLSTM", "FaceGaze"]
Behaviour = Literal["intended", "published"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    model: ModelName = "GazePose"
    """GazePose, one of the two LSTM baselines, or FaceGaze to pre-train a backbone on single faces"""
    backbone: str = "resnet18"
    """any timm network with a feature map, or with patches that form one (a ViT)"""
    output_stride: int = 32
    """pixels per cell of the feature map: 8, 16 or 32. The cells of a ViT are its patches: give their size. 32 is
    always possible and changes no network"""
    image_size: int | None = None
    """pixels per side that a network of one size (a ViT) is made for; train gives it --crop_size"""
    low_pass: float = 0.0
    """smooth each crop by a Gaussian of this sigma, in parts of its side, before the backbone: what weights know of
    rendered faces then reads real ones better, whose fine details are others; 0: not"""
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
    """width of the transformer's feed-forward layers"""
    nheads: int = 8
    """attention heads; --dmodel must be a multiple of this number"""
    dropout: float = 0.1
    """inside the transformer; there is none elsewhere"""
    gaze_head: bool = False
    """add a head for the gaze itself: yaw, pitch and spread in radians"""
    reach: int = 3
    """frames on each side of the centre of a window"""
    reader: bool = False
    """of GazePose: also read the flattened map of the centre frame, as FaceGaze does, and add its logits; the attention
    alone learns slowly from random weights"""
    window_reader: bool = False
    """with `reader`: read all frames of the window so, and weigh them by what they show"""

    def __post_init__(self) -> None:
        for name, allowed in (("model", get_args(ModelName)), ("behaviour", get_args(Behaviour)),
                              ("output_stride", (8, 16, 32))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is unknown -> give one of "
                                 f"{', '.join(map(str, allowed))}")
        for name, low, high in (("split", 0.1, 90), ("dsplit", 0.01, 2), ("csplit", 0.01, 1), ("dropout", 0, 1),
                                ("num_encoder_layers", 1, 64), ("num_decoder_layers", 1, 64), ("reach", 0, 64),
                                ("dim_feedforward", 1, 65536), ("nheads", 1, 128), ("dmodel", 4, 8192),
                                ("low_pass", 0, 0.2)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: {getattr(self, name)} is out of range -> give {low} to {high}")
        if not 16 <= (self.image_size or 16) <= 1024:
            raise ValueError(f"image_size: {self.image_size} is out of range -> give 16 to 1024")
        if self.dmodel % 4 or self.dmodel % self.nheads:
            raise ValueError(f"dmodel: {self.dmodel} cannot be divided by 4 and by {self.nheads} heads "
                             "-> give a multiple of both")
