"""Facts of the embedded world: its truth is geometry, its layout is Ego4D's, its bytes depend on the seed alone."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
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
from gazepose.synthetic import camera, head, presets, world
from gazepose.synthetic.motion import EYE_LIMIT, PersonMotion
from gazepose.synthetic.plan import PRIORS, TRUTH, PlannedClip, camera_angles, gaze_angles, plan_clip
from gazepose.synthetic.presets import PRESETS
from gazepose.synthetic.shot import Shot, identity_of, pose_of
from gazepose.synthetic.stills import render_stills

SPLITS = ("train", "val", "test")
FACING = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="session")
def clips() -> list[PlannedClip]:
    """Plans of default clips, more than 200 tracks; nothing is drawn."""
    return [plan_clip(PRESETS["default"], 0, "train", number) for number in range(7)]


@pytest.fixture(scope="session")
def truth(clips) -> dict[str, np.ndarray]:
    joined = {k: np.concatenate([clip.truth[k] for clip in clips]) for k in TRUTH}
    assert len(np.unique(joined["track"])) >= 200
    return joined


def table(root: Path, kind: str, split: str) -> dict[str, np.ndarray]:
    with np.load(root / kind / f"{split}.npz") as file:
        return dict(file)


def acts_by_row(clip: PlannedClip) -> list[tuple[PersonMotion, np.ndarray, int, Shot, int]]:
    """Act, camera position, frame in the shot, shot and person of each row of a clip's truth."""
    where = {name: (shot, person) for shot in clip.shots for person, name in enumerate(shot.tracks)}
    found = []
    for name, frame in zip(clip.truth["track"], clip.truth["frame"], strict=True):
        shot, person = where[str(name)]
        found.append((shot.people[person], shot.position[frame - shot.first], int(frame - shot.first), shot, person))
    return found


# ------------------------------------------------------------------------------------------ geometry

def test_a_label_is_a_ray_within_twelve_centimetres_of_the_camera(clips):
    for clip in clips:
        for row, (act, lens, i, _, _) in enumerate(acts_by_row(clip)):
            to = lens - act.midpoint[i]
            miss = np.linalg.norm(np.cross(to, act.gaze[i]))                       # distance of a point from a line
            assert clip.truth["label"][row] == int(miss < 0.12 and to @ act.gaze[i] > 0)


def test_angle_and_distance_alone_give_the_label(truth):
    miss = truth["distance"] * np.sin(np.radians(truth["angle"]))
    sure = np.abs(miss - 0.12) > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(((miss < 0.12) & (truth["angle"] < 90))[sure], (truth["label"] == 1)[sure])


def test_both_drawn_eyes_of_a_positive_meet_near_the_camera(clips):
    for clip in clips[:3]:
        for row, (_, _, i, shot, person) in enumerate(acts_by_row(clip)):
            pose = pose_of(shot, person, i)
            eyes = identity_of(0, shot.identities[person]).eyes @ pose.rotation.T + pose.position
            rays = pose.eyes @ pose.rotation.T                                     # the camera is the origin
            miss = np.linalg.norm(np.cross(eyes, rays), axis=1)
            if clip.truth["label"][row]:
                assert (miss < 0.16).all() and ((eyes * rays).sum(1) < 0).all()
            elif clip.truth["angle"][row] > PRESETS["default"].nearest:
                assert (miss > 0.05).all()


def test_eyes_turn_no_further_than_an_eye_can(clips):
    for act in (act for clip in clips for shot in clip.shots for act in shot.people):
        middle = np.einsum("nji,nj->ni", act.rotation, act.gaze)
        assert np.abs(np.arctan2(middle[:, 0], middle[:, 2])).max() < EYE_LIMIT[0] + 1e-6
        assert np.abs(np.arcsin(middle[:, 1])).max() < EYE_LIMIT[1] + 1e-6


def test_gaze_zero_looks_at_the_camera(truth):
    off = np.degrees(np.arccos(np.cos(truth["gaze"][:, 0]) * np.cos(truth["gaze"][:, 1])))
    np.testing.assert_allclose(off, truth["angle"], atol=0.02)


def test_a_gaze_to_image_right_and_up_is_positive():
    ahead = np.array([0.0, 0.0, 1.0])                                              # the face is before the camera
    assert gaze_angles(np.array([0.0, 0.0, -1.0]), ahead) == pytest.approx([0, 0])
    assert gaze_angles(np.array([0.5, 0.0, -np.sqrt(0.75)]), ahead) == pytest.approx([np.radians(30), 0])
    assert gaze_angles(np.array([0.0, -0.5, -np.sqrt(0.75)]), ahead) == pytest.approx([0, np.radians(30)])


def test_head_pose_signs():
    ahead = np.array([0.0, 0.0, 1.0])
    turn = np.radians(20)
    c, s = np.cos(turn), np.sin(turn)
    right = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ FACING                  # the face swings to image right
    up = np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ FACING
    clockwise = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ FACING              # y is down: x turns towards y
    assert camera_angles(FACING, ahead) == pytest.approx([0, 0, 0])
    assert camera_angles(right, ahead) == pytest.approx([20, 0, 0])
    assert camera_angles(up, ahead) == pytest.approx([0, 20, 0])
    assert camera_angles(clockwise, ahead) == pytest.approx([0, 0, 20])


def test_a_mirrored_face_swaps_left_and_right_and_negates_yaw_and_roll(clips):
    mirror, swap = np.diag([-1.0, 1.0, 1.0]), [0, 2, 1, 4, 3]
    width, focal = 640, PRESETS["default"].focal
    for _, _, i, shot, person in acts_by_row(clips[0])[::37]:
        pose = pose_of(shot, person, i)
        other = replace(pose, position=mirror @ pose.position, rotation=mirror @ pose.rotation @ mirror)
        angles, mirrored = (camera_angles(p.rotation, p.position) for p in (pose, other))
        np.testing.assert_allclose(mirrored, angles * [-1, 1, -1], atol=1e-9)
        points = identity_of(0, shot.identities[person]).landmarks
        pixels = head.project(points, pose, focal, (width / 2, 180))
        flipped = head.project(points[swap] * [-1, 1, 1], other, focal, (width / 2, 180))
        np.testing.assert_allclose(flipped, np.stack([width - pixels[:, 0], pixels[:, 1]], 1)[swap], atol=1e-9)


def test_a_facing_person_has_the_own_left_eye_on_image_right(truth):
    facing = np.abs(truth["head_pose"][:, 0]) < 30
    nose, left, right = (truth["landmarks"][facing, i] for i in range(3))
    assert (left[:, 0] > right[:, 0]).all()
    nose_off = nose[:, 0] - (left[:, 0] + right[:, 0]) / 2
    turned = np.abs(truth["head_pose"][facing, 0]) > 12
    assert (np.sign(nose_off[turned]) == np.sign(truth["head_pose"][facing, 0][turned])).mean() > 0.95


def test_landmarks_lie_inside_the_box(truth):
    visible = truth["landmarks"][..., 2] == 1
    assert visible.mean() > 0.75
    places = truth["landmarks"][..., :2][visible]
    assert ((places > -0.06) & (places < 1.06)).all()


# --------------------------------------------------------------- what must not give the label away

def area_under_curve(positive: np.ndarray, score: np.ndarray) -> float:
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(len(score))
    n = positive.sum()
    return (rank[positive].sum() - n * (n - 1) / 2) / (n * (len(score) - n))


def learnt(features: np.ndarray, truth: dict[str, np.ndarray]) -> float:
    """AUC of a quadratic fit to the label, learnt on one half of the tracks and tried on the other, both ways."""
    x = (features - features.mean(0)) / features.std(0)
    k = x.shape[1]
    x = np.stack([np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i in range(k) for j in range(i + 1))], 1)
    half, y = np.unique(truth["track"], return_inverse=True)[1] % 2 == 0, truth["label"] == 1
    return float(np.mean([area_under_curve(y[~part], x[~part] @ np.linalg.lstsq(x[part], y[part] * 1.0, rcond=None)[0])
                          for part in (half, ~half)]))


def head_off(truth: dict[str, np.ndarray]) -> np.ndarray:
    yaw, pitch = np.radians(truth["head_pose"][:, :2]).T
    return np.degrees(np.arccos(np.cos(yaw) * np.cos(pitch)))


def test_the_head_alone_says_a_little(truth):
    assert 0.58 <= area_under_curve(truth["label"] == 1, -head_off(truth)) <= 0.78


def test_the_box_alone_says_nothing(truth):
    box = truth["box"].astype(float)
    features = np.concatenate([box[:, :2] + box[:, 2:], np.log(box[:, 2:] - box[:, :2])], 1)
    assert abs(learnt(features, truth) - 0.5) <= 0.08
    assert abs(area_under_curve(truth["label"] == 1, features[:, 2]) - 0.5) <= 0.08


def test_sharpness_alone_says_nothing(truth):
    box = truth["box"].astype(float)
    size = np.log(np.prod(box[:, 2:] - box[:, :2], 1))
    assert abs(learnt(np.stack([size, truth["blur"], truth["defocus"]], 1), truth) - 0.5) <= 0.08
    assert abs(area_under_curve(truth["label"] == 1, -truth["blur"]) - 0.5) <= 0.08


def test_turned_heads_look_and_frontal_heads_look_away(truth):
    off, looks = head_off(truth), truth["label"] == 1
    assert (off[looks] > 25).mean() > 0.03
    assert (off[~looks] < 10).mean() > 0.1


@pytest.mark.parametrize("name", ["default", "hard"])
def test_prevalence_is_the_presets(name, truth):
    labels = truth["label"] if name == "default" else np.concatenate(
        [plan_clip(PRESETS[name], 0, "val", n).truth["label"] for n in range(2)])
    assert abs(labels.mean() - PRESETS[name].p_camera) < 0.08


def test_low_quality_is_low(truth):
    low = plan_clip(PRESETS["lowquality"], 0, "train", 1).truth
    blurred = np.hypot(low["blur"] / 3.5, low["defocus"]) >= 3
    small = np.sqrt(np.prod(low["box"][:, 2:] - low["box"][:, :2], 1)) < 40
    assert 0.15 < (blurred | small).mean() < 0.65
    assert (blurred | small).mean() > (truth["defocus"] >= 3).mean()


def test_priors_get_worse_with_blur_and_some_are_missing(clips):
    joined = {k: np.concatenate([clip.priors[k] for clip in clips]) for k in ("head_pose", "landmarks")}
    exact = np.concatenate([clip.truth["head_pose"] for clip in clips])
    soft = np.concatenate([clip.truth["defocus"] for clip in clips]) > 1.2
    error = np.abs(joined["head_pose"] - exact)[:, 0]
    assert np.nanmean(error[soft]) > 1.2 * np.nanmean(error[~soft])
    assert 0.01 < np.isnan(error).mean() < 0.3
    assert 0.01 < np.isnan(joined["landmarks"][:, 0, 0]).mean() < 0.3


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


def test_annotated_boxes_are_off_by_less_than_two_percent(clips):
    for clip in clips[:2]:
        names = zip(clip.truth["track"].tolist(), clip.truth["frame"].tolist(), strict=True)
        exact = dict(zip(names, clip.truth["box"], strict=True))
        for path in (p for person in clip.annotation["persons"] for p in person["tracking_paths"]):
            for record in path["track"]:
                x0, y0, x1, y1 = exact[path["track_id"], record["frame"]]
                off = np.array([record["x"] - x0, record["y"] - y0, record["x"] + record["width"] - x1,
                                record["y"] + record["height"] - y1]) / np.tile([x1 - x0, y1 - y0], 2)
                assert np.abs(off).max() < 0.021


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


WORKER = """
import sys
from gazepose.progress import Progress
from gazepose.synthetic.world import run_tasks
task = "import os, time; open(r'{}', 'w').write(str(os.getpid())); time.sleep(60)"
run_tasks(exec, [(task.format(path),) for path in sys.argv[1:]], 2, Progress("", 2, "task"))
"""


def state_of(process: str) -> str:
    """R, S, Z and so on; "" when there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_no_worker_outlives_a_main_process_that_is_told_to_end(tmp_path):
    files = [tmp_path / "first", tmp_path / "second"]
    main = subprocess.Popen([sys.executable, "-c", WORKER, *map(str, files)])
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [file.read_text() for file in files]
    main.terminate()
    assert main.wait() == -signal.SIGTERM
    while any(state_of(worker) not in ("", "Z") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {state_of(worker) for worker in workers} <= {"", "Z"}


def test_the_fault_of_a_worker_is_raised():
    with pytest.raises(ZeroDivisionError), Progress("", 3, "task", lambda line: None) as progress:
        world.run_tasks(exec, [("1 / 0",)] * 3, 2, progress)


def test_another_seed_is_another_world():
    plans = [plan_clip(PRESETS["tiny"], seed, "train", 0).truth["gaze"] for seed in (0, 1)]
    assert plans[0].shape != plans[1].shape or not np.allclose(plans[0], plans[1])


def test_a_stopped_world_continues_with_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], clips=(2, 1, 1), shots=1))
    draw, drawn = world._render_clip, []

    def stop_after_two(*which):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(which[-2:])
        draw(*which)

    monkeypatch.setattr(world, "_render_clip", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        world.render_world(tmp_path / "data", "tiny", 0, jobs=1, notify=lambda line: None)
    assert not (tmp_path / "data" / "world.json").exists()
    with pytest.raises(ValueError, match="seed 0.*wanted 'tiny', seed 7.*delete"):
        world.render_world(tmp_path / "data", "tiny", 7, jobs=1)
    monkeypatch.setattr(world, "_render_clip", lambda *which: (drawn.append(which[-2:]), draw(*which)))
    lines: list[str] = []
    world.render_world(tmp_path / "data", "tiny", 0, jobs=1, notify=lines.append)
    assert drawn == [("train", 0), ("train", 1), ("val", 0), ("test", 0)]
    assert "4 clips of preset 'tiny'" in lines[0] and "2 are done already" in lines[0]
    assert not [path for path in (tmp_path / "data").rglob("*") if "part" in path.name or path.name == ".pieces"]


def test_a_finished_world_is_not_touched(tiny_world):
    before = (tiny_world / "world.json").stat().st_mtime_ns
    lines: list[str] = []
    assert world.render_world(tiny_world, "tiny", 0, notify=lines.append) == tiny_world
    assert not lines and (tiny_world / "world.json").stat().st_mtime_ns == before
    for other in ({"preset": "hard", "seed": 0}, {"preset": "tiny", "seed": 1}):
        with pytest.raises(ValueError, match="world.json: this folder holds preset 'tiny', seed 0.*folder, or delete"):
            world.render_world(tiny_world, **other)


def test_other_data_is_not_written_over(tmp_path):
    (tmp_path / "json").mkdir()
    with pytest.raises(ValueError, match="not an embedded world -> name another folder"):
        world.render_world(tmp_path, "tiny")
    with pytest.raises(ValueError, match="preset 'huge' is unknown -> give one of tiny, default"):
        world.render_world(tmp_path, "huge")
    with pytest.raises(ValueError, match="seed -1: must not be negative"):
        world.render_world(tmp_path, "tiny", -1)


def test_the_contact_sheet_is_a_picture(tiny_world):
    sheet = cv2.imread(str(tiny_world / "contact_sheet.png"))
    assert sheet is not None and sheet.shape[1] == 3 * 448 and sheet.shape[0] > 252 + 4 * 96


def test_the_package_uses_the_renderer_by_two_functions_and_the_presets():
    package = Path(world.__file__).parents[1]
    used = {name for path in package.rglob("*.py") if path.parent.name != "synthetic"
            for name in re.findall(r"gazepose\.synthetic(?:\.\w+)? import [\w, ]*\w", path.read_text())}
    assert used <= {"gazepose.synthetic.world import render_world", "gazepose.synthetic.stills import render_stills",
                    "gazepose.synthetic.presets import PRESETS"}


# ------------------------------------------------------------------------------------------------ stills

@pytest.fixture(scope="module")
def stills(tmp_path_factory) -> Path:
    return render_stills(tmp_path_factory.mktemp("stills"), "tiny", 0, 140, 48, jobs=1, notify=lambda line: None)


def test_stills_are_an_index_of_single_crops(stills):
    index = Index.open(stills)
    assert len(index) == 140 and index.crop(139).shape == (48, 48, 3)
    np.testing.assert_array_equal(np.diff(index.track_start), 1)
    assert 0.25 < index.label.mean() < 0.6
    assert np.isfinite(index.gaze).all() and (index.quality > 0).all()
    off = np.linalg.norm(index.gaze, axis=1)
    assert off[index.label == 1].max() < np.radians(12) and off[index.label == 0].min() > np.radians(6)
    assert 0 < np.isnan(index.head_pose[:, 0]).mean() < 0.5


def test_finished_stills_are_not_made_again_and_others_not_written_over(stills):
    root = stills.parents[1]
    assert render_stills(root, "tiny", 0, 140, 48, notify=lambda line: pytest.fail(line)) == stills
    with pytest.raises(ValueError, match="stills of .*'count': 140.* wanted .*'count': 150.* -> delete this folder"):
        render_stills(root, "tiny", 0, 150, 48)
    with pytest.raises(ValueError, match="0 stills of 48 pixels"):
        render_stills(root, "tiny", 0, 0, 48)
