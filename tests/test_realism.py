"""The measure of how far rendered faces are from real ones, on small sets whose answer is known."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import realism
from benchmarks.measure import ROOT, main
from benchmarks.tells import SHAPES, Features, picture_features, scores_apart, shape_features, tells
from gazepose.evaluation.metrics import evaluate
from gazepose.priors.face_landmarker import EYES, IRISES, LIDS, FaceReading

CHANCE = np.random.default_rng(3)
REAL = np.arange(400) % 2 == 1
PERSON = np.arange(400) // 4             # each has two faces of either kind


def auroc_of(values):
    return evaluate(REAL.astype(int), scores_apart(values, REAL, PERSON)[0])["auroc"]


def test_two_halves_of_one_distribution_are_not_told_apart_and_two_distributions_are():
    values = CHANCE.normal(size=(400, 12))
    assert auroc_of(values) == pytest.approx(0.5, abs=0.09)
    values[REAL, 4] += 6
    assert auroc_of(values) > 0.99
    _, weights = scores_apart(values, REAL, PERSON)
    assert weights.argmax() == 4


def test_a_person_whose_other_faces_were_seen_gives_nothing_away():
    # every person has features of their own, which say nothing of the kind of other persons
    person = np.arange(400) // 20
    real = person % 2 == 1
    values = np.random.default_rng(0).normal(size=(20, 60))[person]
    score = scores_apart(values, real, person)[0]
    assert evaluate(real.astype(int), score)["auroc"] < 0.75


def test_with_few_persons_there_is_no_classifier():
    with pytest.raises(ValueError, match="4 persons or sources of a kind, wanted 5 at least -> measure more faces"):
        scores_apart(np.zeros((16, 2)), np.arange(16) % 2 == 1, np.arange(16) // 4)


def test_the_strongest_tell_comes_first_with_mean_and_spread_of_both_kinds():
    values = np.zeros((400, 2))
    values[:, 0] = PERSON
    values[:, 1] = np.where(REAL, -3, 5)
    found = tells(Features(("person", "height"), values), REAL, np.array([0.5, -2]), 1)
    assert found == [{"feature": "height", "alone": 1, "rendered": [5, 0], "real": [-3, 0], "weight": -2}]


def test_the_features_of_a_crop_see_light_colour_edges_and_their_place():
    dark = np.full((64, 64, 3), 60, np.uint8)
    stripes = dark.copy()
    stripes[3:12, 52:61][:, ::4] = 200                    # in the forehead's cell at the right border
    plain, striped = picture_features(dark), picture_features(stripes)
    assert plain["lightness: spread"] == 0 == plain["sharpness: forehead, right border"]
    changed = {name for name in plain if name.startswith("sharpness: ") and striped[name] > plain[name]}
    assert changed == {"sharpness: log of Laplacian variance", "sharpness: forehead, right border"}
    assert striped["edges: share at 0 degrees"] > striped["edges: share at 90 degrees"]
    red = picture_features(np.full((64, 64, 3), (180, 60, 60), np.uint8))
    assert red["redness: mean"] > plain["redness: mean"] + 20
    assert all(np.isfinite(list(one.values())).all() for one in (plain, striped, red))


def face_of_points():
    """A flat face, 100 pixels between the eyes, each 40 wide, with lids 10 and irises 16 pixels apart."""
    points = np.random.default_rng(1).normal(0, 30, (478, 3)).astype(np.float32)
    for middle, corners, lids, iris in zip((50, -50), EYES, LIDS, IRISES, strict=True):
        sign = np.sign(middle)
        points[list(corners)] = [[middle - 20 * sign, 0, 5], [middle + 20 * sign, 0, 5]]
        points[list(lids)] = [[middle, -5, 5], [middle, 5, 5]]
        points[[iris + 1, iris + 3]] = [[middle + 8, 0, 5], [middle - 8, 0, 5]]
    return points


def test_lengths_are_in_distances_of_the_eyes_whatever_the_size_and_turn_of_the_face():
    points, weight = face_of_points(), np.ones(468)
    common = points[:468] * [1, -1, -1]                   # head axes: left, up, out of the face
    lengths = shape_features(points, common, weight)
    assert lengths["eye: width"] == pytest.approx(0.4) and lengths["eye: opening, in widths"] == pytest.approx(0.25)
    assert lengths["eye: iris, in widths"] == pytest.approx(0.4)
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ [[1, 0, 0], [0, c, s], [0, -s, c]]        # yaw and pitch
    turned = shape_features((points @ turn.T * 3 + 500).astype(np.float32), common, weight)
    assert turned == pytest.approx(lengths, abs=1e-4)


def reading_of(points, eye_x=0.0, blink=0.0):
    return FaceReading(points=points, presence=1.0, yaw=0.0, pitch=0.0, roll=0.0, eye_x=eye_x, eye_y=0.0, blink=blink,
                       light=100.0, fit=0.0, eye=20.0)


def test_the_network_is_compared_with_the_truth_of_each_rendered_face():
    # the eyes turn 40 degrees for one of eye_x, and the network puts all points 10 of 100 pixels too far right
    chance, faces = np.random.default_rng(2), []
    points = face_of_points()
    five = realism.five_points(points)
    for number in range(60):
        eye_x, closed = float(chance.uniform(-1, 1)), number % 3 == 0
        truth = {"points": five - [10, 0], "visible": np.array([True] * 4 + [False]),
                 "head_pose": np.array([2.0, -5.0, 1.0]), "gaze": np.radians([40 * eye_x + 2, -5]),
                 "blink": float(closed)}
        faces.append(realism.Face(str(number), truth, {realism.WHOLE: reading_of(points, eye_x, 0.4 * closed + 0.1)}))
    found = realism.readings_against_truth(faces, realism.WHOLE)
    assert found[realism.MARKS] == pytest.approx(0.1) and found[realism.BLINK] == 1
    assert found["head pose, median of found minus true"] == [-2, 5, -1]
    assert found[realism.EYES] < 0.01 and found["eye direction's error of the mean direction"] > 10
    assert found["closed eyes"] == 20
    assert realism.readings_against_truth(faces[:5], realism.WHOLE) == {"faces": 5}
    assert realism.presences(faces) == {realism.WHOLE: [1, 1]}


def test_a_rendered_picture_has_other_people_and_boxes_around_their_points():
    pictures = list(realism.rendered_pictures("tiny", 0, 3))
    people = [{int(truth["identity"]) for truth in truths} for _, truths in pictures]
    assert len(pictures) == 3 and all(people) and pictures[0][0].shape == (180, 320, 3)
    for truth in (truth for _, truths in pictures for truth in truths):
        x, y, width, height = truth["box"]
        assert ((truth["points"] > [x - 3, y - 3]) & (truth["points"] < [x + width + 3, y + height + 3])).all()


def test_a_sheet_has_both_kinds_at_each_size():
    faces = [realism.Face(str(number), None, {}, {size: np.full((size, size, 3), shade, np.uint8)
                                                  for size in realism.SHEET_SIZES})
             for number, shade in enumerate((50, 90))]
    drawn = realism.sheet(faces, faces[1:], across=1, tile=20)
    assert drawn.shape == (len(realism.SHEET_SIZES) * 2 * 2 * 20, 20, 3)
    assert (drawn[[19, 39, 59, 79], 19, 0] == [50, 90, 90, 0]).all()


def test_without_real_faces_or_into_the_repository_nothing_is_measured(tmp_path, monkeypatch):
    flags = ["realism", "--real", str(tmp_path), "--out", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", flags)
    main("realism", realism.GOAL, realism.measure, realism.FLAGS)
    result = json.loads((tmp_path / "realism.json").read_text())
    assert result["skipped"].endswith("labels.csv is not there") and not any(result["measured"].values())
    with pytest.raises(SystemExit, match="real people's faces in the repository -> give a path outside it"):
        realism.measure(SimpleNamespace(sheet=ROOT / "docs" / "sheet.png"))
    assert len(SHAPES) == 52
