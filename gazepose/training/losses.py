"""What a training step minimises: weighted cross entropy of the labels and Gaze360's pinball loss of the gaze.

Every function here leaves its numbers on the device; the training loop reads them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from gazepose.training.augment import constant
from gazepose.training.config import LossRule

GAZE_QUANTILES = (0.1, 0.9)      # of Gaze360's pinball loss


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
