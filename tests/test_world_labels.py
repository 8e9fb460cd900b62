"""Labels of the embedded world follow from geometry alone; neither head, box nor sharpness gives them away."""

from dataclasses import replace

import numpy as np
import pytest

from gazepose.synthetic import head
from gazepose.synthetic.motion import EYE_LIMIT, PersonMotion
from gazepose.synthetic.plan import TRUTH, PlannedClip, camera_angles, gaze_angles, plan_clip
from gazepose.synthetic.presets import PRESETS
from gazepose.synthetic.shot import Shot, identity_of, pose_of

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
