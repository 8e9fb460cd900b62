"""What a training step minimises: weighted cross entropy of the labels and Gaze360's pinball loss of the gaze.

Every function here leaves its numbers on the device; the training loop reads them.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from gazepose.training.augment import constant

GAZE_QUANTILES = (0.1, 0.9)      # of Gaze360's pinball loss
GAZE_TASKS = ("gaze", "gaze_clips")


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


class LossParts(NamedTuple):
    """Sums over some rows, each a scalar; a loss is its sum divided by its weight."""

    label: Tensor
    label_weight: Tensor
    gaze: Tensor
    gaze_rows: Tensor
    samples: Tensor
    """rows that the model learns from"""


def pinball(gaze: Tensor, target: Tensor) -> Tensor:
    """Gaze360's loss of each row, [B]: the 10 % and 90 % quantiles lie `spread` below and above the angle.

    Args:
        gaze: [B, 3] yaw, pitch, spread in radians.
        target: [B, 2] yaw, pitch in radians, finite.

    Source: Kellnhofer et al., Gaze360, ICCV 2019, section 4.
    """
    error = target - gaze[:, :2]
    spread = gaze[:, 2:]
    low, high = GAZE_QUANTILES
    below, above = error + spread, error - spread
    return (torch.maximum(low * below, (low - 1) * below) + torch.maximum(high * above, (high - 1) * above)).mean(1)


def loss_parts(logits: Tensor, gaze: Tensor | None, batch: dict[str, Tensor], rule: LossRule) -> LossParts:
    """The sums of this process's rows. Rows whose label is -1 or whose gaze is NaN add nothing to that loss.

    Args:
        logits: [B, 2]; gaze: [B, 3] or None, as a Prediction has them.
        batch: label int64 [B], gaze float [B, 2], row int64 [B].
    """
    labelled = batch["label"] >= 0
    label = batch["label"].clamp(min=0)
    weights = constant(rule.class_weights, logits.device)[label] * labelled
    entropy = F.cross_entropy(logits.float(), label, reduction="none")
    if gaze is None:
        zero = entropy.new_zeros(())
        return LossParts((entropy * weights).sum(), weights.sum(), zero, zero, labelled.sum().float())
    measured = torch.isfinite(batch["gaze"]).all(1) & (batch["row"] >= 0)
    target = torch.where(measured[:, None], batch["gaze"], 0.0)
    used = (labelled & (rule.label > 0)) | (measured & (rule.gaze > 0))
    return LossParts((entropy * weights).sum(), weights.sum(), (pinball(gaze.float(), target) * measured).sum(),
                     measured.sum().float(), used.sum().float())


def global_loss(parts: LossParts, rule: LossRule, accelerator: Accelerator, stop: bool = False
                ) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and figures over all processes: loss, samples, processes asked to stop; [3].

    DistributedDataParallel averages gradients over the processes, so each one's sum is divided by the mean of all
    weights: the step is that of one process with the whole batch.
    """
    sums = torch.stack(parts)                                             # [5]
    reduced: Tensor = accelerator.reduce(F.pad(sums.detach(), (0, 1), value=float(stop)),
                                         reduction="sum")                 # type: ignore[assignment]
    *totals, stopping = reduced.unbind()
    total = LossParts(*totals)
    share = 0.0 * sums.sum()        # every output takes part in every step, which DistributedDataParallel relies on
    value = reduced.new_zeros(())
    for factor, own, all_own, weight in ((rule.label, parts.label, total.label, total.label_weight),
                                         (rule.gaze, parts.gaze, total.gaze, total.gaze_rows)):
        if factor:
            share = share + _ratio(factor * own * accelerator.num_processes, weight)
            value = value + _ratio(factor * all_own, weight)
    return share, torch.stack([value, total.samples, stopping])


def _ratio(amount: Tensor, weight: Tensor) -> Tensor:
    """amount / weight, and 0 where the weight is 0; the host does not wait for the device to know which."""
    known = weight > 0
    return torch.where(known, amount / torch.where(known, weight, 1.0), 0.0)
