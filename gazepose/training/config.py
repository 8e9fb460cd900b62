"""The flags of the optimiser and of the loss. Importing them needs no torch, which takes seconds."""

import math
from dataclasses import dataclass
from typing import Literal

GAZE_TASKS = ("gaze", "gaze_clips")
LEARNING_RATES = {"GazePose": 1e-4, "GazeLSTM": 5e-5, "BaselineLSTM": 5e-4, "FaceGaze": 1e-3}
"""the published settings; FaceGaze's was measured on the embedded world"""
EMBEDDED_RATES = {"GazePose": 5e-4, "GazeLSTM": 1e-3, "BaselineLSTM": 1e-3, "FaceGaze": 1e-3}
"""for its few faces, of heads on a frozen backbone or of a training from random weights (docs/tried.md)"""
KEEPING_RATES = {False: 3e-5, True: 1e-4}
"""for GazePose with the package's start weights, by whether the backbone is frozen: a higher rate unlearns what these
know of real faces"""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move."""

    lr: float = 1e-4
    """highest learning rate"""
    min_lr: float = 5e-6
    """learning rate at the end of the cosine"""
    schedule: Literal["step", "epoch"] = "step"
    """step: one cosine over the run; epoch: as published, a cosine of ten epochs that moves once per epoch"""
    warmup: float = 0.0
    """part of all steps over which the learning rate rises from zero"""
    weight_decay: float = 0.0
    """decoupled weight decay of matrices and kernels; biases, norms and queries have none"""
    clip: float = 0.0
    """clip the gradient to this norm; 0: no clipping"""
    backbone_lr: float = 1.0
    """the backbone's learning rate as a multiple of the others'"""
    freeze_backbone: bool = False
    """do not train the backbone, and keep its BatchNorm statistics; a step then takes a third of the time"""
    ema: float = 0.0
    """also keep a running average of the weights with this decay, such as 0.999, or with 1 the mean of those after each
    epoch: best/ holds it, chosen by its mAP, and inference uses it; 0: off"""

    def __post_init__(self) -> None:
        if not 0 < self.lr < 10:
            raise ValueError(f"--lr {self.lr} -> give a learning rate above 0 and below 10")
        if not 0 <= self.ema <= 1:
            raise ValueError(f"--ema {self.ema} -> give a decay such as 0.999, 1 for the mean of epochs, or 0 for none")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup {self.warmup} -> give a part of the steps, 0 to below 1")
        if self.warmup and self.schedule == "epoch":
            raise ValueError(f"warmup {self.warmup}: the schedule epoch has none -> use warmup 0")
        if not all(0 <= value < math.inf for value in (self.min_lr, self.weight_decay, self.clip, self.backbone_lr)):
            raise ValueError("--min_lr, --clip, weight_decay or backbone_lr is out of range -> give 0 or more")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The flags that say what is learnt; `rule` makes the LossRule of them."""

    task: Literal["lam", "lam_stills", "gaze", "gaze_clips"] = "lam"
    """lam: does the person look at the camera wearer, learnt from clips; lam_stills: the same, from the single faces of
    an embedded world; gaze: where does the person look, from single faces (pre-training); gaze_clips: from clips"""
    gaze_loss: float | None = None
    """weight of the gaze loss, over rows whose gaze is known; default: 0 for lam, 1 for gaze"""
    label_loss: float | None = None
    """weight of the label loss; default: 1 for lam, 0 for gaze"""
    weights: tuple[float, float] | None = None
    """class weights of not looking and looking; default: from the training labels"""

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) for weight in (self.gaze_weight, self.label_weight, *(self.weights or ()))):
            raise ValueError("--gaze_loss, --label_loss or --weights is not a finite number -> give finite numbers")
        if self.label_weight <= 0 and self.gaze_weight <= 0:
            raise ValueError("--label_loss 0 --gaze_loss 0: nothing can be learned -> give one a weight above 0")
        if self.weights is not None and not min(self.weights) >= 0 < max(self.weights):
            raise ValueError(f"--weights {self.weights[0]} {self.weights[1]} -> give two weights of 0 or more, at "
                             "least one of them above 0: otherwise nothing is learnt")

    @property
    def rows_of(self) -> str:
        """The split to train on: the training clips, or the single faces."""
        return "stills" if self.task in ("lam_stills", "gaze") else "train"

    @property
    def gaze_weight(self) -> float:
        return self.gaze_loss if self.gaze_loss is not None else float(self.task in GAZE_TASKS)

    @property
    def label_weight(self) -> float:
        return self.label_loss if self.label_loss is not None else float(self.task not in GAZE_TASKS)

    def rule(self, class_weights: tuple[float, float]) -> "LossRule":
        """The loss of these flags."""
        return LossRule(class_weights, self.label_weight, self.gaze_weight)


@dataclass(frozen=True)
class LossRule:
    """A step minimises `label` times the weighted cross entropy plus `gaze` times the pinball loss."""

    class_weights: tuple[float, float] = (1.0, 1.0)
    """of not looking (0) and looking (1)"""
    label: float = 1.0
    gaze: float = 0.0
