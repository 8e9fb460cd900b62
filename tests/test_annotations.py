"""Annotations: calm in the face of anything that is in a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gazepose.data.annotations import (
    is_id,
    policy_named,
    read_clips,
    read_split,
)
from gazepose.data.tracks import POLICIES, Clip

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]


def document(clip: dict | None = None, **track: Any) -> dict:
    """One clip, one wearer, one person with one track of frames 0 to 3, looking in 1..2."""
    records = [{"x": 5, "y": 5, "width": 20, "height": 20, "frame": frame} for frame in range(4)]
    whole = {"clip_uid": "c", "social_segments_looking": [{"start_frame": 1, "end_frame": 2, "person": "1",
                                                           "is_at_me": False}],
             "persons": [{"person_id": "1", "camera_wearer": False,
                          "tracking_paths": [{"track_id": "t", "track": records, **track}]},
                         {"person_id": "0", "camera_wearer": True, "tracking_paths": [
                             {"track_id": "w", "track": records}]}]}
    return {"videos": [{"clips": [{**whole, **(clip or {})}]}]}


def read(tmp_path: Path, content: Any, policy=CLEAN) -> Clip:
    path = tmp_path / "av.json"
    path.write_text(json.dumps(content))
    (clip,) = read_clips(path, ["c"], policy)
    return clip


def test_clean_knows_the_wearer_by_flag_and_baseline_by_place(tmp_path):
    assert [track.track for track in read(tmp_path, document()).tracks] == ["t"]
    assert [track.track for track in read(tmp_path, document(), BASELINE).tracks] == ["w"]


def test_clean_keeps_frame_zero_and_leaves_out_the_end_frame(tmp_path):
    (track,) = read(tmp_path, document()).tracks
    assert track.frames.tolist() == [0, 1, 2, 3] and track.labels.tolist() == [0, 1, 0, 0]


def test_at_me_only_drops_other_looks(tmp_path):
    clip = read(tmp_path, document(), replace(CLEAN, at_me_only=True))
    assert not clip.tracks[0].labels.any() and clip.counts["segment dropped: not at me"] == 1


@pytest.mark.parametrize("content", [{}, {"videos": None}, {"videos": {"clips": []}},
                                     {"videos": [None, 3, {"clips": None}, {"clips": [None, {}]}]}])
def test_a_clip_that_is_not_annotated_is_counted(tmp_path, content):
    clip = read(tmp_path, content)
    assert clip.tracks == [] and clip.counts == {"clip left out: not annotated": 1}


@pytest.mark.parametrize("looking", [None, "missing", 7])
def test_a_clip_without_a_list_of_segments_is_left_out(tmp_path, looking):
    content = document({"social_segments_looking": looking})
    if looking == "missing":
        del content["videos"][0]["clips"][0]["social_segments_looking"]
    for policy in (BASELINE, CLEAN):
        clip = read(tmp_path, content, policy)
        assert clip.tracks == [] and clip.counts == {"clip left out: no list of looking segments": 1}


def test_an_empty_list_of_segments_is_all_negative_under_clean_only(tmp_path):
    content = document({"social_segments_looking": []})
    assert read(tmp_path, content).tracks[0].labels.tolist() == [0, 0, 0, 0]
    assert read(tmp_path, content, BASELINE).counts["clip left out: empty list of looking segments"] == 1


def test_bad_records_are_dropped_and_counted(tmp_path):
    records = [{"x": 5, "y": 5, "width": 20, "height": 20, "frame": 1}, {"x": 5}, {"x": None, "frame": 2}, "text", None,
               {"x": "a", "y": [1], "width": {}, "height": True, "frame": 10**400}]
    clip = read(tmp_path, document(track=records))
    assert clip.tracks[0].frames.tolist() == [1]
    assert clip.counts["record dropped: not a finite number"] == 3
    assert clip.counts["record malformed: a number missing or not a number"] == 3


def test_names_that_are_no_ids_are_dropped_and_counted(tmp_path):
    for bad in ("../../x", "", "a b", "..", "a" * 129, None, 7, "a\n"):
        assert not is_id(bad)
        clip = read(tmp_path, document(track_id=bad))
        assert clip.tracks == [] and clip.counts["track dropped: its id is not letters, digits, _ . -"] == 1
    assert is_id("a-B_0.9") and is_id("a" * 128)


def test_a_track_id_that_occurs_twice_is_read_once(tmp_path):
    content = document()
    content["videos"][0]["clips"][0]["persons"][0]["tracking_paths"] *= 2
    clip = read(tmp_path, content)
    assert len(clip.tracks) == 1 and clip.counts["track dropped: its id occurred before in the clip"] == 1


@pytest.mark.parametrize(("text", "reason"), [
    ("", "Expecting value"), ("{", "Expecting property name"), ("[" * 50_000, "50000 deep, at most 200"),
    ("[1, 2", "delimiter"),
    ('{"a": 1, "b": 2, "a": 3}', "the name 'a' occurs twice"), ("\udcff", "codec")])
def test_unreadable_json_names_file_and_reason(tmp_path, text, reason):
    path = tmp_path / "av_train.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"av_train\.json: not readable JSON: .*{reason}.*download"):
        read_clips(path, ["c"], CLEAN)


def test_numbers_that_are_none_are_dropped_where_they_stand(tmp_path):
    path = tmp_path / "av.json"
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        path.write_text(json.dumps(document()).replace('"x": 5, "y": 5, "width": 20, "height": 20, "frame": 2',
                                                       f'"x": {number}, "y": 5, "width": 20, "height": 20, "frame": 2'))
        (clip,) = read_clips(path, ["c"], CLEAN)
        assert clip.counts["record dropped: not a finite number"] == 1
        assert clip.tracks[0].frames.tolist() == [0, 1, 2, 3]          # filled from its neighbours


def test_a_missing_annotation_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"av_train\.json: not there -> download"):
        read_clips(tmp_path / "av_train.json", [], CLEAN)


def test_a_split_list_without_a_last_newline_is_whole(tmp_path):
    (tmp_path / "train.list").write_bytes(b"a-1\r\nb_2\n\nc.3")
    assert read_split(tmp_path / "train.list") == ["a-1", "b_2", "c.3"]


@pytest.mark.parametrize(("text", "reason"), [
    ("a\n../b", r"entry 2: '../b' is not a clip uid"), ("a\na", "a occurs twice"), ("\n \n", "the split is empty")])
def test_a_bad_split_list_is_a_named_error(tmp_path, text, reason):
    (tmp_path / "val.list").write_text(text)
    with pytest.raises(ValueError, match=rf"val\.list: .*{reason}.*->"):
        read_split(tmp_path / "val.list")


def test_a_missing_split_list_says_what_belongs_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"val\.list: no split list -> put the clip uids there"):
        read_split(tmp_path / "val.list")


def test_an_unknown_policy_names_the_known_ones():
    with pytest.raises(ValueError, match="policy 'clear' is unknown -> use baseline or clean"):
        policy_named("clear")
