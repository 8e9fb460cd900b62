"""The truth of a planned shot by geometry, and noisy priors as estimators would have given them; no pixel is needed."""

from functools import lru_cache

import numpy as np

from gazepose.priors.head_pose import head_angles
from gazepose.synthetic import camera, head
from gazepose.synthetic.behaviour import Preset, looks_at, unit
from gazepose.synthetic.shot import Occluder, Shot, identity_of, place_of, pose_of

TRUTH = ("clip", "track", "frame", "box", "head_pose", "landmarks", "gaze", "angle", "distance", "blur", "defocus",
         "blink", "target", "label", "identity")
PRIORS = ("clip", "track", "frame", "head_pose", "landmarks")


def camera_angles(rotation: np.ndarray, to_face: np.ndarray) -> np.ndarray:
    """Head pose against the line of sight from the camera to the face.

    Args: rotation: head -> camera [..., 3, 3]; to_face: the face from the camera [..., 3].
    Returns: yaw, pitch, roll in degrees [..., 3]; (0, 0, 0) faces the camera upright.
    """
    return head_angles(np.einsum("...ji,...jk->...ik", _sight(to_face), rotation))  # head -> line of sight


def gaze_angles(gaze: np.ndarray, to_face: np.ndarray) -> np.ndarray:
    """Gaze [..., 3] in the camera frame -> (yaw, pitch) in radians [..., 2] against the line back to the camera."""
    x, y, z = np.moveaxis(np.einsum("...ji,...j->...i", _sight(to_face), gaze), -1, 0)
    return np.stack([np.arctan2(x, -z), np.arcsin(np.clip(-y, -1, 1))], -1)


def _sight(to_face: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] whose z looks along to_face and whose x stays level in the picture."""
    z = unit(to_face)
    x = unit(np.stack([z[..., 2], np.zeros_like(z[..., 0]), -z[..., 0]], -1))
    return np.stack([x, np.cross(z, x), z], -1)


def measure(rng: np.random.Generator, preset: Preset, shot: Shot, person: int, world_seed: int
            ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Truth of one person through a shot, the annotated boxes (x, y, width, height), and the boxes of the crops.

    Frames in which less than half the face is in the picture are left out: no detector would have followed it.
    """
    a, identity = shot.acts[person], identity_of(world_seed, shot.identities[person])
    width, height = preset.size
    centre = (width / 2, height / 2)
    to_camera = np.transpose(shot.rotation, (0, 2, 1))
    seen = np.einsum("nij,nj->ni", to_camera, a.midpoint - shot.position)
    gaze = np.einsum("nij,nj->ni", to_camera, a.gaze)
    rotation = to_camera @ a.rotation
    poses = [pose_of(shot, person, i) for i in range(shot.frames)]
    box = np.array([head.face_box(identity, pose, preset.focal, centre) for pose in poses])

    span = box[:, 2:] - box[:, :2]
    walk = rng.normal(0, 1, (shot.frames + 6, 4))
    smooth = np.stack([np.convolve(c, np.ones(7) / np.sqrt(7), "valid") for c in walk.T], -1)
    loose = box + np.clip(0.005 * smooth, -0.019, 0.019) * np.tile(span, 2)
    corner, size = np.round(loose[:, :2], 2), np.round(loose[:, 2:] - loose[:, :2], 2)
    cut = np.concatenate([corner, corner + size], 1).clip(0, [width, height, width, height])
    area = np.prod(cut[:, 2:] - cut[:, :2], 1) / np.prod(span, 1)
    rows = np.flatnonzero((area > 0.5) & (seen[:, 2] > 0.2))

    points = head.landmark_points(identity)
    landmarks = np.empty((len(rows), 5, 3))
    for k, i in enumerate(rows.tolist()):
        pixel = head.projected(points, poses[i], preset.focal, centre)
        inside = ((pixel >= 0) & (pixel < [width, height])).all(1)
        covered = _covered(shot.occluders[person], i, box[i], pixel)
        landmarks[k, :, :2] = (pixel - cut[i, :2]) / (cut[i, 2:] - cut[i, :2])
        landmarks[k, :, 2] = head.landmark_visible(identity, poses[i]) & inside & ~covered
    off = gaze_angles(gaze, seen)[rows]
    cosine = np.einsum("ni,ni->n", unit(-seen), gaze)[rows]
    n = len(rows)
    truth = {
        "track": np.full(n, shot.tracks[person]), "frame": (shot.first + rows).astype(np.int32),
        "box": box[rows], "head_pose": camera_angles(rotation, np.array([p.position for p in poses]))[rows],
        "landmarks": landmarks, "gaze": off, "angle": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        "distance": np.linalg.norm(seen, axis=1)[rows], "blur": np.linalg.norm(shot.motion, axis=1)[rows],
        "defocus": shot.exposure.defocus[rows], "blink": 1 - a.lids[rows], "target": a.target[rows],
        "label": looks_at(seen, gaze, np.zeros(3))[rows].astype(np.int8),
        "identity": np.full(n, shot.identities[person], np.int32)}
    return truth, np.concatenate([corner, size], 1)[rows], cut[rows]


def _covered(occluder: Occluder | None, frame: int, box: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Which pixels [k, 2] lie under the thing before the face, bool [k]."""
    if occluder is None:
        return np.zeros(len(pixel), bool)
    middle, width, angle = place_of(occluder, frame, box)
    alpha = _outline(occluder.seed, occluder.kind)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    x, y = np.rint((pixel - middle) @ np.array([[c, -s], [s, c]]) * camera.UNIT / width + camera.MIDDLE).astype(int).T
    inside = (x >= 0) & (x < camera.WIDE) & (y >= 0) & (y < camera.HIGH)
    return inside & (alpha[y.clip(0, camera.HIGH - 1), x.clip(0, camera.WIDE - 1)] > 127)


@lru_cache(maxsize=8)
def _outline(seed: int, kind: str) -> np.ndarray:
    grey = np.full(3, 128.0)
    return camera.make_occluder(np.random.default_rng(seed), kind, grey, grey)[..., 3]


def estimate(rng: np.random.Generator, preset: Preset, truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Priors as estimators would give them: noise grows as the face gets small or blurred, and some are missing."""
    size = np.sqrt(np.prod(truth["box"][:, 2:] - truth["box"][:, :2], 1))
    soft = np.hypot(truth["blur"] / 3.5, truth["defocus"])                        # both as a sigma in pixels
    poor = preset.prior_noise * (45 / size) * np.sqrt(1 + (soft * 80 / size) ** 2)        # about 0.6 sharp and near
    turned = np.abs(truth["head_pose"][:, 0]) > 60
    n = len(size)
    same = truth["track"][:, None] == np.unique(truth["track"])
    bias = rng.normal(0, 2.0, (same.shape[1], 3))[same.argmax(1)]              # an estimator errs alike along a track
    pose = truth["head_pose"] + bias + rng.normal(0, 1, (n, 3)) * (1.5 + 2.5 * poor)[:, None]
    pose[rng.random(n) < np.clip(0.02 + 0.04 * poor + 0.15 * turned, 0, 0.6)] = np.nan
    marks = truth["landmarks"].copy()
    seen = marks[..., 2]
    spread = (0.006 + 0.014 * poor)[:, None] * np.where(seen > 0, 1, 2.5)           # [n, 5]
    marks[..., :2] += rng.normal(0, 1, (n, 5, 2)) * spread[..., None]
    marks[..., 2] = np.clip(np.where(seen > 0, 0.95, 0.4) - 0.12 * poor[:, None] + rng.normal(0, 0.05, (n, 5)), 0.01, 1)
    marks[rng.random(n) < np.clip(0.03 + 0.05 * poor + 0.25 * turned, 0, 0.7)] = np.nan
    return {"head_pose": pose.astype(np.float32), "landmarks": marks.astype(np.float32)}
