"""The doctor knows every data set that preparation takes: what can be prepared is called ready, counted alike."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import HEIGHT, WIDTH, barcode, data_set, prepare, prepared_index, write_video
from test_boxes import HEADER, table
from test_doctor import fast_start

from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES
from gazepose.doctor import examine
from gazepose.doctor.text import as_text

HARMLESS = {"split_absent", "priors_absent", "segment_not_at_me", "segment_without_face", "convention_unjudged"}
SPLITS = {"train": {"c": [("t", [1, 2, 3, 4, 6])], "d": [("u", [2, 3]), ("v", [7, 8, 9])]},
          "val": {"e": [("t", [2, 3, 4])]}}


def own(root: Path) -> Path:
    """Videos of every suffix, with tables."""
    for clip, suffix in {"c": "mp4", "d": "mkv", "e": "avi", "f": "mov"}.items():
        write_video(root / "videos" / f"{clip}.{suffix}", 60, "mpeg4" if suffix == "avi" else "libx264")
    tracks = {"train": [("c", "t", [1, 2, 3, 5]), ("d", "u", [2, 3, 4, 50])],
              "val": [("e", "t", [3, 4]), ("f", "t", [9])]}
    for split, known in tracks.items():
        table(root / "boxes" / f"{split}.csv", *(
            f"{clip},{track},{frame},5,0,{WIDTH - 9},{HEIGHT},{'' if frame == 2 else frame % 2}"
            for clip, track, frames in known for frame in frames), header=HEADER + ",label")
    return root


def official(root: Path, videos: bool = True) -> Path:
    for split, clips in SPLITS.items():
        data_set(root, clips, frames=12, split=split, videos=videos)
    return root


def merged(root: Path) -> Path:
    official(root)
    documents = [json.loads((root / "json" / f"av_{split}.json").read_text()) for split in SPLITS]
    for split in SPLITS:
        (root / "json" / f"av_{split}.json").unlink()
    videos = [video for document in documents for video in document["videos"]]
    (root / "json" / "av.json").write_text(json.dumps({"videos": videos}))
    return root


def images(root: Path) -> Path:
    """video_imgs/ as the original scripts write it, of 12 pictures."""
    for clip in (clip for clips in SPLITS.values() for clip in clips):
        (root / "video_imgs" / clip).mkdir(parents=True)
        for number in range(12):
            (root / "video_imgs" / clip / f"img_{number + 1:05d}.jpg").write_bytes(encode(barcode(number)))
    return official(root, videos=False)


def faces(root: Path) -> Path:
    """face_imgs/ for both policies: numbered from 1, with one image more at the end of each track."""
    for clip, tracks in ((clip, tracks) for clips in SPLITS.values() for clip, tracks in clips.items()):
        for track, frames in tracks:
            folder = root / "face_imgs" / clip / track
            folder.mkdir(parents=True)
            for number in range(frames[0], frames[-1] + 2):
                (folder / f"face_{number:05d}.jpg").write_bytes(encode(np.full((64, 64, 3), 9 * number, np.uint8)))
    return official(root, videos=False)


def agrees(root: Path, facts: dict[str, Any], splits: tuple[str, ...] = ("train", "val")) -> None:
    """Rows, labels and counts of every rule are those of preparation."""
    for split in splits:
        for policy in POLICIES:
            known = facts["splits"][split]["policies"][policy]
            index = prepared_index(root, split, policy=policy, crop_size=16,
                                       crops_from=facts["crops_from"])
            assert {rule: entry["count"] for rule, entry in known["rules"].items()} == index.facts["counts"]
            assert known["rows"] == known["rows_with_picture"] == len(index) and not index.facts["bad_clips"]
            assert known["labelled"] == int((index.label >= 0).sum())
            assert known["looking"] == int((index.label == 1).sum())


@pytest.mark.parametrize(("make", "source"), [(own, "videos"), (merged, "videos"), (images, "images"),
                                              (faces, "faces")])
def test_what_preparation_takes_is_called_ready_and_counted_alike(tmp_path, make, source):
    root = make(tmp_path)
    facts = examine(root)
    assert facts["healthy"] and set(facts["findings"]) <= HARMLESS and facts["crops_from"] == source
    assert as_text(facts).endswith("nothing: the data set is ready for training.")
    agrees(root, facts)
    for split in SPLITS:
        assert facts["splits"][split]["annotated"] == facts["splits"][split]["listed"] > 0


def change_rows(root: Path, change: Callable[[list[list[str]]], object]) -> None:
    path = root / "boxes" / "train.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    change(rows)
    path.write_text("\n".join(map(",".join, rows)))


def cut(path: Path, part: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * part)])


def row_outside(root):
    change_rows(root, lambda rows: rows[3].__setitem__(3, str(WIDTH + 5)))
    return {"clip": "c", "track": "t", "frame": 3}


def mkv_cut_short(root):
    cut(root / "videos" / "d.mkv", 0.66)                               # the end, where frame 50 would be
    return {"clip": "d"}


def clip_in_both_tables(root):
    change_rows(root, lambda rows: rows.append(["e", "t", "1", "0", "0", "9", "9", "1"]))
    return {"clip": "e", "detail": "train and val"}


def table_with_a_word(root):
    change_rows(root, lambda rows: rows[3].__setitem__(3, "left"))
    return {"split": "train", "detail": "boxes/train.csv: line 4: x 'left' is not a finite number -> digits with a "
                                        "point, as 12.5"}


def two_tables(root):
    (root / "boxes" / "train.parquet").write_bytes(b"PAR1")
    return {"split": "train", "detail": "boxes/train.csv: there is a train.parquet too -> keep one of them"}


def mov_gone(root):
    (root / "videos" / "f.mov").unlink()
    return {"split": "val", "clip": "f"}


def mov_of_nobody(root):
    shutil.copy(root / "videos" / "f.mov", root / "videos" / "g.mov")
    return {"clip": "g"}


def labels_gone(root):
    change_rows(root, lambda rows: [row.__setitem__(7, "") for row in rows[1:]])
    return {"split": "train"}


def clip_in_no_list(root):
    (root / "split" / "train.list").write_text("c")
    return {"clip": "d", "file": "json/av.json"}


def clip_without_a_uid(root):
    path = root / "json" / "av.json"
    path.write_text(path.read_text().replace('"clip_uid": "d"', '"clip_uid": null'))
    return {"split": "train"}


def folder_gone(root):
    (folder,) = root.glob("*_imgs/d")
    shutil.rmtree(folder)
    return {"split": "train", "clip": "d", "file": f"{folder.parent.name}/d"}


def image_gone(root):
    (path,) = [*root.glob("video_imgs/c/img_00004.jpg"), *root.glob("face_imgs/c/t/face_00004.jpg")]
    path.unlink()
    return {"clip": "c", "track": "t", "frame": 3}


def image_cut_short(root):
    (path,) = [*root.glob("video_imgs/c/img_00004.jpg"), *root.glob("face_imgs/c/t/face_00004.jpg")]
    cut(path, 0.7)
    return {"clip": "c"}


FAULTS = [
    (own, mkv_cut_short, "pictures_damaged", "look"), (own, clip_in_both_tables, "clip_in_two_splits", "must"),
    (own, table_with_a_word, "file_unusable", "must"), (own, two_tables, "file_unusable", "must"),
    (own, mov_gone, "pictures_missing", "must"), (own, mov_of_nobody, "clip_unused", "note"),
    (own, labels_gone, "split_unlabelled", "must"),
    (merged, clip_in_no_list, "clip_unused", "note"), (merged, clip_without_a_uid, "name_unusable", "look"),
    *[(make, *fault) for make in (images, faces) for fault in (
        (folder_gone, "pictures_missing", "must"), (image_gone, "face_without_picture", "look"),
        (image_cut_short, "pictures_damaged", "must"))]]


@pytest.mark.parametrize(("make", "plant", "kind", "level"), FAULTS,
                         ids=[f"{make.__name__}-{plant.__name__}" for make, plant, *_ in FAULTS])
def test_a_planted_fault_is_named_with_its_place(tmp_path, make, plant, kind, level):
    """One that must be mended stops preparation or training; with any other both counts agree still."""
    root = make(tmp_path)
    place = plant(root)
    facts = examine(root)
    finding = facts["findings"][kind]
    assert (finding["count"], finding["level"]) == (1, level) and facts["healthy"] == (level != "must")
    assert place.items() <= finding["examples"][0].items(), finding["examples"]
    if level != "must":
        agrees(root, facts, ("val",) if kind == "name_unusable" else ("train", "val"))
    elif kind not in ("clip_in_two_splits", "split_unlabelled"):
        with pytest.raises(ValueError, match=r"clips cannot be used|boxes.train\.csv"):
            prepare(root, place["split"] if "split" in place else "train", crop_size=16)


def test_a_box_outside_is_counted_with_its_place(tmp_path):
    root = own(tmp_path)
    place = row_outside(root)
    facts = examine(root)
    (example,) = facts["splits"]["train"]["policies"]["clean"]["rules"]["row left out: outside the picture"]["examples"]
    assert example == place and facts["healthy"]
    agrees(root, facts)


def test_a_folder_to_be_scored_needs_neither_labels_nor_another_split(tmp_path):
    root = own(tmp_path)
    (root / "boxes" / "train.csv").unlink()
    table(root / "boxes" / "val.csv", f"e,t,3,0,0,{WIDTH},{HEIGHT}")
    facts = examine(root)
    assert facts["healthy"] and {"split_absent", "split_unlabelled"} <= set(facts["findings"])
    assert facts["findings"]["split_absent"]["examples"][0] == {"what": "table of boxes", "split": "train",
                                                                 "file": "boxes/train.csv"}
    agrees(root, facts, ("val",))
    (root / "boxes" / "val.csv").unlink()
    assert examine(root)["findings"]["split_absent"]["level"] == "must"


def test_parquet_is_read_as_csv_is(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = own(tmp_path)
    known = examine(root)["splits"]
    columns: dict[str, list] = {"clip": ["e", "e", "f"], "track": ["t"] * 3, "frame": [3, 4, 9], "x": [5] * 3,
                                "y": [0] * 3, "width": [WIDTH - 9] * 3, "height": [HEIGHT] * 3, "label": [1, 0, 1]}
    parquet.write_table(pyarrow.table(columns), root / "boxes" / "val.parquet")
    (root / "boxes" / "val.csv").unlink()
    assert examine(root)["splits"] == known


def test_a_video_at_any_rate_is_right_where_frames_are_numbered_as_decoded(tmp_path):
    root = own(tmp_path)
    fast_start(root / "videos" / "c.mp4", 9, rate=25)
    assert set(examine(root)["findings"]) <= HARMLESS | {"rate_differs"}


def test_the_source_of_crops_may_be_chosen(tmp_path):
    root = images(tmp_path)
    for clips in SPLITS.values():
        for clip in clips:
            write_video(root / "videos" / f"{clip}.mp4", 12)
    shutil.rmtree(root / "video_imgs" / "d")
    assert examine(root)["healthy"] and examine(root)["crops_from"] == "videos"
    assert examine(root, crops_from="images")["findings"]["pictures_missing"]["clips"] == ["d"]
