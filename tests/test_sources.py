"""Prepared data knows what it was made from: what has changed is noticed, and what depends on it is made again."""

import errno
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from making import data_set, face, list_faces, number_in, prepare, quiet, write_video
from test_streaming import damage, fast_start

from gazepose.data import clip_crops, stamps
from gazepose.data import prepare as preparing
from gazepose.data.index import Index
from gazepose.data.index_writer import add_columns
from gazepose.data.prepare import changed_sources
from gazepose.data.shards import encode
from gazepose.data.streaming import VideoIndex
from gazepose.doctor import examine
from gazepose.io import write_arrays, write_json
from gazepose.processes import Processes
from gazepose.source import Source
from gazepose.synthetic import presets, world


@pytest.fixture
def cut(monkeypatch) -> list[str]:
    """Names of the clips whose videos are decoded."""
    names, decode = [], clip_crops.frames_in_order

    def noted(path, wanted, decoder, whole):
        names.append(Path(path).stem)
        return decode(path, wanted, decoder, whole)

    monkeypatch.setattr(clip_crops, "frames_in_order", noted)
    return names


def two_clips(root: Path) -> Path:
    return data_set(root, {"c0": [("t", [1, 2, 3])], "c1": [("t", [1, 2])]})


def prepared(root: Path, lines: list[str] | None = None, **settings) -> Index:
    return Index.open(prepare(root, "train", jobs=1, notify=(lines.append if lines is not None else quiet), **settings))


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def priors(root: Path, yaw: float, frames: tuple[int, ...] = (1, 2, 3)) -> None:
    size = len(frames)
    write_arrays(root / "priors" / "train.npz", {
        "clip": np.array(["c0"] * size), "track": np.array(["t"] * size), "frame": np.array(frames),
        "head_pose": np.full((size, 3), yaw)})


def test_new_labels_need_no_new_crops(tmp_path, cut):
    root, lines = two_clips(tmp_path), []
    first = prepared(root, lines)
    assert first.label.tolist() == [0, 0, 1, 0, 0] and cut == ["c0", "c1"]
    edit(root / "json" / "av_train.json", lambda content: content["videos"][0]["clips"][0].update(
        social_segments_looking=[{"person": "1", "start_frame": 1, "end_frame": 2}]))
    second = prepared(root, lines)
    assert second.label.tolist() == [1, 0, 0, 0, 0] and cut == ["c0", "c1"]
    assert lines[1].endswith("train: changed since it was made: json/av_train.json -> what depends on it is made again")
    assert "in 2 clips, 0 of them made again" in lines[2]
    assert second.facts["fingerprint"] != first.facts["fingerprint"]
    assert prepared(root, lines).facts == second.facts and len(lines) == 3


def test_a_new_box_cuts_its_clip_alone(tmp_path, cut):
    root, lines = two_clips(tmp_path), []
    prepared(root)
    edit(root / "json" / "av_train.json", lambda content: content["videos"][0]["clips"][1]["persons"][1][
        "tracking_paths"][0]["track"].append({"x": 0, "y": 0, "width": 320, "height": 128, "frame": 7}))
    index = prepared(root, lines)
    assert cut == ["c0", "c1", "c1"] and "1 of them made again" in lines[1]
    assert [number_in(index.crop(row)) for row in range(len(index))] == index.frame.tolist() == [1, 2, 3, *range(1, 8)]


def test_a_clip_that_moves_between_the_lists_moves(tmp_path, cut):
    root = two_clips(tmp_path)
    prepared(root)
    (root / "split" / "train.list").write_text("c1")
    assert prepared(root).clips == ["c1"] and cut == ["c0", "c1"]
    (root / "split" / "train.list").write_text("c1\nc0")
    assert prepared(root).clips == ["c1", "c0"] and cut == ["c0", "c1"]


def test_a_replaced_video_is_cut_again_and_a_copied_one_is_not(tmp_path, cut):
    root = two_clips(tmp_path)
    first = prepared(root)
    copied = shutil.copytree(root, tmp_path / "elsewhere" / "data")     # without the times of the files
    for path in (copied / "videos").iterdir():
        os.utime(path)
    assert prepared(copied).facts["fingerprint"] == first.facts["fingerprint"] and cut == ["c0", "c1"]
    assert not changed_sources(copied / "prepared" / "clean-64" / "train", copied)
    write_video(root / "videos" / "c1.mp4", 30, g="1")
    second = prepared(root)
    assert cut == ["c0", "c1", "c1"] and second.jpeg(3) != first.jpeg(3) and second.jpeg(0) == first.jpeg(0)


def test_a_video_that_comes_late_is_cut_and_one_that_goes_keeps_its_crops(tmp_path, cut):
    root = two_clips(tmp_path)
    (root / "videos" / "c1.mp4").rename(tmp_path / "away.mov")
    assert prepared(root, max_bad_fraction=0.5).clips == ["c0"]
    (tmp_path / "away.mov").rename(root / "videos" / "c1.mov")            # by another name than the one that lacked
    assert prepared(root).clips == ["c0", "c1"] and cut.count("c0") == 1
    shutil.rmtree(root / "videos")                                       # as many do, once the crops are there
    edit(root / "json" / "av_train.json", lambda content: content["videos"][0]["clips"][1].update(
        social_segments_looking=[{"person": "1", "start_frame": 1, "end_frame": 9}]))
    index = prepared(root)
    assert index.clips == ["c0", "c1"] and index.label.tolist() == [0, 0, 1, 1, 1] and cut.count("c0") == 1


def test_replaced_priors_replace_their_column(tmp_path, cut):
    root = two_clips(tmp_path)
    assert np.isnan(prepared(root).head_pose).all()
    priors(root, 10)
    assert prepared(root).head_pose[:, 0].tolist()[:3] == [10, 10, 10]
    priors(root, 20)
    assert prepared(root).head_pose[:, 0].tolist()[:3] == [20, 20, 20] and cut == ["c0", "c1"]
    (root / "priors" / "train.npz").unlink()
    assert prepared(root).head_pose[:, 0].tolist()[:3] == [20, 20, 20]


def test_imported_priors_stay_and_the_faces_that_lack_them_are_counted(tmp_path):
    root, lines = two_clips(tmp_path), []
    index = prepared(root)
    add_columns(index, {"head_pose": np.arange(15.0).reshape(5, 3)}, source="imported from poses.csv")
    edit(root / "json" / "av_train.json", lambda content: content["videos"][0]["clips"][0]["persons"][1][
        "tracking_paths"][0]["track"].append({"x": 0, "y": 0, "width": 320, "height": 128, "frame": 4}))
    after = prepared(root, lines)
    assert after.frame.tolist() == [1, 2, 3, 4, 1, 2]
    assert after.head_pose[[0, 1, 2, 4, 5]].ravel().tolist() == [*range(15)] and np.isnan(after.head_pose[3]).all()
    assert "head_pose (imported from poses.csv) is unknown for 1 of 6 faces -> import or compute it again" in lines[-1]
    assert after.facts["priors"] == {"head_pose": "imported from poses.csv"}


def test_a_lost_or_short_shard_is_cut_again(tmp_path, cut):
    root = two_clips(tmp_path)
    index = prepared(root)
    index.shards.paths[0].unlink()
    os.truncate(index.shards.paths[1], 100)
    again = prepared(root)
    assert cut == ["c0", "c1", "c0", "c1"] and again.facts["fingerprint"] == index.facts["fingerprint"]
    os.truncate(next(index.folder.glob("label-*.npy")), 100)
    with pytest.raises(ValueError, match=r"label-\w+\.npy: its bytes changed .* -> delete index\.json there"):
        prepared(root)
    (index.folder / "index.json").unlink()                               # as the message says
    assert prepared(root).label.tolist() == index.label.tolist() and len(cut) == 4


def test_a_damaged_clip_comes_back_once_its_video_is_replaced(tmp_path):
    (tmp_path / "videos").mkdir()
    root = data_set(tmp_path, {f"c{n}": [("t", list(range(30)))] for n in range(2)}, videos=False)
    for n in range(2):
        fast_start(root / "videos" / f"c{n}.mp4", 40)
    index = VideoIndex.open(list_faces(root, "train", max_bad_fraction=0.5))
    add_columns(index, {"head_pose": np.ones((60, 3))}, source="imported")
    damage(root / "videos" / "c1.mp4")
    index = VideoIndex.open(list_faces(root, "train", max_bad_fraction=0.5))
    with pytest.raises(ValueError, match=r"c1\.mp4: ") as caught:
        index.read(1, np.arange(30, 60))
    index.give_up(1, caught.value, goes_on=True)
    for _ in range(2):                                                   # it stays left out while the video is the same
        assert VideoIndex.open(list_faces(root, "train", max_bad_fraction=0.5)).clips == ["c0"]
    fast_start(root / "videos" / "c1.mp4", 40)
    back = VideoIndex.open(list_faces(root, "train"))
    assert back.clips == ["c0", "c1"] and (back.head_pose[:30] == 1).all()


def test_test_crops_that_come_and_go_are_noticed(tmp_path):
    folder = tmp_path / "videos_challenge" / "v" / "k"
    folder.mkdir(parents=True)
    picture = encode(np.zeros((16, 16, 3), np.uint8))
    for frame in (1, 2):
        (folder / f"{frame:05d}_id{frame}.jpg").write_bytes(picture)
    assert len(Index.open(prepare(tmp_path, "test", jobs=1))) == 2
    (folder / "00003_id3.jpg").write_bytes(picture)
    index = Index.open(prepare(tmp_path, "test", jobs=1))
    assert index.unique_id is not None and index.unique_id.tolist() == [b"id1", b"id2", b"id3"]
    (folder / "00001_id1.jpg").unlink()
    assert len(Index.open(prepare(tmp_path, "test", jobs=1))) == 2


def test_a_full_look_finds_what_sizes_and_times_do_not_show(tmp_path):
    root = two_clips(tmp_path)
    folder = prepared(root).folder
    path = root / "videos" / "c0.mp4"
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert changed_sources(folder, root) == [] and changed_sources(folder, root, full=True) == ["videos/c0.mp4"]
    looks = [examine(root, notify=quiet, verify=verify)["findings"] for verify in (False, True)]
    assert "prepared_stale" not in looks[0]
    assert looks[1]["prepared_stale"]["examples"] == [{"what": "", "split": "train", "file": "videos/c0.mp4"}]


PICTURE = face(0, 40)


def image_folders(root: Path, kind: str) -> tuple[Path, str]:
    """A data set whose faces come from images of this kind, 3 for each of two clips; an image, and the split."""
    if kind == "test crops":
        files = [root / "videos_challenge" / uid / "t" / f"{frame:05d}_id{frame}.jpg" for uid in "ab"
                 for frame in (1, 2, 3)]
    else:
        two_clips(root)
        shutil.rmtree(root / "videos")
        part = {"video_imgs": "img", "face_imgs": "t/face"}[kind]
        files = [root / kind / uid / f"{part}_{frame:05d}.jpg" for uid in ("c0", "c1") for frame in (2, 3, 4)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(PICTURE))
    return files[0], "test" if kind == "test crops" else "train"


@pytest.mark.parametrize("kind", ["video_imgs", "face_imgs", "test crops"])
def test_an_image_that_is_changed_in_place_is_noticed(tmp_path, kind, monkeypatch):
    file, split = image_folders(tmp_path, kind)
    rows = 6 if split == "test" else 5
    before = Index.open(prepare(tmp_path, split, jobs=1))
    assert len(before) == rows and changed_sources(before.folder, tmp_path) == []
    image = PICTURE.copy()
    image[:20] = 255
    file.write_bytes(encode(image))                        # no name of the folder changes
    folder = file.parent if kind == "video_imgs" else file.parents[1]
    name = folder.relative_to(tmp_path).as_posix()
    assert changed_sources(before.folder, tmp_path) == [name]
    stale = examine(tmp_path, notify=quiet)["findings"]["prepared_stale"]
    assert [find["file"] for find in stale["examples"]] == [name]
    lines = []
    after = Index.open(prepare(tmp_path, split, jobs=1, notify=lines.append))
    assert any(f"changed since it was made: {name} ->" in line for line in lines)
    assert any("in 2 clips, 1 of them made again" in line for line in lines)
    differing = [row for row in range(rows) if after.jpeg(row) != before.jpeg(row)]
    assert differing == [0]
    # the same bytes and another time: nothing is cut again
    os.utime(file, ns=(0, 0))
    again = Index.open(prepare(tmp_path, split, jobs=1, notify=lines.append))
    assert any("in 2 clips, 0 of them made again" in line for line in lines)
    assert changed_sources(again.folder, tmp_path) == []
    # the same size and time: only the full look finds it
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(0, 0))
    assert changed_sources(again.folder, tmp_path) == [] and changed_sources(again.folder, tmp_path, True) == [name]
    stale = examine(tmp_path, notify=quiet, verify=True)["findings"]["prepared_stale"]
    assert [find["file"] for find in stale["examples"]] == [name]


def test_a_quick_look_is_bounded_and_takes_every_nth_folder(tmp_path, monkeypatch):
    sources = {}
    for number in range(6):
        for image in range(4):
            path = tmp_path / f"c{number}" / f"{image}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"one")
        sources[f"c{number}"] = [stamps.stamp_of_files(path.parent), None]
    for number in range(6):
        (tmp_path / f"c{number}" / "2.jpg").write_bytes(b"other")
    assert stamps.changed_in(tmp_path, sources) == list(sources)
    monkeypatch.setattr(stamps, "MAX_FILES", 9)            # of 24
    assert stamps.changed_in(tmp_path, sources) == ["c0", "c3"]
    (tmp_path / "c1" / "4.jpg").touch()                    # a new name is seen by the folder's time
    assert stamps.changed_in(tmp_path, sources) == ["c0", "c1", "c3"]
    old = {name: [str(seen).partition(" ")[0], None] for name, (seen, _) in sources.items()}
    assert stamps.changed_in(tmp_path, old) == ["c1"]      # an index of an earlier version


def flipped(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1:]


@pytest.mark.parametrize("harm", [
    flipped, lambda content, _: content[:len(content) // 2],
    lambda content, _: content[:len(content) // 2].ljust(len(content), b"\0")], ids=["bit", "cut", "zeros"])
@pytest.mark.parametrize("again", [False, True], ids=["opened", "made again"])
def test_no_damage_of_a_prepared_folder_is_silent(tmp_path, harm, again):
    root = two_clips(tmp_path)
    priors(root, 10)
    whole = prepared(root)
    columns = {name: np.array(getattr(whole, name)) for name in whole.columns}
    crops = [whole.crop(row) for row in range(len(whole))]
    files = sorted(path for path in whole.folder.rglob("*") if path.is_file() and path.stat().st_size)
    kept, chance, named = {path: path.read_bytes() for path in files}, random.Random(0), 0
    for number in range(100 if harm is flipped else len(files)):
        path = files[number % len(files)]
        path.write_bytes(harm(kept[path], chance))
        if again:
            os.utime(root / "json" / "av_train.json")
        try:
            index = prepared(root)
            seen = [index.crop(row) for row in range(len(index))]
            values = {name: np.array(getattr(index, name)) for name in index.columns}
        except (ValueError, OSError, EOFError) as error:
            assert str(whole.folder) in str(error) and " -> " in str(error), error
            named += 1
        else:
            assert np.array_equal(seen, crops), path
            for name in columns:
                np.testing.assert_array_equal(values[name], columns[name], err_msg=f"{name} with {path.name} damaged")
        for other in set(whole.folder.rglob("*")) - set(files):
            other.unlink() if other.is_file() else None
        for other, content in kept.items():
            other.write_bytes(content)
    assert named >= len(files) / 3


def test_data_that_cannot_be_written_to_is_used_through_links(tmp_path, monkeypatch):
    root = two_clips(tmp_path / "data")
    make = Path.mkdir

    def read_only(self, *arguments, **options):
        if self.is_relative_to(root):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        make(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OSError, match="Read-only file system.* -> make a folder .* put links into it") as caught:
        prepared(root)
    command = str(caught.value).partition("(ln")[2].partition(")")[0].replace("FOLDER", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    subprocess.run(["sh", "-c", f"ln{command}"], check=True)
    index = prepared(tmp_path / "links")
    assert [number_in(index.crop(row)) for row in range(len(index))] == index.frame.tolist()


def test_a_second_run_waits_and_uses_what_the_first_made(tmp_path, cut):
    root, lines = two_clips(tmp_path), []
    with ThreadPoolExecutor(4) as runs:
        folders = list(runs.map(lambda _: prepare(root, "train", jobs=1, notify=lines.append), range(4)))
    assert len(set(folders)) == 1 and sorted(cut) == ["c0", "c1"]
    assert sum("prepared train" in line for line in lines) == 1
    assert preparing.changed_sources(folders[0], root) == []


def test_a_world_of_another_version_is_named_and_rendered_anew_once_it_is_renamed(tmp_path, tiny_world, monkeypatch):
    monkeypatch.setattr(world, "render_world", lambda root, *how, **more: shutil.copytree(tiny_world, root))
    source, lines = Source(tmp_path / "tiny-0", "tiny"), []
    processes = Processes(notify=lines.append)
    source.root.mkdir()
    write_json(source.root / "world.json", {"preset": "tiny", "seed": 0, "version": 1})
    assert source.ready(processes).version() == 1
    assert lines == [f"data: {source.root} is version 1 of the embedded world, and this release renders version "
                     f"{presets.VERSION} -> rename the folder, and it is rendered anew"]
    source.root.rename(tmp_path / "old")
    assert source.ready(processes).version() == presets.VERSION and "rendering" in lines[1] and len(lines) == 2
