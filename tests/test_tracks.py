"""One face followed in time, by the properties of its rules."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazepose.data.annotations import read_clips
from gazepose.data.crops import cut_face, grown
from gazepose.data.tracks import (
    FILLED_EACH,
    POLICIES,
    TOO_LONG,
    TOO_MANY,
    RawTrack,
    Segment,
    clean_records,
    face_tracks,
    fill,
    label_frames,
)

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]
NOTHING = np.zeros(0, np.int64)


def raw(records: Sequence[tuple[float, ...]], person: str = "1", **facts) -> RawTrack:
    values = np.array(records, float).reshape(-1, 5)
    return RawTrack("t", [person] * len(values), values[:, 0], values[:, 1:], **facts)


HUGE = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1e308, -1e308, 8.9e307, 1e307])


@given(st.lists(st.tuples(*[HUGE] * 4), min_size=1, max_size=4), st.sampled_from([BASELINE, CLEAN]),
       st.sampled_from([0.1, 1.0, 10.0]))
def test_corners_that_are_kept_can_be_grown_filled_and_cut(boxes, policy, scale):
    policy, picture = replace(policy, box_scale=scale), np.zeros((9, 9, 3), np.uint8)
    for track in face_tracks("c", raw([(2 * n + 1, *box) for n, box in enumerate(boxes)]), [], policy, Counter()):
        for box in track.boxes:
            assert np.isfinite(box).all() and np.isfinite(grown(box, scale)).all()
            cut_face(picture, grown(box, scale))


def test_a_corner_past_the_largest_number_is_dropped_and_counted():
    counts: Counter[str] = Counter()
    frames, _ = clean_records(raw([(1, 1e308, 0, 1e308, 9), (2, 0, 0, 9, 9)]), CLEAN, counts)
    assert frames.tolist() == [2] and counts["record dropped: not a finite number"] == 1


def test_a_box_over_the_border_moves_under_baseline_and_is_cut_under_clean():
    over = raw([(1, -10, 20, 30, 40)])
    assert clean_records(over, BASELINE, Counter())[1].tolist() == [[0, 20, 30, 60]]
    assert clean_records(over, CLEAN, Counter())[1].tolist() == [[0, 20, 20, 60]]


def test_every_dropped_record_is_counted_once_by_its_rule():
    bad = raw([(np.nan, 1, 1, 5, 5), (1, 1, 1, 0, 5), (1, 1, 1, np.inf, 5), (-3, 1, 1, 5, 5), (2.5, 1, 1, 5, 5),
               (4, -9, 1, 5, 5), (5, 1, 1, 5, 5), (5, 2, 2, 5, 5), (6, 1, 1, 5, 5), (10**9, 1, 1, 5, 5)],
              unmapped=np.array([6]))
    counts = Counter()
    frames, _ = clean_records(bad, CLEAN, counts)
    assert frames.tolist() == [5]
    assert +counts == {"record dropped: not a finite number": 2, "record dropped: width or height not positive": 1,
                       "record dropped: frame number not whole, negative or absurd": 3,
                       "record dropped: outside the picture": 1, "record dropped: unmapped frame": 1,
                       "record dropped: frame number repeated": 1}


def test_frame_zero_is_a_frame_under_clean_only():
    zero = raw([(0, 1, 1, 5, 5), (1, 1, 1, 5, 5)])
    assert len(clean_records(zero, CLEAN, Counter())[0]) == 2 and len(clean_records(zero, BASELINE, Counter())[0]) == 1


def test_a_suspect_track_is_dropped_and_an_unmapped_frame_splits():
    five = [(n, 10, 10, 5, 5) for n in (1, 2, 4, 5)]
    assert face_tracks("c", raw(five, suspect=True), [], CLEAN, Counter()) == []
    assert len(face_tracks("c", raw(five, suspect=True), [], BASELINE, Counter())) == 1
    pieces = face_tracks("c", raw(five, unmapped=np.array([3])), [], CLEAN, Counter())
    assert [piece.frames.tolist() for piece in pieces] == [[1, 2], [4, 5]]
    assert [piece.frames.tolist() for piece in face_tracks("c", raw(five), [], CLEAN, Counter())] == [[1, 2, 3, 4, 5]]


def test_a_gap_of_fifteen_is_filled_and_one_of_sixteen_splits():
    for missing, pieces in ((15, 1), (16, 2)):
        counts = Counter()
        track = raw([(1, 0, 0, 10, 10), (2 + missing, 17, 0, 10, 10)])
        assert len(face_tracks("c", track, [], CLEAN, counts)) == pieces
        assert counts["gap: frames filled"] == (15 if pieces == 1 else 0)
        assert counts["gap: track split"] == pieces - 1


records_strategy = st.dictionaries(st.integers(1, 200), st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(1, 300)] * 2),
                                   min_size=1, max_size=30)


@given(records=records_strategy, max_gap=st.none() | st.integers(0, 20), data=st.data())
@settings(max_examples=80)
def test_pieces_are_contiguous_linear_and_hold_every_record(records, max_gap, data):
    frames = np.array(data.draw(st.permutations(sorted(records))))
    track = raw([(frame, *records[frame]) for frame in frames])
    policy = replace(CLEAN, max_gap=max_gap)
    known, corners = clean_records(track, policy, Counter())
    corner_of = dict(zip(known.tolist(), corners, strict=True))
    pieces = fill(known, corners, policy, NOTHING, Counter())
    numbers = np.concatenate([piece for piece, _ in pieces])
    assert set(records) <= set(numbers.tolist()) and (np.diff(numbers) > 0).all()
    for numbers, boxes in pieces:
        assert (np.diff(numbers) == 1).all()
        numbered = [n for n in numbers.tolist() if n in corner_of]
        assert {numbers[0], numbers[-1]} <= set(numbered)
        for before, after in zip(numbered[:-1], numbered[1:], strict=True):
            for frame in range(before, after + 1):
                part = (frame - before) / (after - before)
                expected = (1 - part) * corner_of[before] + part * corner_of[after]
                np.testing.assert_allclose(boxes[frame - numbers[0]], expected, atol=1e-9)
            assert max_gap is None or after - before - 1 <= max_gap
    for (left, _), (right, _) in zip(pieces[:-1], pieces[1:], strict=True):
        assert max_gap is not None and right[0] - left[-1] - 1 > max_gap


@given(start=st.integers(-5, 30), end=st.integers(-5, 30), frames=st.sets(st.integers(0, 25), min_size=1))
@settings(max_examples=60)
def test_the_end_frame_looks_under_baseline_and_not_under_clean(start, end, frames):
    numbers, segments = np.array(sorted(frames)), [Segment("1", start, end), Segment("2", 0, 30)]
    inclusive = label_frames(numbers, "1", segments, BASELINE)
    half_open = label_frames(numbers, "1", segments, CLEAN)
    assert inclusive.tolist() == [int(start <= n <= end) for n in numbers]
    assert half_open.tolist() == [int(start <= n < end) for n in numbers]


def test_a_segment_of_a_person_that_is_not_text_is_an_error():
    with pytest.raises(TypeError, match=r"segment 1\.\.2: person 7 is not text"):
        label_frames(np.arange(3), "7", [Segment(7, 1, 2)], CLEAN)                    # type: ignore[arg-type]


def test_a_small_file_cannot_fill_the_memory():
    counts = Counter[str]()
    box = (5, 5, 20, 20)
    far = face_tracks("c", raw([(1, *box), (5, *box), (999_999, *box)]), [], BASELINE, counts)
    assert [track.frames.tolist() for track in far] == [[1, 2, 3, 4, 5], [999_999]]
    assert counts[TOO_LONG] == 1 and counts["gap: frames filled"] == 3
    counts = Counter()
    tracks = face_tracks("c", raw([(1, *box), (18_001, *box)]), [], BASELINE, counts)      # far more than it holds
    assert [len(track.frames) for track in tracks] == [1, 1] and +counts == {TOO_MANY: 1}
    counts = Counter()
    tracks = face_tracks("c", raw([(1, *box), (902, *box), (2_000, *box), (2_400, *box), (2_500, *box)]), [], BASELINE,
                         counts)                           # 5 records, which allow for 2500
    assert [len(track.frames) for track in tracks] == [2_500] and +counts == {"gap: frames filled": 2_495}
    counts = Counter()
    tracks = face_tracks("c", raw([(1, *box), (902, *box), (2_400, *box), (2_500, *box)]), [], BASELINE, counts)
    assert [len(track.frames) for track in tracks] == [902, 101] and +counts == {TOO_MANY: 1, "gap: frames filled": 999}


@pytest.mark.parametrize("policy", [BASELINE, replace(CLEAN, max_gap=None)])
def test_what_a_file_fills_is_bounded_by_what_it_holds(tmp_path, policy):
    records = [{"x": 5, "y": 5, "width": 20, "height": 20, "frame": frame} for frame in (1, 17_000)]
    clips = [{"clip_uid": f"c{number}", "social_segments_looking": [{"person": "1", "start_frame": 3, "end_frame": 5}],
              "persons": [{"person_id": "0", "camera_wearer": True}, {"person_id": "1", "tracking_paths": [
                  {"track_id": f"t{track}", "track": records} for track in range(5)]}]} for number in range(200)]
    path = tmp_path / "av_train.json"
    path.write_text(json.dumps({"videos": [{"clips": clips}]}))
    read = read_clips(path, [f"c{number}" for number in range(200)], policy)
    rows = sum(len(track.frames) for clip in read for track in clip.tracks)
    assert rows <= 2_000 * (FILLED_EACH + 1)               # of 17 million
    assert sum((clip.counts for clip in read), Counter())[TOO_MANY] == 1_000
