"""From videos to an index: the right frame, the right cut, once per clip, whatever is interrupted or missing."""

import csv
import itertools
import json
import re
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import HEIGHT, VIDEOS, WIDTH, challenge, data_set, number_in, prepare, prepared_index, write_video

from gazepose.data import clip_crops, video
from gazepose.data import prepare as prepare_module
from gazepose.data.challenge import parse_name
from gazepose.data.crops import published_crop, stored_crop
from gazepose.data.index import Index
from gazepose.data.quality import fit_gaussian, laplacian_variance
from gazepose.data.shards import decode, encode
from gazepose.data.video import DECODERS, frames_in_order, video_facts
from gazepose.data.video_writer import write_mp4
from gazepose.data.windows import BEHAVIOURS, WindowRule, window_rows
from gazepose.io import UnusableFile
from gazepose.progress import Progress


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["plain.mp4", "long.mp4", "intra.mkv", "open.mp4", "refresh.mkv", "old.avi"])
def test_every_requested_frame_is_the_right_one(tmp_path, name, decoder):
    path = write_video(tmp_path / name, 50, **VIDEOS[name])
    wanted = [0, 1, 7, 8, 9, 23, 48, 49, 50, 60]
    got = list(frames_in_order(path, wanted, decoder))
    assert [number for number, _ in got] == wanted[:-2]                # 50 and 60 are past the end
    assert [number_in(picture) for _, picture in got] == wanted[:-2]
    facts = video_facts(path, decoder)
    assert (facts.frames, facts.width, facts.height, round(facts.fps)) == (50, WIDTH, HEIGHT, 30)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(320, 180), (90, 62)])
def test_parts_of_a_picture_are_those_of_the_whole_to_the_bit(tmp_path, decoder, size):
    random, (width, height) = np.random.default_rng(0), size
    write_mp4(tmp_path / "v.mp4", random.integers(0, 256, (3, height, width, 3), dtype=np.uint8), size, 18)
    parts = [(0, height, 0, width), (5, 5, 3, 9), (height - 1, height, width - 1, width),
             *random.integers(0, 330, (60, 4)).tolist()]
    for (_, whole), (_, picture) in zip(frames_in_order(tmp_path / "v.mp4", [0, 2], decoder), frames_in_order(
            tmp_path / "v.mp4", [0, 2], decoder, whole=False), strict=True):
        assert picture.shape == whole.shape
        for y1, y2, x1, x2 in parts:
            np.testing.assert_array_equal(picture[y1:y2, x1:x2], whole[y1:y2, x1:x2])


def test_a_missing_decord_names_the_platform_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ImportError, match=r"decord 0\.6\.0 has wheels for Linux x86-64 only.*--decoder pyav"):
        list(frames_in_order(write_video(tmp_path / "v.mp4", 3), [0], "decord"))


@pytest.fixture
def without_decord(monkeypatch, tmp_path):
    """decord is installed, but its library does not fit the system."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "decord.py").write_text("raise OSError('libc.so.6: version GLIBC_2.99 not found')")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    for name in [name for name in sys.modules if name.split(".")[0] == "decord"]:
        monkeypatch.delitem(sys.modules, name)
    video.usable_decoder.cache_clear()
    yield
    video.usable_decoder.cache_clear()


def test_auto_is_decord_where_it_can_be_loaded_and_the_index_says_which(tmp_path):
    lines, root = [], data_set(tmp_path, {"c": [("t", [1, 2])]})
    index = Index.open(prepare(root, "train", notify=lines.append))
    assert len(lines) == 1 and ", read by decord, " in lines[0] and index.facts["decoder"] == "decord"
    prepare(root, "train", decoder="pyav", notify=lines.append)
    assert re.search(r"train: was read by decord, and is used as it is, not read again by pyav -> delete", lines[-1])


def test_a_decord_that_cannot_be_loaded_is_replaced_and_the_reason_printed(tmp_path, without_decord):
    lines, root = [], data_set(tmp_path, {"c": [("t", [1, 2])]})
    index = Index.open(prepare(root, "train", notify=lines.append))
    assert lines[0] == ("videos: read by pyav, because decord cannot be loaded (OSError: libc.so.6: version GLIBC_2.99 "
                        "not found)")
    assert index.facts["decoder"] == "pyav" and number_in(index.crop(1)) == 2


def test_clips_that_another_decoder_reads_later_are_named(tmp_path, monkeypatch):
    lines, root = [], data_set(tmp_path, {"a": [("t", [1])], "b": [("t", [2])]})
    index = Index.open(prepare(root, "train"))
    write_video(root / "videos" / "b.mp4", 41)                               # another file, of the same clip
    monkeypatch.setattr(prepare_module, "usable_decoder", lambda: ("pyav", "gone"))
    index = Index.open(prepare(root, "train", notify=lines.append))
    assert any("its clips were read by decord; those that are cut now are read by pyav ->" in line for line in lines)
    assert index.facts["decoders"] == ["decord", "pyav"]
    write_video(root / "videos" / "a.mp4", 41)
    prepare(root, "train")
    lines.clear()
    write_video(root / "videos" / "a.mp4", 42)
    monkeypatch.undo()                                                       # one decoder read it: it goes on
    index = Index.open(prepare(root, "train", notify=lines.append))
    assert index.facts["decoders"] == ["pyav"] and ", read by pyav, " in lines[-1] and len(lines) == 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_damaged_video_is_a_named_error(tmp_path, decoder):
    path = write_video(tmp_path / "v.mp4", 50)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:300] + bytes(4000) + content[4300:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"v\.mp4: .*{decoder}"):
            list(frames_in_order(path, range(50), decoder))


def test_a_stored_crop_is_averaged_when_it_shrinks_and_published_at_224():
    face = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    published = published_crop(face)
    assert stored_crop(face, 224, published) is published
    blocks = face.reshape(32, 3, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(stored_crop(face, 32, published) - blocks).max() <= 1


@pytest.mark.parametrize(("policy", "decoded"), [("clean", [2, 3, 4, 5]), ("baseline", [1, 2, 3, 4])])
def test_a_policy_says_which_picture_a_frame_number_means(tmp_path, policy, decoded):
    root = data_set(tmp_path, {"c": [("t", [2, 3, 5])]})
    messages = []
    index = prepared_index(root, policy=policy, notify=messages.append)
    assert index.folder == root / "prepared" / f"{policy}-64" / "train"
    assert index.frame.tolist() == [2, 3, 4, 5]                        # frame 4 was filled
    assert [number_in(index.crop(row)) for row in range(4)] == decoded
    assert index.label.tolist() == ([0, 1, 1, 1] if policy == "baseline" else [0, 1, 1, 0])
    assert index.facts["counts"]["gap: frames filled"] == 1
    (message,) = messages
    assert "4 crops of 1 track in 1 clip," in message and "gap: frames filled: 1" in message
    first = dict(frames_in_order(root / "videos" / "c.mp4", decoded))[decoded[0]]
    assert index.quality[0] == np.float32(laplacian_variance(published_crop(first)))
    assert index.facts["quality_fit"] == pytest.approx(fit_gaussian(index.quality), rel=1e-5)
    index.verify()


def test_tracks_of_many_clips_keep_their_pictures(tmp_path):
    clips = {f"c{n}": [("t", [5 + n, 6 + n, 30]), ("u", [6 + n, 7, 8])] for n in range(4)}
    index = prepared_index(data_set(tmp_path, clips), jobs=2)
    assert index.clips == list(clips) and len(index.track_name) == 12   # each t is split at its long gap
    assert sorted(set(index.track_name)) == ["t", "u"]
    assert [number_in(index.crop(row)) for row in range(len(index))] == index.frame.tolist()


def test_a_prepared_folder_is_returned_at_once(tmp_path, monkeypatch):
    root = data_set(tmp_path, {"c": [("t", [1, 2])]})
    folder = prepare(root, "train")
    monkeypatch.setattr(prepare_module, "annotated_clips", None)
    assert prepare(root, "train") == folder
    assert list(folder.parent.iterdir()) == [folder]                     # nothing temporary is left behind


def test_a_folder_made_with_other_settings_is_refused(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [1, 2])]})
    prepare(root, "train", crop_size=32)
    (root / "prepared" / "clean-32").rename(root / "prepared" / "clean-48")
    with pytest.raises(ValueError, match="made with crop_size 32, wanted 48 -> delete the folder"):
        prepare(root, "train", crop_size=48)


def test_finished_clips_survive_an_interruption(tmp_path, monkeypatch):
    root = data_set(tmp_path, {"c0": [("t", [1, 2, 3])], "c1": [("t", [1, 2])], "c2": [("t", [4])]})
    opened, decode_frames = [], clip_crops.frames_in_order

    def interrupted(path, wanted, decoder, whole):
        opened.append(Path(path).stem)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return decode_frames(path, wanted, decoder, whole)

    monkeypatch.setattr(clip_crops, "frames_in_order", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, "train")
    index = prepared_index(root)
    assert opened == ["c0", "c1", "c1", "c2"] and index.clips == ["c0", "c1", "c2"]
    assert [number_in(index.crop(row)) for row in range(6)] == [1, 2, 3, 1, 2, 4]


def test_a_damaged_table_is_made_again(tmp_path, monkeypatch):
    root = data_set(tmp_path, {"c": [("t", [1, 2, 3])]})
    monkeypatch.setattr(prepare_module, "merge", None)
    with pytest.raises(TypeError):
        prepare(root, "train")                      # stopped between the clips and the index
    monkeypatch.undo()
    table = root / "prepared" / "clean-64" / "train" / "clips" / "c.npz"
    table.write_bytes(table.read_bytes()[:-9])
    assert prepared_index(root).frame.tolist() == [1, 2, 3]


def test_two_ranks_share_the_clips_and_agree(tmp_path, monkeypatch):
    root = data_set(tmp_path, {f"c{n}": [("t", [1, 2])] for n in range(3)})
    cut, cut_clip = [], prepare_module.cut_clip
    monkeypatch.setattr(prepare_module, "cut_clip", lambda clip: (cut.append(clip.uid), cut_clip(clip))[1])
    barrier, folders = threading.Barrier(2, timeout=20), []

    def meet() -> None:
        barrier.wait()

    ranks = [threading.Thread(target=lambda rank=rank: folders.append(prepare(
        root, "train", rank=rank, world_size=2, wait=meet)))
        for rank in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    assert sorted(cut) == ["c0", "c1", "c2"] and len(set(folders)) == 1 and len(folders) == 2
    assert len(Index.open(folders[0])) == 6


def test_missing_videos_are_named_counted_and_bounded(tmp_path):
    root = data_set(tmp_path, {f"c{n}": [("t", [1, 2])] for n in range(3)})
    (root / "videos" / "c1.mp4").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 clips cannot be used, more than 1\.0%:\n.*c1\.mp4: no such video\n"):
        prepare(root, "train")
    index = prepared_index(root, max_bad_fraction=0.5)
    assert index.clips == ["c0", "c2"] and "no such video" in index.facts["bad_clips"]["c1"]


def test_a_video_that_came_late_is_used(tmp_path):
    root = data_set(tmp_path, {f"c{n}": [("t", [1, 2])] for n in range(2)}, videos=False)
    write_video(root / "videos" / "c0.mp4", 9)
    with pytest.raises(ValueError, match="1 of 2 clips"):
        prepare(root, "train")
    write_video(root / "videos" / "c1.mp4", 9)
    assert len(prepared_index(root)) == 4


def test_frames_past_the_end_and_faces_outside_are_counted(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [7, 8, 9, 10, 11])]}, frames=10)
    path = root / "json" / "av_train.json"
    content = json.loads(path.read_text())
    track = content["videos"][0]["clips"][0]["persons"][1]["tracking_paths"][0]["track"]
    track[0] |= {"x": WIDTH + 5}
    path.write_text(json.dumps(content))
    clean = prepared_index(root)
    assert clean.frame.tolist() == [8, 9] and clean.position.tolist() == [1, 2]
    assert clean.facts["counts"] == {"person left out: camera wearer": 1, "row left out: outside the picture": 1,
                                     "row left out: past the end of the video": 2}
    baseline = prepared_index(root, policy="baseline")
    assert baseline.frame.tolist() == [7, 8, 9, 10] and not baseline.crop(0).any()
    assert baseline.black.tolist() == [True, False, False, False]
    rule = WindowRule(behaviour=BEHAVIOURS["published"])
    assert window_rows(baseline, rule, np.array([2])).tolist() == [[1, 1, 1, 2, 3, 3, 3]]
    assert baseline.facts["counts"]["crop black: outside the picture"] == 1


def test_a_clip_decord_cannot_read_is_read_by_pyav_and_counted(tmp_path, monkeypatch):
    root = data_set(tmp_path, {"c": [("t", [1, 2])]})
    decode_frames = clip_crops.frames_in_order

    def decord_fails(path, wanted, decoder, whole):
        if decoder == "decord":
            raise UnusableFile("AV1")
        return decode_frames(path, wanted, decoder, whole)

    monkeypatch.setattr(clip_crops, "frames_in_order", decord_fails)
    index = prepared_index(root)
    assert index.facts["counts"]["clip decoded by pyav: decord could not"] == 1 and number_in(index.crop(1)) == 2


def test_decord_is_given_up_when_it_decodes_ahead_without_end(tmp_path, monkeypatch):
    root = data_set(tmp_path, {"c": [("t", [1, 36])]})
    memory = itertools.count(0, 2 * video.MAX_AHEAD)
    monkeypatch.setattr(video, "_memory", lambda: next(memory))
    with pytest.raises(ValueError, match=r"c\.mp4: frame 32: decord decodes ahead .* holds 4096 MiB -> use"):
        list(frames_in_order(root / "videos" / "c.mp4", range(40)))
    index = prepared_index(root)
    assert index.facts["counts"]["clip decoded by pyav: decord could not"] == 1 and number_in(index.crop(1)) == 36


def test_progress_prints_the_remaining_time(tmp_path, monkeypatch):
    root = data_set(tmp_path, {"long": [("t", list(range(1, 31)))], "short": [("t", list(range(1, 11)))]})
    monkeypatch.setattr(prepare_module, "Progress", partial(Progress, seconds=-1))
    messages = []
    prepare(root, "train", notify=messages.append)
    assert messages[0].startswith("preparing train: 1 of 2 clips, 75% of 40 faces, about 0 s left")


def test_an_empty_split_names_folder_and_reasons(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [])]})
    with pytest.raises(ValueError, match=r"train: the split is empty, none of its 1 clip has a usable face "
                                         r"\(.*no usable record: 1.*\) -> check"):
        prepare(root, "train")


def test_impossible_settings_are_refused_at_once(tmp_path):
    for wanted, message in [({"policy": "tidy"}, "policy 'tidy' is unknown -> use baseline or clean"),
                            ({"crop_size": 7}, "--crop_size 7 -> give 16 to 1024 pixels")]:
        with pytest.raises(ValueError, match=message):
            prepare(tmp_path, "train", **wanted)
    with pytest.raises(ValueError, match="split 'trial' is unknown -> use train, val, test"):
        prepare(tmp_path, "trial")
    with pytest.raises(FileNotFoundError, match=r"train\.list: no split list"):
        prepare(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"videos_challenge: no such folder, so there is no test set -> "):
        prepare(tmp_path, "test")


def test_priors_and_truth_are_joined_by_name(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [1, 2, 3])]})
    for folder in ("priors", "truth"):
        (root / folder).mkdir()
    faces: dict[str, Any] = {"clip": np.array(["c", "c", "x"]), "track": np.array(["t", "t", "t"]),
                             "frame": np.array([3, 1, 2])}
    np.savez(root / "priors" / "train.npz", **faces, head_pose=np.array([[3.0] * 3, [1.0] * 3, [9.0] * 3]),
             landmarks=np.ones((3, 5, 3), np.float32))
    np.savez(root / "truth" / "train.npz", **faces, gaze=np.array([[3.0] * 2, [1.0] * 2, [5.0] * 2]))
    index = prepared_index(root)
    np.testing.assert_array_equal(index.head_pose[:, 0], [1, np.nan, 3])
    np.testing.assert_array_equal(index.gaze[:, 1], [1, np.nan, 3])
    assert np.isnan(index.landmarks[1]).all() and (index.landmarks[[0, 2]] == 1).all()


@pytest.mark.parametrize(("name", "parsed"), [
    ("00012_ab-c.jpg", (12, "ab-c")), ("00000_00012_x.jpg", (0, "00012_x")), ("abc.jpg", (-1, "abc")),
    ("123_abc.jpg", (-1, "123_abc")), ("00012_.jpg", (-1, "00012_")), ("00012_a.jpeg", None), ("00012_a b.jpg", None),
    (".jpg", None), ("00012_a.jpg.part", None)])
def test_crop_names_are_parsed_not_searched(name, parsed):
    assert parse_name(name) == parsed


def test_test_crops_become_rows_without_labels(tmp_path):
    root = challenge(tmp_path, ["v1/t1/00003_b.jpg", "v1/t1/00002_a.jpg", "v2/t9/lonely.jpg", "v2/t9/only.jpg",
                                "v2/t9/00007_c.jpg", "v2/t9/notes.txt"])
    index = prepared_index(root, "test")
    assert index.unique_id is not None and index.unique_id.tolist() == [b"a", b"b", b"lonely", b"only", b"c"]
    assert index.frame.tolist() == [2, 3, -1, -1, 7] and set(index.label.tolist()) == {-1}
    assert index.track_name == ["t1", "t9", "t9", "t9"] and index.track_start.tolist() == [0, 2, 3, 4, 5]
    assert index.clips == ["v1", "v2"] and [number_in(index.crop(row)) for row in range(5)] == [1, 0, 2, 3, 4]
    assert index.facts["counts"] == {"crop alone: its name has no frame number": 2,
                                     "file left out: not named like a crop": 1}
    assert np.isnan(index.box).all() and index.facts["quality_fit"] is not None


def test_a_test_crop_of_the_right_size_keeps_its_bytes(tmp_path):
    root = challenge(tmp_path, ["v/t/00001_a.jpg"])
    index = prepared_index(root, "test", crop_size=224)
    assert index.jpeg(0) == (root / "videos_challenge/v/t/00001_a.jpg").read_bytes()
    assert decode(index.jpeg(0)).shape == (224, 224, 3)


def test_a_black_test_crop_is_noted(tmp_path):
    root = challenge(tmp_path, [f"v/t/0000{number}_{number}.jpg" for number in range(3)])
    (root / "videos_challenge/v/t/00001_1.jpg").write_bytes(encode(np.zeros((32, 32, 3), np.uint8)))
    (root / "videos_challenge/v/t/00002_2.jpg").write_bytes(encode(np.full((32, 32, 3), 9, np.uint8)))
    index = prepared_index(root, "test")
    # the first is the barcode of 0: black as well; a plain grey one is not
    assert index.black.tolist() == [True, True, False] and index.quality.tolist() == [0, 0, 0]


def test_a_unique_id_twice_or_a_damaged_crop_is_an_error(tmp_path):
    root = challenge(tmp_path, ["v/t/00001_a.jpg", "v/t/00002_a.jpg"])
    with pytest.raises(ValueError, match=r"00002_a\.jpg: the unique id a occurs twice"):
        prepare(root, "test")
    (root / "videos_challenge/v/t/00002_a.jpg").unlink()
    (root / "videos_challenge/v/t/00001_a.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ValueError, match=r"00001_a\.jpg: not a JPEG.*download or make it again"):
        prepare(root, "test")


def test_test_labels_are_never_read(tmp_path):
    root = challenge(tmp_path, ["v/t/00001_a.jpg"])
    (root / "truth").mkdir()
    with open(root / "truth" / "test_labels.csv", "w") as file:
        csv.writer(file).writerows([["video_id", "track_id", "frame", "unique_id", "label"], ["v", "t", 1, "a", 1]])
    np.savez(root / "truth" / "test.npz", clip=["v"], track=["t"], frame=[1], gaze=np.ones((1, 2)))
    index = prepared_index(root, "test")
    assert index.label.tolist() == [-1] and np.isnan(index.gaze).all()
