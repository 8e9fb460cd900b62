"""The drawn person: determinism, where the eyes look, lids, mouth, silhouette, regions."""

import io
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import cv2
import numpy as np
import pytest

from gazepose.synthetic.eyes import PUPIL_R
from gazepose.synthetic.glasses import make_glasses
from gazepose.synthetic.head import Light, Pose, face_box, landmark_visible, project, render_person
from gazepose.synthetic.identity import make_identity

UPRIGHT = np.diag([1.0, -1.0, -1.0])
LIGHT = Light(np.array([-0.3, -0.5, -0.8]), np.full(3, 0.75), np.full(3, 0.40), np.full(3, 0.22))
SIZE, CENTRE = (400, 400), (200.0, 160.0)
FOCAL = 1200.0  # at 1 m: the head is about 276 px high


def turned(yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Head rotation for degrees towards image right and up."""
    y, p = np.radians([yaw, pitch])
    forward = np.array([np.sin(y) * np.cos(p), -np.sin(p), -np.cos(y) * np.cos(p)])
    right = np.array([np.cos(y), 0.0, np.sin(y)])
    return np.stack([right, np.cross(forward, right), forward], 1)


def looking(identity, target, rotation=UPRIGHT, position=(0.0, 0.0, 1.0), **face) -> Pose:
    """A pose whose eyes both point at a target of the camera frame."""
    gaze = rotation.T @ (np.asarray(target, float) - position) - identity.eyes
    return Pose(np.array(position), rotation, gaze / np.linalg.norm(gaze, axis=1, keepdims=True), **face)


def picture(identity, pose, region=None, background=128) -> np.ndarray:
    patch = render_person(identity, pose, LIGHT, FOCAL, CENTRE, SIZE, region)
    canvas = np.full((SIZE[1], SIZE[0], 3), background, np.uint8)
    h, w = patch.alpha.shape
    view = canvas[patch.y0 : patch.y0 + h, patch.x0 : patch.x0 + w]
    view[:] = (patch.rgb * patch.alpha[..., None] + view * (1 - patch.alpha[..., None]) + 0.5).astype(np.uint8)
    return canvas


def pupil_centre(identity, pose, eye=0) -> np.ndarray:
    """Centre of the pupil: of the pixels that a person without pupils has otherwise."""
    numbers = identity.eye_numbers.copy()
    numbers[PUPIL_R] = 1e-6
    shown, blind = (picture(someone, pose).astype(float).sum(-1)
                    for someone in (identity, replace(identity, eye_numbers=numbers)))
    x, y = project(identity.eyes, pose, FOCAL, CENTRE)[eye]
    rows, cols = np.mgrid[int(y) - 9 : int(y) + 10, int(x) - 14 : int(x) + 15]
    weight = np.abs(shown - blind)[rows, cols]
    return np.array([(weight * (cols + 0.5)).sum(), (weight * (rows + 0.5)).sum()]) / weight.sum()


def pupil_weight(identity, **face) -> float:
    """How much of the picture changes with the pupils of a person who looks at the camera."""
    numbers = identity.eye_numbers.copy()
    numbers[PUPIL_R] = 1e-6
    blind = replace(identity, eye_numbers=numbers)
    shown, without = (picture(who, looking(who, (0, 0, 0), **face)).astype(float) for who in (identity, blind))
    return np.abs(shown - without).sum()


def plain_seed(start=0) -> int:
    """A seed of a person without glasses, whose frame could be the darkest thing near the eye."""
    return next(seed for seed in range(start, start + 50) if make_identity(seed).glasses is None)


@pytest.fixture(scope="module")
def person():
    return make_identity(plain_seed())


DIGEST = """
import hashlib, numpy as np
from gazepose.synthetic.eyes import PUPIL_R
from gazepose.synthetic.head import Light, Pose, render_person
from gazepose.synthetic.identity import make_identity
pose = Pose(np.array([0.05, 0.02, 1.0]), np.diag([1.0, -1.0, -1.0]), np.array([[0, 0, 1.0]] * 2), mouth=0.4)
light = Light(np.array([-0.3, -0.5, -0.8]), np.ones(3), np.ones(3) * 0.4, np.ones(3) * 0.2)
drawn = render_person(make_identity(5), pose, light, 300.0, (100.0, 80.0), (200, 200))
print(hashlib.sha256(drawn.rgb.tobytes() + drawn.alpha.tobytes()).hexdigest())
"""


def test_same_seed_same_bytes_in_another_process():
    elsewhere = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout
    here = io.StringIO()
    with redirect_stdout(here):
        exec(DIGEST, {})
    assert here.getvalue() == elsewhere and len(elsewhere.strip()) == 64


def test_two_seeds_are_two_people():
    pictures = {picture(person, looking(person, (0, 0, 0))).tobytes() for person in map(make_identity, range(12))}
    assert len(pictures) == 12


def test_eyes_on_the_camera_put_the_pupil_on_the_projected_eye_centre():
    for seed in (plain_seed(), plain_seed(20)):
        identity = make_identity(seed)
        for rotation in (UPRIGHT, turned(15), turned(-15)):
            pose = looking(identity, (0, 0, 0), rotation)
            for eye in (0, 1):
                place = project(identity.eyes, pose, FOCAL, CENTRE)[eye]
                assert np.abs(pupil_centre(identity, pose, eye) - place).max() < 1.3


def test_gaze_moves_the_pupil_the_way_it_points(person):
    targets = (0, 0, 0), (-0.27, 0, 0), (0.27, 0, 0), (0, 0.27, 0)
    straight, left, right, down = (pupil_centre(person, looking(person, t)) for t in targets)
    # the eye's radius is about 14 mm = 17 px; sin 15 deg of it is 4.3 px
    assert 3 < straight[0] - left[0] < 6 and 3 < right[0] - straight[0] < 6 and 1.5 < down[1] - straight[1] < 6


def test_fifteen_degrees_show_in_a_crop_of_64_pixels(person):
    def crop(target):
        pose = looking(person, target)
        box = face_box(person, pose, FOCAL, CENTRE).round().astype(int)
        face = picture(person, pose)[box[1] : box[3], box[0] : box[2]]
        return cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA).astype(int)

    assert (np.abs(crop((0, 0, 0)) - crop((0.27, 0, 0))).max(-1) > 40).sum() >= 12


def test_closed_lids_hide_the_eyeball(person):
    at = np.array([0, 0, 1.0])
    ahead, aside = np.array([[0, 0, 1.0]] * 2), np.array([[0.3, 0, 0.954]] * 2)
    closed = [picture(person, Pose(at, UPRIGHT, gaze, lids=0.0)) for gaze in (ahead, aside)]
    opened = [picture(person, Pose(at, UPRIGHT, gaze, lids=1.0)) for gaze in (ahead, aside)]
    assert np.array_equal(closed[0], closed[1]) and not np.array_equal(opened[0], opened[1])


def test_the_mouth_opens_dark_inside(person):
    x, y = project(person.landmarks, looking(person, (0, 0, 0)), FOCAL, CENTRE)[3:].mean(0)
    inside = np.s_[int(y) + 8 : int(y) + 14, int(x) - 5 : int(x) + 6]
    shut, talking = (picture(person, looking(person, (0, 0, 0), mouth=m))[inside].mean() for m in (0, 1))
    assert talking < 0.7 * shut


def test_landmarks_lie_inside_the_face_box_and_are_seen_from_the_front():
    for identity in map(make_identity, range(12)):
        pose = looking(identity, (0, 0, 0))
        box = face_box(identity, pose, FOCAL, CENTRE)
        points = project(identity.landmarks, pose, FOCAL, CENTRE)
        assert ((points > box[:2]) & (points < box[2:])).all()
        assert points[1, 0] > points[2, 0] and points[3, 0] > points[4, 0]  # own left is image right
        assert landmark_visible(identity, pose).all()


def test_a_profile_hides_the_far_eye():
    near = 0
    for identity in map(make_identity, range(6)):
        right, left = (landmark_visible(identity, looking(identity, (0, 0, 0), turned(yaw))) for yaw in (80, -80))
        assert not right[1] and not left[2]  # a face turned to image right has its own left side behind
        near += int(right[2]) + int(left[1])
    assert near >= 10


def test_the_silhouette_has_no_holes():
    for seed in range(10):
        identity = make_identity(seed)
        pose = looking(identity, (0, 0, 0), turned(35, 10))
        patch = render_person(identity, pose, LIGHT, 500.0, (150.0, 150.0), (300, 300))
        rows = slice(0, int(150 + 0.08 * 500) - patch.y0)  # the head; gaps between arms, hair and body are not holes
        solid = (patch.alpha[rows] > 0.5).astype(np.uint8)
        empty, _ = cv2.connectedComponents(np.pad(1 - solid, 1, constant_values=1), connectivity=4)
        glasses = identity.glasses is not None  # one can see through a frame that stands off the face
        assert empty - 1 <= (3 if glasses else 1)


def test_a_region_is_the_cut_of_the_picture(person):
    pose = looking(person, (0.1, 0, 0), turned(20, -5), mouth=0.5)
    whole = picture(person, pose)
    for region in ((130, 90, 271, 243), (0, 0, 200, 200), (190, 301, 400, 400)):
        x0, y0, x1, y1 = region
        assert np.array_equal(picture(person, pose, region)[y0:y1, x0:x1], whole[y0:y1, x0:x1])


def test_a_person_outside_the_picture_is_an_empty_patch(person):
    for position in ((5.0, 0.0, 1.0), (0.0, 0.0, -1.0)):
        patch = render_person(person, looking(person, (0, 0, 0), position=position), LIGHT, FOCAL, CENTRE, SIZE)
        assert patch.alpha.size == 0 or patch.alpha.max() == 0


def test_each_eye_closes_by_itself_and_a_squint_is_not_a_closed_eye(person):
    def changed(other, eye):
        x, y = project(person.eyes, looking(person, (0, 0, 0)), FOCAL, CENTRE)[eye].astype(int)
        shown = picture(person, replace(looking(person, (0, 0, 0)), **other)).astype(int)
        return np.abs(shown - picture(person, looking(person, (0, 0, 0))))[y - 10 : y + 11, x - 14 : x + 15].max()

    wink = {"lids": np.array([0.0, 1.0])}
    assert changed(wink, 0) > 60 and changed(wink, 1) == 0
    assert pupil_weight(person, lids=1.0, squint=1.0) > 0.3 * pupil_weight(person, lids=1.0)
    assert pupil_weight(person, lids=0.0) == 0


def test_glasses_show_the_eyes_and_sunglasses_hide_them(person):
    glasses = make_glasses(0.032, 0.018, np.random.default_rng(0))
    clear, dark = (replace(person, glasses=replace(glasses, glass=np.full(3, g))) for g in (0.95, 0.03))
    assert pupil_weight(clear) > 0.5 * pupil_weight(person) > 5 * pupil_weight(dark)


def test_light_from_one_side_casts_the_shadow_of_the_nose_on_the_other(person):
    pose = looking(person, (0, 0, 0))
    x, y = project(person.landmarks, pose, FOCAL, CENTRE)[0].astype(int)
    lamp = Light(np.array([-1.0, -0.2, -0.35]), np.full(3, 0.9), np.full(3, 0.1), np.full(3, 0.1), hard=1.0)
    patch = render_person(person, pose, lamp, FOCAL, CENTRE, SIZE)
    lit, shaded = (patch.rgb[y - patch.y0 - 8 : y - patch.y0 + 4, x + d - patch.x0 : x + d + 8 - patch.x0].mean()
                   for d in (-32, 24))
    assert shaded < 0.6 * lit
