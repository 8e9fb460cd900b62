"""The landmark network: squares around faces, head pose of a common face, and what the real file gives."""

import threading
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from making import write_tracks
from test_head_pose import rotation_of as head_rotation

from gazepose.data.index import Index
from gazepose.priors import commands
from gazepose.priors.face_landmarker import (
    SIDE,
    FaceLandmarker,
    FaceReading,
    five_points,
    rotation_of,
    square_of_box,
    square_of_points,
)
from gazepose.priors.head_pose import FACE
from gazepose.priors.landmarks import landmarks_of, pose_of, read_crop
from gazepose.priors.model_files import find

UPRIGHT = np.array([[100.0, 120], [120, 90], [80, 90], [115, 140], [85, 140]])            # nose, eyes, mouth
MARKS = [4, 362, 263, 133, 33, 291, 61]


def to_picture(square: np.ndarray, points: list) -> np.ndarray:
    """Points of the network's square -> of the picture."""
    return np.array(points) @ square[:, :2].T + square[:, 2]


def test_a_box_gives_the_square_around_its_middle():
    square = square_of_box(np.array([30.0, 40, 60, 80]))                  # side: 1.25 * 80
    assert to_picture(square, [[0, 0], [SIDE, SIDE], [SIDE / 2, SIDE / 2]]) == pytest.approx(
        np.array([[10.0, 30], [110, 130], [60, 80]]))


@pytest.mark.parametrize("degrees", [0, 35, -100, 180])
def test_points_give_a_square_in_which_the_eyes_are_level(degrees):
    turn = np.array([[np.cos(r := np.radians(degrees)), -np.sin(r)], [np.sin(r), np.cos(r)]])
    five = UPRIGHT @ turn.T + 500
    square = square_of_points(five)
    inside = (five - square[:, 2]) @ np.linalg.inv(square[:, :2]).T
    left, right = inside[1], inside[2]
    assert left[1] == pytest.approx(right[1]) and left[0] > right[0] and inside[0, 1] > left[1]
    assert (inside > 0.2 * SIDE).all() and (inside < 0.8 * SIDE).all()


@pytest.mark.parametrize("place", [[1, 2, 0, 0], [1, 2, np.nan, 4], [1, 2, 3], [[5.0, 5]] * 5])
def test_a_place_without_size_is_an_error(place):
    reader = FaceLandmarker.__new__(FaceLandmarker)
    with pytest.raises(ValueError, match="a face's place must"):
        reader.read(np.zeros((9, 9, 3), np.uint8), np.array(place, float))


@pytest.mark.parametrize("pose", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, -40), (-50, 25, 15), (70, -30, 10)])
def test_the_rotation_of_a_turned_face_is_found(pose):
    face = np.concatenate([FACE, [[50.0, 10, -60], [-50, 10, -60]]])
    turned = 1.7 * face @ head_rotation(*pose).T + [300, 200, 5]
    rotation, fit = rotation_of(face, turned, np.array([1, 2, 1, 1, 1, 1, 3.0]))
    np.testing.assert_allclose(rotation, head_rotation(*pose), atol=1e-9)
    assert fit < 1e-9
    turned[0] += 500                                                      # a point without weight counts for nothing
    np.testing.assert_allclose(rotation_of(face, turned, np.array([0, 1, 1, 1, 1, 1, 1.0]))[0], rotation, atol=1e-9)
    assert rotation_of(face, turned, np.ones(7))[1] > 0.3


def test_a_flat_or_mirrored_face_still_gives_a_rotation():
    for points in (FACE * [1, 1, 0], FACE * [-1, 1, 1], np.zeros_like(FACE)):
        rotation, _ = rotation_of(FACE, points, np.ones(5))
        assert np.linalg.det(rotation) == pytest.approx(1) and rotation @ rotation.T == pytest.approx(np.eye(3))


def reading_of(**values: float) -> FaceReading:
    """A reading of a face whose points lie at their number."""
    numbers = {field.name: 0.0 for field in fields(FaceReading) if field.name != "points"}
    points = np.repeat(np.arange(478, dtype=np.float32)[:, None], 3, axis=1)
    return FaceReading(points=points, **{**numbers, **values})


class FakeNetwork:
    """Sees the face of a crop by its brightness, and none in a dark one."""

    def read(self, picture, place):
        self.seen = picture.shape, place.tolist()
        return reading_of(presence=0.9 if picture.mean() > 20 else 0.01, yaw=float(picture.mean()), roll=3.0)


def test_a_stored_crop_is_read_in_the_shape_of_its_box():
    network = FakeNetwork()
    crop = np.full((64, 64, 3), 100, np.uint8)
    reading = read_crop(network, crop, 0.75)
    assert network.seen == ((64, 48, 3), [0, 0, 48, 64])
    assert reading.points[48, :2] == pytest.approx([1, 0.75])
    assert landmarks_of(reading)[:, 1] == pytest.approx(five_points(reading.points)[:, 1])
    assert pose_of(reading).tolist() == [100, 0, 3] and landmarks_of(reading)[0, 2] == pytest.approx(0.9)
    assert read_crop(network, crop, np.nan) and network.seen[0] == (64, 64, 3)
    assert read_crop(network, np.zeros((64, 64, 3), np.uint8), 1.0) is None
    assert np.isnan(landmarks_of(None)).all() and np.isnan(pose_of(None)).all()


# ---- with the real file

@pytest.fixture(scope="module")
def network():
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'gazepose[watch]'")
    try:
        return FaceLandmarker(find("face_landmarker"))
    except FileNotFoundError:
        pytest.skip("the model files are not there: python -m gazepose models")


@pytest.fixture(scope="module")
def rendered(tiny_world, tmp_path_factory):
    """A picture of the tiny world's clips, its faces' boxes as a detector's, their poses: the five largest faces."""
    from gazepose.data.crops import as_detected
    from gazepose.data.video import frames_in_order
    truth = dict(np.load(tiny_world / "truth" / "train.npz"))
    chosen = np.argsort(-(truth["box"][:, 3] - truth["box"][:, 1]), kind="stable")[:200:40]
    faces = []
    for row in chosen.tolist():
        path = (tiny_world / "videos" / f"{truth['clip'][row]}.mp4").absolute()
        box = np.append(truth["box"][row][:2], truth["box"][row][2:] - truth["box"][row][:2])
        (_, picture), = frames_in_order(path, [int(truth["frame"][row])], "pyav")
        faces.append((picture, as_detected(box), truth["head_pose"][row], truth["landmarks"][row],
                      truth["box"][row]))
    return faces


def test_the_pose_and_the_landmarks_of_rendered_faces_are_near_their_truth(network, rendered):
    readings = [network.read(picture, box) for picture, box, *_ in rendered]
    errors = np.array([[abs(one.yaw - pose[0]), abs(one.roll - pose[2])]
                       for one, (_, _, pose, *_) in zip(readings, rendered, strict=True)])
    assert np.median(errors, axis=0).max() < 5
    for one, (_, _, _, marks, box) in zip(readings, rendered, strict=True):
        apart = five_points(one.points) - (marks[:, :2] * (box[2:] - box[:2]) + box[:2])
        assert np.median(np.hypot(*apart.T)) < 0.1 * (box[3] - box[1])
        assert 0 <= one.blink <= 1 and -1 <= one.eye_x <= 1 and one.presence > 0.5 and 0 < one.light < 255


def test_a_mirrored_picture_has_the_mirrored_reading(network, rendered):
    picture, box, *_ = rendered[0]
    one = network.read(picture, box)
    other = network.read(picture[:, ::-1].copy(), np.array([picture.shape[1] - box[0] - box[2], *box[1:]]))
    assert other.yaw == pytest.approx(-one.yaw, abs=4) and other.eye_x == pytest.approx(-one.eye_x, abs=0.3)
    assert other.pitch == pytest.approx(one.pitch, abs=4) and other.eye_y == pytest.approx(one.eye_y, abs=0.3)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_lying_face_is_read_by_its_points(network, rendered, turns):
    picture, box, *_ = rendered[0]
    x, y, width, height = box
    five = five_points(network.read(picture, box).points)
    upright, lying, corners = network.read(picture, five), picture, np.array([[x, y], [x + width, y + height]])
    for _ in range(turns):                                                # clockwise
        five, corners = (points[:, ::-1] * [-1, 1] + [lying.shape[0] - 1, 0] for points in (five, corners))
        lying = cv2.rotate(lying, cv2.ROTATE_90_CLOCKWISE)
    low, high = corners.min(axis=0), corners.max(axis=0)
    reading = network.read(lying, np.append(low, high - low), five)
    assert (reading.roll - upright.roll - 90 * turns + 180) % 360 - 180 == pytest.approx(0, abs=1)
    # yaw and pitch say where the face points in the picture: a quarter turn makes up right, and right down
    points = [(upright.pitch, -upright.yaw), (-upright.yaw, -upright.pitch), (-upright.pitch, upright.yaw)][turns - 1]
    assert (reading.yaw, reading.pitch) == pytest.approx(points, abs=0.5)
    assert (reading.eye_x, reading.eye_y) == pytest.approx((upright.eye_x, upright.eye_y), abs=0.05)     # the head's


def test_of_an_upright_face_the_box_counts_and_the_points_do_not(network, rendered):
    picture, box, *_ = rendered[0]
    one, five = network.read(picture, box), five_points(network.read(picture, box).points)
    assert network.read(picture, box, five).yaw == one.yaw != network.read(picture, five).yaw


def test_every_thread_has_its_own_interpreters_and_the_same_numbers(network, rendered):
    picture, box, *_ = rendered[0]
    expected, found = network.read(picture, box), []
    threads = [threading.Thread(target=lambda: found.append(network.read(picture, box))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same = replace(expected, points=np.zeros(0))
    assert len(found) == 3 and all(replace(one, points=same.points).yaw == expected.yaw for one in found)
    assert all(np.array_equal(one.points, expected.points) for one in found)


def test_a_face_at_the_edge_or_outside_does_not_end_the_program(network):
    picture = np.zeros((40, 60, 3), np.uint8)
    for box in ([-30, -30, 50, 60], [55, 35, 200, 200], [1000, 1000, 10, 10], [0, 0, 0.01, 0.01]):
        assert np.isfinite(network.read(picture, np.array(box, float)).yaw)


def test_a_damaged_file_says_what_to_do(network, tmp_path):
    content = find("face_landmarker").read_bytes()
    for name, data in {"cut": content[:100_000], "text": b"no zip", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: not a face landmarker .* -> `python -m gazepose models`"):
            FaceLandmarker(tmp_path / name)


def test_the_columns_of_a_prepared_set(network, rendered, tmp_path, capsys):
    boxes = np.array([box for *_, box in rendered], np.float32)
    crops = [cv2.resize(picture[max(0, int(y0)):int(y1), max(0, int(x0)):int(x1)], (64, 64))
             for (picture, *_), (x0, y0, x1, y1) in zip(rendered, boxes.tolist(), strict=True)]
    index = write_tracks(tmp_path / "index", [("c", "t", range(len(boxes) + 1))],
                         np.array([*crops, np.zeros((64, 64, 3))], np.uint8), box=np.vstack([boxes, boxes[:1]]))
    commands.read_column([index], "landmarks")
    commands.read_column([index], "head_pose")
    opened = Index.open(index.folder)
    known = np.isfinite(opened.head_pose).all(axis=1)
    assert known[:-1].mean() > 0.5 and not known[-1] and opened.facts["priors"]["head_pose"] == "FaceLandmarker"
    assert (np.isfinite(opened.landmarks).all(axis=(1, 2)) == known).all()
    apart = (opened.head_pose[:-1] - [pose for _, _, pose, *_ in rendered])[known[:-1]]
    assert np.median(np.abs(apart[:, 0])) < 8
    assert f"landmarks known for {known.sum()} of {len(known)} faces" in capsys.readouterr().out
