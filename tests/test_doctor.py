"""The doctor: every planted fault is named with its count and place; what a rule touched is counted per policy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from making import write_video

from gazepose.data.shards import encode
from gazepose.doctor import examine
from gazepose.doctor.checks import KINDS
from gazepose.doctor.text import as_text

# of the tiny world: the clips of train, the first of val, and one test crop; frames 0 to 9 of FIRST show its TRACK
FIRST, SECOND, THIRD = "wrnghaba-evrx-train000", "xmajuqqg-ydde-train001", "frjkqtnx-rsze-train002"
TRACK, VAL, VAL_TRACK = "arbkyd-track", "pxzpgvfy-xbbf-val000", "zwevjk-track"
TEST, TEST_TRACK, CROP = "zbgkfqxd-mcbh-test000", "kvmqpe-track", "00016_ewxzhbgvqnckkmjs.jpg"
NAN = float("nan")
Plant = Callable[[Path], object]


@pytest.fixture(scope="session")
def sound(tiny_world) -> dict[str, Any]:
    return examine(tiny_world)


@pytest.fixture
def world(tiny_world, tmp_path) -> Path:
    """A copy of the tiny world, to be spoiled."""
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


# ---- plants: each changes one thing of a world

def fast_start(path: Path, frames: int, rate: int = 30) -> bytes:
    """A video of noise whose table of frames comes first, so that cutting it leaves the table whole."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in range(frames):
            picture = noise.integers(0, 255, (180, 320, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def video(change: Callable[[Path], object]) -> Plant:
    return lambda world: change(world / "videos" / f"{SECOND}.mp4")


def link(path: Path) -> None:
    path.rename(path.parents[1] / "elsewhere.mp4")
    path.symlink_to(path.parents[1] / "elsewhere.mp4")


def cut_short(path: Path) -> None:
    whole = fast_start(path, 21)
    path.write_bytes(whole[:len(whole) // 2])


def text(name: str, change: Callable[[str], str]) -> Plant:
    """Changes a text file, which may be new."""
    def plant(world: Path) -> None:
        path = world / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(change(path.read_text() if path.exists() else ""))
    return plant


def lists(split: str, change: Callable[[str], str]) -> Plant:
    return text(f"split/{split}.list", change)


def both(*plants: Plant) -> Plant:
    return lambda world: [plant(world) for plant in plants]


def remove(name: str) -> Plant:
    return lambda world: shutil.rmtree(world / name) if (world / name).is_dir() else (world / name).unlink()


def move(name: str, other: str) -> Plant:
    return lambda world: (world / name).rename((world / name).with_name(other))


def document(change: Callable[[Any], object], split: str = "train") -> Plant:
    def plant(world: Path) -> None:
        path = world / "json" / f"av_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    return plant


def clips(change: Callable[[list[dict[str, Any]]], object], split: str = "train") -> Plant:
    return document(lambda content: change([clip for video in content["videos"] for clip in video["clips"]]), split)


def clip(number: int, change: Callable[[dict[str, Any]], object], split: str = "train") -> Plant:
    return clips(lambda all_of_them: change(all_of_them[number]), split)


def person(number: int = 1, **changes: Any) -> Plant:
    return clip(0, lambda annotated: annotated["persons"][number].update(changes))


def track(change: Callable[[dict[str, Any]], object], number: int = 1, of_clip: int = 0) -> Plant:
    return clip(of_clip, lambda annotated: change(annotated["persons"][number]["tracking_paths"][0]))


def track_fields(number: int = 1, **changes: Any) -> Plant:
    return track(lambda stored: stored.update(changes), number)


def records(change: Callable[[list[dict[str, Any]]], object], of_clip: int = 0) -> Plant:
    return track(lambda stored: change(stored["track"]), of_clip=of_clip)


def record(number: int, **changes: Any) -> Plant:
    return records(lambda stored: stored[number].update(changes))


def segments(value: Any) -> Plant:
    return clip(1, lambda annotated: annotated.update(social_segments_looking=value))


def segment(**changes: Any) -> Plant:
    return clip(1, lambda annotated: annotated["social_segments_looking"][2].update(changes))


def new_segment(person: str, start: int, end: int) -> Plant:
    return clip(0, lambda annotated: annotated["social_segments_looking"].append(
        {"person": person, "start_frame": start, "end_frame": end, "is_at_me": True}))


def another_track(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Plant:
    """Person 2 gets a second track, made of the records of person 1."""
    def plant(annotated: dict[str, Any]) -> None:
        original = annotated["persons"][1]["tracking_paths"][0]
        annotated["persons"][2]["tracking_paths"].append(
            {**original, "track_id": "other-track", "track": change(original["track"])})
    return clip(0, plant)


def past_the_end(stored: list[dict[str, Any]]) -> None:
    stored += [{**stored[-1], "frame": frame} for frame in (21, 22, 30)]


def crop(change: Callable[[Path], object]) -> Plant:
    return lambda world: change(world / "videos_challenge" / TEST / TEST_TRACK / CROP)


def priors(change: Callable[[dict[str, np.ndarray]], object]) -> Plant:
    """Changes the priors of val; their row 5 is frame 5 of VAL_TRACK."""
    def plant(world: Path) -> None:
        path = world / "priors" / "val.npz"
        with np.load(path) as stored:
            table = dict(stored)
        change(table)
        np.savez(path, **table)                                        # type: ignore[arg-type]
    return plant


def put(name: str, at: Any, value: Any) -> Plant:
    return priors(lambda table: table[name].__setitem__(at, value))


AT_TRACK = {"clip": FIRST, "track": TRACK}
AT_CROP = {"clip": TEST, "track": TEST_TRACK, "frame": 16}
AT_PRIOR = {"file": "priors/val.npz", "clip": VAL, "track": VAL_TRACK, "frame": 5}
SECOND_AT = {"clip": SECOND}
VAL_JSON = "json/av_val.json"
FAULTS: list[tuple[str, str, int, Plant, dict[str, Any]]] = [        # kind, part, count, plant, place
    ("pictures_missing", "video", 1, video(Path.unlink), SECOND_AT),
    ("pictures_damaged", "video", 1, video(lambda path: path.write_text("not found\n" * 100)),
     {**SECOND_AT, "detail": "not an mp4, mov, mkv or avi file (its first bytes are b'not foun')"}),
    ("pictures_damaged", "video", 1, video(link),
     {**SECOND_AT, "detail": "is a link -> link the folder instead, or put the file there"}),
    ("pictures_damaged", "video", 1,                  # mp4 keeps its table of frames at the end
     video(lambda path: path.write_bytes(path.read_bytes()[:9000])), SECOND_AT),
    ("pictures_damaged", "video cut short", 1, video(cut_short),
     {**SECOND_AT, "detail": "the file holds 10 of 21 frames"}),
    ("video_differs", "too short", 1, video(lambda path: write_video(path, 15)),
     {**SECOND_AT, "detail": "15 of 21 frames"}),
    ("video_differs", "frame rate", 1, video(lambda path: fast_start(path, 21, rate=25)),
     {**SECOND_AT, "detail": "25.000 frames per second"}),
    ("face_without_picture", "past the end", 3, records(past_the_end, of_clip=1),
     {**SECOND_AT, "track": "vahrgg-track", "frame": 21, "detail": "the video has 21 frames"}),
    ("clip_unused", "has pictures", 1,
     video(lambda path: shutil.copy(path, path.with_name("left-over.mp4"))), {"clip": "left-over"}),
    ("clip_unused", "annotated", 1, lists("train", lambda old: old.replace(THIRD, "")),
     {"clip": THIRD, "file": "json/av_train.json"}),
    *[("file_unusable", "split list", 1, lists("val", change), {"file": "split/val.list"})
      for change in (lambda old: old + "../me", lambda old: old * 2, lambda old: "\n")],
    ("clip_in_two_splits", "", 1, lists("val", lambda old: old + FIRST), {"clip": FIRST, "detail": "train and val"}),
    ("clip_in_two_splits", "", 1, move(f"videos_challenge/{TEST}", FIRST), {"clip": FIRST, "detail": "train and test"}),
    ("list_differs", "listed, but not annotated in this split", 1, lists("train", lambda old: old + "nobody-saw-me"),
     {"split": "train", "clip": "nobody-saw-me"}),
    ("list_differs", "listed, but not annotated in this split", 1,
     both(lists("train", lambda old: old.replace(THIRD, "")), lists("val", lambda old: old + THIRD)),
     {"split": "val", "clip": THIRD, "detail": "annotated in av_train.json"}),
    ("list_differs", "listed, but no crops", 1, lists("test", lambda old: "somebody-else"), {"clip": "somebody-else"}),
    ("list_differs", "crops, but not listed", 1, lists("test", lambda old: "somebody-else"), {"clip": TEST}),
    ("file_unusable", "annotation file", 1, text(VAL_JSON, lambda old: old[:-40]), {"split": "val", "file": VAL_JSON}),
    ("file_unusable", "annotation file", 1, text(VAL_JSON, lambda old: "[]"),
     {"split": "val", "detail": "wanted a JSON object, got a list -> download or make it again"}),
    ("file_missing", "annotation file", 1, remove(VAL_JSON), {"split": "val", "file": VAL_JSON}),
    ("name_twice", "clip", 1, clips(lambda each: each[1].update(clip_uid=FIRST)), {"clip": FIRST}),
    ("name_twice", "track", 1, track_fields(2, track_id=TRACK), AT_TRACK),
    ("name_unusable", "clip_uid", 1, clip(2, lambda annotated: annotated.update(clip_uid=None)), {"split": "train"}),
    ("name_unusable", "track_id", 1, track_fields(2, track_id="../azhxed"), {"clip": FIRST, "track": "../azhxed"}),
    ("clip_without_segments", "", 1, segments(None), SECOND_AT),
    ("clip_without_segments", "", 1, segments({"a": 1}), SECOND_AT),
    ("clip_without_segments", "", 1, clip(1, lambda annotated: annotated.pop("social_segments_looking")), SECOND_AT),
    ("label_without_face", "segment that ends before it starts", 1, segment(end_frame=3), SECOND_AT),
    ("label_without_face", "segment of a person without a track", 1, new_segment("77", 2, 8),
     {"clip": FIRST, "frame": 2, "detail": "person 77, frames 2..8"}),
    ("label_unreadable", "", 1, segment(start_frame=1.5), SECOND_AT),
    *[("label_without_face", "person without an id who has tracks", 1, person(person_id=name), {"clip": FIRST})
      for name in (None, "")],
    ("segment_without_face", "", 1, new_segment("1", 11, 15),
     {"clip": FIRST, "frame": 11, "detail": "person 1, frames 11..15"}),
    ("segment_not_at_me", "", 1, segment(is_at_me=False), SECOND_AT),
    ("clip_invalid", "", 1, clip(1, lambda annotated: annotated.update(valid=False)), SECOND_AT),
    ("split_unusable", "one label", 1,
     clips(lambda each: [annotated.update(social_segments_looking=[]) for annotated in each], "val"),
     {"split": "val", "detail": "all 98 faces are not looking"}),
    ("split_unusable", "no usable face", 1,
     clips(lambda each: [annotated.update(persons=[]) for annotated in each], "val"), {"split": "val"}),
    ("same_face", "", 1, another_track(list),
     {"clip": FIRST, "track": f"{TRACK} and other-track", "frame": 0,
      "detail": "persons 1 and 2, 10 frames, mean IoU 1.00"}),
    ("same_face", "", 1, another_track(lambda stored: [{**entry, "x": entry["x"] + 5} for entry in stored[2:8]]),
     {"clip": FIRST, "track": f"{TRACK} and other-track", "frame": 2}),
    ("record_contradicts", "", 1, records(lambda stored: stored.append({**stored[4], "x": 90})),
     {**AT_TRACK, "frame": 4}),
    ("track_unordered", "", 1, records(list.reverse), {**AT_TRACK, "frame": 8}),
    ("not_objects", "entry of `track`", 3, records(lambda stored: stored.extend(["a", None, 3])), AT_TRACK),
    ("not_objects", "`videos` is null", 1, document(lambda content: content.update(videos=None)), {"split": "train"}),
    ("not_objects", "`clips` is null", 1, document(lambda content: content["videos"][1].update(clips=None)),
     {"split": "train"}),
    ("not_objects", "`persons` is missing", 1, clip(0, lambda annotated: annotated.pop("persons")), {"clip": FIRST}),
    ("not_objects", "`tracking_paths` is null", 1, person(tracking_paths=None),
     {"clip": FIRST, "detail": "person 1"}),
    ("not_objects", "`track` is null", 1, track_fields(track=None), AT_TRACK),
    ("not_objects", "`unmapped_frames` is null", 1, track_fields(unmapped_frames=None), AT_TRACK),
    ("not_objects", "`social_segments_looking` is not a list", 1, segments("frames 3 to 9"), SECOND_AT),
    ("crop_damaged", "", 1, crop(lambda path: path.write_bytes(path.read_bytes()[:-30])),
     {**AT_CROP, "detail": f"{TEST_TRACK}/{CROP}: not a JPEG: it has no end, so it was cut short -> download it "
                           "again"}),
    ("crop_damaged", "", 1, crop(lambda path: path.write_bytes(b"\0" * 200)), AT_CROP),
    ("face_twice", "crop", 1, crop(lambda path: shutil.copy(path, path.with_name(f"00099_{CROP[6:]}"))),
     {**AT_CROP, "frame": 99}),
    ("name_unusable", "crop", 1, crop(lambda path: path.rename(path.with_name("what is this.jpg"))),
     {"track": TEST_TRACK, "detail": "what is this.jpg"}),
    ("name_unusable", "folder of a track", 1, crop(lambda path: path.parent.rename(path.parents[1] / "a track")),
     {"clip": TEST, "track": "a track"}),
    ("name_unusable", "folder of a video", 1, lambda world: (world / "videos_challenge" / "a video").mkdir(),
     {"split": "test", "detail": "a video"}),
    ("crop_unusual", "no frame number", 1, crop(lambda path: path.rename(path.with_name(CROP[6:]))),
     {"track": TEST_TRACK, "detail": CROP[6:]}),
    ("crop_unusual", "size", 1, crop(lambda path: path.write_bytes(encode(np.zeros((100, 90, 3), np.uint8)))),
     {**AT_CROP, "detail": f"{CROP}, 90 x 100"}),
    ("split_absent", "test crops", 1, remove("videos_challenge"), {"split": "test"}),
    ("prior_out_of_range", "head_pose: an angle beyond 99 degrees", 1, put("head_pose", 5, 123.0), AT_PRIOR),
    ("prior_out_of_range", "landmarks: a place far outside the crop", 1, put("landmarks", (5, 2, 0), 9.0), AT_PRIOR),
    ("prior_out_of_range", "landmarks: a confidence outside 0..1", 1, put("landmarks", (5, 2, 2), 1.5), AT_PRIOR),
    ("prior_without_face", "no face in that frame", 1, put("frame", 5, 777), {**AT_PRIOR, "frame": 777}),
    ("prior_without_face", "no such track", 1, put("track", 5, "nobody"), {**AT_PRIOR, "track": "nobody"}),
    ("prior_without_face", "no such clip in this split", 1, put("clip", 5, "nowhere"), {**AT_PRIOR, "clip": "nowhere"}),
    ("face_twice", "row of a table", 1, put("frame", 6, 5), AT_PRIOR),
    ("file_unusable", "table of priors", 1, priors(lambda table: table.update(head_pose=table["head_pose"][:, :2])),
     {"file": "priors/val.npz", "detail": "head_pose has shape (98, 2), wanted (98, 3)"}),
    ("file_unusable", "table of priors", 1, priors(lambda table: table.pop("frame")),
     {"file": "priors/val.npz", "detail": "lacks frame"}),
    ("file_unusable", "table of priors", 1, lambda world: (world / "priors" / "val.npz").write_bytes(b"PK\3\4"),
     {"file": "priors/val.npz"}),
    ("priors_absent", "", 1, remove("priors/val.npz"), {"file": "priors/val.npz"}),
    ("priors_absent", "", 3, remove("priors"), {"file": "priors/train.npz"}),
    ("file_unusable", "prepared folder", 1, text("prepared/clean-64/val/index.json", lambda old: "{}"),
     {"file": "prepared/clean-64/val"})]
# kinds with a test of their own, in test_doctor_facts.py, test_doctor_inputs.py or test_sources.py
ELSEWHERE = {"nothing_here", "split_unlabelled", "prepared_stale", "convention", "convention_unjudged",
             "rate_differs", "list_absent"}


@pytest.mark.parametrize("kind, what, count, plant, place", FAULTS, ids=[f"{kind}-{what}" for kind, what, *_ in FAULTS])
def test_a_planted_fault_is_named_with_count_and_place(world, sound, kind, what, count, plant, place):
    assert kind not in sound["findings"]
    plant(world)
    facts = examine(world)
    finding = facts["findings"][kind]
    assert finding["parts"][what] == count and finding["count"] == sum(finding["parts"].values())
    assert any(example["what"] == what and place.items() <= example.items() for example in finding["examples"]), finding
    if KINDS[kind].listing and finding["count"] == 1:
        assert finding["clips"] == [place["clip"]]
    report = as_text(facts)
    assert f"{finding['count']:>8,}  {KINDS[kind].title}\n" in report
    for name in {"clip", "track", "frame", "detail"} & set(place):
        assert (place[name] if name == "detail" else f"{name} {place[name]}") in report
    assert what in report
    steps = [step for step in facts["remedies"] if step["finding"] == kind]
    assert [step["level"] for step in steps] == ([finding["level"]] if finding["level"] != "note" else [])
    assert not (finding["level"] == "must" and facts["healthy"])


def test_every_kind_of_finding_has_a_fault_that_shows_it():
    assert {kind for kind, *_ in FAULTS} | ELSEWHERE == set(KINDS)


def test_missing_priors_are_worth_a_look_where_another_split_has_them(world):
    remove("priors/val.npz")(world)
    assert examine(world)["findings"]["priors_absent"]["level"] == "look"
    remove("priors")(world)
    assert examine(world)["findings"]["priors_absent"]["level"] == "note"


RULES: list[tuple[Plant, str, str, tuple[int, int], int | None]] = [     # plant, its clip, rule, counts, a frame
    (records(lambda stored: stored.__delitem__(slice(3, 5))), FIRST, "gap: frames filled", (2, 2), 3),
    (record(-1, frame=40), FIRST, "gap: track split", (0, 1), 8),
    (track_fields(unmapped_frames=[4]), FIRST, "gap: track split", (0, 1), 3),
    (record(6, x=NAN), FIRST, "record dropped: not a finite number", (1, 1), 6),
    (record(6, width=0), FIRST, "record dropped: width or height not positive", (1, 1), 6),
    (record(6, width=-45.4), FIRST, "record dropped: width or height not positive", (1, 1), 6),
    (record(6, frame=-2), FIRST, "record dropped: frame number not whole, negative or absurd", (1, 1), -2),
    (record(6, x=-500), FIRST, "record dropped: outside the picture", (0, 1), 6),
    (record(6, x=5000), FIRST, "row left out: outside the picture", (0, 1), 6),
    (record(6, x=5000), FIRST, "crop black: outside the picture", (1, 0), 6),
    (record(6, x=-5), FIRST, "box moved: x or y negative", (1, 0), 6),
    (record(6, x=-5), FIRST, "box cut: x or y negative", (0, 1), 6),
    (records(lambda stored: stored.append(stored[6])), FIRST, "record dropped: frame number repeated", (0, 1), 6),
    (records(lambda stored: stored.extend([stored[4], stored[4], stored[5]])), FIRST,
     "record dropped: frame number repeated", (0, 3), 4),
    (records(lambda stored: stored[6].pop("width")), FIRST, "record malformed: a number missing or not a number",
     (1, 1), None),
    (records(lambda stored: stored.append({**stored[-1], "frame": 30})), FIRST,
     "row left out: past the end of the video", (9, 1), None),
    (track_fields(unmapped_frames=[3, 4, 50]), FIRST, "record dropped: unmapped frame", (0, 2), 3),
    (track_fields(suspect=True), FIRST, "track dropped: suspect", (0, 1), None),
    (track_fields(track=[]), FIRST, "track dropped: no usable record", (1, 1), None),
    (person(person_id=""), FIRST, "record dropped: person id empty", (10, 10), 0),
    (segments([]), SECOND, "clip left out: empty list of looking segments", (1, 0), None),
    (segment(person=None), SECOND, "segment dropped: no person", (1, 1), None),
    (segment(start_frame=1.5), SECOND, "segment dropped: start or end is not a whole number, so faces in it are "
     "unknown", (1, 1), None)]


@pytest.mark.parametrize("plant, where, rule, counts, frame", RULES, ids=[rule for _, _, rule, *_ in RULES])
def test_what_a_rule_touched_is_counted_per_policy_with_an_example(world, sound, plant, where, rule, counts, frame):
    plant(world)
    facts = examine(world)
    for policy, count in zip(("baseline", "clean"), counts, strict=True):
        entry = facts["splits"]["train"]["policies"][policy]["rules"].get(rule, {"count": 0, "examples": []})
        before = sound["splits"]["train"]["policies"][policy]["rules"].get(rule, {"count": 0})
        assert entry["count"] == count != before["count"] or count == before["count"] == 0
        if count:
            assert any(example["clip"] == where and (frame is None or example.get("frame") == frame)
                       for example in entry["examples"]), entry
    line = next(line for line in as_text(facts).splitlines() if line.startswith(f"  {rule} "))
    assert line.removeprefix(f"  {rule}").split()[:2] == [f"{count}" if count else "-" for count in counts]
