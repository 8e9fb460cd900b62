"""A clip, planned: its shots, the rows of truth and priors, and its annotation in the official shape."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gazepose.synthetic.behaviour import FPS, Preset
from gazepose.synthetic.seeds import SPLITS, clip_names, generator
from gazepose.synthetic.shot import Shot, plan_shot
from gazepose.synthetic.truth import TRUTH, estimate, measure


@dataclass
class Clip:
    """A clip, planned: rows of truth and priors are in order of track, then frame."""

    uid: str
    video_uid: str
    preset: Preset
    world_seed: int
    frames: int
    shots: list[Shot]
    truth: dict[str, np.ndarray]
    priors: dict[str, np.ndarray]
    crop_box: np.ndarray                # float64 [rows, 4], annotated box cut at the picture
    annotation: dict[str, Any]          # of the clip, official shape


def plan_clip(preset: Preset, seed: int, split: str, number: int) -> Clip:
    """Everything about a clip but its pixels. It holds at least one look at the camera and one face without."""
    for attempt in range(1, 100):
        clip = _plan_clip(generator(seed, SPLITS.index(split), number, attempt), preset, seed, split, number)
        if len(np.unique(clip.truth["label"])) == 2:
            return clip
    raise RuntimeError(f"preset {preset.name}: a hundred plans of clip {split} {number} hold one label only -> "
                       "bring p_camera nearer to one half or give clips more shots")


def _plan_clip(rng: np.random.Generator, preset: Preset, seed: int, split: str, number: int) -> Clip:
    uid, video_uid = clip_names(seed, split, number)
    base = SPLITS.index(split) * 100_000_000 + number * 1000           # no identity in two clips, so none in two splits
    first, met, shots = 0, [], []
    for _ in range(preset.shots):
        count = int(rng.integers(preset.people[0], preset.people[1] + 1))
        away = [i for i in met if not shots or i not in shots[-1].identities]
        cast: list[int] = []
        for _ in range(count):                                          # now and then somebody from before comes back
            if away and rng.random() < 0.2:
                cast.append(away.pop(int(rng.integers(len(away)))))
            else:
                cast.append(base + len(met))
                met.append(cast[-1])
        frames = int(rng.integers(preset.frames[0], preset.frames[1] + 1))
        shots.append(plan_shot(rng, preset, first, frames, cast, [str(i - base + 1) for i in cast], seed))
        first += frames

    pieces, boxes, cuts, paths, segments = [], [], [], {}, []
    for shot in shots:
        for person, name in enumerate(shot.persons):
            truth, annotated, cut = measure(rng, preset, shot, person, seed)
            if not len(cut):
                continue
            pieces.append(truth)
            boxes.append(annotated)
            cuts.append(cut)
            frame = truth["frame"]
            lost = sorted(set(range(int(frame[0]), int(frame[-1]))) - set(frame.tolist()))
            paths.setdefault(name, []).append({
                "track_id": shot.tracks[person], "suspect": False, "unmapped_frames_count": len(lost),
                "unmapped_frames": lost, "track": [
                    {"x": b[0], "y": b[1], "width": b[2], "height": b[3], "frame": f, "video_frame": f,
                     "clip_frame": None}
                    for b, f in zip(annotated.tolist(), frame.tolist(), strict=True)]})
            looking = frame[truth["label"] == 1]
            for run in np.split(looking, np.flatnonzero(np.diff(looking) > 1) + 1) if len(looking) else []:
                start, end = int(run[0]), int(run[-1]) + 1              # half open
                segments.append({
                    "start_time": round(start / FPS, 4), "end_time": round(end / FPS, 4), "start_frame": start,
                    "end_frame": end, "video_start_time": round(start / FPS, 4), "video_end_time": round(end / FPS, 4),
                    "video_start_frame": start, "video_end_frame": end, "person": name,
                    "target": "0" if len(segments) % 2 else None, "is_at_me": True})
    truth = {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}
    truth["clip"] = np.full(len(truth["frame"]), uid)
    for k in ("box", "head_pose", "landmarks", "gaze", "angle", "distance", "blur", "defocus", "blink"):
        truth[k] = truth[k].astype(np.float32)
    priors = {"clip": truth["clip"], "track": truth["track"], "frame": truth["frame"], **estimate(rng, preset, truth)}
    wearer = {"person_id": "0", "camera_wearer": True, "voice_segments": []}
    seconds = first / FPS
    annotation = {
        "clip_uid": uid, "source_clip_uid": uid, "video_uid": video_uid, "video_start_sec": 0.0,
        "video_end_sec": seconds, "video_start_frame": 0, "video_end_frame": first, "clip_start_sec": 0,
        "clip_end_sec": seconds, "clip_start_frame": 0, "clip_end_frame": first, "valid": True, "camera_wearer": wearer,
        "persons": [{**wearer, "tracking_paths": []}, *(
            {"person_id": name, "camera_wearer": False, "tracking_paths": path, "voice_segments": []}
            for name, path in sorted(paths.items(), key=lambda p: int(p[0])))],
        "missing_voice_segments": [], "transcriptions": [], "social_segments_talking": [],
        "social_segments_looking": segments}
    return Clip(uid=uid, video_uid=video_uid, preset=preset, world_seed=seed, frames=first, shots=shots,
                truth={k: truth[k] for k in TRUTH}, priors=priors, crop_box=np.concatenate(cuts), annotation=annotation)
