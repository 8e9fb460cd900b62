"""Quality and the drop rule against the numbers of the published scripts."""

import json
import zlib

import numpy as np
import pytest

from gazepose.priors.quality import drop_in_evaluation, drop_in_training, fit_gaussian, laplacian_variance, quality_p


def octets(label: str, count: int) -> np.ndarray:
    raw = np.random.PCG64(zlib.crc32(label.encode())).random_raw(count)
    return (np.asarray(raw) >> np.uint64(56)).astype(np.int64)


@pytest.fixture(scope="module")
def recorded(parity) -> dict:
    return json.loads((parity / "priors.json").read_text())


@pytest.mark.parametrize("group", ["spread", "even"])
def test_variance_fit_and_p_are_the_published_ones(parity, recorded, group):
    salt = json.loads((parity / "models.json").read_text())["fill"]["salt"]
    variances = []
    for number, image in enumerate(recorded["quality"][group]["images"]):
        height, width, repeat, amplitude = (image[name] for name in ("height", "width", "repeat", "amplitude"))
        rows, columns = -(-height // repeat), -(-width // repeat)
        raw = octets(f"{salt}laplacian/{group}/{number}", rows * columns * 3).reshape(rows, columns, 3)
        crop = (raw * amplitude // 256 + (256 - amplitude) // 2).astype(np.uint8)
        crop = np.ascontiguousarray(crop.repeat(repeat, 0).repeat(repeat, 1)[:height, :width])
        assert zlib.crc32(crop.tobytes()) == image["crc32"]
        variances.append(laplacian_variance(crop))
        # ours is the rounded exact value; the recorded one, a sum of floats, is one unit off in one image
        assert abs(variances[-1] - image["variance"]) <= np.spacing(image["variance"])
    fit = fit_gaussian(np.array(variances))
    assert fit is not None and fit == pytest.approx({"mean": recorded["quality"][group]["mean"],
                                                     "std": recorded["quality"][group]["std_ddof1"]}, rel=1e-14)
    np.testing.assert_allclose(quality_p(np.array(variances), fit["mean"], fit["std"]),
                               [image["p"] for image in recorded["quality"][group]["images"]], atol=1e-15)


def test_the_drop_rule_is_the_published_one(recorded):
    training, validation = recorded["drop"]["train"], recorded["drop"]["val"]
    dropped = drop_in_training(np.array(training["p"])[:, None], np.array(training["u"]))
    assert dropped.tolist() == training["dropped"]
    assert drop_in_evaluation(np.array(validation["p"])).tolist() == validation["dropped"]


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
