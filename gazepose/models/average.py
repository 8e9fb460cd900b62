"""The running average of a model's weights, which --ema scores and saves."""

from timm.utils.model_ema import ModelEmaV3 as RunningAverage
from torch import nn


def running_average(model: nn.Module, decay: float) -> RunningAverage:
    """A copy of a model, to be updated after each optimiser step: average = d * average + (1 - d) * weights.

    After step n, counted from 0, d is the smaller of `decay` and 1 - n ** (-2 / 3), and 0 at first: otherwise the
    random start would stay in the average of a short run. BatchNorm's mean and variance are averaged like weights, and
    its counters are copied.

    Make it before Accelerate prepares the model: the copy of a prepared model would call the original's forward.
    """
    return RunningAverage(model, decay, use_warmup=True)
