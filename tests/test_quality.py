"""Quality and the drop rule where nothing is recorded: unknown, alone, all alike."""

import numpy as np
import pytest

from gazepose.priors.quality import drop_in_evaluation, drop_in_training, fit_gaussian, quality_p


def test_unknown_quality_is_never_dropped():
    assert not drop_in_training(np.array([np.nan]), np.array([0.999999])).any()
    assert not drop_in_evaluation(np.array([np.nan])).any()
    assert np.isnan(quality_p(np.array([np.nan]), 1.0, 2.0)).all() and np.isnan(quality_p(np.array([np.nan]), 1.0, 0.0))


def test_the_mean_has_p_one_half():
    assert quality_p(np.array([5.0, 5.0]), 5.0, 2.0).tolist() == [0.5, 0.5]
    assert quality_p(np.array([4.0, 5.0, 6.0]), 5.0, 0.0).tolist() == [0.0, 0.5, 1.0]


def test_a_fit_needs_two_values():
    assert fit_gaussian(np.array([3.0, np.nan])) is None
    assert fit_gaussian(np.array([1.0, 3.0, np.nan])) == pytest.approx({"mean": 2.0, "std": 2**0.5})
