"""The landmark score and which faces can be coded."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from gazepose.data.crops import as_cut, as_detected
from gazepose.io import write_arrays
from gazepose.priors.model_files import MODELS
from gazepose.watch import readout
from gazepose.watch.codable import judge
from gazepose.watch.readout import FEATURES, PAIRS, READ, Readout, fit, in_the_heads_axes, terms
from gazepose.watch.table import REASONS

AHEAD = {"yaw": 0.0, "pitch": -5.0, "eye_x": 0.0, "eye_y": -0.2, "blink": 0.03}


def probability(**changed: float) -> float:
    values = {**AHEAD, **changed}
    return float(Readout.shipped().probability(*(np.array([values[name]]) for name in values))[0])


def test_the_shipped_readout_says_what_made_it():
    facts = json.loads(readout.SHIPPED.read_text())
    made = facts["made"]
    assert made["command"].startswith("python -m gazepose fit_readout --preset default --seed 0")
    assert made["face_landmarker"] == MODELS["face_landmarker"].sha256 and made["faces"]["train"] > 2000
    assert made["validation clips"]["auroc"] > 0.8 and len(facts["coefficients"]) == 20 == len(FEATURES) + len(PAIRS)


@pytest.mark.parametrize("changed", [
    {"yaw": 35}, {"yaw": -35}, {"pitch": 35}, {"pitch": -40}, {"eye_x": 0.7}, {"eye_x": -0.7}, {"eye_y": 0.9},
    {"blink": 0.7}])
def test_a_face_that_is_turned_or_closes_its_eyes_looks_less(changed):
    assert probability() > 0.6 and probability(**changed) < 0.25


def test_eyes_against_the_head_still_look():
    assert probability(yaw=25, eye_x=-0.6) > 0.4 > probability(yaw=25, eye_x=0.2)


def test_a_mirrored_face_looks_as_much():
    assert probability(yaw=17, eye_x=-0.3) == pytest.approx(probability(yaw=-17, eye_x=0.3), abs=1e-9)


def test_a_tilted_head_counts_as_the_same_head_upright():
    # turned right by 20 degrees, then tilted by a quarter clockwise: the face points down in the picture
    upright = probability(yaw=20, pitch=0)
    assert probability(yaw=0, pitch=-20, roll=90) == pytest.approx(upright)
    assert probability(yaw=20, pitch=0, roll=0) == pytest.approx(upright)
    assert probability(yaw=-20, pitch=0, roll=180) == pytest.approx(upright)


@pytest.mark.parametrize(("yaw", "pitch", "roll", "own"), [
    (0, -20, 90, (20, 0)), (20, 0, 90, (0, 20)), (0, -20, -90, (-20, 0)), (12, 7, 0, (12, 7)),
    (20, 10, 180, (-20, -10))])
def test_the_heads_own_axes_are_tilted_with_it(yaw, pitch, roll, own):
    assert in_the_heads_axes(*map(np.array, (yaw, pitch, roll))) == pytest.approx(own)


def test_what_is_unknown_stays_unknown():
    values = [np.array([0.0, np.nan]) for _ in FEATURES]
    assert np.isfinite(Readout.shipped().probability(*values)).tolist() == [True, False]


def test_the_terms_are_the_features_and_their_products():
    value = terms(np.array([60.0, 30, 3, 4, 5]))
    assert value[:5].tolist() == [2, 1, 3, 4, 5]
    assert value[5:].tolist() == [4, 2, 6, 8, 10, 1, 3, 4, 5, 9, 12, 15, 16, 20, 25]


def test_the_fit_finds_a_rule_that_the_faces_follow():
    random = np.random.default_rng(0)
    values = random.normal(size=(3000, len(READ))) * [20, 15, 0.5, 0.3, 0.1, 10]
    upright = values.copy()
    upright[:, 5] = 0
    looking = np.hypot(values[:, 0] + 30 * values[:, 2], values[:, 1]) < 15
    fitted = fit(upright, looking)
    score = Readout(fitted.intercept, fitted.coefficients, closed=0).probability(*upright.T)
    assert ((score > 0.5) == looking).mean() > 0.93
    assert np.mean((score - looking) ** 2) < 0.05                         # a probability, not only an order
    assert fitted.coefficients[0] == fitted.coefficients[2] == 0          # odd in the mirrored features


def test_a_readout_file_that_is_none_says_how_to_make_one(tmp_path):
    good = asdict(Readout(0.0, [0.0] * 20))
    for name, facts in {"more": {**good, "x": 1}, "few": {**good, "coefficients": [1.0]},
                        "text": {**good, "intercept": "a"}, "none": {}}.items():
        (tmp_path / name).write_text(json.dumps(facts))
        with pytest.raises(ValueError, match=f"{name}: not a readout -> .*fit_readout"):
            Readout.shipped(tmp_path / name)


def test_a_detectors_box_becomes_that_of_a_crop_and_back():
    boxes = np.array([[100.0, 200, 100, 200], [7, 8, 9, 10]])
    assert as_cut(boxes)[0] == pytest.approx([103.8, 226.4, 92, 165.6])
    assert as_detected(as_cut(boxes)) == pytest.approx(boxes)


class Reader:
    """Stands in for the network: reads the brightness of a picture as the yaw."""

    def read(self, picture, place):
        from test_face_landmarker import reading_of
        return reading_of(yaw=float(picture.mean()), pitch=place[3])


def test_faces_are_read_where_the_world_says(tmp_path, monkeypatch):
    boxes = np.array([[0, 0, 46, 82.8], [0, 0, 46, 41.4], [0, 0, 46, 82.8]])
    write_arrays(tmp_path / "truth" / "val.npz", {
        "clip": np.array(["a", "a", "b"]), "frame": np.array([0, 3, 5]), "box": boxes, "label": np.array([1, 0, 1])})
    read = []

    def frames(path, numbers, decoder):
        read.append((path.name, numbers))
        return ((number, np.full((4, 4, 3), 10 + number, np.uint8)) for number in numbers)

    monkeypatch.setattr(readout, "frames_in_order", frames)
    values, looking = readout.read_faces(tmp_path, "val", 5, Reader(), lambda line: None)
    assert read == [("a.mp4", [0]), ("b.mp4", [5])] and looking.tolist() == [True, True]
    assert values[:, 0].tolist() == [10, 15] and values[:, 1] == pytest.approx([100, 100])


# ---- codable

GOOD = {"height": 100.0, "light": 120.0, "presence": 0.99, "yaw": 10.0, "pitch": -10.0, "fit": 0.08, "eye": 12.0}


@pytest.mark.parametrize(("changed", "reason"), [
    ({}, ""), ({"height": 30}, "too small"), ({"light": 9}, "too dark"), ({"yaw": -80}, "eyes not visible"),
    ({"pitch": 70}, "eyes not visible"), ({"eye": 2}, "eyes not visible"), ({"presence": 0.02}, "landmarks uncertain"),
    ({"fit": 0.4}, "landmarks uncertain"), ({"height": 30, "presence": 0}, "too small"),
    ({"light": 9, "fit": 0.9}, "too dark"), ({"yaw": np.nan}, "not detected"), ({"presence": np.nan}, "not detected")])
def test_each_face_that_cannot_be_coded_has_its_reason(changed, reason):
    values = {**GOOD, **changed}
    codable, found = judge(**{name: np.array([value, GOOD[name]]) for name, value in values.items()})
    assert found.tolist() == [reason, ""] and codable.tolist() == [reason == "", True]
    assert reason in ("", *REASONS)


def test_no_face_at_all_is_no_error():
    codable, reason = judge(*[np.zeros(0)] * 7)
    assert codable.shape == reason.shape == (0,)
