"""The running average of weights (--ema)."""

import pytest
from torch import nn

from gazepose.models.average import running_average


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
