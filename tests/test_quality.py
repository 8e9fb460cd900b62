"""Quality and the drop rule where nothing is recorded: unknown, alone, all alike."""

import math

import numpy as np
import pytest

from gazepose.data.quality import (
    drop_in_evaluation,
    drop_in_training,
    fit_gaussian,
    fit_quality,
    quality_p,
    scaled,
)


def test_unknown_quality_is_never_dropped():
    assert not drop_in_training(np.array([np.nan]), np.array([0.999999])).any()
    assert not drop_in_evaluation(np.array([np.nan])).any()
    assert np.isnan(quality_p(np.array([np.nan]), 1.0, 2.0)).all() and np.isnan(quality_p(np.array([np.nan]), 1.0, 0.0))


def test_the_mean_has_p_one_half():
    assert quality_p(np.array([5.0, 5.0]), 5.0, 2.0).tolist() == [0.5, 0.5]
    assert quality_p(np.array([4.0, 5.0, 6.0]), 5.0, 0.0).tolist() == [0.0, 0.5, 1.0]


def test_the_log_scale_fits_the_logarithm():
    # logs 1 and 3: mean 2, standard deviation sqrt 2; e^2 is the middle, e^(2 + sqrt 2) one deviation above it
    variance = np.exp([1.0, 3.0])
    assert fit_quality(variance, "log") == pytest.approx((2, 2**0.5))
    assert fit_quality(np.array([1.0, 3.0, np.nan]), "variance") == pytest.approx((2, 2**0.5))
    assert fit_quality(variance, "given") is None and fit_quality(variance[:1], "log") is None
    p = quality_p(scaled(np.exp([2.0, 2 + 2**0.5, np.nan]), "log"), 2, 2**0.5)
    assert p[:2] == pytest.approx([0.5, 0.8413447]) and np.isnan(p[2])


def test_a_black_crop_is_the_worst_on_the_log_scale_and_does_not_spoil_the_fit():
    assert quality_p(scaled(np.zeros(1), "log"), 2.0, 1.0).tolist() == [0.0]
    assert fit_quality(np.array([0.0, *np.exp([1.0, 3.0])]), "log") == pytest.approx((2, 2**0.5))


def test_a_skewed_split_drops_frames_on_the_log_scale_only():
    variance = np.exp(np.repeat([0.0, 5.0, 10.0], [30, 40, 30]))       # as the published rule drops nothing (quirk 32)
    dropped = {scale: drop_in_evaluation(quality_p(scaled(variance, scale), *fit_quality(variance, scale))).mean()
               for scale in ("variance", "log")}
    assert dropped == {"variance": 0.0, "log": 0.3}


def test_a_fit_needs_two_values():
    assert fit_gaussian(np.array([3.0, np.nan])) is None
    assert fit_gaussian(np.array([1.0, 3.0, np.nan])) == pytest.approx({"mean": 2.0, "std": 2**0.5})


def test_p_is_the_normal_cdf():
    z = np.array([-3.0, -0.8416212335729143, 0, 1.0, 40.0])
    assert quality_p(7 + 2 * z, 7.0, 2.0) == pytest.approx([0.5 * math.erfc(-value / 2**0.5) for value in z], abs=3e-16)
