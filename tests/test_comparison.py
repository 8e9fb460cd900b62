"""Comparison: intervals over clips, gains over a reference, spread over seeds; numbers that can be checked by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from gazepose.evaluation.comparison import (
    Entry,
    Gain,
    between,
    compare,
    difference,
    markdown,
    reason_not_paired,
    resampled,
    spread,
)
from gazepose.evaluation.metrics import METRICS, evaluate


@pytest.fixture(scope="module")
def faces():
    """Labels, clips and two scores of the same 2,000 faces, the second better; some clips are harder, for both."""
    random = np.random.default_rng(1)
    clip = np.repeat(np.arange(20), 100)
    label = (random.random(2000) < 0.3).astype(int)
    hard = random.normal(0, 0.5, 20)[clip]
    first = label + hard + random.normal(0, 1, 2000)
    first, second = (1 / (1 + np.exp(-logit)) for logit in (first, first + 0.3 * label))
    return label, clip, first, second


def test_an_interval_needs_five_clips_and_holds_the_estimate(faces):
    label, clip, first, _ = faces
    row = compare(label, clip, [Entry("a", {0: first})])[0]
    low, high = row.interval["mAP"]
    assert low < evaluate(label, first)["mAP"] == row.mean["mAP"] < high
    assert compare(label, clip // 5, [Entry("a", {0: first})])[0].interval == {"mAP": None}       # four clips
    assert compare(label, None, [Entry("a", {0: first})])[0].interval == {"mAP": None}


def test_a_paired_difference_is_surer_than_its_two_intervals(faces):
    label, clip, first, second = faces
    before, after, same = compare(label, clip, [Entry("before", {0: first}), Entry("after", {0: second}, "before"),
                                                Entry("same", {0: first}, "before")])
    gain, (low, high) = after.gain["mAP"], before.interval["mAP"]
    assert gain.mean == after.mean["mAP"] - before.mean["mAP"]
    assert 0 < gain.interval[0] < gain.mean < gain.interval[1]
    assert gain.interval[1] - gain.interval[0] < (high - low) / 2
    assert same.gain["mAP"] == Gain(0.0, (0.0, 0.0)) and before.gain == {}
    assert [each.gain["mAP"].sign for each in (after, same)] == [1, 0]


def test_the_sign_of_a_gain_is_that_of_an_interval_without_zero():
    assert [Gain(0.1, interval).sign for interval in ((0.01, 0.2), (-0.1, 0.2), (-0.2, -0.1), None)] == [1, 0, -1, None]
    assert Gain(-0.0004, (-0.0008, -0.0003)).sign == 0                       # a table shows "-0.1, -0.0"


def test_gains_pair_the_seeds_that_both_have(faces):
    label, clip, first, second = faces
    a, b = compare(label, clip, [Entry("a", {0: first, 1: second}), Entry("b", {1: first, 2: second}, "a")],
                   ("mAP", "accuracy"), draws=50)
    mAP = [evaluate(label, score)["mAP"] for score in (first, second)]
    assert b.gain["mAP"].seeds == 1 and b.gain["mAP"].mean == mAP[0] - mAP[1] < 0
    assert a.mean["mAP"] == np.mean(mAP) and a.sd["mAP"] == pytest.approx(abs(mAP[1] - mAP[0]) / np.sqrt(2))
    assert set(b.gain) == {"mAP", "accuracy"} and set(a.mean) == set(METRICS)
    alone = compare(label, clip, [Entry("a", {0: first}), Entry("b", {3: second}, "a")])[1]
    assert alone.gain == {} and alone.sd["mAP"] is None


def test_every_row_of_json_values(faces):
    label, clip, first, second = faces
    rows = compare(label, clip, [Entry("a", {0: first}), Entry("b", {0: second}, "a")], draws=20)
    assert json.loads(json.dumps([asdict(row) for row in rows]))[1]["gain"]["mAP"]["seeds"] == 1


def test_one_class_has_no_mean_gain_or_interval(faces):
    _, clip, first, second = faces
    row = compare(np.zeros(2000, int), clip, [Entry("a", {0: first}), Entry("b", {0: second}, "a")])[1]
    assert row.mean["mAP"] is None and row.gain["mAP"] == Gain(None) and row.interval["mAP"] is None
    assert (spread(row, "mAP"), between(row, "mAP"), difference(row.gain["mAP"])) == ("–", "–", "–")


def test_unknown_labels_do_not_count(faces):
    label, clip, first, _ = faces
    known = np.arange(2000) % 3 > 0
    some = resampled(np.where(known, label, -1), [first], clip, draws=20)["mAP"]
    assert np.array_equal(some, resampled(label[known], [first[known]], clip[known], draws=20)["mAP"])


def test_entries_of_one_name_or_without_their_reference_are_refused(faces):
    label, clip, first, _ = faces
    with pytest.raises(ValueError, match="two have one name"):
        compare(label, clip, [Entry("a", {0: first}), Entry("a", {0: first})])
    with pytest.raises(ValueError, match="no entry 'b' to compare with -> name one of a"):
        compare(label, clip, [Entry("a", {0: first}, against="b")])


def test_tables_of_other_faces_say_why_they_are_not_paired():
    first = {"row": np.arange(3), "label": np.array([0, 1, 1])}
    assert reason_not_paired(first, {**first, "frame": np.arange(3)}) == ""
    assert reason_not_paired(first, {**first, "row": np.arange(4)}) == "scored different faces"
    assert reason_not_paired(first, {**first, "label": np.zeros(3)}) == "have different labels for the same faces"


def test_cells_are_percent_and_points(faces):
    label, clip, first, second = faces
    row = compare(label, clip, [Entry("a", {0: first, 1: first})], draws=20)[0]
    assert spread(row, "mAP") == f"{100 * row.mean['mAP']:.1f} ± 0.0"
    assert difference(Gain(0.0312, (-0.01, 0.0499))) == "+3.1 [-1.0, +5.0]" and difference(None) == "–"
    assert markdown(["", "mAP"], [["ours", "70.1"]]) == "|      | mAP  |\n|------|------|\n| ours | 70.1 |"
