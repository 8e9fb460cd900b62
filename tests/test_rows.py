"""Ego4D from raw to rows: every source that holds the same gives the same rows, and every rule does what it says."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from making import barcode, data_set, faces, number_in, prepared_index, same

from gazepose.compat.folders import read_original
from gazepose.data.annotations import policy_named
from gazepose.data.index import COLUMNS, Index
from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES, Policy
from gazepose.data.windows import WindowRule, centre_rows, window_rows

CLEAN, BASELINE = POLICIES["clean"], POLICIES["baseline"]


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
            window_frames = {sample[2] - 1 for sample in samples if sample[0] == uid}
            for number in range(1 + max(window_frames)):                       # black where no face is, to be quick
                grey = black
                if number in window_frames:
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
    index = prepared_index(official, split, policy="baseline")
    same(index, prepared_index(original, split, policy="baseline"))
    same(index, prepared_index(merged, split, policy="baseline"))
    samples = json.loads((parity / "annotations/expected/samples.json").read_text())["samples"]
    mine = [sample for sample in samples if sample[0] in (official / "split" / f"{split}.list").read_text()]
    row_of = faces(index)
    assert row_of.keys() == {tuple(sample[:3]) for sample in mine} and len(index) == len(mine) > 0
    for clip, track, frame, box, label in mine:
        row = row_of[clip, track, frame]
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


def test_rules_on_facts_that_the_original_scripts_lost_are_refused(tmp_path):
    root = original(tmp_path, {"t": [record(1, None), record(2)]}, LOOKING)
    assert read_one(root)[1]["record dropped: person id empty"] == 1
    with pytest.raises(ValueError, match=r"result_LAM: the original scripts left out is_at_me -> give --rule at_me"):
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
    video = prepared_index(root, policy=policy)
    extract(root)
    images = prepared_index(root, policy=policy, crops_from="images")
    assert images.folder == root / "prepared" / f"{policy}-64-images" / "train"
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
    video = prepared_index(root, policy="baseline", crop_size=224)
    other = data_set(tmp_path / "faces", {"c": [("t", [2, 3, 5, 6]), ("u", [9])], "d": [("t", [1])]}, videos=False)
    index = prepared_index(face_folder(other, video), policy="baseline", crop_size=224)  # without videos
    assert index.folder.parent.name == "baseline-224-faces" and index.facts["crops_from"] == "faces"
    for name in [name for name in COLUMNS if name not in ("position", "unique_id", "quality")]:
        np.testing.assert_array_equal(getattr(index, name), getattr(video, name), err_msg=name)
    np.testing.assert_allclose(index.quality, video.quality, rtol=1e-3)                   # of the JPEG, not of the cut
    assert [index.jpeg(row) for row in range(len(index))] == [video.jpeg(row) for row in range(len(video))]
    rule, rows = WindowRule(), np.arange(len(index))
    np.testing.assert_array_equal(window_rows(index, rule, rows), window_rows(video, rule, rows))


def test_a_face_without_an_image_counts_for_strides_and_is_missing_in_windows(tmp_path):
    root = data_set(tmp_path / "videos", {"c": [("t", list(range(1, 11)))]})
    video = prepared_index(root, policy="baseline", crop_size=224)
    other = data_set(tmp_path / "faces", {"c": [("t", list(range(1, 11)))]}, videos=False)
    index = prepared_index(face_folder(other, video, {("t", 4), ("t", 6)}), policy="baseline", crop_size=224)
    assert index.facts["counts"]["row left out: no face image"] == 2
    assert index.frame.tolist() == [1, 2, 3, 5, 7, 8, 9, 10]
    # positions 0, 3, 6, 9 are frames 1, 4, 7, 10; frame 4 is skipped and no other takes its place
    assert index.frame[centre_rows(index, 3)].tolist() == [1, 7, 10]
    row = faces(index)["c", "t", 5]
    assert index.frame[window_rows(index, WindowRule(), np.array([row]))].tolist() == [[2, 2, 3, 5, 7, 8, 8]]


def test_the_published_loader_shows_the_same_windows_of_a_face_folder(parity, tmp_path):
    recorded = json.loads((parity / "loader.json").read_text())["train_val"]
    inputs = recorded["given"]
    for name, track in inputs["tracks"].items():
        clip, uid = name.split("/")
        (tmp_path / "json_original" / clip).mkdir(parents=True, exist_ok=True)
        (tmp_path / "json_original" / clip / f"{uid}.json").write_text(json.dumps(track))
        folder = tmp_path / "face_imgs" / clip / uid
        folder.mkdir(parents=True)
        for number in inputs["faces"][name]:
            (folder / f"face_{number:05d}.jpg").write_bytes(encode(np.full((224, 224, 3), number, np.uint8)))
    for folder in ("result_LAM", "split"):
        (tmp_path / folder).mkdir()
    for clip, segments in inputs["segments"].items():
        (tmp_path / "result_LAM" / f"{clip}.json").write_text(json.dumps(segments))
    (tmp_path / "split" / "val.list").write_text("\n".join(recorded["split_list"]))
    index = prepared_index(tmp_path, "val", policy="baseline", crop_size=224)
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
            window_frames = index.frame[window_rows(index, WindowRule(), rows)]
            assert window_frames.tolist() == [sample["slots"] for sample in run["samples"]]
            assert [round(index.crop(row).mean()) for row in rows.tolist()] == index.frame[rows].tolist()
            compared += len(rows)
    assert compared == 56


def test_faces_are_numbered_as_pictures_so_clean_reads_one_image_later(tmp_path):
    root = data_set(tmp_path / "videos", {"c": [("t", [0, 1, 2])]})
    other = data_set(tmp_path / "faces", {"c": [("t", [0, 1, 2])]}, videos=False)
    index = prepared_index(face_folder(other, prepared_index(root, crop_size=224), shift=1))
    assert index.frame.tolist() == [0, 1, 2] and [number_in(index.crop(row)) for row in range(3)] == [0, 1, 2]
    assert index.crop(0).shape == (64, 64, 3)


def test_what_is_there_is_used_unless_a_flag_says_otherwise(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [2, 3])]})
    video = prepared_index(root, policy="baseline", crop_size=224)
    face_folder(root, video)
    extract(root)
    for flag, read_from in [(None, "videos"), ("faces", "faces"), ("images", "images"), ("videos", "videos")]:
        assert prepared_index(root, policy="baseline", crops_from=flag).facts["crops_from"] == read_from
    shutil.rmtree(root / "videos")
    assert prepared_index(root, policy="baseline").facts["crops_from"] == "videos"   # prepared before
    assert prepared_index(root, policy="baseline", crop_size=48).facts["crops_from"] == "images"
    with pytest.raises(ValueError, match="crops_from 'sound' is unknown -> use videos, images, faces"):
        prepared_index(root, crops_from="sound")
    with pytest.raises(ValueError, match="box_scale 2.0: ready-made faces cannot be cut anew"):
        prepared_index(root, crops_from="faces", rules={"box_scale": 2.0})


@pytest.mark.parametrize(("source", "reason"), [("images", r"video_imgs.c: no such folder of images"),
                                                ("faces", r"face_imgs.c: no such folder of images")])
def test_a_clip_without_its_folder_cannot_be_used(tmp_path, source, reason):
    root = data_set(tmp_path, {"c": [("t", [2, 3])]}, videos=False)
    with pytest.raises(ValueError, match=rf"(?s)1 of 1 clip cannot be used.*{reason}"):
        prepared_index(root, crops_from=source)


def test_a_damaged_face_is_named(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [2])]}, videos=False)
    path = root / "face_imgs" / "c" / "t" / "face_00003.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ValueError, match=r"face_00003\.jpg: not a JPEG.*-> download or make it again"):
        prepared_index(root)


def test_faces_that_came_after_an_interruption_are_read(tmp_path, monkeypatch):
    from gazepose.data import prepare as prepare_module
    root = data_set(tmp_path / "videos", {"c": [("t", [1, 2, 3])]})
    video = prepared_index(root, policy="baseline", crop_size=224)
    other = face_folder(data_set(tmp_path / "faces", {"c": [("t", [1, 2, 3])]}, videos=False), video, {("t", 2)})
    monkeypatch.setattr(prepare_module, "merge", None)
    with pytest.raises(TypeError):
        prepared_index(other, policy="baseline")   # stopped before the index
    monkeypatch.undo()
    assert prepared_index(face_folder(other, video), policy="baseline").frame.tolist() == [1, 2, 3]


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
                numbers = [r["frame"] for r in path["track"]
                        if r["width"] > 0 and r["height"] > 0 and r["frame"] != 0 and person["person_id"] != ""]
                for frame in range(min(numbers), max(numbers) + 1) if numbers else ():             # gaps are filled
                    label = any(name == person["person_id"] and start <= frame <= end for name, start, end in looking)
                    rows[annotated["clip_uid"], path["track_id"], frame] = int(label)
    return rows


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_embedded_world_has_the_rows_and_labels_of_the_published_rules(tiny_world, tmp_path, split):
    for folder in ("json", "split", "videos"):
        (tmp_path / folder).symlink_to(tiny_world / folder)
    index = prepared_index(tmp_path, split, policy="baseline")
    document = json.loads((tiny_world / "json" / f"av_{split}.json").read_text())
    counted = golden_rows(document, (tiny_world / "split" / f"{split}.list").read_text().split())
    assert {face: int(index.label[row]) for face, row in faces(index).items()} == counted
    assert len(index) == len(counted) > 0 and 0 < sum(counted.values()) < len(counted)
