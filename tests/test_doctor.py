"""The doctor: every planted fault is named with its count and place, a sound data set is left in peace."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from making import prepare
from test_prepare import data_set, quiet, write_video

from gazepose.__main__ import main
from gazepose.compat.folders import read_original
from gazepose.data.annotations import read_clips, read_split
from gazepose.data.crops import cut_face, outside
from gazepose.data.images import size_by_header
from gazepose.data.index import Index
from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES, FaceTrack, RawTrack
from gazepose.data.video import VideoFacts, look_at
from gazepose.doctor import examine
from gazepose.doctor.checks import KINDS, Findings
from gazepose.doctor.measures import gaps, overlaps, repeats
from gazepose.doctor.text import as_text
from gazepose.doctor.videos import compare_length

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sound(tiny_world) -> dict[str, Any]:
    return examine(tiny_world)


@pytest.fixture
def world(tiny_world, tmp_path) -> Path:
    """A copy of the tiny world, to be spoiled."""
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


@contextmanager
def annotation(world: Path, split: str) -> Iterator[list[dict[str, Any]]]:
    """The clips of a split, to be changed where they stand."""
    path = world / "json" / f"av_{split}.json"
    document = json.loads(path.read_text())
    yield [clip for video in document["videos"] for clip in video["clips"]]
    path.write_text(json.dumps(document))


@contextmanager
def clip(world: Path, number: int = 0, split: str = "train") -> Iterator[dict[str, Any]]:
    with annotation(world, split) as clips:
        yield clips[number]


@contextmanager
def track(world: Path, person: int = 1, number: int = 0, split: str = "train") -> Iterator[dict[str, Any]]:
    """The (first) track of a person, 1 to 5."""
    with clip(world, number, split) as annotated:
        yield annotated["persons"][person]["tracking_paths"][0]


@contextmanager
def priors(world: Path, split: str = "val") -> Iterator[dict[str, np.ndarray]]:
    path = world / "priors" / f"{split}.npz"
    with np.load(path) as stored:
        table = dict(stored)
    yield table
    np.savez(path, **table)


def uid(world: Path, number: int = 0, split: str = "train") -> str:
    return (world / "split" / f"{split}.list").read_text().split()[number]


def video(world: Path, number: int = 0, split: str = "train") -> Path:
    return world / "videos" / f"{uid(world, number, split)}.mp4"


def crops(world: Path) -> list[Path]:
    return sorted(world.glob("videos_challenge/*/*/*.jpg"))


def fast_start(path: Path, frames: int) -> bytes:
    """A video of noise whose table of frames comes first, so that cutting it leaves the table whole."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in range(frames):
            picture = noise.integers(0, 255, (180, 320, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


# ---- faults: each plants one thing and returns what the examples must say about its place


def video_missing(world):
    video(world, 1).unlink()
    return {"clip": uid(world, 1)}


def video_is_text(world):
    video(world, 1).write_text("not found\n" * 100)
    return {"clip": uid(world, 1), "detail": "not an mp4, mov, mkv or avi file (its first bytes are b'not foun')"}


def video_is_a_link(world):
    video(world, 1).rename(world / "elsewhere.mp4")
    video(world, 1).symlink_to(world / "elsewhere.mp4")
    return {"clip": uid(world, 1), "detail": "is a link -> link the folder instead, or put the file there"}


def video_without_its_table(world):
    video(world, 1).write_bytes(video(world, 1).read_bytes()[:9000])  # mp4 keeps its table of frames at the end
    return {"clip": uid(world, 1)}


def video_cut_short(world):
    whole = fast_start(video(world, 1), 21)
    video(world, 1).write_bytes(whole[: len(whole) // 2])
    return {"clip": uid(world, 1), "detail": "10 of 21 frames are there"}


def video_shorter(world):
    write_video(video(world, 1), 15)
    return {"clip": uid(world, 1), "detail": "15 of 21 frames"}


def faces_past_the_end(world):
    with track(world, number=1) as stored:
        stored["track"] += [{**stored["track"][-1], "frame": frame} for frame in (21, 22, 30)]
    return {"clip": uid(world, 1), "track": "dftvsd-track", "frame": 21, "detail": "the video has 21 frames"}


def video_at_another_rate(world):
    path = video(world, 1)
    path.unlink()
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in range(21):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((180, 320, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return {"clip": uid(world, 1), "detail": "25.000 frames a second"}


def video_of_nobody(world):
    shutil.copy(video(world), world / "videos" / "left-over.mp4")
    return {"clip": "left-over"}


def lists(split: str, text: Callable[[str], str]) -> Callable[[Path], dict[str, Any]]:
    def plant(world: Path) -> dict[str, Any]:
        path = world / "split" / f"{split}.list"
        path.write_text(text(path.read_text()))
        return {"file": f"split/{split}.list"}
    return plant


def clip_in_two_splits(world):
    lists("val", lambda text: text + uid(world, 0))(world)
    return {"clip": uid(world, 0), "detail": "train and val"}


def train_clip_in_the_test_set(world):
    name = next((world / "videos_challenge").iterdir())
    name.rename(name.with_name(uid(world, 0)))
    return {"clip": uid(world, 0), "detail": "train and test"}


def clip_listed_but_not_annotated(world):
    lists("train", lambda text: text + "nobody-saw-me")(world)
    return {"split": "train", "clip": "nobody-saw-me"}


def clip_annotated_in_the_other_file(world):
    moved = uid(world, 2)
    lists("train", lambda text: text.replace(moved, ""))(world)
    lists("val", lambda text: text + moved)(world)
    return {"split": "val", "clip": moved, "detail": "annotated in av_train.json"}


def clip_in_no_list(world):
    moved = uid(world, 2)
    lists("train", lambda text: text.replace(moved, ""))(world)
    return {"clip": moved, "file": "json/av_train.json"}


def another_test_list(world):
    (world / "split" / "test.list").write_text("somebody-else")
    return {"clip": "somebody-else", "detail": "listed, but no crops"}


def annotation_unreadable(world):
    path = world / "json" / "av_val.json"
    path.write_text(path.read_text()[:-40])
    return {"split": "val", "file": "json/av_val.json"}


def annotation_is_a_list(world):
    (world / "json" / "av_val.json").write_text("[]")
    return {"split": "val", "detail": "an object with `videos` is wanted, this is a list"}


def annotation_missing(world):
    (world / "json" / "av_val.json").unlink()
    return {"split": "val", "file": "json/av_val.json"}


def clip_annotated_twice(world):
    with annotation(world, "train") as clips:
        clips[1]["clip_uid"] = clips[0]["clip_uid"]
    return {"clip": uid(world, 0)}


def clip_without_a_uid(world):
    with clip(world, 2) as annotated:
        annotated["clip_uid"] = None
    return {"split": "train"}


def segments(value: Any) -> Callable[[Path], dict[str, Any]]:
    def plant(world: Path) -> dict[str, Any]:
        with clip(world, 1) as annotated:
            if value == "missing":
                del annotated["social_segments_looking"]
            else:
                annotated["social_segments_looking"] = value
        return {"clip": uid(world, 1)}
    return plant


def segment(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    def plant(world: Path) -> dict[str, Any]:
        with clip(world, 1) as annotated:
            annotated["social_segments_looking"][2].update(changes)
        return {"clip": uid(world, 1)}
    return plant


def clip_marked_invalid(world):
    with clip(world, 1) as annotated:
        annotated["valid"] = False
    return {"clip": uid(world, 1)}


def nobody_looks(world):
    with annotation(world, "val") as clips:
        for annotated in clips:
            annotated["social_segments_looking"] = []
    return {"split": "val", "detail": "all 96 faces are not looking"}


def no_face(world):
    with annotation(world, "val") as clips:
        for annotated in clips:
            annotated["persons"] = []
    return {"split": "val"}


def track_id_with_a_slash(world):
    with track(world, 2) as stored:
        stored["track_id"] = "../azhxed"
    return {"clip": uid(world, 0), "track": "../azhxed"}


def track_id_twice(world):
    with clip(world) as annotated:
        annotated["persons"][2]["tracking_paths"][0]["track_id"] = "hnucrb-track"
    return {"clip": uid(world, 0), "track": "hnucrb-track"}


def track_copied(world):
    with clip(world) as annotated:
        original = annotated["persons"][1]["tracking_paths"][0]
        annotated["persons"][2]["tracking_paths"].append({**original, "track_id": "copy-track"})
    return {"clip": uid(world, 0), "track": "copy-track", "frame": 0, "detail": "as track hnucrb-track"}


def tracks_that_overlap(world):
    with clip(world) as annotated:
        original = annotated["persons"][1]["tracking_paths"][0]
        shifted = [{**record, "x": record["x"] + 5} for record in original["track"][2:8]]
        annotated["persons"][2]["tracking_paths"].append({**original, "track_id": "other-track", "track": shifted})
    return {"clip": uid(world, 0), "track": "hnucrb-track and other-track", "frame": 2}


def records(change: Callable[[list[dict[str, Any]]], object], **place: Any) -> Callable[[Path], dict[str, Any]]:
    """Changes the records of track hnucrb-track (frames 0 to 9) of the first training clip."""
    def plant(world: Path) -> dict[str, Any]:
        with track(world) as stored:
            change(stored["track"])
        return {"clip": uid(world, 0), "track": "hnucrb-track", **place}
    return plant


def track_fields(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    def plant(world: Path) -> dict[str, Any]:
        with track(world) as stored:
            stored.update(changes)
        return {"clip": uid(world, 0), "track": "hnucrb-track"}
    return plant


def person(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    def plant(world: Path) -> dict[str, Any]:
        with clip(world) as annotated:
            annotated["persons"][1].update(changes)
        return {"clip": uid(world, 0)}
    return plant


def segment_of_nobody(world):
    with clip(world) as annotated:
        annotated["social_segments_looking"].append({"person": "77", "start_frame": 2, "end_frame": 8,
                                                     "is_at_me": True})
    return {"clip": uid(world, 0), "frame": 2, "detail": "person 77, frames 2..8"}


def segment_beside_the_faces(world):
    with clip(world) as annotated:
        annotated["social_segments_looking"].append({"person": "1", "start_frame": 11, "end_frame": 15,
                                                     "is_at_me": True})
    return {"clip": uid(world, 0), "frame": 11, "detail": "person 1, frames 11..15"}


def crop_cut_short(world):
    path = crops(world)[4]
    path.write_bytes(path.read_bytes()[:-30])
    return {"clip": path.parts[-3], "track": path.parent.name, "frame": int(path.name[:5]),
            "detail": f"{path.parent.name}/{path.name}: not a JPEG: it has no end, so it was cut short -> download it "
                      "again"}


def crop_without_header(world):
    path = crops(world)[4]
    path.write_bytes(b"\0" * 200)
    return {"track": path.parent.name, "frame": int(path.name[:5])}


def crop_twice(world):
    path = crops(world)[4]
    shutil.copy(path, path.with_name(f"00099_{path.name[6:]}"))
    return {"clip": path.parts[-3], "track": path.parent.name, "frame": 99}


def crop_misnamed(world):
    path = crops(world)[4]
    path.rename(path.with_name("what is this.jpg"))
    return {"track": path.parent.name, "detail": "what is this.jpg"}


def crop_without_a_frame(world):
    path = crops(world)[4]
    path.rename(path.with_name(path.name[6:]))
    return {"track": path.parent.name, "detail": path.name[6:]}


def crop_of_another_size(world):
    path = crops(world)[4]
    path.write_bytes(encode(np.zeros((100, 90, 3), np.uint8)))
    return {"track": path.parent.name, "frame": int(path.name[:5]), "detail": f"{path.name}, 90 x 100"}


def folder_misnamed(world):
    path = crops(world)[0].parent
    path.rename(path.with_name("a track"))
    return {"clip": path.parent.name, "track": "a track"}


def no_test_crops(world):
    shutil.rmtree(world / "videos_challenge")
    return {}


def prior(change: Callable[[dict[str, np.ndarray]], object], **place: Any) -> Callable[[Path], dict[str, Any]]:
    """Changes the priors of val; their row 5 is frame 5 of the first track of the first clip."""
    def plant(world: Path) -> dict[str, Any]:
        with priors(world) as table:
            where = {name: table[name][5] for name in ("clip", "track", "frame")}
            change(table)
        return {"file": "priors/val.npz", "clip": str(where["clip"]), "track": str(where["track"]),
                "frame": int(where["frame"]), **place}
    return plant


def put(name: str, at: Any, value: Any) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda table: table[name].__setitem__(at, value)


def priors_without_frames(world):
    with priors(world) as table:
        del table["frame"]
    return {"file": "priors/val.npz", "detail": "lacks frame"}


def priors_damaged(world):
    (world / "priors" / "val.npz").write_bytes(b"PK\3\4 and no more")
    return {"file": "priors/val.npz"}


def priors_of_one_split_gone(world):
    (world / "priors" / "val.npz").unlink()
    return {"file": "priors/val.npz"}


def no_priors(world):
    shutil.rmtree(world / "priors")
    return {"file": "priors/train.npz"}


def prepared_folder_broken(world):
    (world / "prepared" / "clean-64" / "val").mkdir(parents=True)
    (world / "prepared" / "clean-64" / "val" / "index.json").write_text("{}")
    return {"file": "prepared/clean-64/val"}


NAN = float("nan")
FAULTS: list[tuple[Callable[[Path], dict[str, Any]], str, int]] = [
    (video_missing, "video_missing", 1), (video_is_text, "video_unreadable", 1),
    (video_is_a_link, "video_unreadable", 1), (video_without_its_table, "video_unreadable", 1),
    (video_cut_short, "video_cut_short", 1), (video_shorter, "video_short", 1),
    (faces_past_the_end, "face_past_end", 3), (video_at_another_rate, "video_rate", 1),
    (video_of_nobody, "video_unused", 1),
    (lists("val", lambda text: text + "../me"), "list_unusable", 1),
    (lists("val", lambda text: text * 2), "list_unusable", 1), (lists("val", lambda text: "\n"), "list_unusable", 1),
    (clip_in_two_splits, "clip_in_two_splits", 1), (train_clip_in_the_test_set, "clip_in_two_splits", 1),
    (clip_listed_but_not_annotated, "clip_not_annotated", 1),
    (clip_annotated_in_the_other_file, "clip_in_other_file", 1), (clip_in_no_list, "clip_no_split", 1),
    (another_test_list, "test_unlisted", 2),
    (annotation_unreadable, "annotation_unreadable", 1), (annotation_is_a_list, "annotation_unreadable", 1),
    (annotation_missing, "annotation_missing", 1), (clip_annotated_twice, "clip_twice", 1),
    (clip_without_a_uid, "clip_no_uid", 1),
    (segments(None), "clip_without_segments", 1), (segments("missing"), "clip_without_segments", 1),
    (segments({"a": 1}), "clip_without_segments", 1), (segments([]), "clip_segments_empty", 1),
    (segment(person=None), "segment_without_person", 1), (segment(end_frame=3), "segment_backwards", 1),
    (segment(is_at_me=False), "segment_not_at_me", 1), (segment_of_nobody, "segment_without_track", 1),
    (segment_beside_the_faces, "segment_without_face", 1),
    (clip_marked_invalid, "clip_invalid", 1), (nobody_looks, "split_one_label", 1), (no_face, "split_empty", 1),
    (track_id_with_a_slash, "track_bad_id", 1), (track_id_twice, "track_twice", 1), (track_copied, "track_copied", 1),
    (tracks_that_overlap, "tracks_overlap", 1),
    (person(person_id=None), "person_without_id", 1), (person(person_id=""), "person_without_id", 1),
    (records(lambda stored: stored.extend([stored[4], stored[4], stored[5]]), frame=4), "record_repeated", 3),
    (records(lambda stored: stored.append({**stored[4], "x": 90}), frame=4), "record_contradicts", 1),
    (records(lambda stored: stored.reverse(), frame=8), "track_unordered", 1),
    (records(lambda stored: stored.extend(["a", None, 3])), "entry_no_object", 3),
    (track_fields(suspect=True), "track_suspect", 1), (track_fields(unmapped_frames=[3, 4, 50]), "frame_unmapped", 2),
    (crop_cut_short, "crop_damaged", 1), (crop_without_header, "crop_damaged", 1), (crop_twice, "crop_twice", 1),
    (crop_misnamed, "crop_misnamed", 1), (crop_without_a_frame, "crop_unframed", 1),
    (crop_of_another_size, "crop_size", 1), (folder_misnamed, "crop_folder_misnamed", 1),
    (no_test_crops, "test_absent", 1),
    (prior(put("head_pose", 5, 123.0), detail="head_pose: an angle beyond 99 degrees"), "prior_out_of_range", 1),
    (prior(put("landmarks", (5, 2, 0), 9.0), detail="landmarks: a place far outside the crop"), "prior_out_of_range",
     1),
    (prior(put("landmarks", (5, 2, 2), 1.5), detail="landmarks: a confidence outside 0..1"), "prior_out_of_range", 1),
    (prior(put("frame", 5, 777), frame=777, detail="no face in that frame"), "prior_without_face", 1),
    (prior(put("track", 5, "nobody"), track="nobody", detail="no such track"), "prior_without_face", 1),
    (prior(put("clip", 5, "nowhere"), clip="nowhere", detail="no such clip in this split"), "prior_without_face", 1),
    (prior(put("frame", 6, 5)), "prior_twice", 1),
    (prior(lambda table: table.update(head_pose=table["head_pose"][:, :2]), clip=None, track=None, frame=None,
           detail="head_pose has shape (96, 2), wanted (96, 3)"), "table_unusable", 1),
    (priors_without_frames, "table_unusable", 1), (priors_damaged, "table_unusable", 1),
    (priors_of_one_split_gone, "priors_some_splits", 1), (no_priors, "priors_absent", 3),
    (prepared_folder_broken, "prepared_unreadable", 1)]
# kinds with a test of their own, here or in test_doctor_inputs.py
ELSEWHERE = {"nothing_here", "list_missing", "split_absent", "boxes_unusable", "split_unlabelled", "images_missing",
             "image_damaged", "face_without_image"}


def named(fault: tuple) -> str:
    return f"{fault[1]}-{fault[0].__name__}"


@pytest.mark.parametrize("plant, kind, count", FAULTS, ids=map(named, FAULTS))
def test_a_planted_fault_is_named_with_count_and_place(world, sound, plant, kind, count):
    assert kind not in sound["findings"]
    place = plant(world)
    facts = examine(world)
    found = facts["findings"][kind]
    assert found["count"] == count
    assert [example for example in found["examples"]
            if all(example.get(name) == value for name, value in place.items())], found["examples"]
    if KINDS[kind].listing and count == 1:
        assert found["clips"] == [place["clip"]]
    text = as_text(facts)
    assert f"{count:>8,}  {KINDS[kind].title}\n" in text
    for name in ("clip", "track", "frame", "detail"):
        if place.get(name) is not None:
            assert (f"{name} {place[name]}" if name != "detail" else place[name]) in text
    steps = [step for step in facts["remedies"] if step["finding"] == kind]
    assert [step["level"] for step in steps] == ([found["level"]] if found["level"] != "note" else [])
    assert not (found["level"] == "must" and facts["healthy"])


def test_every_kind_of_finding_has_a_fault_that_shows_it():
    assert {kind for _, kind, _ in FAULTS} | ELSEWHERE == set(KINDS)


RULES = [
    (records(lambda stored: stored.__delitem__(slice(3, 5))), "gap: frames filled", (2, 2), 2),
    (records(lambda stored: stored[-1].update(frame=40)), "gap: track split", (0, 1), 8),
    (track_fields(unmapped_frames=[4]), "gap: track split", (0, 1), 3),
    (records(lambda stored: stored[6].update(x=NAN)), "record dropped: not a finite number", (1, 1), 6),
    (records(lambda stored: stored[6].update(width=0)), "record dropped: width or height not positive", (1, 1), 6),
    (records(lambda stored: stored[6].update(width=-45.4)), "record dropped: width or height not positive", (1, 1), 6),
    (records(lambda stored: stored[6].update(frame=-2)), "record dropped: frame number not whole, negative or absurd",
     (1, 1), -2),
    (records(lambda stored: stored[6].update(x=-500)), "record dropped: outside the picture", (0, 1), 6),
    (records(lambda stored: stored[6].update(x=5000)), "row left out: outside the picture", (0, 1), 6),
    (records(lambda stored: stored[6].update(x=5000)), "crop black: outside the picture", (1, 0), 6),
    (records(lambda stored: stored[6].update(x=-5)), "box moved: x or y negative", (2, 0), 6),
    (records(lambda stored: stored[6].update(x=-5)), "box cut: x or y negative", (0, 3), 6),
    (records(lambda stored: stored.append(stored[6])), "record dropped: frame number repeated", (0, 1), 6),
    (records(lambda stored: stored[6].pop("width")), "record malformed: a number missing or not a number", (1, 1),
     None),
    (records(lambda stored: stored.append({**stored[-1], "frame": 30})), "row left out: past the end of the video",
     (11, 1), None),
    (track_fields(unmapped_frames=[4]), "record dropped: unmapped frame", (0, 1), 4),
    (track_fields(suspect=True), "track dropped: suspect", (0, 1), None),
    (track_fields(track=[]), "track dropped: no usable record", (1, 1), None),
    (person(person_id=""), "record dropped: person id empty", (10, 10), 0),
    (segments([]), "clip left out: empty list of looking segments", (1, 0), None),
    (segment(start_frame=1.5), "segment dropped: start or end is not a whole number", (1, 1), None)]


@pytest.mark.parametrize("plant, rule, counts, frame", RULES, ids=lambda value: str(value) if isinstance(value, str)
                         else None)
def test_what_a_rule_touched_is_counted_per_policy_with_an_example(world, sound, plant, rule, counts, frame):
    place = plant(world)
    facts = examine(world)
    for policy, count in zip(("baseline", "clean"), counts, strict=True):
        entry = facts["splits"]["train"]["policies"][policy]["rules"].get(rule, {"count": 0, "examples": []})
        before = sound["splits"]["train"]["policies"][policy]["rules"].get(rule, {"count": 0})
        assert entry["count"] == count != before["count"] or count == before["count"] == 0
        if count:
            assert any(example["clip"] == place["clip"] and (frame is None or example.get("frame") == frame)
                       for example in entry["examples"]), entry
    line = next(line for line in as_text(facts).splitlines() if line.startswith(f"  {rule} "))
    assert line.removeprefix(f"  {rule}").split()[:2] == [f"{count}" if count else "-" for count in counts]


NULLS = [
    ("videos", "train", lambda world: replace_in(world, lambda document: document.update(videos=None))),
    ("clips", "train", lambda world: replace_in(world, lambda document: document["videos"][1].update(clips=None))),
    ("persons", "train", lambda world: replace_in(world, lambda document: first(document).update(persons=None))),
    ("tracking_paths", "train", lambda world: person(tracking_paths=None)(world)),
    ("track", "train", lambda world: track_fields(track=None)(world)),
    ("unmapped_frames", "train", lambda world: track_fields(unmapped_frames=None)(world)),
    ("social_segments_looking", "train", lambda world: segments(None)(world))]


def replace_in(world: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = world / "json" / "av_train.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def first(document: dict[str, Any]) -> dict[str, Any]:
    return document["videos"][0]["clips"][0]


@pytest.mark.parametrize("name, split, plant", NULLS, ids=[null[0] for null in NULLS])
def test_a_null_collection_is_named(world, sound, name, split, plant):
    assert sound["splits"][split]["collections"] == {}
    plant(world)
    facts = examine(world)
    assert facts["splits"][split]["collections"][name]["null"]["count"] == 1
    assert f"       1  {split}: `{name}` is null\n" in as_text(facts)


def test_a_sound_world_has_true_facts_and_nothing_to_mend(sound, tiny_world):
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
    with track(world) as stored:
        stored["track"] = [{**record, "frame": frame, "width": 12}
                           for record, frame in zip(stored["track"], (0, 1, 3, 4, 5, 9, 10, 11, 40, 41), strict=True)]
    found = examine(world)["splits"]["train"]
    assert found["gaps"]["by_length"] == {"1": 1, "2..5": 1, "6..15": 0, "over 15": 1}
    assert found["gaps"]["longest"] == {"length": 28, "clip": uid(world), "track": "hnucrb-track", "frame": 11}
    assert found["gaps"]["frames"] == 1 + 3 + 28 and found["face_size"]["pixels"]["least"] == 12


def spoil(world: Path) -> None:
    """Many faults at once, of those that leave the others to be found."""
    for plant in (faces_past_the_end, track_id_with_a_slash, segment_of_nobody, crop_of_another_size, crop_misnamed,
                  clip_listed_but_not_annotated, segment(person=None), video_shorter,
                  prior(put("head_pose", 5, 123.0)), prior(put("frame", 6, 777)),
                  records(lambda stored: stored.extend([stored[4], {**stored[-1], "frame": 60}])),
                  records(lambda stored: stored[6].update(x=NAN)), records(lambda stored: stored[7].update(x=-9))):
        plant(world)
    with track(world, person=4) as stored:
        stored.update(suspect=True)
    with track(world, person=5) as stored:
        stored.update(unmapped_frames=[13, 14])
    with clip(world, 0, "val") as annotated:
        annotated["persons"].reverse()                                 # the wearer is no longer the first
    with clip(world, 2) as annotated:
        annotated["social_segments_looking"] = []


def test_rules_are_counted_as_reading_and_preparation_count_them(world):
    spoil(world)
    facts = examine(world)
    for split in ("train", "val"):
        uids = read_split(world / "split" / f"{split}.list")
        for policy in POLICIES:
            known = facts["splits"][split]["policies"][policy]
            counted = {rule: entry["count"] for rule, entry in known["rules"].items()}
            index = Index.open(prepare(world, split, policy=policy, crop_size=16, jobs=1, notify=quiet,
                                       max_bad_fraction=1.0))
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


def test_the_difference_of_the_policies_is_told_per_rule(world):
    spoil(world)
    difference = examine(world)["splits"]["val"]["difference"]["rules"]
    assert difference["wearer"]["rows"] == -12 and difference["end_inclusive"]["rows"] == 0
    assert difference["drop_frame_zero"] == {"baseline": True, "clean": False, "rows": -5, "looking": -3}


def test_a_video_is_judged_as_preparation_judges_it(world):
    video_cut_short(world)
    video(world, 0).write_text("text")
    video(world, 2).unlink()
    facts = examine(world)
    listed = {clip for kind in ("video_missing", "video_unreadable", "video_cut_short")
              for clip in facts["findings"][kind]["clips"]}
    with pytest.raises(ValueError, match="3 of 3 clips cannot be used"):
        prepare(world, "train", crop_size=16, jobs=1, notify=quiet)
    assert listed == {uid(world, number) for number in range(3)} and not facts["healthy"]
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
    assert facts["findings"]["video_missing"]["level"] == "look" and facts["healthy"]
    assert facts["findings"]["video_missing"]["clips"] == ["clip100"]


def test_lists_that_are_not_there_leave_all_annotated_clips_to_be_read(world):
    for split in ("train", "val"):
        (world / "split" / f"{split}.list").unlink()
    facts = examine(world)
    assert facts["findings"].keys() == {"list_missing"} and facts["findings"]["list_missing"]["count"] == 2
    assert facts["splits"]["train"]["policies"]["clean"]["rows"] == 168


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
    assert examine(tmp_path)["findings"]["annotation_unreadable"]["examples"][0]["clip"] == uids[0]


def test_the_command_prints_the_facts_and_says_by_its_exit_code_whether_to_mend(
        world, tiny_world, sound, monkeypatch, capsys):
    spoil(world)
    crop_cut_short(world)
    code, said = warm.python("-m", "gazepose", "doctor", str(world), "--json", cwd=ROOT)
    assert code == 1, said
    assert json.loads(said) == json.loads(json.dumps(examine(world), allow_nan=False))
    monkeypatch.setattr(sys, "argv", ["gazepose", "doctor", str(tiny_world)])
    main()                                                             # ends without an exit code: 0
    assert capsys.readouterr().out == as_text(sound) + "\n"
    monkeypatch.setattr(sys, "argv", ["gazepose", "doctor", str(world)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and "MUST  test crops damaged (1)" in capsys.readouterr().out


absurd = st.one_of(st.none(), st.booleans(), st.integers(-10**20, 10**20), st.floats(), st.text(max_size=5),
                   st.just([]), st.just({}), st.just([None]), st.just({"a": 1}), st.just(10**400))


@given(data=st.data())
@settings(max_examples=60)
def test_anything_in_any_place_is_examined_calmly(parity, tmp_path_factory, data):
    """One value of an official-looking file replaced by something absurd: never an exception, always JSON."""
    root = tmp_path_factory.mktemp("absurd")
    content = json.loads((parity / "annotations" / "av_train.json").read_text())
    (root / "split").mkdir()
    (root / "json").mkdir()
    (root / "videos").mkdir()
    if data.draw(st.booleans()):
        uids = [annotated["clip_uid"] for annotated in content["videos"][0]["clips"]]
        (root / "split" / "train.list").write_text("\n".join(uids))
    place: Any = content
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 9)):
            place = place[key]
            continue
        place[key] = data.draw(absurd)
        break
    (root / "json" / "av_train.json").write_text(json.dumps(content))
    facts = examine(root)
    json.dumps(facts, allow_nan=False)
    assert "WHAT TO DO" in as_text(facts)


@pytest.mark.parametrize("start, end, short", [(0, 1.0, True), (90.5, 91.5, True), (0, 0.7, False), (0, NAN, False),
                                               (None, 3, False), (0, 10**400, False), ("a", "b", False), (5, 1, False)])
def test_a_video_is_compared_with_the_seconds_annotated(start, end, short):
    findings = Findings()
    compare_length(VideoFacts(20, 320, 180, 30.0), {"video_start_sec": start, "video_end_sec": end}, "train", "c",
                   findings)
    assert ("video_short" in findings.found) == short                  # 20 frames last 0.67 s


def test_a_video_cut_short_has_fewer_whole_frames_than_it_states(tmp_path):
    whole = fast_start(tmp_path / "whole.mp4", 40)
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    facts, there = look_at(tmp_path / "whole.mp4")
    assert (facts.frames, there, facts.width, facts.height, facts.fps) == (40, 40, 320, 180, 30)
    facts, there = look_at(tmp_path / "half.mp4")
    assert facts.frames == 40 and 15 <= there <= 25
    for name in ("a.mkv", "b.avi"):                                    # no table of frames: they are counted
        facts, there = look_at(write_video(tmp_path / name, 12, "mpeg4" if "avi" in name else "libx264"))
        assert facts.frames == there == 12
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


def test_repeats_are_copies_or_contradictions():
    frames = np.array([3.0, 4, 4, 4, 5, 5, NAN])
    boxes = np.array([[1, 1, 9, 9.0]] * 7)
    boxes[3, 0] = 2
    copied, contradicting = repeats(RawTrack("t", ["1"] * 7, frames, boxes))
    assert copied.tolist() == [4, 5] and contradicting.tolist() == [4]


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
