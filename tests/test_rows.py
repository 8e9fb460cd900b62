"""Ego4D from raw to rows: every source that holds the same gives the same rows, and every rule does what it says."""

import json
import shutil
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from making import prepare
from test_prepare import HEIGHT, WIDTH, barcode, data_set, number_in, quiet, write_video

from gazepose.compat.folders import read_original
from gazepose.config import InferConfig, parse, parse_train
from gazepose.data.annotations import policy_named, read_clips
from gazepose.data.index import COLUMNS, TABLES, Index
from gazepose.data.prepare import PrepareConfig
from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES, Policy
from gazepose.data.windows import WindowRule, centre_rows, window_rows

CLEAN, BASELINE = POLICIES["clean"], POLICIES["baseline"]


def opened(root: Path, split: str = "train", **settings: Any) -> Index:
    return Index.open(prepare(root, split, jobs=1, notify=quiet, **{"crop_size": 32, **settings}))


def same(one: Index, other: Index) -> None:
    """Every column, every name and every byte of the crops."""
    for name in (*COLUMNS, *TABLES):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.clips, one.track_name) == (other.clips, other.track_name)
    assert [one.jpeg(row) for row in range(len(one))] == [other.jpeg(row) for row in range(len(other))]
    assert one.facts["fingerprint"] == other.facts["fingerprint"]


def faces(index: Index) -> dict[tuple[str, str, int], int]:
    """(clip, track, frame) -> row."""
    track = index.track_of(np.arange(len(index))).tolist()
    return {(index.clips[index.track_clip[t]], index.track_name[t], frame): row
            for row, (t, frame) in enumerate(zip(track, index.frame.tolist(), strict=True))}


# What the original scripts left

@pytest.fixture(scope="module")
def golden_videos(parity, tmp_path_factory) -> Path:
    """A small video for each clip of the golden annotations, long and large enough for its boxes."""
    folder = tmp_path_factory.mktemp("golden") / "videos"
    folder.mkdir()
    samples = json.loads((parity / "annotations/expected/samples.json").read_text())["samples"]
    across, down = np.mgrid[0:808:8, 0:968:8]
    black = np.zeros((808, 968), np.uint8)
    for uid in {sample[0] for sample in samples}:
        with av.open(str(folder / f"{uid}.mp4"), "w") as container:
            stream: Any = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt, stream.options = 968, 808, "yuv420p", {"preset": "ultrafast"}
            shown = {sample[2] - 1 for sample in samples if sample[0] == uid}
            for number in range(1 + max(shown)):                       # black where no face is, to be quick
                grey = black
                if number in shown:
                    grey = ((across + down) // 8 * 3 + number * 5).astype(np.uint8).repeat(8, 0).repeat(8, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
            container.mux(stream.encode())
    return folder


def golden_root(root: Path, parity: Path, videos: Path, *sources: str) -> Path:
    """A data set of the golden clips in which only the named annotation sources lie."""
    annotations = parity / "annotations"
    (root / "split").mkdir(parents=True)
    (root / "videos").symlink_to(videos)
    documents = {split: json.loads((annotations / f"av_{split}.json").read_text()) for split in ("train", "val")}
    for split, document in documents.items():
        uids = [clip["clip_uid"] for video in document["videos"] for clip in video["clips"]]
        (root / "split" / f"{split}.list").write_text("\n".join(uids))
    for source in sources:
        if source == "json":
            (root / "json").mkdir()
            for split in documents:
                shutil.copy(annotations / f"av_{split}.json", root / "json")
        elif source == "merged":
            (root / "json").mkdir()
            merged = {**documents["train"], "videos": documents["train"]["videos"] + documents["val"]["videos"]}
            (root / "json" / "av.json").write_text(json.dumps(merged))
        else:
            shutil.copytree(annotations / "expected" / source, root / source, copy_function=shutil.copyfile)
            (root / source).chmod(0o755)
            for path in (root / source).rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_original_scripts_folders_give_the_index_of_the_official_json(parity, golden_videos, tmp_path, split):
    official = golden_root(tmp_path / "official", parity, golden_videos, "json")
    merged = golden_root(tmp_path / "merged", parity, golden_videos, "merged")
    original = golden_root(tmp_path / "original", parity, golden_videos, "json_original", "result_LAM")
    index = opened(official, split, policy="baseline")
    same(index, opened(original, split, policy="baseline"))
    same(index, opened(merged, split, policy="baseline"))
    samples = json.loads((parity / "annotations/expected/samples.json").read_text())["samples"]
    mine = [sample for sample in samples if sample[0] in (official / "split" / f"{split}.list").read_text()]
    found = faces(index)
    assert found.keys() == {tuple(sample[:3]) for sample in mine} and len(index) == len(mine) > 0
    for clip, track, frame, box, label in mine:
        row = found[clip, track, frame]
        np.testing.assert_array_equal(index.box[row], np.float32(box))
        assert index.label[row] == label


def test_a_second_run_of_the_original_scripts_changes_nothing_but_a_count(parity, golden_videos, tmp_path):
    root = golden_root(tmp_path, parity, golden_videos, "json_original", "result_LAM")
    uids = sorted(path.stem for path in (root / "result_LAM").glob("*.json"))

    def read() -> tuple[list, int]:
        clips = read_original(root / "json_original", root / "result_LAM", uids, BASELINE)
        rows = [(t.track, t.frames.tolist(), t.boxes.tolist(), t.labels.tolist()) for c in clips for t in c.tracks]
        return rows, sum(c.counts["file written more than once by the original scripts: read once"] for c in clips)

    once, _ = read()
    for path in [*(root / "json_original").glob("*/*.json"), *(root / "result_LAM").glob("*.json")]:
        path.write_text(path.read_text() * 2)
    twice, touched = read()
    assert once == twice and len(once) == 6 and touched == 6 + len(uids)


def original(root: Path, tracks: dict[str, Any], result: Any) -> Path:
    """The folders of one clip c; text is written as it is."""
    (root / "json_original" / "c").mkdir(parents=True)
    (root / "result_LAM").mkdir()
    for name, content in {**{f"json_original/c/{track}": value for track, value in tracks.items()},
                          "result_LAM/c": result}.items():
        if content is not None:
            (root / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def record(frame: int, person: str | None = "1", x: float = 5) -> dict[str, Any]:
    return {"clip_uid": "c", "frameNumber": frame, "Person ID": person, "x": x, "y": 5, "width": 20, "height": 20}


LOOKING = [{"label": "1", "start_frame": 2, "end_frame": 2}]


def read_one(root: Path, policy: Policy = BASELINE) -> tuple[dict[str, list[int]], dict[str, int]]:
    (clip,) = read_original(root / "json_original", root / "result_LAM", ["c"], policy)
    return {track.track: track.labels.tolist() for track in clip.tracks}, dict(+clip.counts)


def test_a_track_written_behind_another_of_its_name_is_left_out_as_from_the_official_json(tmp_path):
    first, second = json.dumps([record(1), record(2)]), json.dumps([record(7)])
    assert read_one(original(tmp_path, {"t": f"{first}\n{second}"}, LOOKING)) == (
        {"t": [0, 1]}, {"track dropped: its id occurred before in the clip": 1})


def test_a_clip_without_a_result_or_without_tracks_is_left_out_and_counted(tmp_path):
    assert read_one(original(tmp_path / "a", {"t": [record(1)]}, None)) == (
        {}, {"clip left out: no list of looking segments": 1})
    root = original(tmp_path / "b", {}, LOOKING)
    (root / "json_original" / "c").rmdir()
    assert read_one(root) == ({}, {"clip left out: not annotated": 1})


def test_an_empty_result_is_all_negative_under_both_policies(tmp_path):
    root = original(tmp_path, {"t": [record(1), record(2)]}, [])     # written when nobody's name was known
    for policy in (BASELINE, CLEAN):
        assert read_one(root, policy)[0] == {"t": [0, 0]}


def test_what_the_original_scripts_lost_cannot_be_asked_for(tmp_path):
    root = original(tmp_path, {"t": [record(1, None), record(2)]}, LOOKING)
    assert read_one(root)[1]["record dropped: person id empty"] == 1
    with pytest.raises(ValueError, match=r"result_LAM: the original scripts left out is_at_me -> leave --at_me_only"):
        read_one(root, policy_named("clean", ["at_me_only=True"]))
    shutil.rmtree(root / "result_LAM")
    with pytest.raises(FileNotFoundError, match=r"result_LAM: no such folder, so .*json_original has no labels"):
        read_one(root)


@pytest.mark.parametrize(("tracks", "result", "message"), [
    ({"t": '[{"frameNumber": 1'}, LOOKING, r"t\.json: not readable JSON: .* -> delete the file and run the original"),
    ({"t": ""}, LOOKING, r"t\.json: not readable JSON"),
    ({"t": [record(1)]}, json.dumps(LOOKING) + "[]", r"c\.json: holds 2 different lists -> delete the file")])
def test_a_damaged_file_of_the_original_scripts_is_named(tmp_path, tracks, result, message):
    with pytest.raises(ValueError, match=message):
        read_one(original(tmp_path, tracks, result))


# Pictures and faces that others cut

def extract(root: Path, uid: str = "c", frames: int = 40) -> None:
    """video_imgs/ as the original scripts write it: numbered from 1."""
    folder = root / "video_imgs" / uid
    folder.mkdir(parents=True)
    for number in range(frames):
        (folder / f"img_{number + 1:05d}.jpg").write_bytes(encode(barcode(number)))


@pytest.mark.parametrize("policy", POLICIES)
def test_extracted_pictures_mean_the_frames_of_the_video(tmp_path, policy):
    root = data_set(tmp_path, {"c": [("t", [2, 3, 5]), ("u", [38, 39, 40, 41, 42])]})
    video = opened(root, policy=policy)
    extract(root)
    images = opened(root, policy=policy, crops_from="images")
    assert images.folder == root / "prepared" / f"{policy}-32-images" / "train"
    assert images.facts["crops_from"] == "images" and images.facts["decoder"] is None
    assert [number_in(images.crop(row)) for row in range(len(images))] == [
        number_in(video.crop(row)) for row in range(len(video))]
    for name in ("frame", "box", "label", "track_start"):
        np.testing.assert_array_equal(getattr(images, name), getattr(video, name))
    past = video.facts["counts"]["row left out: past the end of the video"]
    assert images.facts["counts"]["row left out: no extracted picture"] == past == (3 if policy == "clean" else 2)


def face_folder(root: Path, index: Index, missing: Collection[tuple[str, int]] = (), shift: int = 0) -> Path:
    """face_imgs/ of an index's crops but the missing ones of (track, frame)."""
    for (clip, track, frame), row in faces(index).items():
        if (track, frame) not in missing:
            path = root / "face_imgs" / clip / track / f"face_{frame + shift:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(index.jpeg(row))
    return root


def test_face_folders_give_the_rows_labels_windows_and_bytes_of_the_video(tmp_path):
    root = data_set(tmp_path / "videos", {"c": [("t", [2, 3, 5, 6]), ("u", [9])], "d": [("t", [1])]})
    video = opened(root, policy="baseline", crop_size=224)
    other = data_set(tmp_path / "faces", {"c": [("t", [2, 3, 5, 6]), ("u", [9])], "d": [("t", [1])]}, videos=False)
    index = opened(face_folder(other, video), policy="baseline", crop_size=224)           # no videos: taken by default
    assert index.folder.parent.name == "baseline-224-faces" and index.facts["crops_from"] == "faces"
    for name in [name for name in COLUMNS if name not in ("position", "unique_id", "quality")]:
        np.testing.assert_array_equal(getattr(index, name), getattr(video, name), err_msg=name)
    np.testing.assert_allclose(index.quality, video.quality, rtol=1e-3)                   # of the JPEG, not of the cut
    assert [index.jpeg(row) for row in range(len(index))] == [video.jpeg(row) for row in range(len(video))]
    rule, rows = WindowRule(), np.arange(len(index))
    np.testing.assert_array_equal(window_rows(index, rule, rows), window_rows(video, rule, rows))


def test_a_face_without_an_image_counts_for_strides_and_is_missing_in_windows(tmp_path):
    root = data_set(tmp_path / "videos", {"c": [("t", list(range(1, 11)))]})
    video = opened(root, policy="baseline", crop_size=224)
    other = data_set(tmp_path / "faces", {"c": [("t", list(range(1, 11)))]}, videos=False)
    index = opened(face_folder(other, video, {("t", 4), ("t", 6)}), policy="baseline", crop_size=224)
    assert index.facts["counts"]["row left out: no face image"] == 2
    assert index.frame.tolist() == [1, 2, 3, 5, 7, 8, 9, 10]
    # positions 0, 3, 6, 9 are frames 1, 4, 7, 10; frame 4 is skipped and no other takes its place
    assert index.frame[centre_rows(index, 3)].tolist() == [1, 7, 10]
    row = faces(index)["c", "t", 5]
    assert index.frame[window_rows(index, WindowRule(), np.array([row]))].tolist() == [[2, 2, 3, 5, 7, 8, 8]]


def test_the_published_loader_shows_the_same_windows_of_a_face_folder(parity, tmp_path):
    recorded = json.loads((parity / "loader.json").read_text())["train_val"]
    given = recorded["given"]
    for name, track in given["tracks"].items():
        clip, uid = name.split("/")
        (tmp_path / "json_original" / clip).mkdir(parents=True, exist_ok=True)
        (tmp_path / "json_original" / clip / f"{uid}.json").write_text(json.dumps(track))
        folder = tmp_path / "face_imgs" / clip / uid
        folder.mkdir(parents=True)
        for number in given["faces"][name]:
            (folder / f"face_{number:05d}.jpg").write_bytes(encode(np.full((224, 224, 3), number, np.uint8)))
    for folder in ("result_LAM", "split"):
        (tmp_path / folder).mkdir()
    for clip, segments in given["segments"].items():
        (tmp_path / "result_LAM" / f"{clip}.json").write_text(json.dumps(segments))
    (tmp_path / "split" / "val.list").write_text("\n".join(recorded["split_list"]))
    index = opened(tmp_path, "val", policy="baseline", crop_size=224)
    name_of = {row: face for face, row in faces(index).items()}
    compared = 0
    for run in [*recorded["validation_runs"], *recorded["training_runs"]]:
        rows = centre_rows(index, run["stride"])
        if "every_random_draw" in run:                # there a filter file leaves out more
            continue
        samples = [sample if isinstance(sample, list) else [sample[key] for key in ("clip", "track", "frame", "label")]
                   for sample in run["samples"]]
        assert [[*name_of[row], int(index.label[row])] for row in rows.tolist()] == samples
        assert int((index.label[rows] == 1).sum()) == run["positives"]
        if run["stride"] == 1 and not run["quality_drop"]:
            shown = index.frame[window_rows(index, WindowRule(), rows)]
            assert shown.tolist() == [sample["slots"] for sample in run["samples"]]
            assert [round(index.crop(row).mean()) for row in rows.tolist()] == index.frame[rows].tolist()
            compared += len(rows)
    assert compared == 56


def test_faces_are_numbered_as_pictures_so_clean_reads_one_image_later(tmp_path):
    root = data_set(tmp_path / "videos", {"c": [("t", [0, 1, 2])]})
    other = data_set(tmp_path / "faces", {"c": [("t", [0, 1, 2])]}, videos=False)
    index = opened(face_folder(other, opened(root, crop_size=224), shift=1), crop_size=64)
    assert index.frame.tolist() == [0, 1, 2] and [number_in(index.crop(row)) for row in range(3)] == [0, 1, 2]
    assert index.crop(0).shape == (64, 64, 3)


def test_what_is_there_is_used_unless_a_flag_says_otherwise(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [2, 3])]})
    video = opened(root, policy="baseline", crop_size=224)
    face_folder(root, video)
    extract(root)
    for asked, made in [(None, "videos"), ("faces", "faces"), ("images", "images"), ("videos", "videos")]:
        assert opened(root, policy="baseline", crops_from=asked).facts["crops_from"] == made
    shutil.rmtree(root / "videos")
    assert opened(root, policy="baseline").facts["crops_from"] == "videos"                # prepared before they went
    assert opened(root, policy="baseline", crop_size=48).facts["crops_from"] == "images"
    with pytest.raises(ValueError, match="crops_from 'sound' is unknown -> use videos, images, faces"):
        opened(root, crops_from="sound")
    with pytest.raises(ValueError, match="box_scale 2.0: ready-made faces cannot be cut anew"):
        opened(root, crops_from="faces", rules={"box_scale": 2.0})


@pytest.mark.parametrize(("source", "reason"), [("images", r"video_imgs.c: no such folder of images"),
                                                ("faces", r"face_imgs.c: no such folder of images")])
def test_a_clip_without_its_folder_cannot_be_used(tmp_path, source, reason):
    root = data_set(tmp_path, {"c": [("t", [2, 3])]}, videos=False)
    with pytest.raises(ValueError, match=rf"(?s)1 of 1 clips cannot be used.*{reason}"):
        opened(root, crops_from=source)


def test_a_damaged_face_is_named(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [2])]}, videos=False)
    path = root / "face_imgs" / "c" / "t" / "face_00003.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ValueError, match=r"face_00003\.jpg: not a JPEG.*-> download or make it again"):
        opened(root)


def test_faces_that_came_after_an_interruption_are_read(tmp_path, monkeypatch):
    from gazepose.data import prepare as door
    root = data_set(tmp_path / "videos", {"c": [("t", [1, 2, 3])]})
    video = opened(root, policy="baseline", crop_size=224)
    other = face_folder(data_set(tmp_path / "faces", {"c": [("t", [1, 2, 3])]}, videos=False), video, {("t", 2)})
    monkeypatch.setattr(door, "merge", None)
    with pytest.raises(TypeError):
        opened(other, policy="baseline")                                                  # stopped before the index
    monkeypatch.undo()
    assert opened(face_folder(other, video), policy="baseline").frame.tolist() == [1, 2, 3]


# The embedded world, counted by hand

def golden_rows(document: dict, uids: list[str]) -> dict[tuple[str, str, int], int]:
    """(clip, track, frame) -> label by the published rules, written plainly."""
    rows = {}
    for annotated in (clip for video in document["videos"] for clip in video["clips"]):
        if annotated["clip_uid"] not in uids or not annotated["social_segments_looking"]:
            continue
        looking = [(s["person"], s["start_frame"], s["end_frame"]) for s in annotated["social_segments_looking"]
                   if s["person"] is not None]
        for person in annotated["persons"][1:]:                        # the first of the list is the wearer
            for path in person["tracking_paths"]:
                kept = [r["frame"] for r in path["track"]
                        if r["width"] > 0 and r["height"] > 0 and r["frame"] != 0 and person["person_id"] != ""]
                for frame in range(min(kept), max(kept) + 1) if kept else ():             # gaps are filled
                    label = any(who == person["person_id"] and start <= frame <= end for who, start, end in looking)
                    rows[annotated["clip_uid"], path["track_id"], frame] = int(label)
    return rows


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_embedded_world_has_the_rows_and_labels_of_the_published_rules(tiny_world, tmp_path, split):
    for folder in ("json", "split", "videos"):
        (tmp_path / folder).symlink_to(tiny_world / folder)
    index = opened(tmp_path, split, policy="baseline")
    document = json.loads((tiny_world / "json" / f"av_{split}.json").read_text())
    counted = golden_rows(document, (tiny_world / "split" / f"{split}.list").read_text().split())
    assert {face: int(index.label[row]) for face, row in faces(index).items()} == counted
    assert len(index) == len(counted) > 0 and 0 < sum(counted.values()) < len(counted)


# Every rule

def rules_root(root: Path) -> Path:
    """Two clips in which every rule of a policy has something to do under `clean`."""
    whole = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}

    def track(name: str, *frames: int, box: dict[str, int] = whole, **facts: Any) -> dict[str, Any]:
        return {"track_id": name, "track": [{**box, "frame": frame} for frame in frames], **facts}

    stripe = {"x": 4 * WIDTH // 8, "y": 32, "width": WIDTH // 8, "height": 64}             # bit 4 of the frame number
    persons = [
        {"person_id": "9", "tracking_paths": [track("first", 2, 3)]},
        {"person_id": "0", "camera_wearer": True, "tracking_paths": [track("wearer", 2, 3)]},
        {"person_id": "1", "tracking_paths": [
            track("plain", 0, 1, 2, 3, 4, 5), track("gap", 1, 20), track("twice", 4, 5, 5, 6),
            track("suspect", 6, 7, suspect=True), track("unmapped", 7, 8, 9, 10, unmapped_frames=[9]),
            track("edge", 8, box={**whole, "x": -40, "width": 200}),
            track("outside", 8, box={**whole, "x": -90, "width": 50}), track("stripe", 16, box=stripe)]}]
    looking = [{"person": "1", "start_frame": 1, "end_frame": 3, "is_at_me": True},
               {"person": "1", "start_frame": 4, "end_frame": 5, "is_at_me": False}]
    clips = [{"clip_uid": "c", "persons": persons, "social_segments_looking": looking},
             {"clip_uid": "empty", "social_segments_looking": [],
              "persons": [persons[1] | {"tracking_paths": []}, {"person_id": "2", "tracking_paths": [track("e", 1)]}]}]
    for folder in ("json", "split"):
        (root / folder).mkdir(parents=True)
    (root / "json" / "av_train.json").write_text(json.dumps({"videos": [{"clips": clips}]}))
    (root / "split" / "train.list").write_text("c\nempty")
    for clip in ("c", "empty"):
        write_video(root / "videos" / f"{clip}.mp4", 30)
    return root


def seen(index: Index) -> dict[str, tuple]:
    """"track frame" (with a prime where it occurs again) -> label, box, picture or brightness."""
    view: dict[str, tuple] = {}
    for row in range(len(index)):
        name = f"{index.track_name[int(index.track_of(row))]} {index.frame[row]}"
        crop = index.crop(row)
        picture = round(crop.mean() / 16) if name.startswith(("stripe", "outside", "edge")) else number_in(crop)
        view[name + "'" * (name in view)] = (int(index.label[row]), index.box[row].tolist(), picture)
    return view


def fields_changed(before: dict[str, tuple], after: dict[str, tuple]) -> dict[str, tuple]:
    """face -> what differs: None for what was not or is no more there."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name: (before.get(name), after.get(name)) for name in names}


WHOLE = [0, 0, WIDTH, HEIGHT]


def gone(*names: str):
    return lambda changed: changed.keys() == set(names) and all(after is None for _, after in changed.values())


def came(*names: str):
    return lambda changed: changed.keys() == set(names) and all(before is None for before, _ in changed.values())


def relabelled(label: int, *names: str):
    return lambda changed: changed.keys() == set(names) and all(
        before[0] == 1 - label and after[0] == label and before[1:] == after[1:] for before, after in changed.values())


EFFECTS: dict[str, tuple[Any, Any]] = {              # rule -> its value, and what exactly it changes
    "drop_frame_zero": (True, gone("plain 0")),
    "drop_outside": (False, lambda changed: changed.keys() == {"outside 8"} and changed["outside 8"][1][2] == 0),
    "negative_corner": ("move", lambda changed: changed.keys() == {"edge 8"}
                        and changed["edge 8"][0][1] == [0, 0, 160, HEIGHT]
                        and changed["edge 8"][1][1] == [0, 0, 200, HEIGHT]),
    "max_gap": (18, came(*(f"gap {n}" for n in range(2, 20)))),
    "keep_repeats": (True, came("twice 5'")),
    "honour_flags": (False, came("suspect 6", "suspect 7", "unmapped 9")),
    "end_inclusive": (True, relabelled(1, "plain 3", "plain 5", "twice 5")),
    "empty_is_negative": (False, gone("e 1")),
    "wearer": ("first", lambda changed: {name: after is not None for name, (_, after) in changed.items()} == {
        "first 2": False, "first 3": False, "wearer 2": True, "wearer 3": True}),
    "first_number": (1, lambda changed: changed.pop("plain 0")[1] is None and changed["plain 4"][0][2] == 4 and all(
        after[:2] == before[:2] and (name.startswith(("stripe", "edge")) or after[2] == before[2] - 1)
        for name, (before, after) in changed.items())),
    "at_me_only": (True, relabelled(0, "plain 4", "twice 4")),
    "box_scale": (3.0, lambda changed: changed["stripe 16"][0][2] >= 14 and 4 <= changed["stripe 16"][1][2] <= 6
                  and changed["stripe 16"][0][1] == changed["stripe 16"][1][1]),
}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory) -> Path:
    return rules_root(tmp_path_factory.mktemp("rules"))


@pytest.mark.parametrize("rule", [rule.name for rule in fields(Policy) if rule.name != "name"])
def test_every_rule_changes_what_it_says_and_nothing_else(ruled, rule):
    assert rule in EFFECTS, f"{rule}: state what it changes"
    value, as_said = EFFECTS[rule]
    flags = [f"--{'' if value else 'no_'}{rule}"] if isinstance(value, bool) else [f"--{rule}", str(value)]
    config, _ = parse_train(flags)
    assert config.prepare.rule == (f"{rule}={value}",)
    index = opened(ruled, rules={rule: value})
    assert index.folder.parent.name == f"clean+{rule}={value}-32"
    assert index.facts["rules"] == {**opened(ruled).facts["rules"], rule: value}
    changed = fields_changed(seen(opened(ruled)), seen(index))
    assert changed and as_said(changed), changed


def test_a_preset_is_its_rules(ruled):
    both = {rule: value for rule, value in vars(BASELINE).items() if rule != "name"}
    same(opened(ruled, policy="baseline"), opened(ruled, policy="clean", rules=both))


def test_a_rule_that_says_what_the_preset_says_makes_no_other_folder(ruled):
    assert opened(ruled, rules={"max_gap": 15, "wearer": "flag"}).folder == opened(ruled).folder
    assert policy_named("clean", ["box_scale=1.5", "max_gap=None"]).name == "clean+max_gap=None+box_scale=1.5"


def test_a_folder_made_under_other_rules_is_refused(ruled, tmp_path):
    for folder in ("json", "split", "videos"):
        (tmp_path / folder).symlink_to(ruled / folder)
    opened(tmp_path)
    contents = tmp_path / "prepared/clean-32/train/index.json"
    contents.write_text(contents.read_text().replace('"max_gap": 15', '"max_gap": 20'))
    with pytest.raises(ValueError, match="was made with max_gap 20, wanted 15 -> delete the folder; it is made again"):
        opened(tmp_path)


@pytest.mark.parametrize(("flags", "message"), [
    (["--max_gap", "-1"], "max_gap -1 -> give 0 or more"), (["--box_scale", "0"], "box_scale 0.0 -> give 0.1 to 10"),
    (["--first_number", "2"], "--rule first_number=2 -> give 0 or 1"),
    (["--wearer", "last"], "--rule wearer=last -> give first or flag"),
    (["--rule", "max_gpa=3"], "no rule 'max_gpa' -> the rules are drop_frame_zero,"),
    (["--rule", "max_gap=few"], "--rule max_gap=few -> give a whole number or None"),
    (["--rule", "drop_outside=maybe"], "-> give True or False"), (["--max_gap"], "--rule max_gap=")])
def test_a_rule_that_cannot_be_is_said_at_once(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_train(flags)
    assert message in " ".join(capsys.readouterr().err.split()) + str(ended.value)


def test_an_unknown_rule_names_the_rules():
    with pytest.raises(ValueError, match="policy clean has no rule 'gap' -> the rules are drop_frame_zero,"):
        policy_named("clean", ["gap=3"])


def test_inference_takes_the_checkpoints_rules_unless_told():
    trained = PrepareConfig(policy="clean", rule=("max_gap=30",), crops_from="faces", max_bad_fraction=0.05)

    def preparation(*flags: str) -> PrepareConfig:
        return parse(InferConfig, list(flags)).preparation(trained)

    assert preparation() == trained
    assert preparation("--end_inclusive").rules.name == "clean+max_gap=30+end_inclusive=True"
    assert preparation("--max_gap", "None").rules.name == "clean+max_gap=None"
    assert preparation("--policy", "baseline", "--no_end_inclusive").rules.name == "baseline+end_inclusive=False"
    assert preparation("--data", "elsewhere").crops_from is None
    assert preparation("--data", "elsewhere", "--crops_from", "images").crops_from == "images"
    assert preparation("--max_bad_fraction", "0").max_bad_fraction == 0


@pytest.mark.parametrize("looking", [None, []])
def test_a_clip_without_segments_has_no_rows_under_baseline_and_null_has_none_at_all(tmp_path, looking):
    root = data_set(tmp_path, {"c": [("t", [1, 2])]}, videos=False)
    path = root / "json" / "av_train.json"
    content = json.loads(path.read_text())
    content["videos"][0]["clips"][0]["social_segments_looking"] = looking
    path.write_text(json.dumps(content))
    rows = {name: sum(len(track.frames) for clip in read_clips(path, ["c"], policy) for track in clip.tracks)
            for name, policy in POLICIES.items()}
    assert rows == {"baseline": 0, "clean": 0 if looking is None else 2}
