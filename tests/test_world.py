"""Facts of the embedded world: its layout is Ego4D's, the seed decides its bytes, its stills are single faces."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from gazepose.data.annotations import read_clips, read_split
from gazepose.data.index import Index
from gazepose.data.quality import laplacian_variance
from gazepose.data.shards import decode
from gazepose.data.tracks import POLICIES
from gazepose.data.video import DECODERS, frames_in_order, video_facts
from gazepose.progress import Progress
from gazepose.synthetic import camera, presets, world
from gazepose.synthetic.plan import PRIORS, TRUTH, plan_clip
from gazepose.synthetic.presets import PRESETS
from gazepose.synthetic.stills import render_stills

SPLITS = ("train", "val", "test")


def table(root: Path, kind: str, split: str) -> dict[str, np.ndarray]:
    with np.load(root / kind / f"{split}.npz") as file:
        return dict(file)


# ------------------------------------------------------------------------------------------ the layout

def test_segments_expand_back_to_the_frame_labels(tiny_world):
    for split in ("train", "val"):
        truth = table(tiny_world, "truth", split)
        labels = {(str(c), str(t), int(f)): int(v) for c, t, f, v in
                  zip(*(truth[k] for k in ("clip", "track", "frame", "label")), strict=True)}
        read = {}
        uids = read_split(tiny_world / "split" / f"{split}.list")
        for clip in read_clips(tiny_world / "json" / f"av_{split}.json", uids, POLICIES["clean"]):
            for track in clip.tracks:
                for frame, label in zip(track.frames.tolist(), track.labels.tolist(), strict=True):
                    read[clip.uid, track.track, frame] = label
        assert read == labels


def test_every_clip_has_a_look_and_an_averted_face(tiny_world):
    for split in SPLITS:
        truth = table(tiny_world, "truth", split)
        for name in np.unique(truth["clip"]):
            assert set(truth["label"][truth["clip"] == name].tolist()) == {0, 1}


def test_the_first_person_is_the_wearer_and_ids_are_text(tiny_world):
    for split in ("train", "val"):
        for video in json.loads((tiny_world / "json" / f"av_{split}.json").read_text())["videos"]:
            for clip in video["clips"]:
                first, *others = clip["persons"]
                assert first["camera_wearer"] and not first["tracking_paths"]
                assert all(isinstance(p["person_id"], str) and not p["camera_wearer"] for p in others)
                assert any(path["track"][0]["frame"] == 0 for p in others for path in p["tracking_paths"])
                assert all(s["is_at_me"] and s["end_frame"] > s["start_frame"] for s in clip["social_segments_looking"])


def test_names_hold_no_five_digits_in_a_row(tiny_world):
    with open(tiny_world / "truth" / "test_labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["unique_id"] for row in rows}) == len(rows) == len(table(tiny_world, "truth", "test")["label"])
    for row in rows:
        assert not re.search(r"\d{5}", row["video_id"] + "/" + row["track_id"] + "/" + row["unique_id"])
        crop = (tiny_world / "videos_challenge" / row["video_id"] / row["track_id"]
                / f"{int(row['frame']):05d}_{row['unique_id']}.jpg")
        assert decode(crop.read_bytes()).shape == (224, 224, 3)


def test_no_identity_in_two_splits(tiny_world):
    identities = [set(table(tiny_world, "truth", split)["identity"].tolist()) for split in SPLITS]
    assert sum(map(len, identities)) == len(set.union(*identities))
    assert all(number < presets.SPLITS.index("stills") * presets.PEOPLE_PER_SPLIT for number in set.union(*identities))


def test_both_decoders_count_and_give_every_frame(tiny_world):
    with open(tiny_world / "csv" / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(PRESETS["tiny"].clips)
    for row in rows:
        path, count = tiny_world / row["path"], int(row["frames"])
        facts = video_facts(path)
        assert (facts.frames, facts.fps, facts.height, facts.width) == (count, 30, 180, 320)
        # one past the end; in order only, since a decord that seeks may never come back
        pictures = [[picture for _, picture in frames_in_order(path, range(count + 1), decoder)]
                    for decoder in DECODERS]
        assert [len(decoded) for decoded in pictures] == [count, count]
        assert all(np.abs(one.astype(int) - other).mean() < 2 for one, other in zip(*pictures, strict=True))


def test_a_decoded_frame_is_the_drawn_one(tiny_world):
    clip = plan_clip(PRESETS["tiny"], 0, "val", 0)
    drawn = list(camera.draw_clip(clip))
    path = tiny_world / "videos" / f"{clip.uid}.mp4"
    decoded = [picture.astype(int) for _, picture in frames_in_order(path, range(12))]
    gaps = np.array([[np.abs(one - picture).mean() for picture in drawn[:12]] for one in decoded])
    assert gaps.diagonal().max() < 6
    assert (gaps.argmin(1) == np.arange(12)).mean() > 0.8


def test_quality_falls_when_blur_is_added():
    clip = plan_clip(PRESETS["tiny"], 0, "train", 0)
    picture = next(camera.draw_clip(clip))
    sharp, smeared, soft = (laplacian_variance(world.square_crop(p, clip.crop_box[0], 224)) for p in (
        picture, camera.smear(picture, 8, 3), cv2.GaussianBlur(picture, (0, 0), 2)))
    assert smeared < 0.7 * sharp and soft < 0.5 * sharp


def test_smearing_keeps_the_middle_in_the_middle():
    picture = np.zeros((61, 61, 3), np.uint8)
    picture[30, 30] = 255
    spread = camera.smear(picture, 8.0, 0.0).astype(float)[..., 0]
    assert spread.shape == (61, 61)
    columns = np.flatnonzero(spread.sum(0))
    assert 7 <= columns[-1] - columns[0] + 1 <= 9 and abs(columns.mean() - 30) <= 0.5
    assert spread[30].sum() == spread.sum()


# ------------------------------------------------------------------------------- seeds, order, resuming

def test_same_seed_same_bytes_in_any_order_and_process(tiny_world, tmp_path):
    tasks = [(tmp_path, PRESETS["tiny"], 0, "val", 1), (tmp_path, PRESETS["tiny"], 0, "train", 0)]
    with Progress("rendering", 2, "clip", lambda line: None) as progress:
        world.run_tasks(world._render_clip, tasks, 2, progress)
    assert progress.done == 2
    videos = sorted((tmp_path / "videos").iterdir())
    assert len(videos) == 2
    for video in videos:
        assert video.read_bytes() == (tiny_world / "videos" / video.name).read_bytes()
    for split, number in (("val", 1), ("train", 0)):
        with np.load(tmp_path / ".pieces" / f"{split}-{number:04d}.npz") as piece:
            for kind, keys in (("truth", TRUTH), ("priors", PRIORS)):
                whole = table(tiny_world, kind, split)
                rows = whole["clip"] == piece["truth_clip"][0]
                for key in keys:
                    np.testing.assert_array_equal(piece[f"{kind}_{key}"], whole[key][rows])


def test_the_contact_sheet_is_a_picture(tiny_world):
    sheet = cv2.imread(str(tiny_world / "contact_sheet.png"))
    assert sheet is not None and sheet.shape[1] == 3 * 448 and sheet.shape[0] > 252 + 4 * 96


def test_the_package_uses_the_renderer_by_two_functions_and_the_presets():
    package = Path(world.__file__).parents[1]
    used = {name for path in package.rglob("*.py") if path.parent.name != "synthetic"
            for name in re.findall(r"gazepose\.synthetic(?:\.\w+)? import [\w, ]*\w", path.read_text())}
    assert used <= {"gazepose.synthetic.world import render_world", "gazepose.synthetic.stills import render_stills",
                    "gazepose.synthetic.presets import PRESETS", "gazepose.synthetic.presets import VERSION"}


# ------------------------------------------------------------------------------------------------ stills

@pytest.fixture(scope="module")
def stills(tmp_path_factory) -> Path:
    return render_stills(tmp_path_factory.mktemp("stills"), "tiny", 0, 140, 48, jobs=1, notify=lambda line: None)


def test_stills_are_an_index_of_single_crops(stills):
    index = Index.open(stills)
    assert len(index) == 140 and index.crop(139).shape == (48, 48, 3)
    np.testing.assert_array_equal(np.diff(index.track_start), 1)
    assert 0.25 < index.label.mean() < 0.6
    closed = np.isnan(index.gaze).any(1)                                # one picture: closed eyes look nowhere
    assert 0 < closed.mean() < 0.15 and not index.label[closed].any() and (index.quality > 0).all()
    off = np.linalg.norm(np.nan_to_num(index.gaze, nan=np.pi), axis=1)
    assert off[index.label == 1].max() < np.radians(12) and off[index.label == 0].min() > np.radians(6)
    assert 0 < np.isnan(index.head_pose[:, 0]).mean() < 0.5


def test_finished_stills_are_not_made_again_and_others_not_written_over(stills):
    root = stills.parents[1]
    assert render_stills(root, "tiny", 0, 140, 48, notify=lambda line: pytest.fail(line)) == stills
    with pytest.raises(ValueError, match="stills of .*'count': 140.* wanted .*'count': 150.* -> delete this folder"):
        render_stills(root, "tiny", 0, 150, 48)
    with pytest.raises(ValueError, match="0 stills of 48 pixels"):
        render_stills(root, "tiny", 0, 0, 48)
