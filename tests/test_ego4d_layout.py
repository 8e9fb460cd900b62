"""What Ego4D's downloader made is read where it lies: v2/annotations/ and v2/clips/, without split lists."""

import os
import shutil
from pathlib import Path

import pytest
from making import prepare, same
from test_sources import prepared, two_clips
from warm import ran

from gazepose.data.index import Index
from gazepose.data.streaming import open_index
from gazepose.doctor import examine
from gazepose.source import find_source


@pytest.fixture
def download(tmp_path) -> Path:
    """Two clips as the downloader leaves them, one named .MP4, and a third whose video is not there."""
    ours, root = two_clips(tmp_path / "ours"), tmp_path / "ego4d_data"
    (root / "v2").mkdir(parents=True)
    shutil.copytree(ours / "json", root / "v2" / "annotations")
    shutil.copytree(ours / "videos", root / "v2" / "clips")
    (root / "v2" / "clips" / "c1.mp4").rename(root / "v2" / "clips" / "c1.MP4")
    for name in ("manifest.csv", "manifest.ver"):
        (root / "v2" / "clips" / name).write_text("")
    (root / "v2" / "ego4d.json").write_text("{}")
    return root


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")
            if path.is_file() and "prepared" not in path.parts}


@pytest.mark.parametrize("given", ["", "v2"])
def test_the_download_is_prepared_as_our_layout_is(download, given):
    before, lines = files(download), []
    index = prepared(download / given, lines)
    same(index, prepared(download.parent / "ours"))
    assert any("there is no split/train.list, so all clips of " in line for line in lines)
    assert files(download) == before and (download / given / "prepared").is_dir()
    assert prepared(download / given, lines).facts == index.facts                # nothing is made again
    cut_later = open_index(prepare(download / given, "train", crops="video"))
    assert [cut_later.jpeg(row) for row in range(5)] == [index.jpeg(row) for row in range(5)]


def test_a_clip_that_was_not_downloaded_is_left_out_and_named(download):
    (download / "v2" / "clips" / "c1.MP4").unlink()
    with pytest.raises(ValueError, match=r"clips/c1\.mp4"):
        prepared(download)
    assert Index.open(prepare(download, "train", max_bad_fraction=0.5)).clips == ["c0"]
    facts = examine(download, notify=lambda line: None)
    found = facts["findings"]
    assert any(f"into {download / 'v2' / 'clips'}/," in step["do"] for step in facts["remedies"])
    assert found["pictures_missing"]["clips"] == ["c1"] and found["list_absent"]["level"] == "look"
    assert {example["split"] for example in found["file_missing"]["examples"]} == {"val"}      # which is not there


def test_a_split_list_beside_the_download_is_used(download):
    (download / "split").mkdir()
    (download / "split" / "train.list").write_text("c1")
    assert prepared(download).clips == ["c1"]
    found = examine(download, notify=lambda line: None)["findings"]                # the remedy of list_absent
    assert not [place for place in found.get("list_absent", {"examples": []})["examples"] if place["split"] == "train"]


def test_the_download_under_data_is_the_default(download, monkeypatch):
    monkeypatch.chdir(download.parent)
    assert find_source(None).preset == "default"
    download.rename("data")
    assert find_source(None).root == Path("data")


def test_a_download_without_one_clip_is_trained_on_scored_and_handed_in(tiny_world, tmp_path):
    parts = {"json": "v2/annotations", "videos": "v2/clips", "videos_challenge": "videos_challenge"}
    for ours, theirs in parts.items():
        shutil.copytree(tiny_world / ours, tmp_path / "ego4d" / theirs, copy_function=os.link)
    next((tmp_path / "ego4d" / "v2" / "clips").glob("*train002.mp4")).unlink()
    small = ("--crop_size 32 --backbone test_resnet --output_stride 32 --num_encoder_layers 1 --num_decoder_layers 1 "
             "--dmodel 32 --dim_feedforward 32 --nheads 2 --limit 8 --batch_size 8 --epochs 1 --num_workers 0 "
             "--lr 1e-3 --pretrained no --max_bad_fraction 0.5").split()
    printed = ran("-m", "gazepose", "train", "--data", "ego4d", "--exp_path", "run", *small, cwd=tmp_path)
    assert "left out: 1 clip" in printed and "step 1/1" in printed and "best val_mAP=" in printed
    printed = ran("-m", "gazepose", "infer", "--checkpoint", "run", "--split", "test", "--to_json", cwd=tmp_path)
    assert "submission checked, " in printed
    assert "each exactly once" in ran("-m", "gazepose", "submit", "run/pred/test/submission.json", "--index",
                                      "ego4d/prepared/clean-32/test", cwd=tmp_path)
