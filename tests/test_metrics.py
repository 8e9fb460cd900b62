"""Metrics: numbers that can be checked in the head."""

import re

import numpy as np
import pytest

from gazepose.evaluation.metrics import (
    average_precision,
    class_weights,
    evaluate,
    fit_head_pose,
    gaze_degrees,
    head_pose_scores,
    score_of_gaze,
    trivial_baselines,
)


def test_two_hits_around_a_miss():
    # ranked: hit, miss, hit -> precision 1, 1/2, 2/3; the two hits count 1 and 2/3
    assert average_precision(np.array([1, 0, 1], bool), np.array([0.9, 0.8, 0.7])) == pytest.approx((1 + 2 / 3) / 2)


def test_the_envelope_lifts_an_early_miss_to_the_best_precision_that_follows():
    # ranked: miss, hit, hit -> precision 1/2, 2/3; the first hit counts 2/3 too
    assert average_precision(np.array([0, 1, 1], bool), np.array([0.9, 0.8, 0.7])) == pytest.approx(2 / 3)


def test_ties_keep_their_order():
    assert average_precision(np.array([1, 0], bool), np.array([0.5, 0.5])) == 1.0
    assert average_precision(np.array([0, 1], bool), np.array([0.5, 0.5])) == 0.5


def test_average_precision_without_a_positive_is_an_error():
    with pytest.raises(ValueError, match="without a positive"):
        average_precision(np.zeros(3, bool), np.arange(3.0))


def test_a_table_in_the_head():
    result = evaluate(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.4, 0.3]))
    assert result["mAP"] == pytest.approx(5 / 6)
    assert result["confusion"] == {"tp": 1, "fp": 1, "fn": 1, "tn": 1}
    assert (result["accuracy"], result["balanced_accuracy"], result["auroc"]) == (0.5, 0.5, 0.75)
    assert (result["prevalence"], result["n"], result["unknown"], result["reason"]) == (0.5, 4, 0, None)


def test_auroc_counts_ties_half():
    assert evaluate(np.array([1, 0, 1, 0]), np.full(4, 0.5))["auroc"] == 0.5


def test_a_score_of_one_half_is_looking():
    assert evaluate(np.array([1, 0]), np.array([0.5, np.nextafter(0.5, 0)]))["accuracy"] == 1.0


@pytest.mark.parametrize(("label", "reason"), [([1, 1], "all 2 labelled rows are looking"),
                                               ([0, 0], "all 2 labelled rows are not looking"),
                                               ([-1, -1], r"no labelled rows \(2 of unknown label\)")])
def test_one_class_is_none_with_a_reason_and_not_zero(label, reason):
    result = evaluate(np.array(label), np.array([0.2, 0.7]))
    assert result["mAP"] is None and result["auroc"] is None
    assert re.search(reason, result["reason"])


def test_no_rows_is_none_with_a_reason():
    result = evaluate(np.zeros(0, int), np.zeros(0))
    assert result["accuracy"] is None and result["n"] == 0 and "no labelled rows" in result["reason"]


def test_unknown_labels_are_left_out_and_counted():
    known = evaluate(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.1]))
    mixed = evaluate(np.array([1, -1, 0, 1, -1]), np.array([0.9, 0.99, 0.8, 0.1, 0.0]))
    assert mixed == known | {"unknown": 2}


def test_wrong_scores_and_labels_are_errors():
    with pytest.raises(ValueError, match="1 of 2 are not finite, the first is row 1: nan"):
        evaluate(np.array([1, 0]), np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="one per label"):
        evaluate(np.array([1, 0]), np.zeros(3))
    with pytest.raises(ValueError, match="there are .*2"):
        evaluate(np.array([1, 2]), np.zeros(2))


def test_fast_order_equals_the_stable_sort():
    random = np.random.default_rng(0)
    label, score = random.random(5000) < 0.2, np.round(random.random(5000), 2)
    order = np.argsort(-score, kind="stable")
    precision = np.cumsum(label[order]) / np.arange(1, 5001)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    assert average_precision(label, score) == pytest.approx(envelope[label[order]].mean(), abs=1e-12)


def test_head_pose_baseline_finds_frontal_faces_and_learns_what_unknown_means():
    random = np.random.default_rng(0)
    pose = random.normal(0, 40, (4000, 3))
    label = (np.hypot(pose[:, 0], pose[:, 1]) < 25).astype(int)
    pose[:400] = np.nan
    label[:400] = np.arange(400) % 4 == 0
    label[-100:] = -1
    fit = fit_head_pose(pose, label)
    ahead, aside, unknown = head_pose_scores(fit, np.array([[0, 0, 0], [80, 0, 0], [np.nan, 0, 0]]))
    assert ahead > 0.9 and aside < 0.05 and unknown == pytest.approx(0.25, abs=0.02)
    left, right = head_pose_scores(fit, np.array([[-20.0, 5, 3], [20, -5, -3]]))
    assert left == right


def test_head_pose_baseline_survives_classes_that_separate_and_classes_that_lack():
    pose = np.array([[0.0, 0, 0], [90, 0, 0]] * 50)
    assert np.isfinite(head_pose_scores(fit_head_pose(pose, np.array([1, 0] * 50)), pose)).all()
    assert head_pose_scores(fit_head_pose(pose, np.zeros(100, int)), pose).max() < 0.1
    assert fit_head_pose(pose, np.full(100, -1)) is None and fit_head_pose(pose * np.nan, np.ones(100)) is None
    for altered in ([0.0] * 10, [np.nan] * 11):
        with pytest.raises(ValueError, match="expected 11 finite weights"):
            head_pose_scores(altered, pose)


def test_trivial_baselines_stand_at_one_half_and_above():
    random = np.random.default_rng(1)
    pose = random.normal(0, 40, (3000, 3))
    label = ((np.abs(pose[:, 0]) < 20) & (random.random(3000) < 0.6)).astype(int)
    measured = trivial_baselines(label, fit_head_pose(pose, label), pose, label)
    share = label.mean()
    assert measured["prevalence"]["mAP"] == 0.5 and measured["prevalence"]["ap_looking"] == pytest.approx(share)
    assert measured["prevalence"]["accuracy"] == pytest.approx(1 - share)
    assert measured["head_pose"]["mAP"] > 0.7


def test_a_baseline_that_cannot_be_had_is_none():
    pose, unknown, label = np.zeros((4, 3)), np.full((4, 3), np.nan), np.array([1, 0, 1, 0])
    fit = fit_head_pose(pose, label)
    assert trivial_baselines(np.full(4, -1), None, pose, label) == {"prevalence": None, "head_pose": None}
    for measured in (trivial_baselines(label, None, pose, label), trivial_baselines(label, fit, unknown, label)):
        assert measured["head_pose"] is None and measured["prevalence"]["mAP"] == 0.5


def test_each_class_weighs_what_the_other_has():
    assert class_weights(np.array([1, 0, 0, 0, -1])) == (0.25, 0.75)
    for labels, counts in (([0, 0, -1], "0 looking and 2"), ([1, 1], "2 looking and 0"), ([], "0 looking and 0")):
        with pytest.raises(ValueError, match=f"{counts} not looking -> both are needed"):
            class_weights(np.array(labels, np.int8))


def test_gaze_degrees_is_the_angle_between_directions():
    right, up = [np.pi / 2, 0.0, 1.0], [0.3, np.pi / 2, 1.0]
    measured = gaze_degrees(np.array([right, up, [0, 0, 0]]), np.array([[0, 0], [0, 0], [np.nan, 0]]))
    assert measured == pytest.approx([90, 90, np.nan], nan_ok=True)


def test_a_gaze_at_the_camera_scores_one_and_12_degrees_off_one_half():
    assert score_of_gaze(np.radians([[0, 0, 5], [12, 0, 5], [0, -12, 5]])) == pytest.approx([1, 0.5, 0.5])
