"""Bouts: looks by hysteresis, at any frame rate, and the counts of each person."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import NAN, faces, several, spans, video_of

from gazepose.watch.bouts import LOOKS, PAIRS, PEOPLE, LookRules, count_pairs, count_people, find_looks, smooth
from gazepose.watch.table import Video

PLAIN = LookRules(shortest=0, join=0, bridge=0)


def looks_of(looking, rules=PLAIN, **how):
    table = faces(looking, **how)
    return spans(find_looks(table, [video_of(table)], rules))


# ---- hysteresis

def test_a_look_begins_at_one_half_and_goes_on_down_to_four_tenths():
    assert looks_of([.45, .5, .45, .4, .39, .45, .6]) == [(.1, .4), (.6, .7)]


def test_the_last_look_ends_when_its_last_frame_ends():
    assert looks_of([.1, .9]) == [(.1, .2)]


def test_two_looks_with_a_short_gap_are_one_and_with_a_longer_gap_are_two():
    rules = LookRules(join=.2, shortest=0)
    assert looks_of([.9, .1, .1, .9], rules) == [(0, .4)]
    assert looks_of([.9, .1, .1, .1, .9], rules) == [(0, .1), (.4, .5)]


def test_short_looks_are_joined_before_short_looks_are_dropped():
    rules = LookRules(join=.1, shortest=.3)
    assert looks_of([.9, .1, .9, .1, .1, .9, .9], rules) == [(0, .3)]


def test_a_look_goes_on_through_a_short_time_that_is_not_codable_only():
    rules = LookRules(bridge=.3, join=.2, shortest=0)
    assert looks_of([.9, NAN, NAN, NAN, .9], rules) == [(0, .5)]
    assert looks_of([.9, NAN, NAN, NAN, NAN, .9], rules) == [(0, .1), (.5, .6)]


def test_a_look_that_is_over_after_the_gap_ends_before_it():
    assert looks_of([.9, .9, NAN, .1], LookRules(bridge=.3, shortest=0)) == [(0, .2)]


def test_after_a_long_gap_a_look_needs_the_higher_probability_again():
    assert looks_of([.9, .9, NAN, NAN, .45, .45], LookRules(bridge=.1, shortest=0)) == [(0, .2)]
    assert looks_of([.9, .9, NAN, .45, .45], LookRules(bridge=.1, shortest=0)) == [(0, .5)]


def test_frames_without_the_face_are_a_gap_too():
    how = {"frames": [0, 1, 2, 6, 7]}
    assert looks_of([.9] * 5, LookRules(bridge=.3, shortest=0), **how) == [(0, .8)]
    assert looks_of([.9] * 5, LookRules(bridge=.2, shortest=0), **how) == [(0, .3), (.6, .8)]


def test_a_long_gap_splits_also_where_looks_are_joined_over_a_longer_time():
    assert looks_of([.9, NAN, NAN, .9], LookRules(bridge=.1, join=1, shortest=0)) == [(0, .1), (.3, .4)]


def test_a_cut_ends_a_look():
    table = faces([.9] * 6)
    assert spans(find_looks(table, [video_of(table, cuts=[.3])], LookRules())) == [(0, .3), (.3, .6)]


def test_people_and_videos_do_not_mix():
    table = several(faces([.9, .9, .1]), faces([.1, .9, .9], person="P2"), faces([.9] * 3, video="b.mp4"))
    looks = find_looks(table, [video_of(table), video_of(table, "b.mp4")], PLAIN)
    assert looks[["video", "person", "start", "end"]].round(3).values.tolist() == [
        ["a.mp4", "P1", 0, .2], ["a.mp4", "P2", .1, .3], ["b.mp4", "P1", 0, .3]]
    assert list(looks.columns) == list(LOOKS) and set(looks["source"]) == {"score"}


def test_a_look_knows_its_mean_probability():
    table = faces([.1, .6, .8, NAN, .7, .1])
    assert find_looks(table, [video_of(table)])["probability"].tolist() == [pytest.approx(.7)]


@pytest.mark.parametrize("wrong", [{"on": .4, "off": .5}, {"on": 1.1}, {"shortest": -1}, {"bridge": NAN}])
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="->"):
        LookRules(**wrong)


def plain_looks(start, end, looking, rules):
    """The four rules as they are written down, one frame after another."""
    looks, on, last_end, new = [], False, None, True
    for begin, finish, value in zip(start, end, looking, strict=True):
        if np.isnan(value):
            continue
        if last_end is not None and begin - last_end > rules.bridge + 1e-6:
            on, new = False, True
        goes_on, on = on, value >= (rules.off if on else rules.on)
        if on and (goes_on or (not new and begin - looks[-1][1] <= rules.join + 1e-6)):
            looks[-1][1] = finish
        elif on:
            looks.append([begin, finish])
            new = False
        last_end = finish
    return [(round(begin, 6), round(finish, 6)) for begin, finish in looks if finish - begin >= rules.shortest - 1e-6]


VALUES = st.lists(st.one_of(st.just(NAN), st.sampled_from([0., .3, .4, .45, .5, .7, 1.])), min_size=1, max_size=40)
TIMES = st.lists(st.integers(5, 400), min_size=41, max_size=41)
RULES = st.builds(LookRules, on=st.just(.5), off=st.sampled_from([.3, .4, .5]), shortest=st.sampled_from([0, .1, .25]),
                  join=st.sampled_from([0, .1, .3]), bridge=st.sampled_from([0, .1, .3, .6]))


@settings(max_examples=100, deadline=None)
@given(VALUES, TIMES, RULES)
def test_looks_are_those_of_the_rules_at_any_variable_frame_rate(looking, steps, rules):
    time = np.cumsum([0, *steps[:len(looking)]]) / 1000
    table = faces(looking, seconds=time[:-1])
    video = replace(video_of(table), seconds=float(time[-1]))
    assert spans(find_looks(table, [video], rules)) == plain_looks(time[:-1], time[1:], looking, rules)


@settings(max_examples=60, deadline=None)
@given(VALUES, RULES)
def test_looks_do_not_overlap_and_are_long_enough(looking, rules):
    table = faces(looking)
    found = spans(find_looks(table, [video_of(table)], rules))
    assert all(end - start >= rules.shortest - 1e-5 and end > start for start, end in found)
    assert all(one[1] <= other[0] for one, other in zip(found[:-1], found[1:], strict=True))


@pytest.mark.parametrize("fps", [5, 10, 29.97, 30, 60, 240])
def test_a_look_of_one_second_has_the_same_ends_at_any_frame_rate(fps):
    time = np.arange(round(3 * fps)) / fps
    table = faces(np.where((time >= 1) & (time < 2), .9, .1).tolist(), fps=fps)
    [(start, end)] = spans(find_looks(table, [video_of(table, fps=fps)]))
    assert abs(start - 1) <= 1 / fps and abs(end - 2) <= 1 / fps


def test_without_the_facts_of_the_video_the_last_frame_is_as_long_as_the_one_before():
    assert spans(find_looks(faces([.1, .9, .9]), [], PLAIN)) == [(.1, .3)]


def test_a_video_of_one_frame_and_a_picture():
    one = faces([.9])
    rules = LookRules(shortest=0)
    assert spans(find_looks(one, [Video("a.mp4", "a.mp4", 9, 9, 1, 25, .04)], rules)) == [(0, .04)]
    picture = Video("a.mp4", "a.mp4", 9, 9, 1, 0, 0)
    assert spans(find_looks(one, [picture], rules)) == []
    people = count_people(one, find_looks(one, [picture], rules), [picture]).iloc[0]
    assert people["looks"] == 0 and people["seconds_seen"] == 0
    assert people[["share_looking", "looks_per_minute", "mean_look", "first_look_after"]].isna().all()


def test_no_face_gives_empty_tables_of_the_right_columns():
    empty = faces([])
    looks = find_looks(smooth(empty), [])
    assert list(looks.columns) == list(LOOKS) and list(count_people(empty, looks).columns) == list(PEOPLE)
    assert list(count_pairs(empty, looks).columns) == list(PAIRS) and not len(looks)


# ---- smoothing

@settings(max_examples=50, deadline=None)
@given(VALUES, TIMES, st.booleans())
def test_smoothing_is_the_median_over_a_window_in_time(looking, steps, causal):
    time = np.cumsum([0, *steps[:len(looking) - 1]]) / 1000
    before, after = (.204, 0) if causal else (.102, .102)
    expected = [NAN if np.isnan(value) else np.nanmedian([other for at, other in zip(time, looking, strict=True)
                                                          if now - before - 1e-9 <= at <= now + after + 1e-9])
                for now, value in zip(time, looking, strict=True)]
    np.testing.assert_allclose(smooth(faces(looking, seconds=time), causal=causal)["looking"], expected)


@pytest.mark.parametrize("fps, reach", [(30, 3), (29.97, 3), (60, 6), (10, 1), (5, 0)])
def test_a_tenth_of_a_second_is_three_frames_at_thirty_per_second(fps, reach):
    looking = np.zeros(41)
    looking[20 - reach:21] = 1                                         # reach + 1 of 2 reach + 1 frames: the median
    assert smooth(faces(looking.tolist(), fps=fps))["looking"][20] == 1
    looking[20 - reach] = 0
    assert smooth(faces(looking.tolist(), fps=fps))["looking"][20] == 0


def test_causal_smoothing_uses_as_many_frames_of_the_past_alone():
    looking = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    expected = [0] * 9 + [1] * 4 + [0]                                 # the fourth of seven frames decides: 0.1 s later
    assert smooth(faces(looking.tolist(), fps=30), causal=True)["looking"].tolist() == expected


def test_smoothing_stays_in_a_person_and_in_a_shot_and_keeps_the_rows():
    table = several(faces([1, 1, 0, 0, 0], fps=30), faces([0, 0, 0, 0, 1], person="P2", fps=30)).sample(
        frac=1, random_state=3)
    apart = smooth(table, videos=[video_of(table, fps=30, cuts=[2 / 30])])
    assert apart["looking"][apart["person"] == "P1"].sort_index().tolist() == [1, 1, 0, 0, 0]
    pd.testing.assert_index_equal(apart.index, table.index)
    assert smooth(table)["looking"][table["person"] == "P1"].sort_index().tolist() == [.5, 0, 0, 0, 0]


def test_smoothing_may_be_turned_off():
    pd.testing.assert_frame_equal(smooth(faces([0, 1, 0, NAN]), seconds=0), faces([0, 1, 0, NAN]))


# ---- counts

def test_the_counts_of_a_person_can_be_checked_by_hand():
    # P1 is there for 2 s, 1.8 s of it codable, and looks 0.2..0.5 and 1.0..2.0; P2 is there and looks 1.5..2.5
    table = several(faces([.1, .1, .9, .9, .9, .1, .1, .1, NAN, NAN, *[.9] * 10]),
                    faces([.9] * 10, person="P2", frames=range(15, 25)))
    videos = [video_of(table)]
    looks = find_looks(table, videos, LookRules())
    assert spans(looks) == [(.2, .5), (1, 2)] and spans(looks, "P2") == [(1.5, 2.5)]
    people = count_people(table, looks, videos)
    expected = {"first_seen": 0, "last_seen": 2, "seconds_seen": 2, "seconds_codable": 1.8, "looks": 2,
                "looks_per_minute": 2 / 1.8 * 60, "seconds_looking": 1.3, "share_looking": 1.3 / 1.8,
                "mean_look": .65, "median_look": .65, "first_look_after": .2, "seconds_with_others": .5,
                "seconds_others_look_too": .5}
    assert people.iloc[0].drop(["video", "person"]).to_dict() == pytest.approx(expected)
    pairs = count_pairs(table, looks, videos)
    assert pairs.drop(columns=["seconds_together", "seconds_both_look"]).values.tolist() == [["a.mp4", "P1", "P2"]]
    assert pairs[["seconds_together", "seconds_both_look"]].values.tolist() == [[pytest.approx(.5), pytest.approx(.5)]]


def test_a_look_through_a_gap_does_not_raise_the_share_above_one():
    table = faces([.9, NAN, NAN, .9])
    looks = find_looks(table, [video_of(table)])
    people = count_people(table, looks, [video_of(table)]).iloc[0]
    assert people["seconds_looking"] == pytest.approx(.4) and people["share_looking"] == pytest.approx(1)


def test_people_stand_in_the_order_of_their_numbers():
    table = several(*(faces([.9], person=f"P{number}") for number in (10, 2, 1)))
    people = count_people(table, find_looks(table, []))
    assert people["person"].tolist() == ["P1", "P2", "P10"]


def test_a_crowd_has_a_pair_for_each_two_people_who_meet():
    crowd = several(*(faces([.9] * 3, person=f"P{number}") for number in range(60)))
    assert len(count_pairs(crowd, find_looks(crowd, []))) == 60 * 59 / 2
