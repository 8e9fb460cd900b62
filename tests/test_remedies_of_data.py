"""Remedies for tables, conventions and prepared files; what a message says helps. States as in
test_remedies_of_inputs."""

import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import challenge, data_set, list_faces, prepared_index, refused_until_mended, small_index, write_video
from test_boxes import HEADER
from test_conventions import SIZE, boxes_of, centres, corners, parts, percent
from test_features import computed, network
from test_remedies_of_inputs import FACE, State, foreign, given, spoilt, video_of, written
from test_rows import LOOKING, original, read_one, record

from gazepose.data.box_formats import read_foreign
from gazepose.data.box_table import label_origin, read_boxes
from gazepose.data.challenge import load_test_labels
from gazepose.data.conventions import of_boxes, of_prior
from gazepose.data.index import CUT_AGAIN, Index, checksums_of, digest_of
from gazepose.data.index_writer import add_columns
from gazepose.data.loader import make_loader, use_features
from gazepose.data.order import BatchOrder
from gazepose.data.own_videos import lay_out
from gazepose.data.prepare import decoders_of
from gazepose.data.streaming import open_index
from gazepose.data.tracks import POLICIES
from gazepose.data.windows import WindowRule, make_batch
from gazepose.io import sha256_of

CLEAN = POLICIES["clean"]


# Tables

def without_pyarrow(tmp: Path) -> State:
    import pandas as pd
    table, patch = tmp / "b.parquet", pytest.MonkeyPatch()
    face = dict(zip(HEADER.split(","), ("c", "t", 1, 0, 0, 9, 9), strict=True))
    pd.DataFrame([face]).to_parquet(table)
    patch.setitem(sys.modules, "pyarrow.parquet", None)
    return lambda: read_boxes(table, CLEAN), "pip install 'gazepose[parquet]', or give the table as CSV", patch.undo


def without_landmarks(kinds: list[Any], words: str) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        table = tmp / "b.csv"
        table.write_text(f"{HEADER}\n{FACE}\n")
        return lambda: read_foreign(table, None, kind=kinds[0]), words, lambda: kinds.pop(0)
    return state


def two_readings(tmp: Path) -> State:
    table, kinds = tmp / "b.csv", ["auto", "corners"]
    table.write_text("clip,track,frame,bbox_0,bbox_1,bbox_2,bbox_3\nc,t,1,20,20,60,60\n")
    return (lambda: read_foreign(table, None, kind=kinds[0]),                                   # type: ignore[arg-type]
            "give the one that is right, or name the columns", lambda: kinds.pop(0))


def original_file(file: str, tracks: dict[str, Any], result: Any, words: str, good: Any) -> Callable[[Path], State]:
    """A file of the original scripts that is deleted and written again."""
    def state(tmp: Path) -> State:
        root = original(tmp, tracks, result)

        def again() -> None:
            (root / file).unlink()
            (root / file).write_text(json.dumps(good))
        return lambda: read_one(root), words, again
    return state


TABLES: list[Callable[[Path], State]] = [
    without_pyarrow, without_landmarks(["openface", "auto"], "or give --boxes_format auto"), two_readings,
    foreign(f"{HEADER}\n", "give one face per line: clip,track,frame,x,y,width,height", f"{HEADER}\n{FACE}\n"),
    foreign(f"{HEADER}\nc d,t,1,0,0,9,9\n", "text of letters, digits, _ . - only", f"{HEADER}\nc_d,t,1,0,0,9,9\n"),
    foreign("clip,track,frame,cx,cy,w,h\nc,t,1,left,5,9,9\n", "digits with a point, as 12.5",
            "clip,track,frame,cx,cy,w,h\nc,t,1,12.5,5,9,9\n"),
    lambda tmp: written(tmp / "b.csv", f"{HEADER}\n{FACE},1,1\n", f"{HEADER}\n{FACE}\n",
                        lambda path: read_boxes(path, CLEAN), "clip,track,frame,x,y,width,height"),
    *[lambda tmp, good=good: written(tmp / "boxes" / "val.json", '{"labels": 3}', good, lambda path: label_origin(
        tmp, "val"), "write who made them, in at most 300 characters, or leave it out")
      for good in ('{"labels": "two coders"}', "{}")],
    lambda tmp: written(tmp / "truth" / "test_labels.csv", "", "video_id,track_id,unique_id,label\nv,t,a,1\n",
                        lambda path: load_test_labels(tmp, prepared_index(challenge(tmp, ["v/t/00001_a.jpg"]), "test")),
                        "make or download it again"),
    original_file("result_LAM/c.json", {"t": [record(2)]}, json.dumps(LOOKING) + "[]", "delete the file and write it",
                  LOOKING),
    original_file("json_original/c/t.json", {"t": "["}, LOOKING, "delete the file and run the original scripts again",
                  [record(2)])]


def test_faces_of_openface_are_cut_wider_with_the_rule_of_the_line(tmp_path):
    points = ",".join(f"x_{n}" for n in range(2)) + "," + ",".join(f"y_{n}" for n in range(2))
    (tmp_path / "b.csv").write_text(f"frame,{points}\n2,20,40,20,40\n")
    line = lay_out(tmp_path / "b.csv", video_of(tmp_path), tmp_path / "set", "val", kind="openface")[0]
    name, value = line.partition(" -> --rule ")[2].removesuffix(" widens them").split("=")
    corners_of = [open_index(list_faces(tmp_path / "set", "val", rules=rules)).corners
                  for rules in ({}, {name: value})]
    narrow, wide = (float(found[0][2] - found[0][0]) for found in corners_of)                       # type: ignore[index]
    assert wide == pytest.approx(narrow * 1.3, abs=2)


# Conventions: the arithmetic of the words makes the numbers plausible

def moved(boxes: np.ndarray) -> np.ndarray:
    """Boxes of a video of three times the size."""
    return boxes * 3


WAYS: list[tuple[Callable[[np.ndarray], np.ndarray], str, Callable[[np.ndarray], np.ndarray]]] = [
    (parts, "multiply x and width by the picture's width, y and height by its height",
     lambda wrong: wrong * [1280, 720, 1280, 720]),
    (percent, "multiply x and width by the picture's width / 100, y and height by its height / 100",
     lambda wrong: wrong * [12.8, 7.2, 12.8, 7.2]),
    (centres, "subtract half of the width from x and half of the height from y",
     lambda wrong: wrong - wrong[:, [2, 3, 2, 3]] / 2 * [1, 1, 0, 0]),
    (corners, "width is x2 - x1, height is y2 - y1", lambda wrong: wrong - wrong[:, [0, 1, 0, 1]] * [0, 0, 1, 1]),
    (moved, "scale them, or give that one", lambda wrong: wrong / 3)]


@pytest.mark.parametrize(("written_as", "words", "way"), WAYS, ids=[way[0].__name__ for way in WAYS])
def test_boxes_of_another_convention_are_plausible_after_the_arithmetic_of_the_message(written_as, words, way):
    wrong = written_as(boxes_of())
    assert of_boxes(wrong, SIZE).endswith(words)
    np.testing.assert_allclose(way(wrong), boxes_of())
    assert of_boxes(way(wrong), SIZE) == ""


def test_priors_of_another_convention_are_plausible_after_the_arithmetic_of_the_message():
    degrees = np.random.default_rng(0).uniform(-40, 40, (30, 2))
    assert of_prior("gaze", degrees).endswith("multiply by pi / 180")
    assert of_prior("gaze", degrees * np.pi / 180) == ""
    poses = np.random.default_rng(0).uniform(-1, 1, (30, 3))
    assert of_prior("head_pose", poses).endswith("multiply by 180 / pi")
    assert of_prior("head_pose", poses * 180 / np.pi) == ""
    corner, side = np.array([0.4, 0.5, 0]), 0.1
    inside = np.random.default_rng(0).uniform(0.2, 0.8, (30, 5, 3))
    whole = corner + side * inside
    assert "subtract the box's corner and divide by its width and height" in of_prior("landmarks", whole)
    assert of_prior("landmarks", (whole - corner) / side) == ""


# Prepared files

def forged(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """Another table of contents, with the right checksum."""
    def forge(folder: Path) -> None:
        contents = json.loads((folder / "index.json").read_text())
        contents.pop("sha256")
        change(contents)
        (folder / "index.json").write_text(json.dumps({**contents, "sha256": digest_of(contents)}))
    return forge


def other_column(name: str, content: np.ndarray | bytes) -> Callable[[Path], Any]:
    """Another file of a column, with the right checksums."""
    def forge(folder: Path) -> None:
        path = next(folder.glob(f"{name}-*.npy"))
        path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
        facts = {"crc32": checksums_of(path)[0], "sha256": sha256_of(path), "bytes": path.stat().st_size}
        forged(lambda contents: contents["files"][name].update(facts))(folder)
    return forge


def damaged_after_opening(change: Callable[[Path], Any]) -> Callable[[Path], State]:
    """A shard that changes while its index is open."""
    def state(tmp: Path) -> State:
        root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=5)
        opened = [prepared_index(root)]
        shard = opened[0].shards.paths[0]
        change(shard)

        def cut_again() -> None:
            shard.unlink()
            opened[0] = prepared_index(root)
        return lambda: opened[0].crop(1), CUT_AGAIN, cut_again
    return state


def flip_at_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9] + b"012345678")


def no_jpeg(tmp: Path) -> State:
    """Crops that are none, under the right checksums."""
    root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=5)
    opened = [prepared_index(root)]
    shard = opened[0].shards.paths[0]
    shard.write_bytes(bytes(shard.stat().st_size))
    checksums = [zlib.crc32(bytes(length)) for length in opened[0].length.tolist()]
    other_column("checksum", np.array(checksums, np.uint32))(opened[0].folder)
    opened[0] = Index.open(opened[0].folder)

    def cut_again() -> None:
        shard.unlink()
        opened[0] = prepared_index(root)
    return lambda: opened[0].crop(1), "delete that clip's file in clips/; the clip is cut again", cut_again


def other_rows(tmp: Path) -> State:
    index, model = small_index(tmp / "index", [("c", "t", range(30))]), network()
    store = [computed(model, index, np.array([0, 1]))]

    def again() -> None:
        shutil.rmtree(store[0].folder)
        store[0] = computed(model, index, np.array([0, 1, 2]))
    return lambda: store[0].read(np.array([2])), f"delete the folder {store[0].folder}; it is made again", again


def flipped_feature(tmp: Path) -> State:
    index, model = small_index(tmp / "index", [("c", "t", range(30))]), network()
    folder = computed(model, index).folder
    flip_at_end(next(folder.glob("0*.npy")))
    return (lambda: computed(model, index), f"delete the folder {folder}; it is made again",
            lambda: shutil.rmtree(folder))


def frames_from_one(tmp: Path) -> State:
    root = data_set(tmp, {clip: [("t", [1, 2])] for clip in "cde"}, frames=4)
    table = {"clip": np.repeat(list("cde"), 2), "track": np.array(["t"] * 6), "head_pose": np.ones((6, 3), np.float32)}
    (root / "priors").mkdir()

    def write(frames: list[int]) -> None:
        np.savez(root / "priors" / "train.npz", **table, frame=np.array(frames * 3))
    write([2, 3])
    return lambda: prepared_index(root), "subtract 1 from them", lambda: write([2 - 1, 3 - 1])


def infinite(tmp: Path) -> State:
    index = [small_index(tmp / "index")]
    index[0].head_pose = np.full((5, 3), np.inf, np.float32)             # as a file that was written by other hands

    def again() -> None:
        add_columns(index[0], {"head_pose": np.ones((5, 3))})
        index[0] = Index.open(index[0].folder)
    return lambda: make_batch(index[0], WindowRule(), np.arange(2), 0, 16), "import that prior again", again


def used_loader(tmp: Path) -> State:
    index, model = small_index(tmp / "index", [("c", "t", range(30))]), network()

    def loader() -> Any:
        return make_loader(index, WindowRule(), np.arange(30), batch_size=8, crop_size=32)
    loaders, store = [loader()], computed(model, index)
    next(iter(loaders[0]))
    return lambda: use_features(loaders[0], store), "make a new loader", lambda: loaders.__setitem__(0, loader())


def streamed_crops(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=4)
    indexes = [open_index(list_faces(root, "train")), prepared_index(root)]
    return lambda: computed(network(), indexes[0], np.arange(2)), "give --crops shards", lambda: indexes.pop(0)


def all_clips_damaged(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=4)
    whole, lines = (root / "videos" / "c.mp4").read_bytes(), []
    opened = [open_index(list_faces(root, "train", max_bad_fraction=1.0))]
    (root / "videos" / "c.mp4").write_bytes(whole[:900])

    def read() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("builtins.print", lambda *words, **how: lines.append(" ".join(map(str, words))))
            [*make_loader(opened[0], WindowRule(train=True), np.arange(2), batch_size=2, crop_size=64)]

    def mend() -> None:
        assert any("c.mp4" in line for line in lines), lines             # the warnings above name the file
        (root / "videos" / "c.mp4").write_bytes(whole)
        opened[0] = open_index(list_faces(root, "train"))
    return read, "look at the warnings above", mend


def ends_before_its_faces(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [*range(45)])]}, frames=5)
    return lambda: prepared_index(root), "download it again", lambda: write_video(root / "videos" / "c.mp4", 45)


FILES: list[Callable[[Path], State]] = [
    spoilt(forged(lambda contents: contents.pop("clips"))),
    spoilt(forged(lambda contents: contents.update(rows="2"))),
    spoilt(other_column("track_start", np.array([0, 5]))), spoilt(other_column("frame", np.zeros(9, np.int32))),
    spoilt(other_column("frame", b"no column")), damaged_after_opening(lambda shard: os.truncate(shard, 50)),
    damaged_after_opening(flip_at_end), no_jpeg, other_rows, flipped_feature, frames_from_one, infinite, used_loader,
    streamed_crops, all_clips_damaged, ends_before_its_faces,
    lambda tmp: given(lambda size: BatchOrder(small_index(tmp / "i"), WindowRule(), np.arange(5), size),
                      "give 1 or more", (0,), (1,))(tmp),
    given(lambda number: replace(CLEAN, first_number=number), "give 0 or 1", (2,), (1,))]


@pytest.mark.parametrize("more", [{}, {"d": [("t", [1])]}], ids=["used as it is", "one clip more"])
def test_faces_that_another_decoder_read_are_read_by_one_after_their_folder_is_deleted(tmp_path, more):
    clips: dict[str, list[tuple[str, list[int]]]] = {"c": [("t", [1])]}
    lines: list[str] = []

    def prepared() -> list[str]:
        lines.clear()
        return decoders_of(prepared_index(root, decoder="pyav", notify=lines.append).facts)
    root = data_set(tmp_path, clips, frames=3)
    folder = prepared_index(root, decoder="decord").folder
    if more:
        data_set(root, {**clips, **more}, frames=3)
    assert "decord" in prepared() and any(f"{folder}: " in line and "-> delete the folder, " in line for line in lines)
    shutil.rmtree(folder)
    assert prepared() == ["pyav"] and not any("delete" in line for line in lines)


def test_a_prior_that_is_unknown_for_new_faces_is_imported_again(tmp_path):
    lines: list[str] = []
    root = data_set(tmp_path, {"c": [("t", [1, 2])]}, frames=9)
    add_columns(prepared_index(root), {"head_pose": np.ones((2, 3))}, source="imported from poses.csv")
    data_set(root, {"c": [("t", [1, 2, 3])]}, frames=9, videos=False)
    index = prepared_index(root, notify=lines.append)
    assert any("-> import or compute it again if these are new" in line for line in lines)
    add_columns(index, {"head_pose": np.ones((3, 3))}, source="imported from poses.csv")
    lines.clear()
    data_set(root, {"c": [("t", [1, 2])]}, frames=9, videos=False)
    assert np.isfinite(prepared_index(root, notify=lines.append).head_pose).all()
    assert not any("import" in line for line in lines)


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*TABLES, *FILES)
