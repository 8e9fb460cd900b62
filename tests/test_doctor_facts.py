"""The doctor's facts are true: a sound world needs no repair, and its numbers are those of preparation."""

import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from making import data_set, prepare, prepared_index, write_video
from test_bad_values import spoilt
from test_doctor import (
    FIRST,
    NAN,
    SECOND,
    THIRD,
    TRACK,
    clip,
    crop,
    cut_short,
    fast_start,
    lists,
    new_segment,
    past_the_end,
    put,
    record,
    records,
    segment,
    track_fields,
    video,
)

from gazepose.__main__ import main
from gazepose.compat.folders import read_original
from gazepose.data.annotations import read_clips, read_split
from gazepose.data.crops import cut_face, outside
from gazepose.data.images import size_by_header
from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES, FaceTrack, RawTrack
from gazepose.data.video import VideoFacts, look_at
from gazepose.doctor import examine
from gazepose.doctor.annotations import contradictions, gaps, overlaps
from gazepose.doctor.checks import Findings
from gazepose.doctor.media import compare_length
from gazepose.doctor.text import as_text

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def world(tiny_world, tmp_path) -> Path:
    """A copy of the tiny world, to be spoiled."""
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


def test_a_sound_world_has_true_facts_and_nothing_to_repair(tiny_world):
    sound = examine(tiny_world)
    assert sound["findings"] == {} and sound["remedies"] == [] and sound["healthy"]
    facts = json.loads((tiny_world / "world.json").read_text())
    for split in ("train", "val"):
        known, clean = sound["splits"][split], sound["splits"][split]["policies"]["clean"]
        assert (clean["rows"], clean["tracks"]) == (facts[split]["faces"], facts[split]["tracks"])
        assert clean["rate"] == facts[split]["looking"] and clean["rows"] == clean["rows_with_picture"]
        assert known["gaps"]["count"] == 0 and known["face_size"]["pixels"]["least"] > 20
        assert known["listed"] == known["annotated"] == facts[split]["clips"]
    assert sound["splits"]["test"]["crops"] == facts["test"]["faces"]
    assert sound["tables"]["train"]["truth"]["columns"]["gaze"]["coverage"] == 1
    assert as_text(sound).endswith("nothing: the data set is ready for training.")


def test_gaps_and_small_faces_are_measured(world):
    frames = (0, 1, 3, 4, 5, 9, 10, 11, 40, 41)
    records(lambda stored: [entry.update(frame=frame, width=12) for entry, frame in zip(stored, frames, strict=True)]
            )(world)
    found = examine(world)["splits"]["train"]
    assert found["gaps"]["by_length"] == {"1": 1, "2..5": 1, "6..15": 0, "over 15": 1}
    assert found["gaps"]["longest"] == {"length": 28, "clip": FIRST, "track": TRACK, "frame": 11}
    assert found["gaps"]["frames"] == 1 + 3 + 28 and found["face_size"]["pixels"]["least"] == 12


def spoil(root: Path) -> None:
    """Many faults at once, of those that leave the others to be found."""
    for plant in (records(past_the_end, of_clip=1), track_fields(2, track_id="../azhxed"), new_segment("77", 2, 8),
                  crop(lambda path: path.write_bytes(encode(np.zeros((100, 90, 3), np.uint8)))),
                  crop(lambda path: path.rename(path.with_name("what is this.jpg"))),
                  lists("train", lambda old: old + "nobody-saw-me"), segment(person=None),
                  video(lambda path: write_video(path, 15)), put("head_pose", 5, 123.0), put("frame", 6, 777),
                  records(lambda stored: stored.extend([stored[4], {**stored[-1], "frame": 60}])),
                  record(6, x=NAN), record(7, x=-9), track_fields(3, suspect=True),
                  track_fields(4, unmapped_frames=[13, 14]),
                  clip(0, lambda annotated: annotated["persons"].reverse(), "val"),      # the wearer is the last now
                  clip(2, lambda annotated: annotated.update(social_segments_looking=[]))):
        plant(root)


def test_rules_are_counted_as_reading_and_preparation_count_them(world):
    spoil(world)
    facts = examine(world)
    for split in ("train", "val"):
        uids = read_split(world / "split" / f"{split}.list")
        for policy in POLICIES:
            known = facts["splits"][split]["policies"][policy]
            counted = {rule: entry["count"] for rule, entry in known["rules"].items()}
            index = prepared_index(world, split, policy=policy, crop_size=16,
                                       max_bad_fraction=1.0)
            assert counted == index.facts["counts"] and not index.facts["bad_clips"]
            assert known["rows_with_picture"] == known["rows"] == len(index)
            assert known["looking"] == int(index.label.sum()) and known["tracks"] == len(index.track_name)
            read: Counter[str] = sum((found.counts for found in read_clips(
                world / "json" / f"av_{split}.json", uids, POLICIES[policy])), Counter())
            made_while_cutting = {rule for rule in counted if rule.startswith(("row left out", "crop black"))}
            assert counted == {**+read, **{rule: counted[rule] for rule in made_while_cutting}}
        difference = facts["splits"][split]["difference"]
        baseline, clean = (facts["splits"][split]["policies"][policy]["rows"] for policy in ("baseline", "clean"))
        assert difference["both"] + difference["clean_only"] == clean
        assert difference["both"] + difference["baseline_only"] <= baseline     # which may hold a frame twice


def test_a_video_is_judged_as_preparation_judges_it(world):
    video(cut_short)(world)
    (world / "videos" / f"{FIRST}.mp4").write_text("text")
    (world / "videos" / f"{THIRD}.mp4").unlink()
    facts = examine(world)
    listed = {clip for kind in ("pictures_missing", "pictures_damaged") for clip in facts["findings"][kind]["clips"]}
    with pytest.raises(ValueError, match="3 of 3 clips cannot be used"):
        prepare(world, "train", crop_size=16)
    assert listed == {FIRST, SECOND, THIRD} and not facts["healthy"]
    assert facts["splits"]["train"]["policies"]["clean"]["rows_with_picture"] == 0


def test_one_missing_video_of_many_does_not_stop_training(tmp_path):
    root = data_set(tmp_path, {f"clip{n:03d}": [("a", [2, 3, 4])] for n in range(101)}, videos=False)
    write_video(root / "videos" / "clip000.mp4", 10)
    for n in range(1, 100):
        shutil.copy(root / "videos" / "clip000.mp4", root / "videos" / f"clip{n:03d}.mp4")
    (root / "json" / "av_val.json").write_text((root / "json" / "av_train.json").read_text().replace("clip0", "val0"))
    (root / "split" / "val.list").write_text("val000")
    shutil.copy(root / "videos" / "clip000.mp4", root / "videos" / "val000.mp4")
    facts = examine(root)
    assert facts["findings"]["pictures_missing"]["level"] == "look" and facts["healthy"]
    assert facts["findings"]["pictures_missing"]["clips"] == ["clip100"]


def test_lists_that_are_not_there_leave_all_annotated_clips_to_be_read(world):
    for split in ("train", "val"):
        (world / "split" / f"{split}.list").unlink()
    facts = examine(world)
    assert facts["findings"].keys() == {"list_absent"} and facts["findings"]["list_absent"]["count"] == 2
    assert facts["healthy"]
    assert facts["splits"]["train"]["policies"]["clean"]["rows"] == 159


def test_a_folder_with_nothing_in_it_says_how_to_fill_it(tmp_path):
    facts = examine(tmp_path)
    assert facts["findings"]["nothing_here"]["level"] == "must"
    assert "python -m gazepose synthetic" in as_text(facts)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        examine(tmp_path / "nowhere")


def test_the_original_scripts_folders_are_read(parity, tmp_path):
    expected = parity / "annotations" / "expected"
    for name in ("json_original", "result_LAM"):
        shutil.copytree(expected / name, tmp_path / name)
    uids = sorted(path.stem for path in (expected / "result_LAM").glob("*.json"))
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train.list").write_text("\n".join([*uids, "gone"]))
    facts = examine(tmp_path)
    known = facts["splits"]["train"]["policies"]["baseline"]
    clips = read_original(tmp_path / "json_original", tmp_path / "result_LAM", [*uids, "gone"], POLICIES["baseline"])
    assert known["rows"] == sum(len(track.frames) for found in clips for track in found.tracks) > 0
    assert {rule: entry["count"] for rule, entry in known["rules"].items()} == dict(
        +sum((found.counts for found in clips), Counter()))
    path = next((tmp_path / "json_original" / uids[0]).glob("*.json"))
    path.write_text(path.read_text()[:-20])
    found = examine(tmp_path)["findings"]["file_unusable"]
    assert found["examples"][0]["clip"] == uids[0] and found["parts"] == {"annotation file": 1}


def test_the_command_prints_the_facts_and_says_by_its_exit_code_whether_to_repair(
        world, tiny_world, monkeypatch, capsys):
    spoil(world)
    other = world / "videos_challenge"
    damaged = sorted(other.glob("*/*/*.jpg"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-30])
    code, output = warm.python("-m", "gazepose", "doctor", str(world), "--json", cwd=ROOT)
    assert code == 1, output
    assert json.loads(output) == json.loads(json.dumps(examine(world), allow_nan=False))
    monkeypatch.setattr(sys, "argv", ["gazepose", "doctor", str(tiny_world)])
    main()                                                             # ends without an exit code: 0
    assert capsys.readouterr().out == as_text(examine(tiny_world)) + "\n"
    monkeypatch.setattr(sys, "argv", ["gazepose", "doctor", str(world)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and "MUST  test crops that are damaged (1)" in capsys.readouterr().out


@given(listed=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_anything_in_any_place_is_examined_calmly(parity, tmp_path_factory, listed, seed):
    """One value of an official-looking file replaced by something absurd: never an exception, always JSON."""
    root = tmp_path_factory.mktemp("absurd")
    content = json.loads((parity / "annotations" / "av_train.json").read_text())
    for name in ("split", "json", "videos"):
        (root / name).mkdir()
    if listed:
        uids = [annotated["clip_uid"] for annotated in content["videos"][0]["clips"]]
        (root / "split" / "train.list").write_text("\n".join(uids))
    (root / "json" / "av_train.json").write_text(json.dumps(spoilt(content, random.Random(seed))))
    facts = examine(root)
    json.dumps(facts, allow_nan=False)
    assert "WHAT TO DO" in as_text(facts)


@pytest.mark.parametrize("start, end, short", [(0, 1.0, True), (90.5, 91.5, True), (0, 0.7, False), (0, NAN, False),
                                               (None, 3, False), (0, 10**400, False), ("a", "b", False), (5, 1, False)])
def test_a_video_is_compared_with_the_seconds_annotated(start, end, short):
    findings = Findings()
    compare_length(VideoFacts(20, 320, 180, 30.0), {"video_start_sec": start, "video_end_sec": end}, {"clip": "c"},
                   findings)
    assert ("video_differs" in findings.by_kind) == short                # 20 frames last 0.67 s


def test_a_video_cut_short_has_fewer_whole_frames_than_it_states(tmp_path):
    whole = fast_start(tmp_path / "whole.mp4", 40)
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    facts, readable = look_at(tmp_path / "whole.mp4")
    assert (facts.frames, readable, facts.width, facts.height, facts.fps) == (40, 40, 320, 180, 30)
    facts, readable = look_at(tmp_path / "half.mp4")
    assert facts.frames == 40 and 15 <= readable <= 25
    for name in ("a.mkv", "b.avi"):                                    # no table of frames: they are counted
        facts, readable = look_at(write_video(tmp_path / name, 12, "mpeg4" if "avi" in name else "libx264"))
        assert facts.frames == readable == 12
    cut = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(cut[: len(cut) * 2 // 3])
    assert look_at(tmp_path / "a.mkv")[1] < 12


@given(st.lists(st.tuples(*[st.floats(-50, 150)] * 4), min_size=1, max_size=5), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60)
def test_a_box_is_outside_when_cutting_leaves_nothing(boxes, width, height):
    picture = np.zeros((height, width, 3), np.uint8)
    array = np.array(boxes, np.float64)
    assert outside(array, width, height).tolist() == [cut_face(picture, box) is None for box in array]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_gaps_add_up_to_what_is_missing(present):
    frames = np.flatnonzero([True, *present, True])
    lengths, starts = gaps(frames)
    assert lengths.sum() == len(present) - sum(present) and (np.isin(starts + lengths + 1, frames)).all()


def test_copies_of_a_record_contradict_nothing():
    frames = np.array([3.0, 4, 4, 4, 5, 5, NAN])
    boxes = np.array([[1, 1, 9, 9.0]] * 7)
    boxes[3, 0] = 2
    assert contradictions(RawTrack("t", ["1"] * 7, frames, boxes)).tolist() == [4]


def test_three_tracks_on_one_face_are_three_pairs():
    square = np.array([[0, 0, 10, 10.0]] * 3)
    tracks = [FaceTrack("c", name, name, np.arange(3) + start, square + shift, np.zeros(3, np.int8))
              for name, start, shift in (("a", 0, 0), ("b", 1, 1), ("c", 1, 0), ("far", 0, 50))]
    found = {tuple(pair["tracks"]): (pair["frames"], pair["frame"], pair["iou"]) for pair in overlaps(tracks)}
    assert found == {("a", "b"): (2, 1, .681), ("a", "c"): (2, 1, 1.0), ("b", "c"): (3, 1, .681)}


def test_a_crop_with_a_long_comment_or_a_tail_is_whole(tmp_path):
    jpeg = encode(np.zeros((32, 48, 3), np.uint8))
    comment = b"\xff\xfe" + (60_002).to_bytes(2) + b"x" * 60_000
    for name, content in {"comment": jpeg[:2] + comment + jpeg[2:], "tail": jpeg + b"\0" * 10}.items():
        (tmp_path / name).write_bytes(content)
        assert size_by_header(tmp_path / name) == (32, 48)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="empty: not a JPEG.*download it again"):
        size_by_header(tmp_path / "empty")
