"""A data set made of watched videos: labels where the score is sure, small copies, and what train.py reads of it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import warm

from gazepose.data.index import Index
from gazepose.data.prepare import PrepareConfig, prepare
from gazepose.data.video import frames_in_order, video_facts
from gazepose.data.video_writer import write_mp4
from gazepose.watch import dataset
from gazepose.watch.readout import Readout
from gazepose.watch.table import FACES, Video

FRAMES, SIZE = 12, (320, 240)
ORIGIN = "landmark score of gazepose watch"


def a_video(folder: Path, name: str, seed: int = 0, frames: int = FRAMES) -> Video:
    """A noisy video with a bright square where its face is."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 120, (frames, SIZE[1], SIZE[0], 3), np.uint8)
    pictures[:, 60:160, 100:180] += 100
    folder.mkdir(parents=True, exist_ok=True)
    write_mp4(folder / name, pictures, SIZE, 18)
    return Video(name, folder / name, *SIZE, frames, 30.0, frames / 30)


def faces_of(video: Video, looking: list[float], person: str = "P1", reason: str = "") -> pd.DataFrame:
    """One person in each frame, 80 x 100 pixels."""
    rows = len(looking)
    values = {name: np.zeros(rows) for name in FACES}
    values |= {"frame": np.arange(rows), "seconds": np.arange(rows) / 30, "x": np.full(rows, 100.0),
               "y": np.full(rows, 60.0), "width": np.full(rows, 80.0), "height": np.full(rows, 100.0),
               "looking": np.array(looking), "codable": np.isfinite(looking).astype(int)}
    return pd.DataFrame(values).assign(video=video.name, person=person, reason=reason)


@pytest.fixture
def watched(tmp_path: Path) -> tuple[list[Video], pd.DataFrame]:
    videos = [a_video(tmp_path / "in", f"v{number}.mp4", number) for number in range(2)]
    scores = [0.95, 0.6, 0.59, 0.5, 0.11, 0.1, 0.05, np.nan, 0.99, 0.01, 0.97, 0.03]
    return videos, pd.concat([faces_of(video, scores) for video in videos], ignore_index=True)


def prepared(out: Path, split: str) -> Index:
    return Index.open(prepare(out, split, PrepareConfig(crop_size=32, decoder="pyav"), jobs=1))


def test_a_score_is_a_label_only_where_it_is_sure(tmp_path: Path, watched):
    videos, table = watched
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN)
    for split in ("train", "val"):
        index = prepared(tmp_path / "out", split)
        assert index.label.tolist() == [1, 1, -1, -1, -1, 0, 0, -1, 1, 0, 1, 0]
    assert index.box[0] == pytest.approx([103.04, 73.2, 103.04 + 73.6, 73.2 + 82.8], abs=0.02)     # corners


def test_a_face_that_looks_straight_ahead_with_open_eyes_has_the_label_looking(tmp_path: Path, watched):
    videos, table = watched
    ahead = Readout.shipped().probability(*np.zeros((6, 1)))[0]
    away = Readout.shipped().probability(*np.array([[40.0], [0], [0], [0], [0], [0]]))[0]
    looking = np.where(np.arange(len(table)) % 2, ahead, away)
    assert dataset.labelled(table.assign(looking=looking), own_boxes=False)["label"].tolist() == [0, 1] * FRAMES


def test_small_copies_show_the_same_faces_with_the_same_labels(tmp_path: Path, watched):
    videos, table = watched
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN, small=True)
    facts = video_facts(tmp_path / "out" / "videos" / "v0-28px.mp4", "pyav")
    assert (facts.frames, facts.width, facts.height) == (FRAMES, 90, 68)
    rows = pd.read_csv(tmp_path / "out" / "boxes" / "train.csv")
    assert rows["clip"].unique().tolist() == ["v0", "v0-36px", "v0-28px", "v0-20px"]
    small, large = rows[rows["clip"] == "v0-28px"], rows[rows["clip"] == "v0"]
    assert np.array_equal(small["label"], large["label"], equal_nan=True)
    assert small["height"].to_numpy() == pytest.approx(large["height"].to_numpy() * 68 / 240, abs=0.01)
    _, picture = next(frames_in_order(tmp_path / "out" / "videos" / "v0-28px.mp4", [0], "pyav"))
    face = picture[20:42, 32:48].mean()
    assert face > picture[:10].mean() + 60                              # the square is where the boxes say


def test_videos_are_divided_not_faces(tmp_path: Path):
    videos = [Video(f"{name}.mp4", tmp_path, 2, 2, 30, 30.0, 1.0) for name in "hgfedcba"]
    parts = dataset.divide(videos)
    assert [part.clip for part in parts if part.split == "val"] == ["e"]
    assert [part.split for part in dataset.divide(videos[:2])] == ["train", "val"]
    alone = dataset.divide(videos[:1])
    assert [(part.split, part.start, part.end) for part in alone] == [("train", 0.0, 0.8), ("val", 0.8, float("inf"))]
    assert alone[0].clip != alone[1].clip


def test_filled_boxes_are_left_out_and_tiny_copies_too(tmp_path: Path, watched):
    videos, table = watched
    table.loc[table["frame"] == 3, "reason"] = "not detected"
    table.loc[table["frame"] == 4, "height"] = 30.0
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN, small=True)
    rows = pd.read_csv(tmp_path / "out" / "boxes" / "train.csv")
    assert 3 not in rows["frame"].to_numpy()
    assert 4 in rows.loc[rows["clip"] == "v0", "frame"].to_numpy()
    assert 4 not in rows.loc[rows["clip"] == "v0-36px", "frame"].to_numpy()        # 30 of 100 of 36: 11 px


def test_names_that_are_no_ids_become_clips_that_are(tmp_path: Path):
    names = ["Bébé 1.mp4", "Bébé_1.mp4", "a/b.mp4", "plain-1.mov"]
    clips = [dataset.clip_name(name) for name in names]
    assert len(set(clips)) == 4 and clips[3] == "plain-1"
    assert all(clip.isascii() and "/" not in clip and " " not in clip for clip in clips)


def test_the_same_call_again_replaces_and_another_is_refused(tmp_path: Path, watched):
    videos, table = watched
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN)
    before = (tmp_path / "out" / "boxes" / "train.csv").read_bytes()
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN)
    assert (tmp_path / "out" / "boxes" / "train.csv").read_bytes() == before
    other = [a_video(tmp_path / "in", "w0.mp4"), a_video(tmp_path / "in", "w1.mp4")]
    with pytest.raises(FileExistsError, match="train.csv: belongs to a data set of other videos -> name another"):
        dataset.write_dataset(tmp_path / "out", other, table, origin=ORIGIN)
    (tmp_path / "mine" / "boxes").mkdir(parents=True)
    (tmp_path / "mine" / "boxes" / "val.csv").write_text("clip")
    with pytest.raises(FileExistsError, match="val.csv: belongs"):
        dataset.write_dataset(tmp_path / "mine", videos, table, origin=ORIGIN)
    assert (tmp_path / "mine" / "boxes" / "val.csv").read_text() == "clip"


def test_no_sure_score_is_an_error(tmp_path: Path, watched):
    videos, table = watched
    with pytest.raises(ValueError, match="no face has a sure score .* -> watch more videos"):
        dataset.write_dataset(tmp_path / "out", videos, table.assign(looking=0.5), origin=ORIGIN)
    assert not (tmp_path / "out" / "boxes").exists()


def test_the_labels_origin_is_in_the_index_and_follows_a_change(tmp_path: Path, watched):
    videos, table = watched
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN)
    assert prepared(tmp_path / "out", "train").facts["labels"] == f"{ORIGIN}; 1 from 0.6 on, 0 up to 0.1"
    dataset.write_dataset(tmp_path / "out", videos, table, origin="another readout")
    assert prepared(tmp_path / "out", "train").facts["labels"].startswith("another readout;")
    for spoilt in ("7", '""', '"' + "x" * 301 + '"'):
        (tmp_path / "out" / "boxes" / "train.json").write_text(f'{{"first_number": 0, "labels": {spoilt}}}')
        with pytest.raises(ValueError, match="train.json: labels .* -> write who made them"):
            prepared(tmp_path / "out", "train")


def test_a_run_says_who_made_its_labels(tmp_path: Path, watched):
    videos, table = watched
    dataset.write_dataset(tmp_path / "out", videos, table, origin=ORIGIN)
    warm.ran(str(Path(__file__).parents[1] / "train.py"), "--data", str(tmp_path / "out"), "--exp_path", "run",
             "--epochs", "1", "--from_scratch", "--crop_size", "32", "--model", "GazeLSTM", "--num_workers", "0",
             "--decoder", "pyav", "--train_stride", "1", "--val_stride", "1", cwd=tmp_path)
    learnt = json.loads((tmp_path / "run" / "config.json").read_text())["learnt_from"]
    assert learnt["labels"] == [f"{ORIGIN}; 1 from 0.6 on, 0 up to 0.1"] and learnt["real"] == [str(tmp_path / "out")]


def test_a_picture_becomes_a_video_of_one_frame(tmp_path: Path, watched):
    videos, table = watched
    picture = tmp_path / "in" / "still.png"
    cv2.imwrite(str(picture), np.full((240, 320, 3), 90, np.uint8))
    still = Video("still", picture, 320, 240, 1, 0.0, 0.0)
    seen = table[(table["video"] == "v0.mp4") & (table["frame"] == 0)].assign(video="still")
    said: list[str] = []
    dataset.write_dataset(tmp_path / "out", [*videos, still], pd.concat([table, seen]), origin=ORIGIN, small=True,
                          notify=said.append)
    assert video_facts(tmp_path / "out" / "videos" / "still.mp4", "pyav").frames == 1
    assert prepared(tmp_path / "out", "train").label.tolist().count(1) == 4 * 4 + 4  # v0, its copies, the picture
    assert not any("left out" in line for line in said)


def test_videos_without_a_sure_score_are_left_out_and_named(tmp_path: Path, watched):
    videos, table = watched
    said: list[str] = []
    unsure = table.assign(looking=np.where(table["video"] == "v1.mp4", 0.5, table["looking"]))
    dataset.write_dataset(tmp_path / "out", videos, unsure, origin=ORIGIN, notify=said.append)
    assert said[0].endswith("left out, without a sure score: v1.mp4")
    assert sorted(path.name for path in (tmp_path / "out" / "videos").iterdir()) == ["v0-end.mp4", "v0.mp4"]
