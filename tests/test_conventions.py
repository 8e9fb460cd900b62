"""What is written otherwise than expected: read where its meaning is certain, named where it is not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gazepose.data.annotations import person_name, read_clips, segments_of, whole_number
from gazepose.data.tracks import POLICIES, Clip

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]


# ---- annotations: one clip, one person with the frames 0 to 9, who looks in 3..6

def clip_of(tmp_path: Path, segments: list[Any], person_id: Any = "1", policy=CLEAN, **track: Any) -> Clip:
    records = [{"x": 5, "y": 5, "width": 20, "height": 20, "frame": frame} for frame in range(10)]
    person = {"person_id": person_id, "tracking_paths": [{"track_id": "t", "track": records, **track}]}
    wearer = {"person_id": "0", "camera_wearer": True, "tracking_paths": []}
    path = tmp_path / "av.json"
    path.write_text(json.dumps({"videos": [{"clips": [
        {"clip_uid": "c", "persons": [wearer, person], "social_segments_looking": segments}]}]}))
    return read_clips(path, ["c"], policy)[0]


def segment(start: Any = 3, end: Any = 6, person: Any = "1") -> dict[str, Any]:
    return {"start_frame": start, "end_frame": end, "person": person}


READ = [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("written", [segment(3.0, 6), segment("3", "6.0"), segment(person=1), segment(person=1.0),
                                     segment(person="1.0")])
@pytest.mark.parametrize("person_id", ["1", 1, 1.0])
def test_a_whole_number_written_otherwise_is_read(tmp_path, written, person_id):
    clip = clip_of(tmp_path, [written], person_id)
    assert clip.tracks[0].labels.tolist() == READ and +clip.counts == {"person left out: camera wearer": 1}


@pytest.mark.parametrize(("written", "labels"), [
    (segment(start=3.5), [-1] * 7 + [0] * 3),              # it ends at 6, but begins nobody knows where
    (segment(end=None), [0] * 3 + [-1] * 7),
    (segment(start=None, end="soon"), [-1] * 10),
    (segment(person=["1"]), [0] * 3 + [-1] * 4 + [0] * 3),             # someone looks in 3..6
    ("3..6", [-1] * 10)])
def test_faces_of_a_segment_that_cannot_be_read_are_unknown(tmp_path, written, labels):
    for policy in (CLEAN, BASELINE):
        clip = clip_of(tmp_path, [written], policy=policy)
        first = 1 if policy is BASELINE else 0             # which drops frame 0
        assert clip.tracks[0].labels.tolist() == labels[first:]
        assert [rule for rule in +clip.counts if rule.startswith("segment dropped: ") and "unknown" in rule]
    read = clip_of(tmp_path, [written, segment()]).tracks[0].labels.tolist()
    assert read[3:6] == [1, 1, 1]                          # a segment that is read is certain


def test_an_unreadable_segment_of_another_person_says_nothing_of_this_one(tmp_path):
    assert clip_of(tmp_path, [segment(), segment(start="?", person="2")]).tracks[0].labels.tolist() == READ


def test_a_segment_without_a_person_labels_nobody_as_published():
    counts = Counter[str]()
    assert segments_of([segment(person=None), None], ("person", "start_frame", "end_frame"), CLEAN, counts) == []
    assert counts == {"segment dropped: no person": 1}


def test_unmapped_frames_are_read_as_whole_numbers_too(tmp_path):
    tracks = clip_of(tmp_path, [], unmapped_frames=[4.0, "5", 6.5, None]).tracks
    assert [track.frames.tolist() for track in tracks] == [[0, 1, 2, 3], [6, 7, 8, 9]]


@pytest.mark.parametrize(("value", "number", "name"), [
    (3, 3, "3"), (3.0, 3, "3"), ("3", 3, "3"), ("3.0", 3, "3"), ("-3", -3, "-3"), ("007", 7, "007"),
    (True, None, "True"), (3.5, None, "3.5"), ("a", None, "a"), (None, None, ""), (float("inf"), None, "inf"),
    ("1e3", None, "1e3")])
def test_whole_numbers_and_names(value, number, name):
    assert whole_number(value) == number and person_name(value) == name
