"""The running average of a model's weights, which --ema scores and saves."""

import torch
from timm.utils.model_ema import ModelEmaV3 as RunningAverage
from torch import nn


def running_average(model: nn.Module, decay: float) -> RunningAverage:
    """A copy of a model, to be updated after each optimiser step: average = d * average + (1 - d) * weights.

    After step n, counted from 0, d is the smaller of `decay` and 1 - n ** (-2 / 3), and 0 at first: otherwise the
    random start would stay in the average of a short run. With a `decay` of 1 it is the plain mean of the weights after
    all steps since the warm-up, which `begin_average` names (Izmailov et al., Averaging weights leads to wider optima
    and better generalization, 2018). BatchNorm's mean and variance are averaged like weights, and its counters are
    copied.

    Make it before Accelerate prepares the model: the copy of a prepared model would call the original's forward.
    """
    return RunningAverage(model, decay, use_warmup=True, warmup_power=1 if decay == 1 else 2 / 3)


def begin_average(average: RunningAverage, device: torch.device, warmup: int) -> None:
    """Move the average to the model's device, and let a plain mean begin with step number `warmup`, from 0: until then
    it is the weights themselves."""
    average.to(device)
    if average.decay == 1:
        average.update_after_step = warmup - 1
