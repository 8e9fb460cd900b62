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
SUM = 2                          # torch's number of that reduction
SMALLEST = torch.finfo(torch.float32).tiny


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
    # torch's cross entropy in its two steps: the second also gives the sum of the weights
    entropy, weight = torch.ops.aten.nll_loss_forward(
        F.log_softmax(logits.float(), 1), batch["label"], constant(rule.class_weights, logits.device), SUM, -1)
    if gaze is None:
        zero = constant((0.0,), logits.device)[0]
        return LossParts(entropy, weight, zero, zero, labelled.sum(dtype=torch.float32))
    measured = torch.isfinite(batch["gaze"]).all(1) & (batch["row"] >= 0)
    target = torch.where(measured[:, None], batch["gaze"], 0.0)
    used = (labelled & (rule.label > 0)) | (measured & (rule.gaze > 0))
    return LossParts(entropy, weight, (pinball(gaze.float(), target) * measured).sum(),
                     measured.sum(dtype=torch.float32), used.sum(dtype=torch.float32))


def global_loss(parts: LossParts, rule: LossRule, accelerator: Accelerator, stop: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and figures over all processes: loss, samples, processes asked to stop; [3].

    Args:
        stop: 1 if this process was asked to stop, else 0; float []. A tensor, since a CUDA graph calls no Python.

    DistributedDataParallel averages gradients over the processes, so each one's sum is divided by the mean of all
    weights: the step is that of one process with the whole batch.
    """
    stop = constant((0.0,), parts.samples.device)[0] if stop is None else stop
    reduced: Tensor = accelerator.reduce(torch.stack([*parts, stop]).detach(),
                                         reduction="sum")                 # type: ignore[assignment]
    amounts, weights = reduced[:4].unflatten(0, (2, 2)).unbind(1)         # [2] each: of the labels, of the gaze
    # a weight of 0 has an amount of 0, and so has its loss
    scale = constant((rule.label, rule.gaze), reduced.device) / weights.clamp(min=SMALLEST)
    # a factor of 0 too: every output takes part in every step, which DistributedDataParallel relies on
    share = torch.dot(torch.stack([parts.label, parts.gaze]), scale * accelerator.num_processes)
    return share, torch.cat([torch.dot(amounts, scale)[None], reduced[4:]])
