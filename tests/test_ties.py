"""Faces of equal score have no order: no metric that chooses depends on how the rows lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazepose.evaluation.comparison import Entry, compare
from gazepose.evaluation.metrics import METRICS, average_precision, evaluate, metrics_line
from gazepose.experiments.ensemble import Ensemble

RUNS = np.repeat([1, 0, 1, 0], [40, 60, 10, 90])            # as tracks lie: long runs of one label


def test_a_constant_score_has_the_map_of_guessing_however_the_rows_lie():
    for label in (np.sort(RUNS), np.sort(RUNS)[::-1], RUNS):
        result = evaluate(label, np.full(200, 0.3))
        assert result["mAP"] == pytest.approx(0.5) and result["ap_looking"] == pytest.approx(0.25)
    assert evaluate(np.sort(RUNS)[::-1], np.full(200, 0.3))["mAP_in_order"] == 0.875
    assert evaluate(np.sort(RUNS), np.full(200, 0.3))["mAP_in_order"] < 0.7


def test_hits_among_equal_scores_are_spread_evenly():
    # ranked: hit | hit miss | miss: the second hit of rank 2 or 3 counts as of rank 3, since its group ends there
    result = evaluate(np.array([1, 1, 0, 0]), np.array([0.9, 0.5, 0.5, 0.1]))
    assert result["ap_looking"] == pytest.approx((1 + 2 / 3) / 2)
    # ranked: hit hit miss miss, all equal: ranks 2 and 4 -> precision 1/2 and 1/2
    assert evaluate(np.array([1, 1, 0, 0]), np.full(4, 0.5))["ap_looking"] == 0.5


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=40), st.randoms())
def test_no_metric_changes_with_the_order_of_the_rows(faces, random):
    shuffled = faces.copy()
    random.shuffle(shuffled)
    one, other = (evaluate(*np.array(rows).T.astype(float) * [[1], [0.2]]) for rows in (faces, shuffled))
    for key in METRICS:
        assert one[key] is None and other[key] is None or one[key] == pytest.approx(other[key], abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=30))
def test_it_lies_within_the_best_and_the_worst_order(faces):
    label, score = np.array(faces).T
    if label.all() or not label.any():
        return
    best, worst = (average_precision(label[order] == 1, score[order].astype(float))
                   for order in (np.argsort(1 - label, kind="stable"), np.argsort(label, kind="stable")))
    assert worst - 1e-12 <= evaluate(label, score / 8)["ap_looking"] <= best + 1e-12


def test_it_is_about_the_mean_over_all_orders():
    random = np.random.default_rng(0)
    label, score = (random.random(2000) < 0.3).astype(int), random.integers(0, 6, 2000) / 6
    label[score > 0.6] |= random.integers(0, 2, (score > 0.6).sum())
    orders = [random.permutation(2000) for _ in range(50)]
    mean = np.mean([evaluate(label[order], score[order])["mAP_in_order"] for order in orders])
    assert evaluate(label, score)["mAP"] == pytest.approx(mean, abs=0.02)


def test_without_ties_it_is_the_challenges_number_to_the_bit():
    random = np.random.default_rng(0)
    result = evaluate(random.integers(0, 2, 500), random.random(500))
    assert result["mAP"] == result["mAP_in_order"] and "challenge" not in metrics_line(result)


def test_the_challenges_number_stands_beside_it_where_they_differ():
    line = metrics_line(evaluate(np.array([1, 1, 0, 0]), np.array([0.9, 0.5, 0.5, 0.1])))
    # by the order of the rows: looking 1, 1; not looking 1, and 2/3 of the second rank
    assert line.startswith("mAP 0.833 (equal scores as the rows lie, as the challenge counts: 0.917)  AP looking 0.833")


@pytest.mark.parametrize("noise", [0, 1e-4])
def test_a_model_that_has_collapsed_is_named(noise):
    score = 0.4123 + noise * np.random.default_rng(0).random(200)
    result = evaluate(RUNS, score)
    assert result["collapsed"].startswith("collapsed: all 200 scores lie within 0.4123 and 0.412")
    assert "tells no face from another -> lower --lr" in metrics_line(result)
    assert evaluate(RUNS, np.where(RUNS == 1, 0.42, 0.41))["collapsed"] is None


def test_a_metric_that_is_not_defined_says_why():
    line = metrics_line(evaluate(np.ones(3, int), np.array([0.1, 0.5, 0.9])))
    assert line.startswith("mAP -") and "(all 3 labelled rows are looking)" in line


def test_a_comparison_shows_no_gain_of_an_order_that_means_nothing():
    label, clip = np.tile(np.sort(RUNS[:100])[::-1], 2), np.arange(200) // 20
    known = np.random.default_rng(0).random(200) * 0.5 + label * 0.1
    constant = Entry("constant", {0: np.full(200, 0.5)}, against="ranks")
    rows = compare(label, clip, [Entry("ranks", {0: known}), constant])
    assert rows[1].mean["mAP"] == pytest.approx(0.5) and rows[1].gain["mAP"].mean < 0
    assert rows[1].interval["mAP"] == pytest.approx((0.5, 0.5))


def test_a_step_of_a_chain_is_not_used_for_the_luck_of_its_ties():
    label = np.sort(RUNS)[::-1]
    score = np.random.default_rng(0).random(200) / 2 + label / 4
    split = {"label": label, "clip": np.arange(200) // 20, "score": score}
    ensemble = Ensemble(["run"], [{"val": {**split, "score_plain": split["score"]}, "test": split}])
    assert ensemble.mAP({"val": np.full(200, 0.5)}) == pytest.approx(0.5)
    assert not ensemble.attempt("constant", [{"val": np.full(200, 0.5), "test": np.full(200, 0.5)}])
