"""The running average of weights (--ema)."""

import pytest
from torch import nn

from gazepose.models.average import running_average, updates


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


def test_a_decay_of_1_is_the_plain_mean_of_the_weights_after_each_epoch():
    model = nn.BatchNorm1d(1)
    average = running_average(model, 1)
    moved = updates(average, model, per_epoch=2)
    values = [9.0, 1.0, 4.0, 2.0, 7.0, 5.0, 8.0]
    for step, value in enumerate(values):
        if step == 4:                                        # three processes instead of six: four steps an epoch
            moved = updates(average, model, per_epoch=4, ahead=4)
        for tensor in (model.weight.data, model.running_var):
            tensor.fill_(value)
        moved(step)
        ends = {0: [], 1: [1.0], 2: [1.0], 3: [1.0, 2.0], 4: [1.0, 2.0], 5: [1.0, 2.0], 6: [1.0, 2.0]}[step]
        if ends:
            for tensor in (average.module.weight, average.module.running_var):
                assert tensor.item() == pytest.approx(sum(ends) / len(ends), abs=1e-5)
    moved(7)
    assert average.module.weight.item() == pytest.approx((1 + 2 + 8) / 3, abs=1e-5)
