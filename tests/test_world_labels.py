"""Labels of the embedded world follow from geometry and lids; neither head, box nor sharpness gives them away."""

from dataclasses import replace

import numpy as np
import pytest

from gazepose.synthetic import camera, head
from gazepose.synthetic.lids import CLOSED, CLOSURE, plan_lids
from gazepose.synthetic.motion import EYE_LIMIT, PersonMotion
from gazepose.synthetic.plan import TRUTH, PlannedClip, camera_angles, gaze_angles, plan_clip
from gazepose.synthetic.presets import BOX_RULES, PRESETS
from gazepose.synthetic.shot import Shot, identity_of, make_exposure, pose_of, rolled

FACING = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="session")
def clips() -> list[PlannedClip]:
    """Plans of default clips, more than 200 tracks; nothing is drawn."""
    return [plan_clip(PRESETS["default"], 0, "train", number) for number in range(5)]


@pytest.fixture(scope="session")
def truth(clips) -> dict[str, np.ndarray]:
    joined = {k: np.concatenate([clip.truth[k] for clip in clips]) for k in TRUTH}
    assert len(np.unique(joined["track"])) >= 200
    return joined


def acts_by_row(clip: PlannedClip) -> list[tuple[PersonMotion, np.ndarray, int, Shot, int]]:
    """Act, camera position, frame in the shot, shot and person of each row of a clip's truth."""
    where = {name: (shot, person) for shot in clip.shots for person, name in enumerate(shot.tracks)}
    found = []
    for name, frame in zip(clip.truth["track"], clip.truth["frame"], strict=True):
        shot, person = where[str(name)]
        found.append((shot.people[person], shot.position[frame - shot.first], int(frame - shot.first), shot, person))
    return found


# ------------------------------------------------------------------------------------------ geometry

def test_a_label_is_a_ray_within_twelve_centimetres_of_the_camera_from_eyes_that_are_not_resting(clips):
    for clip in clips:
        for row, (act, lens, i, _, _) in enumerate(acts_by_row(clip)):
            to = lens - act.midpoint[i]
            miss = np.linalg.norm(np.cross(to, act.gaze[i]))                       # distance of a point from a line
            assert clip.truth["label"][row] == int(miss < 0.12 and to @ act.gaze[i] > 0 and not act.lids.resting[i])


def test_angle_and_distance_alone_give_the_label_of_open_eyes(truth):
    miss = truth["distance"] * np.sin(np.radians(truth["angle"]))
    sure = (np.abs(miss - 0.12) > 1e-4) & (truth["blink"] < 1 - CLOSED)
    assert sure.mean() > 0.9
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
    for rule, margin in enumerate((0.06, 0.1)):
        places = truth["landmarks"][..., :2][visible & (truth["box_rule"] == rule)[:, None]]
        assert len(places) and ((places > -margin) & (places < 1 + margin)).all()


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


def test_a_fifth_of_the_heads_are_turned_far_aside_and_seldom_look(truth):
    far = np.abs(truth["head_pose"][:, 0]) > 35
    assert 0.12 < far.mean() < 0.3 and np.abs(truth["head_pose"][far, 0]).max() > 75
    assert 0 < truth["label"][far].mean() < 0.5 * truth["label"][~far].mean()
    before = plan_clip(replace(PRESETS["default"], turned=0.0), 0, "train", 0).truth
    assert (np.abs(before["head_pose"][:, 0]) > 35).mean() < 0.08


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


def test_boxes_lie_as_the_rule_of_their_track_says(clips):
    rules = set()
    for clip in clips[:2]:
        names = zip(clip.truth["track"].tolist(), clip.truth["frame"].tolist(), strict=True)
        rows = {name: row for row, name in enumerate(names)}
        for path in (p for person in clip.annotation["persons"] for p in person["tracking_paths"]):
            for record in path["track"]:
                row = rows[path["track_id"], record["frame"]]
                rules.add(rule := BOX_RULES[clip.truth["box_rule"][row]])
                truth = clip.truth["box" if rule == "annotated" else "detected"][row]
                x, y, width, height = (record[side] for side in ("x", "y", "width", "height"))
                off = (np.array([x, y, x + width, y + height]) - truth) / np.tile(truth[2:] - truth[:2], 2)
                assert np.abs(off).max() < (0.021 if rule == "annotated" else 1e-3)
    assert rules == set(BOX_RULES)


def test_a_detectors_box_is_taller_than_the_annotated_one_and_only_training_has_it(clips, truth):
    own, detected = (truth[k][:, 2:] - truth[k][:, :2] for k in ("box", "detected"))
    assert 1.05 < np.median(detected[:, 1] / own[:, 1]) < 1.2
    assert 0.4 < truth["box_rule"].mean() < 0.6
    assert not plan_clip(PRESETS["default"], 0, "val", 0).truth["box_rule"].any()


# ------------------------------------------------------------------------------------ lids, blur, sizes, lengths

def runs(flags: np.ndarray) -> list[int]:
    """Lengths of the runs of true values that neither begin nor end the array."""
    edges = np.flatnonzero(np.diff(flags.astype(int)))
    return [int(b - a) for a, b in zip(edges[:-1], edges[1:], strict=True) if flags[a + 1]]


def test_a_blink_is_short_and_a_longer_closure_is_rest():
    lids = [plan_lids(np.random.default_rng(seed), 0.25, 900, np.arange(0, 900, 36)) for seed in range(40)]
    closed, blinks = [one.opening.max(1) < CLOSED for one in lids], []
    for one, shut in zip(lids, closed, strict=True):
        assert not (one.resting & ~shut).any()
        blinks += runs(shut & ~one.resting)
        assert all(length >= CLOSURE[0] for length in runs(one.resting))
    assert 2 <= np.median(blinks) <= 4 and np.quantile(blinks, 0.95) <= 12
    assert 0.08 < np.mean([one.opening.max(1) < 0.5 for one in lids]) < 0.14
    assert 0.005 < np.mean([one.resting for one in lids]) < 0.04
    assert 0 < np.mean([one.squint.max() > 0 for one in lids]) < 0.3


def test_a_look_goes_on_through_a_blink_but_not_through_rest(clips):
    blinked, rested = 0, 0
    for clip in clips:
        for row, (act, _, i, _, _) in enumerate(acts_by_row(clip)):
            shut = act.lids.opening[i].max() < CLOSED
            blinked += shut and clip.truth["label"][row]
            rested += act.lids.resting[i] and clip.truth["label"][row]
    assert blinked and not rested


def test_blur_differs_from_frame_to_frame_of_a_track(truth):
    blur = [truth["blur"][truth["track"] == name] for name in np.unique(truth["track"])]
    assert np.mean([own.max() > 2 * own.min() + 0.5 for own in blur if len(own) > 5]) > 0.3


def test_faces_are_20_to_220_pixels_high(truth):
    height = truth["box"][:, 3] - truth["box"][:, 1]
    assert height.min() < 30 and height.max() > 190
    assert ((height > 50) & (height < 160)).mean() > 0.6


def test_one_of_nine_clips_has_tracks_of_seconds_and_the_others_have_many_states():
    preset = PRESETS["default"]
    assert [preset.shots_of("train", number)[0] for number in range(9)] == [preset.shots] * 8 + [2]
    assert preset.shots_of("val", 8) == (1, (30, 240)) and preset.clips[1] >= 30
    tracks = plan_clip(preset, 0, "val", 8).truth["track"]
    assert np.unique(tracks, return_counts=True)[1].max() >= 30


def test_a_rolling_shutter_moves_boxes_and_landmarks_with_the_picture(clips):
    skews = np.concatenate([shot.skew for clip in clips for shot in clip.shots])
    assert 0.02 < skews.any(1).mean() < 0.7
    picture = np.zeros((60, 80), np.uint8)
    picture[44:47, 29:32] = 255
    point = np.array([30.5, 45.5])
    moved = rolled(point, np.array([0.2, 0.1]), 30)
    y, x = np.nonzero(camera.roll(picture, np.array([0.2, 0.1]), 30) > 127)
    assert moved == pytest.approx([33.6, 47.05])
    assert [x.mean() + 0.5, y.mean() + 0.5] == pytest.approx(moved, abs=0.6)


def test_noise_is_stronger_in_the_dark_of_a_picture():
    exposure = make_exposure(np.random.default_rng(3), replace(PRESETS["default"], dark=1.0, defocus=0.0), 1)
    dark, light = (camera.expose(np.random.default_rng(0), np.full((90, 90, 3), level, np.uint8), exposure, 0, (0, 0),
                                 (90, 90)).astype(float) for level in (30, 200))
    assert dark.std(axis=(0, 1)).mean() > 1.3 * light.std(axis=(0, 1)).mean()
    assert dark.mean() < light.mean()


def test_half_of_the_frames_of_a_temporal_track_show_no_eyes():
    shares = []
    for number in (1, 3, 5):                                                             # one shot of seconds each
        truth = plan_clip(replace(PRESETS["temporal"], shots=8), 0, "train", number).truth
        height = truth["box"][:, 3] - truth["box"][:, 1]
        unreadable = (truth["blink"] > 0.7) | (truth["blur"] > 0.05 * height)
        shares += [unreadable[truth["track"] == name].mean() for name in np.unique(truth["track"])]
    assert 0.4 < np.mean(shares) < 0.6 and 0.2 < min(shares) and max(shares) < 0.8
