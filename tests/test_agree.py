"""Agreement of two codings: known values, what equal and different codings give, and what is left out."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import ran
from watching import NAN, faces, several, video_of

from gazepose.watch import agree_page
from gazepose.watch.agree import MEASURES, agree, compare, f1, icc, kappa, measures
from gazepose.watch.bouts import count_people, find_looks
from gazepose.watch.tables import read_corrections
from gazepose.watch.tables import write as write_tables

LOOKS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=0, max_size=8)


def unit_of(mine, theirs, hidden=((), ()), length=10.0, fps=10.0, video="a.mp4", person="Anna"):
    return compare(video, person, [mine, hidden[0]], [theirs, hidden[1]], length, fps)


def spans_of(steps):
    """Looks without overlap from (gap, duration) in tenths of a second, and their end."""
    edges = np.cumsum([number for step in steps for number in step]) / 10
    return [(float(start), float(end)) for start, end in edges.reshape(-1, 2)]


def end_of(*codings):
    return max([1.0, *(end for spans in codings for _, end in spans)])


# ---- a pair made by hand

# seconds 0 to 10: both look in 1, 4 and 5; mine alone in 0; theirs alone in 9; nobody in the other five
MINE, THEIRS = [(0, 2), (4, 6)], [(1, 2), (4, 6), (9, 10)]


def test_kappa_of_a_pair_made_by_hand():
    # 8 of 10 agree; each looks in 4 of 10, so chance agrees in .4 * .4 + .6 * .6 = .52
    for counts in (unit_of(MINE, THEIRS).seconds, unit_of(MINE, THEIRS).frames / 10):
        assert counts.tolist() == [[5, 1], [1, 3]]
        assert kappa(counts) == pytest.approx((.8 - .52) / (1 - .52))


def test_f1_of_a_pair_made_by_hand():
    # 0..2 and 1..2 have half in common, 4..6 is the same, 9..10 has no partner: 2 * 2 / (2 + 3)
    unit = unit_of(MINE, THEIRS)
    assert f1([unit]) == pytest.approx(.8) and unit.matched.tolist() == [[2, 1], [2, 2]]
    assert unit.looking == (4, 4) and unit.codable == 10


def test_who_looked_when():
    assert unit_of(MINE, THEIRS, ([(7, 8)], [])).states == [
        (0, 1, "only mine"), (1, 2, "both look"), (2, 4, "nobody looks"), (4, 6, "both look"), (6, 7, "nobody looks"),
        (7, 8, "not codable"), (8, 9, "nobody looks"), (9, 10, "only theirs")]


def test_icc_of_the_table_of_shrout_and_fleiss():
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    assert icc(ratings) == pytest.approx(.29, abs=.005)
    assert icc(np.array([[1, 1], [2, 2], [5, 5]], float)) == pytest.approx(1)
    assert icc(np.array([[1, 3], [2, 4], [5, 7]], float)) < .8         # the same order, but always two seconds more
    assert math.isnan(icc(np.array([[1., 2.]]))) and math.isnan(icc(np.ones((3, 2))))


# ---- properties

@settings(max_examples=60, deadline=None)
@given(LOOKS, LOOKS)
def test_the_order_of_the_two_does_not_matter(one, other):
    one, other = spans_of(one), spans_of(other)
    length = end_of(one, other)
    forth, back = unit_of(one, other, length=length), unit_of(other, one, length=length)
    assert kappa(forth.frames) == pytest.approx(kappa(back.frames), nan_ok=True)
    assert kappa(forth.seconds) == pytest.approx(kappa(back.seconds), nan_ok=True)
    assert f1([forth]) == pytest.approx(f1([back]), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(LOOKS.filter(bool))
def test_equal_codings_agree_fully(steps):
    looks = spans_of(steps)
    unit = unit_of(looks, looks, length=end_of(looks) + 1)
    assert kappa(unit.frames) == pytest.approx(1) and f1([unit]) == 1
    assert unit.seconds[0, 1] == unit.seconds[1, 0] == 0 and {state for *_, state in unit.states} <= {
        "both look", "nobody looks"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 20), min_size=1, max_size=8))
def test_looks_moved_by_more_than_half_of_them_are_other_events(lasts):
    looks = spans_of([(60, last) for last in lasts])
    moved = [(start + .8 * (end - start), end + .8 * (end - start)) for start, end in looks]
    assert f1([unit_of(looks, moved, length=end_of(moved))]) == 0
    moved = [(start + .2 * (end - start), end + .2 * (end - start)) for start, end in looks]
    assert f1([unit_of(looks, moved, length=end_of(moved))]) == 1


@settings(max_examples=60, deadline=None)
@given(LOOKS, LOOKS, LOOKS)
def test_states_and_counts_cover_the_video(one, other, hidden):
    one, other, hidden = spans_of(one), spans_of(other), spans_of(hidden)
    length = end_of(one, other, hidden)
    unit = unit_of(one, other, (hidden, ()), length=length)
    assert [start for start, *_ in unit.states] == [0, *(end for _, end, _ in unit.states[:-1])]
    assert unit.states[-1][1] == length
    assert unit.codable == pytest.approx(length - sum(end - start for start, end in hidden))
    assert unit.frames.sum() == pytest.approx(10 * unit.codable, abs=1e-6)


# ---- not codable

def test_time_that_is_not_codable_for_one_is_left_out_and_stated():
    unit = unit_of([(0, 2), (6, 8)], [(0, 2), (4, 5)], ([(4, 5)], [(6, 9)]))
    assert unit.frames.tolist() == [[40, 0], [0, 20]] and kappa(unit.frames) == 1 and f1([unit]) == 1
    assert unit.hidden == (1, 3) and unit.codable == 6 and unit.left_out == 2


def test_a_look_is_compared_in_its_codable_part():
    unit = unit_of([(0, 4)], [(0, 2)], ((), [(2, 10)]))
    assert unit.matched.tolist() == [[2, 2]] and f1([unit]) == 1


def test_without_any_looking_kappa_is_not_defined():
    unit = unit_of([], [])
    assert math.isnan(kappa(unit.frames)) and math.isnan(f1([unit])) and math.isnan(kappa(np.zeros((2, 2))))


# ---- several videos

def coding(path, lines):
    path.write_text("\n".join(["video,person,start,end", *lines, ""]))
    return path


def test_an_interval_over_videos_needs_five_of_them():
    units = [unit_of(MINE, THEIRS[place % 3:], video=f"{place}.mp4") for place in range(5)]
    result = measures(units)
    for name in MEASURES:
        assert result[f"{name}_low"] <= result[name] <= result[f"{name}_high"], name
    assert result["kappa_frames_low"] < result["kappa_frames_high"]
    few = measures(units[:4])
    assert not math.isnan(few["f1"]) and math.isnan(few["f1_low"]) and math.isnan(few["f1_high"])


def test_counts_of_all_videos_are_added_before_kappa_is_computed():
    units = [unit_of(MINE, MINE), unit_of([], [(0, 5)], video="b.mp4")]
    assert measures(units)["kappa_frames"] == pytest.approx(kappa(np.array([[110, 50], [0, 40]])))
    assert measures(units)["seconds_theirs"] == 9


def test_people_and_videos_that_only_one_has_are_named(tmp_path):
    mine = coding(tmp_path / "mine.csv", ["a.mp4,Anna,1,2", "a.mp4,Bea,1,2", "b.mp4,Anna,1,2"])
    theirs = coding(tmp_path / "theirs.csv", ["A.mov,anna ,1,2", "A.mov,Cleo,1,2", "c.mp4,Anna,1,2"])
    result = agree(mine, theirs)
    assert [(unit.video, unit.person) for unit in result.units] == [("a.mp4", "Anna")]
    assert result.remarks == [
        "a.mp4: only in MINE: Bea (use --match if the person has another name)",
        "a.mp4: only in THEIRS: Cleo (use --match if the person has another name)",
        "the video 'b.mp4' is in MINE only", "the video 'c.mp4' is in THEIRS only"]
    assert len(agree(mine, theirs, [("Bea", "Cleo")]).units) == 2


def test_names_that_are_matched_may_be_names_of_others(tmp_path):
    mine = coding(tmp_path / "mine.csv", ["a,P1,1,2", "a,P2,3,5"])
    theirs = coding(tmp_path / "theirs.csv", ["a,P2,1,2", "a,P1,3,5"])
    assert f1(agree(mine, theirs).units) == 0
    assert f1(agree(mine, theirs, [("P1", "P2"), ("P2", "P1")]).units) == 1


def test_nobody_in_common_is_an_error_that_names_both(tmp_path):
    mine, theirs = coding(tmp_path / "mine.csv", ["a,P1,1,2"]), coding(tmp_path / "theirs.csv", ["a,Anna,1,2"])
    with pytest.raises(ValueError, match=r"has P1 \(a\); .* has Anna \(a\) -> --match"):
        agree(mine, theirs)
    with pytest.raises(ValueError, match="--match names 'P7', but MINE has no such person -> it has P1"):
        agree(mine, theirs, [("P7", "Anna")])


def test_a_time_that_is_absurd_and_a_rate_that_is_none_are_errors(tmp_path):
    mine = coding(tmp_path / "mine.csv", ["a,P1,1,2.5", "a,P1,9000000,9000001"])
    with pytest.raises(ValueError, match="'a' lasts until 9e.06 s, which is more than ten days -> correct the times"):
        agree(mine, mine)
    for fps in (0, -1, NAN, 1e9):
        with pytest.raises(ValueError, match="--fps"):
            agree(mine, mine, fps=fps)


def test_a_single_video_of_each_is_the_same_video(tmp_path):
    mine, theirs = coding(tmp_path / "mine.csv", ["a.mp4,P1,1,2"]), coding(tmp_path / "theirs.csv", ["x,P1,1,2"])
    result = agree(mine, theirs)
    assert len(result.units) == 1 and "taken as the same: 'a.mp4' and 'x'" in result.remarks[0]


# ---- the command

def test_the_folder_of_watch_is_compared_with_an_elan_file(tmp_path):
    import pympi
    table = several(faces([.1] * 10 + [.9] * 10 + [NAN] * 10 + [.1] * 10), faces([.9] * 5, person="P2"))
    looks = find_looks(table, [video_of(table)])
    write_tables(tmp_path / "mine", table, looks, count_people(table, looks, [video_of(table)]))
    document = pympi.Eaf()
    document.add_tier("Anna")
    document.add_annotation("Anna", 1000, 3000, "look")
    document.to_file(str(tmp_path / "a.eaf"))
    output = ran("-m", "gazepose", "agree", "mine", "a.eaf", "--match", "P1=Anna", "--out", "out", cwd=tmp_path)
    assert "1 person of 1 video; 3.0 s compared. Left out: 1.0 s not codable in MINE, 0.0 s in THEIRS" in output
    assert "a.mp4: only in MINE: P2" in output and "| all " in output
    with open(tmp_path / "out" / "agreement.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["person"] == "all" and float(row["kappa_frames"]) == 1 and row["kappa_frames_low"] == ""
    with open(tmp_path / "out" / "timeline.csv", newline="") as file:
        assert [line["state"] for line in csv.DictReader(file)] == [
            "nobody looks", "both look", "not codable", "nobody looks"]
    page = (tmp_path / "out" / "agreement.html").read_text()
    assert page.count("<rect x=") == 4 and "src=" not in page and "<script" not in page


def test_names_on_the_page_are_text_and_no_markup(tmp_path):
    mine = coding(tmp_path / "mine.csv", ["<b>.mp4,<script>,1,2"])
    output = agree_page.write(tmp_path / "out", agree(mine, mine))
    assert "| all " in output and "<script" not in (tmp_path / "out" / "agreement.html").read_text()


def test_a_wrong_match_is_an_error(tmp_path):
    coding(tmp_path / "mine.csv", ["a,P1,1,2"])
    output = ran("-m", "gazepose", "agree", "mine.csv", "mine.csv", "--match", "P1", cwd=tmp_path, fails=True)
    assert "error: --match P1 -> give NAME_IN_MINE=NAME_IN_THEIRS" in output


def test_the_page_for_coders_shows_what_the_program_does(tmp_path):
    page = (Path(__file__).resolve().parents[1] / "docs" / "coding.md").read_text()
    blocks = [block.strip("\n") + "\n" for block in page.split("```")[1::2]]
    mine, theirs = (block for block in blocks if block.startswith("video,person"))
    (tmp_path / "mine.csv").write_text(mine)
    (tmp_path / "theirs.csv").write_text(theirs)
    text = agree_page.write(tmp_path / "out", agree(tmp_path / "mine.csv", tmp_path / "theirs.csv"))
    [table] = [block for block in blocks if block.startswith("| person")]
    assert text.startswith(table)
    [corrections] = [block for block in blocks if block.startswith("action,")]
    (tmp_path / "corrections.csv").write_text(corrections)
    assert read_corrections(tmp_path / "corrections.csv")["action"].tolist() == [
        "rename", "merge", "look", "no_look", "not_codable"]
