"""Planned clips: their shots, the exact truth by geometry, noisy priors, and the annotation in the official shape.

No pixel is needed for any of it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gazepose.data.crops import as_detected
from gazepose.data.head_angles import head_angles
from gazepose.synthetic import head, scene
from gazepose.synthetic.motion import looks_at, unit
from gazepose.synthetic.presets import FPS, LONG, PEOPLE_PER_SPLIT, SPLITS, WorldPreset, clip_names, generator
from gazepose.synthetic.shot import Occluder, Shot, identity_of, place_of, plan_shot, pose_of, rolled

TRUTH = ("clip", "track", "frame", "box", "detected", "box_rule", "head_pose", "landmarks", "gaze", "angle",
         "distance", "blur", "defocus", "blink", "target", "label", "identity")
PRIORS = ("clip", "track", "frame", "head_pose", "landmarks")
FLOAT32 = ("box", "detected", "head_pose", "landmarks", "gaze", "angle", "distance", "blur", "defocus", "blink")
DETECTOR_OFF = np.array([[0.007, -0.011, -0.015, -0.076], [0.027, 0.021, 0.056, 0.050], [0.013, 0.010, 0.024, 0.021]])
"""how YuNet's boxes differ from `as_detected`, in parts of width and height: centre x and y, width, height. Mean,
spread from track to track, spread from frame to frame. Measured on 1,351 rendered faces of 141 tracks of `default`"""


@dataclass
class PlannedClip:
    """The plan of a clip; rows of truth and priors are in order of track, then frame."""

    uid: str
    video_uid: str
    preset: WorldPreset
    world_seed: int
    frames: int
    shots: list[Shot]
    truth: dict[str, np.ndarray]
    priors: dict[str, np.ndarray]
    crop_box: np.ndarray                # float64 [rows, 4], the annotated box clipped to the picture
    annotation: dict[str, Any]          # of the clip, official shape


def plan_clip(preset: WorldPreset, seed: int, split: str, number: int) -> PlannedClip:
    """Everything about a clip but its pixels. It has at least one look at the camera and one face without.

    Raises:
        RuntimeError: a hundred plans have one label only, or no face.
    """
    fault = "no face in the picture -> widen the view, or seat people farther away"
    for attempt in range(1, 100):
        clip = _plan_clip(generator(seed, split, number, attempt), preset, seed, split, number)
        if clip is not None and len(np.unique(clip.truth["label"])) == 2:
            return clip
        if clip is not None:
            fault = "one label only -> bring p_camera nearer to one half or give clips more shots"
    raise RuntimeError(f"preset {preset.name}: a hundred plans of clip {split} {number} have {fault}")


def _plan_clip(rng: np.random.Generator, preset: WorldPreset, seed: int, split: str, number: int
               ) -> PlannedClip | None:
    """One plan; None if no face is in the picture."""
    uid, video_uid = clip_names(seed, split, number)
    shots = _plan_shots(rng, preset, seed, split, number)
    detector = preset.detector if split == "train" else 0.0        # val and test have annotated boxes, like Ego4D
    frames = sum(shot.frames for shot in shots)
    tables, cuts, paths, segments = [], [], {}, []
    for shot in shots:
        for person, name in enumerate(shot.persons):
            table, annotated, cut = measure_truth(rng, preset, shot, person, seed, detector)
            if not len(cut):
                continue
            tables.append(table)
            cuts.append(cut)
            paths.setdefault(name, []).append(_tracking_path(shot.tracks[person], table["frame"], annotated))
            segments += _looking_segments(table["frame"][table["label"] == 1], name, len(segments))
    if not tables:
        return None
    truth = {k: np.concatenate([table[k] for table in tables]) for k in tables[0]}
    truth["clip"] = np.full(len(truth["frame"]), uid)
    for k in FLOAT32:
        truth[k] = truth[k].astype(np.float32)
    names = {k: truth[k] for k in ("clip", "track", "frame")}
    priors = {**names, **estimate_priors(rng, preset, truth)}
    return PlannedClip(
        uid=uid, video_uid=video_uid, preset=preset, world_seed=seed, frames=frames, shots=shots,
        truth={k: truth[k] for k in TRUTH}, priors=priors, crop_box=np.concatenate(cuts),
        annotation=_annotation(uid, video_uid, frames, paths, segments))


def _plan_shots(rng: np.random.Generator, preset: WorldPreset, seed: int, split: str, number: int) -> list[Shot]:
    """Shots of a clip; its people have numbers of their own, so no person is in two clips."""
    first_person = SPLITS.index(split) * PEOPLE_PER_SPLIT + number * 1000
    number_of_shots, (least, most) = preset.shots_of(split, number)
    first, seen, shots = 0, [], []
    for _ in range(number_of_shots):
        count = int(rng.integers(preset.people[0], preset.people[1] + 1))
        away = [i for i in seen if not shots or i not in shots[-1].identities]
        cast: list[int] = []
        for _ in range(count):                                  # now and then somebody from before comes back
            if away and rng.random() < 0.2:
                cast.append(away.pop(int(rng.integers(len(away)))))
            else:
                cast.append(first_person + len(seen))
                seen.append(cast[-1])
        frames = int(rng.integers(least, most + 1))
        if (least, most) == LONG:                               # shorter ones are more frequent, as in conversations
            frames = round(least * (most / least) ** rng.random())
        shots.append(plan_shot(rng, preset, first, frames, cast, [str(i - first_person + 1) for i in cast], seed))
        first += frames
    return shots


# ---- the annotation, in the official shape

def _tracking_path(track: str, frame: np.ndarray, boxes: np.ndarray) -> dict[str, Any]:
    missing = sorted(set(range(int(frame[0]), int(frame[-1]))) - set(frame.tolist()))
    return {"track_id": track, "suspect": False, "unmapped_frames_count": len(missing), "unmapped_frames": missing,
            "track": [{"x": b[0], "y": b[1], "width": b[2], "height": b[3], "frame": f, "video_frame": f,
                       "clip_frame": None} for b, f in zip(boxes.tolist(), frame.tolist(), strict=True)]}


def _looking_segments(frames: np.ndarray, person: str, number: int) -> list[dict[str, Any]]:
    """One segment for each run of neighbouring frames; `number` segments of the clip come before these."""
    segments = []
    for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if len(frames) else []:
        start, end = int(run[0]), int(run[-1]) + 1              # half open
        segments.append({
            "start_time": round(start / FPS, 4), "end_time": round(end / FPS, 4), "start_frame": start,
            "end_frame": end, "video_start_time": round(start / FPS, 4), "video_end_time": round(end / FPS, 4),
            "video_start_frame": start, "video_end_frame": end, "person": person,
            "target": "0" if (number + len(segments)) % 2 else None, "is_at_me": True})
    return segments


def _annotation(uid: str, video_uid: str, frames: int, paths: dict[str, list], segments: list) -> dict[str, Any]:
    wearer = {"person_id": "0", "camera_wearer": True, "voice_segments": []}
    seconds = frames / FPS
    return {
        "clip_uid": uid, "source_clip_uid": uid, "video_uid": video_uid, "video_start_sec": 0.0,
        "video_end_sec": seconds, "video_start_frame": 0, "video_end_frame": frames, "clip_start_sec": 0,
        "clip_end_sec": seconds, "clip_start_frame": 0, "clip_end_frame": frames, "valid": True,
        "camera_wearer": wearer, "persons": [{**wearer, "tracking_paths": []}, *(
            {"person_id": name, "camera_wearer": False, "tracking_paths": path, "voice_segments": []}
            for name, path in sorted(paths.items(), key=lambda p: int(p[0])))],
        "missing_voice_segments": [], "transcriptions": [], "social_segments_talking": [],
        "social_segments_looking": segments}


# ---- the truth

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


def measure_truth(rng: np.random.Generator, preset: WorldPreset, shot: Shot, person: int, world_seed: int,
                  detector: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Truth of one person in a shot.

    Frames with less than half the face in the picture are left out, since no detector would follow it.

    Args:
        detector: probability that the track's boxes lie as a detector's.

    Returns:
        Columns of TRUTH by name, without the clip; boxes of the annotation (x, y, width, height) [n, 4]; the same boxes
        clipped to the picture, as (x1, y1, x2, y2) [n, 4].
    """
    a, identity = shot.people[person], identity_of(world_seed, shot.identities[person])
    width, height = preset.size
    centre = (width / 2, height / 2)
    to_camera = np.transpose(shot.rotation, (0, 2, 1))
    seen = np.einsum("nij,nj->ni", to_camera, a.midpoint - shot.position)
    gaze = np.einsum("nij,nj->ni", to_camera, a.gaze)
    rotation = to_camera @ a.rotation
    poses = [pose_of(shot, person, i) for i in range(shot.frames)]
    drawn = np.array([head.face_box(identity, pose, preset.focal, centre) for pose in poses])
    box = _rolled_boxes(drawn, shot.skew, height / 2)

    rule = int(rng.random() < detector) if detector else 0
    annotated, detected = _loose(rng, box), _detected(rng, box)
    chosen = (annotated, detected)[rule]
    limits = [width, height, width, height]
    cut = chosen.clip(0, limits)
    span = box[:, 2:] - box[:, :2]
    inside = annotated.clip(0, limits)
    area = np.prod(inside[:, 2:] - inside[:, :2], 1) / np.prod(span, 1)
    rows = np.flatnonzero((area > 0.5) & (seen[:, 2] > 0.2))

    landmarks = np.empty((len(rows), 5, 3))
    for k, i in enumerate(rows.tolist()):
        pixel = head.project(identity.landmarks, poses[i], preset.focal, centre)
        covered = _covered(shot.occluders[person], i, drawn[i], pixel)
        pixel = rolled(pixel, shot.skew[i], height / 2)
        inside = ((pixel >= 0) & (pixel < [width, height])).all(1)
        landmarks[k, :, :2] = (pixel - cut[i, :2]) / (cut[i, 2:] - cut[i, :2])
        landmarks[k, :, 2] = head.landmark_visible(identity, poses[i]) & inside & ~covered
    off = gaze_angles(gaze, seen)[rows]
    cosine = np.einsum("ni,ni->n", unit(-seen), gaze)[rows]
    smear = np.linalg.norm(shot.smear + shot.own_smear[person], axis=1)
    looks = looks_at(seen, gaze, np.zeros(3)) & ~a.lids.resting              # closed eyes do not look; a blink does
    n = len(rows)
    truth = {
        "track": np.full(n, shot.tracks[person]), "frame": (shot.first + rows).astype(np.int32),
        "box": box[rows], "detected": detected[rows], "box_rule": np.full(n, rule, np.int8),
        "head_pose": camera_angles(rotation, np.array([p.position for p in poses]))[rows],
        "landmarks": landmarks, "gaze": off, "angle": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        "distance": np.linalg.norm(seen, axis=1)[rows], "blur": smear[rows],
        "defocus": shot.exposure.defocus[rows], "blink": 1 - a.lids.opening[rows].mean(1), "target": a.target[rows],
        "label": looks[rows].astype(np.int8), "identity": np.full(n, shot.identities[person], np.int32)}
    corner = chosen[rows, :2]
    return truth, np.concatenate([corner, chosen[rows, 2:] - corner], 1).round(2), cut[rows]


def _rolled_boxes(box: np.ndarray, skew: np.ndarray, middle: float) -> np.ndarray:
    """Boxes x1, y1, x2, y2 [n, 4] after a rolling shutter with the skew [n, 2]: higher or lower, moved, not sheared."""
    y = box[:, [1, 1, 3, 3]] - middle
    y[:, ::2] = y.mean(1, keepdims=True)
    return box + np.tile(skew, 2) * y


def _loose(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] as people annotate them: they wander around the face by up to two percent of it."""
    walk = rng.normal(0, 1, (len(box) + 6, 4))
    smooth = np.stack([np.convolve(c, np.ones(7) / np.sqrt(7), "valid") for c in walk.T], -1)
    loose = box + np.clip(0.005 * smooth, -0.019, 0.019) * np.tile(box[:, 2:] - box[:, :2], 2)
    return loose.round(2)


def _detected(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] as YuNet gives them: taller, off by something of the face, and by a little in each frame."""
    size = box[:, 2:] - box[:, :2]
    usual = as_detected(np.concatenate([box[:, :2], size], 1))
    mean, by_track, by_frame = DETECTOR_OFF
    off = mean + by_track * rng.normal(0, 1, 4).clip(-2, 2) + by_frame * rng.normal(0, 1, (len(box), 4))
    centre = usual[:, :2] + usual[:, 2:] * (0.5 + off[:, :2])
    half = usual[:, 2:] * (1 + off[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], 1).round(2)


def _covered(occluder: Occluder | None, frame: int, box: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Which pixels [k, 2] the thing before the face covers, bool [k]."""
    if occluder is None:
        return np.zeros(len(pixel), bool)
    middle, width, angle = place_of(occluder, frame, box)
    alpha = _outline(occluder.seed, occluder.kind)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    x, y = np.rint((pixel - middle) @ np.array([[c, -s], [s, c]]) * scene.UNIT / width + scene.MIDDLE).astype(int).T
    inside = (x >= 0) & (x < scene.WIDE) & (y >= 0) & (y < scene.HIGH)
    return inside & (alpha[y.clip(0, scene.HIGH - 1), x.clip(0, scene.WIDE - 1)] > 127)


@lru_cache(maxsize=8)
def _outline(seed: int, kind: str) -> np.ndarray:
    grey = np.full(3, 128.0)
    return scene.make_occluder(np.random.default_rng(seed), kind, grey, grey)[..., 3]


def estimate_priors(rng: np.random.Generator, preset: WorldPreset, truth: dict[str, np.ndarray]
                    ) -> dict[str, np.ndarray]:
    """Priors like those of real estimators: noisier for small and blurred faces, and some are missing."""
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
