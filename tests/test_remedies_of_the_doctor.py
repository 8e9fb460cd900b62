"""Remedies of the doctor: each of its findings is gone once what its list says is done."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import prepared_index, write_video
from test_boxes import HEADER
from test_doctor import (
    CROP,
    FIRST,
    SECOND,
    TEST,
    TEST_TRACK,
    TRACK,
    Plant,
    another_track,
    both,
    clip,
    clips,
    crop,
    fast_start,
    lists,
    move,
    new_segment,
    past_the_end,
    person,
    priors,
    put,
    records,
    remove,
    segment,
    segments,
    track_fields,
    video,
)
from test_doctor_inputs import change_rows, own

from gazepose.data.shards import encode
from gazepose.doctor import examine
from gazepose.doctor.checks import KINDS

NUMBERED, UNNUMBERED = f"videos_challenge/{TEST}/{TEST_TRACK}/{CROP}", CROP[6:]


@pytest.fixture
def world(tiny_world, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


@pytest.fixture
def again(tiny_world) -> Callable[[str], Plant]:
    """Downloads a file of the world again."""
    return lambda name: lambda world: shutil.copy(tiny_world / name, world / name)


def rows(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Plant:
    return priors(lambda table: table.update(change(dict(table))))


def renamed(name: str, other: str) -> Plant:
    return lambda world: crop(lambda path: path.with_name(name).rename(path.with_name(other)))(world)


def without(row: int) -> Plant:
    return rows(lambda table: {name: np.delete(column, row, 0) for name, column in table.items()})


def last_track(change: Callable[[list[dict[str, Any]]], object]) -> Plant:
    """Changes the tracks of person 2 of FIRST."""
    return clip(0, lambda annotated: change(annotated["persons"][2]["tracking_paths"]))


def looking(annotated: dict[str, Any]) -> None:
    annotated["social_segments_looking"] = [{"person": "1", "start_frame": 0, "end_frame": 4, "is_at_me": True}]


VIDEO, NOBODY_LOOKS = f"videos/{SECOND}.mp4", clips(
    lambda each: [annotated.update(social_segments_looking=[]) for annotated in each], "val")
CURES: list[tuple[str, Plant, str, Plant | str]] = [         # kind, plant, words of the remedy, cure or file
    ("clip_in_two_splits", lists("val", lambda old: old + FIRST), "remove each clip named above from one list",
     lists("val", lambda old: old.replace(FIRST, ""))),
    ("clip_in_two_splits", move(f"videos_challenge/{TEST}", FIRST), "a test clip: from {data}/videos_challenge/",
     remove(f"videos_challenge/{FIRST}")),
    ("list_absent", remove("split/val.list"), "put train.list and val.list", "split/val.list"),
    ("split_unusable", NOBODY_LOOKS, "check social_segments_looking in {data}/json/", clip(0, looking, "val")),
    ("video_differs", video(lambda path: write_video(path, 15)), "download it again into {data}/videos/", VIDEO),
    ("video_differs", video(lambda path: fast_start(path, 21, rate=25)), "convert another rate with ffmpeg",
     video(lambda path: fast_start(path, 25))),
    ("face_without_picture", records(past_the_end, of_clip=1), "the video is not the annotated version",
     video(lambda path: fast_start(path, 31))),
    ("name_unusable", track_fields(2, track_id="../azhxed"), "rename them: letters, digits, _ . - only",
     track_fields(2, track_id="azhxed")),
    ("name_unusable", renamed(CROP, "what is this.jpg"), "a crop is <frame:05d>_<unique_id>.jpg",
     renamed("what is this.jpg", "00016_what-is-this.jpg")),
    ("name_twice", track_fields(2, track_id=TRACK), "rename or delete the others", track_fields(2, track_id="other")),
    ("name_twice", track_fields(2, track_id=TRACK), "rename or delete the others", last_track(list.clear)),
    ("clip_without_segments", segments(None), "remove them from the list in {data}/split/",
     lists("train", lambda old: old.replace(SECOND, ""))),
    ("clip_without_segments", segments(None), "add social_segments_looking in {data}/json/ (an empty list",
     segments([])),
    ("same_face", another_track(list), "delete one of the two tracks", last_track(list.pop)),
    ("same_face", another_track(list), "set \"suspect\": true for it",
     last_track(lambda tracks: tracks[-1].update(suspect=True))),
    ("label_without_face", segment(end_frame=3), "check person, start_frame and end_frame", segment(end_frame=20)),
    ("label_without_face", new_segment("77", 2, 8), "check person, start_frame and end_frame",
     clip(0, lambda annotated: annotated["social_segments_looking"][-1].update(person="1"))),
    ("label_without_face", person(person_id=None), "and person_id of the persons", person(person_id="1")),
    ("label_unreadable", segment(start_frame=1.5), "as text and whole numbers", segment(start_frame=2)),
    ("face_twice", crop(lambda path: shutil.copy(path, path.with_name(f"00099_{UNNUMBERED}"))), "keep one file",
     crop(lambda path: path.with_name(f"00099_{UNNUMBERED}").unlink())),
    ("face_twice", put("frame", 6, 5), "or one row per face", without(6)),
    ("convention", rows(lambda table: {"head_pose": np.radians(table["head_pose"])}), "head pose is in degrees",
     rows(lambda table: {"head_pose": np.degrees(table["head_pose"])})),
    ("prior_out_of_range", put("head_pose", 5, 123.0), "set these values to NaN", put("head_pose", 5, np.nan)),
    ("prior_out_of_range", put("landmarks", (5, 2, 2), 1.5), "make the table again", "priors/val.npz"),
    ("prior_without_face", put("frame", 5, 777), "other frame numbers", put("frame", 5, 5)),
    ("prior_without_face", put("track", 5, "nobody"), "other names of clips or tracks", without(5)),
    ("crop_damaged", crop(lambda path: path.write_bytes(b"\0" * 200)), "download these files again", NUMBERED),
    ("crop_unusual", crop(lambda path: path.write_bytes(encode(np.zeros((100, 90, 3), np.uint8)))),
     "compare them with the official crops", NUMBERED),
    ("crop_unusual", renamed(CROP, UNNUMBERED), "a crop without a frame number has no neighbours",
     renamed(UNNUMBERED, CROP))]


@pytest.mark.parametrize(("kind", "plant", "words", "cure"), CURES,
                         ids=[f"{kind}: {words[:24]}" for kind, _, words, _ in CURES])
def test_a_finding_is_gone_once_its_remedy_is_done(world, again, kind, plant, words, cure):
    plant(world)
    facts = examine(world)
    remedy = next(step["do"] for step in facts["remedies"] if step["finding"] == kind)
    assert words.format(data=world) in remedy
    (again(cure) if isinstance(cure, str) else cure)(world)
    assert kind not in examine(world)["findings"]


def test_what_a_remedy_says_is_left_out_is_left_out(world):
    both(records(past_the_end, of_clip=1), track_fields(2, track_id="../azhxed"))(world)
    assert {"face_without_picture", "name_unusable"} <= {*examine(world)["findings"]}
    whole = prepared_index(world, crops_from="videos")
    second = whole.clip_of(np.arange(len(whole))) == whole.clips.index(SECOND)
    assert whole.frame[second].max() < 21 and not [name for name in whole.track_name if "azhxed" in name]


def test_a_split_has_labels_or_data_once_its_table_has(tmp_path):
    root = own(tmp_path)
    table, whole = root / "boxes" / "train.csv", (root / "boxes" / "train.csv").read_text()

    def remedy(kind: str) -> str:
        facts = examine(root)
        return next((step["do"] for step in facts["remedies"] if step["finding"] == kind), KINDS[kind].remedy)
    change_rows(root, lambda rows: [row.pop() for row in rows])
    assert table.read_text().startswith(HEADER + "\n")
    assert f"add a column label to the table of train in {root}/boxes/" in remedy("split_unlabelled")
    table.write_text(whole)
    assert "split_unlabelled" not in examine(root)["findings"]
    table.unlink()
    assert "put the table of boxes of the split into" in remedy("split_absent")
    table.write_text(whole)
    assert not [place for place in examine(root)["findings"]["split_absent"]["examples"] if place["split"] == "train"]


def test_every_remedy_of_the_doctor_is_tried():
    source = Path(__file__).with_name("test_remedies_of_runs.py").read_text()
    elsewhere = {kind for kind in KINDS if f'"{kind}"' in source}
    tried = {kind for kind, *_ in CURES} | elsewhere | {"split_unlabelled", "split_absent", "list_absent"}
    assert {kind for kind in KINDS if KINDS[kind].remedy} == tried
