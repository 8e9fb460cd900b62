"""The running average of a model's weights, which --ema scores and saves."""

from collections.abc import Callable

from timm.utils.model_ema import ModelEmaV3 as RunningAverage
from torch import nn


def running_average(model: nn.Module, decay: float) -> RunningAverage:
    """A copy of a model, to be updated after each optimiser step: average = d * average + (1 - d) * weights.

    After step n, counted from 0, d is the smaller of `decay` and 1 - n ** (-2 / 3), and 0 at first: otherwise the
    random start would stay in the average of a short run. BatchNorm's mean and variance are averaged like weights, and
    its counters are copied.

    A `decay` of 1 gives the plain mean instead, and `updates` then takes the end of each epoch alone (Izmailov et al.,
    Averaging weights leads to wider optima and better generalization, 2018).

    Make it before Accelerate prepares the model: the copy of a prepared model would call the original's forward.
    """
    if decay == 1:
        return RunningAverage(model, decay, use_warmup=True, warmup_power=1, update_after_step=-1)
    return RunningAverage(model, decay, use_warmup=True)


def updates(average: RunningAverage, model: nn.Module, per_epoch: int, ahead: int = 0) -> Callable[[int], None]:
    """What to call with the number of each optimiser step, from 0.

    Args:
        per_epoch: steps of an epoch.
        ahead: how much further than its number a step is in the run, if the number of processes has changed.
    """
    def of_epochs(step: int) -> None:
        epochs, rest = divmod(step + ahead + 1, per_epoch)
        if rest == 0:
            average.update(model, epochs - 1)

    return of_epochs if average.decay == 1 else lambda step: average.update(model, step)
