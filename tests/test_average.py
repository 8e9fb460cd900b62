"""The running average of weights (--ema)."""

import pytest
import torch
from torch import nn

from gazepose.models.average import begin_average, running_average


def test_the_average_follows_weights_and_batchnorm_and_counts_no_random_start():
    model = nn.BatchNorm1d(1)
    average = running_average(model, 0.5)
    for step, value in enumerate([7.0, 1.0, 2.0, 8.0]):     # d = 0, 0, 1 - 2 ** (-2 / 3) = 0.37, then 0.5
        for tensor in (model.weight.data, model.running_mean):
            tensor.fill_(value)
        model.num_batches_tracked += 1                       # type: ignore[operator]
        average.update(model, step)
    third = 0.37004 * 1 + 0.62996 * 2
    for tensor in (average.module.weight, average.module.running_mean):
        assert tensor.item() == pytest.approx(0.5 * third + 0.5 * 8, abs=1e-4)
    assert average.module.num_batches_tracked == 4


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_a_decay_of_1_is_the_plain_mean_since_the_warm_up(warmup):
    model = nn.BatchNorm1d(1)
    average = running_average(model, 1)
    begin_average(average, torch.device("cpu"), warmup)
    values = [9.0, 1.0, 4.0, 2.0, 7.0, 5.0]
    for step, value in enumerate(values):
        for tensor in (model.weight.data, model.running_var):
            tensor.fill_(value)
        average.update(model, step)
        meant = values[warmup:step + 1] or [value]           # in the warm-up, the weights themselves
        for tensor in (average.module.weight, average.module.running_var):
            assert tensor.item() == pytest.approx(sum(meant) / len(meant), abs=1e-5)
