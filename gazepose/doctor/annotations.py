"""The annotated clips of a split, one by one: odd collections, repeated names, labels without faces, gaps, overlaps."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.annotations import DAMAGED_ANNOTATIONS
from gazepose.data.tracks import FaceTrack, Policy, RawTrack, clean_records
from gazepose.data.video import VideoFacts
from gazepose.doctor.checks import Findings, Place
from gazepose.doctor.media import ClipImages, Faces
from gazepose.doctor.policies import (
    BASELINE,
    CLEAN,
    Pictures,
    PolicyClip,
    PolicyTotals,
    StoredClip,
    compare_rows,
    face_table,
    frame_number,
)
from gazepose.io import is_id, read_object

SMALL = 40                   # pixels of a box's shorter side below which a face shows little
SAME_FACE = 0.5              # boxes that overlap so much (intersection over union) show one face
GAP_LENGTHS = (1, 5, CLEAN.max_gap or 15)
DIFFERENCES = ("both", "baseline_only", "clean_only", "other_label", "other_box")
QUANTILES = {"least": 0, "5 %": .05, "25 %": .25, "median": .5, "75 %": .75, "95 %": .95, "greatest": 1}


def stored_clips(root: Path, path: Path, split: str, uids: list[str] | None, findings: Findings
                 ) -> Iterator[StoredClip]:
    """The clips of an annotation file, or of the original scripts' folders, one after another."""
    place: Place = {"split": split, "file": path.relative_to(root).as_posix()}
    if path.name == "av.json" and uids is None:
        return                                                         # without a list none is of this split
    if not path.is_file() and (root / "json_original").is_dir():
        yield from (StoredClip(uid, root) for uid in uids or ())
        return
    try:
        document = read_object(path, remedy=DAMAGED_ANNOTATIONS)
    except FileNotFoundError:
        findings.add("file_missing", what="annotation file", **place)
        return
    except ValueError as error:
        findings.add("file_unusable", what="annotation file", **place, detail=str(error).removeprefix(f"{path}: "))
        return
    videos = objects(document, "videos", {"split": split}, findings)
    document.clear()
    for number in range(len(videos)):
        video, videos[number] = videos[number], {}                     # read clips make room for what is measured
        place = {"split": split, "detail": f"video {str(video.get('video_uid'))[:140]}"}
        for annotated in objects(video, "clips", place, findings):
            uid = annotated.get("clip_uid")
            findings.add("name_unusable", not is_id(uid), what="clip_uid", **place)
            if is_id(uid):
                yield StoredClip(uid, root, annotated)


def objects(owner: dict[str, Any], name: str, place: Place, findings: Findings) -> list[dict[str, Any]]:
    """The objects of a collection; anything else that is there is a finding."""
    stored = owner.get(name)
    if isinstance(stored, list):
        entries = [entry for entry in stored if isinstance(entry, dict)]
        findings.add("not_objects", len(stored) - len(entries), what=f"entry of `{name}`", **place)
        return entries
    state = "null" if stored is None else "not a list"
    findings.add("not_objects", what=f"`{name}` is {state if name in owner else 'missing'}", **place)
    return []


@dataclass
class SplitExam:
    """What is gathered over the clips of train or val."""

    split: str
    findings: Findings
    baseline: PolicyTotals = field(default_factory=lambda: PolicyTotals(BASELINE))
    clean: PolicyTotals = field(default_factory=lambda: PolicyTotals(CLEAN))
    difference: Counter[str] = field(default_factory=Counter)
    faces: Faces = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    sizes: list[np.ndarray] = field(default_factory=list)
    gap_lengths: list[np.ndarray] = field(default_factory=list)
    longest_gap: dict[str, Any] = field(default_factory=lambda: {"length": 0})

    def count(self, rule: str, uid: str) -> None:
        """Count a rule that leaves out a whole clip, under both policies."""
        for policy in (self.baseline, self.clean):
            policy.count(rule, 1, {"clip": uid})

    def add(self, clip: StoredClip, under: dict[str, PolicyClip], pictures: Pictures) -> int:
        """Examine one clip; returns how many rows it has under clean."""
        place: Place = {"split": self.split, "clip": clip.uid}
        if clip.annotated is not None:
            self._check_structure(clip.annotated, place)
        baseline, clean = self.baseline.add(under["baseline"], pictures), self.clean.add(under["clean"], pictures)
        self.difference += compare_rows(baseline, clean)
        for policy, tracks in enumerate((clean, baseline)):
            for track in tracks:
                frames = self.faces.setdefault((clip.uid, track.track), [np.zeros(0, np.int64)] * 2)
                frames[policy] = np.union1d(frames[policy], track.frames)
        stored = under["clean"].stored
        for raw in stored:
            self._check_track(raw, pictures, {**place, "track": raw.track})
        self._check_segments(under["clean"], clean, place)
        copied = self._check_copies(stored, place)
        for pair in overlaps(clean):
            if frozenset(pair["tracks"]) not in copied:
                self.totals["overlapping faces"] += pair["frames"]
                self.findings.add("same_face", what="overlap", **place, track=" and ".join(pair["tracks"]),
                                  frame=pair["frame"], detail=f"persons {' and '.join(pair['persons'])}, "
                                  f"{pair['frames']} frames, mean IoU {pair['iou']:.2f}")
        return sum(len(track.frames) for track in clean)

    def facts(self) -> dict[str, Any]:
        sizes = np.concatenate([np.zeros(0), *self.sizes])
        lengths = np.concatenate([np.zeros(0, np.int64), *self.gap_lengths])
        edges = [0, *GAP_LENGTHS]
        classes = {f"{low + 1}..{high}" if high > low + 1 else str(high): ((lengths > low) & (lengths <= high)).sum()
                   for low, high in zip(edges[:-1], edges[1:], strict=True)}
        classes[f"over {edges[-1]}"] = (lengths > edges[-1]).sum()
        return {
            **{name: self.totals[name] for name in ("persons", "records", "segments")},
            "policies": {"baseline": self.baseline.facts(), "clean": self.clean.facts()},
            "difference": {name: self.difference[name] for name in DIFFERENCES},
            "face_size": {"pixels": quantiles(sizes), "small": int((sizes < SMALL).sum()), "limit": SMALL},
            "gaps": {"count": len(lengths), "frames": int(lengths.sum()), "lengths": quantiles(lengths),
                     "by_length": {name: int(number) for name, number in classes.items()},
                     "longest": self.longest_gap},
            "overlapping_faces": self.totals["overlapping faces"]}

    def _check_structure(self, annotated: dict[str, Any], place: Place) -> None:
        add = self.findings.add
        add("clip_invalid", annotated.get("valid") is False, **place)
        seen: set[str] = set()
        for number, person in enumerate(objects(annotated, "persons", place, self.findings)):
            if person.get("camera_wearer") is True:
                continue                                               # need not have tracks, and none are read
            self.totals["persons"] += 1
            tracks = objects(person, "tracking_paths", {**place, "detail": f"person {person.get('person_id')}"},
                             self.findings)
            add("label_without_face", bool(tracks) and person.get("person_id") in (None, ""),
                what="person without an id who has tracks", **place, detail=f"person number {number} of the list")
            for track in tracks:
                uid = track.get("track_id")
                at = {**place, "track": str(uid)[:140]}
                self.totals["records"] += len(objects(track, "track", at, self.findings))
                if not isinstance(track.get("unmapped_frames", []), list):
                    objects(track, "unmapped_frames", at, self.findings)
                add("name_unusable", not is_id(uid), what="track_id", **at)
                add("name_twice", is_id(uid) and uid in seen, what="track", **at)
                seen |= {uid} if is_id(uid) else set()
        segments = objects(annotated, "social_segments_looking", place, self.findings)
        add("clip_without_segments", not isinstance(annotated.get("social_segments_looking"), list), **place)
        for number, segment in enumerate(segments):
            self.totals["segments"] += 1
            start, end = segment.get("start_frame"), segment.get("end_frame")
            at = {**place, "frame": start if type(start) is int else None, "detail": f"segment {number}"}
            add("label_without_face", type(start) is int and type(end) is int and end < start,
                what="segment that ends before it starts", **at)
            add("segment_not_at_me", segment.get("is_at_me") is not True, **at)

    def _check_track(self, raw: RawTrack, pictures: Pictures, at: Place) -> None:
        contradicting = contradictions(raw)
        if len(contradicting):
            self.findings.add("record_contradicts", len(contradicting), **at, frame=frame_number(contradicting[0]))
        back = np.flatnonzero(np.diff(raw.frames) < 0)
        if len(back):
            self.findings.add("track_unordered", **at, frame=frame_number(raw.frames[back[0] + 1]))
        if isinstance(pictures, VideoFacts):
            past = raw.frames[raw.frames >= pictures.frames]
            if len(past):
                self.findings.add("face_without_picture", len(past), what="past the end", **at,
                                  frame=frame_number(past[0]), detail=f"the video has {pictures.frames} frames")
        elif pictures is not None:
            absent = min((_without_image(raw, pictures, policy) for policy in (CLEAN, BASELINE)), key=len)
            if len(absent):                      # numbered as under the policy that lacks fewer: they were made for it
                self.findings.add("face_without_picture", len(absent), what="no image", **at, frame=int(absent[0]))
        if raw.suspect:
            return
        frames, corners = clean_records(raw, CLEAN, Counter())
        if len(frames):
            self.sizes.append((corners[:, 2:] - corners[:, :2]).min(axis=1).astype(np.float32))
        lengths, before = gaps(frames)
        self.gap_lengths.append(lengths)
        if len(lengths) and lengths.max() > self.longest_gap["length"]:
            longest = int(np.argmax(lengths))
            self.longest_gap = {"length": int(lengths[longest]), "clip": at["clip"], "track": raw.track,
                                "frame": int(before[longest])}

    def _check_copies(self, stored: list[RawTrack], place: Place) -> set[frozenset[str]]:
        """Tracks with exactly the frames and boxes of another."""
        first: dict[bytes, str] = {}
        pairs = set()
        for raw in stored:
            original = first.setdefault(raw.frames.tobytes() + raw.boxes.tobytes(), raw.track)
            if original != raw.track and len(raw.frames):
                pairs.add(frozenset((original, raw.track)))
                self.findings.add("same_face", what="copy", **place, track=raw.track, frame=frame_number(raw.frames[0]),
                                  detail=f"as track {original}")
        return pairs

    def _check_segments(self, made: PolicyClip, clean: list[FaceTrack], place: Place) -> None:
        frames: dict[str, list[np.ndarray]] = {}
        for track in clean:
            frames.setdefault(track.person, []).append(track.frames)
        for segment in made.segments or []:
            mine = frames.get(segment.person, [])
            inside = any(((track >= segment.start) & (track < segment.end)).any() for track in mine)
            at = {**place, "frame": segment.start, "detail": f"person {segment.person}, frames {segment.start}.."
                                                             f"{segment.end}"}
            self.findings.add("label_without_face", not mine, what="segment of a person without a track", **at)
            self.findings.add("segment_without_face", bool(mine) and not inside, **at)


def _without_image(raw: RawTrack, images: ClipImages, policy: Policy) -> np.ndarray:
    frames = clean_records(raw, policy, Counter())[0]
    return frames[~images.has(raw.track, frames - policy.first_number)]


def gaps(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of missing frames: (how long each is, the last frame before it), int64; frames ascend."""
    steps = np.diff(frames) - 1
    at = np.flatnonzero(steps > 0)
    return steps[at], frames[at]


def contradictions(raw: RawTrack) -> np.ndarray:
    """Frames that come again with another box, one entry per box beyond the first, ascending."""
    rows = np.column_stack([raw.frames, raw.boxes])
    boxes = np.unique(rows[np.isfinite(rows).all(axis=1)], axis=0)
    return boxes[1:, 0][boxes[1:, 0] == boxes[:-1, 0]]


def overlaps(tracks: list[FaceTrack]) -> list[dict[str, Any]]:
    """Pairs of one clip's tracks whose boxes show the same face in some frames.

    Returns:
        Per pair: tracks and persons (two names each), frames (how many), frame (the first), iou (mean over them).
    """
    faces = face_table(tracks)
    pairs = faces.merge(faces, on="frame")
    pairs = pairs[pairs["track_x"] < pairs["track_y"]]
    one, other = ({side: pairs[f"{side}_{end}"].to_numpy() for side in ("left", "top", "right", "bottom")}
                  for end in ("x", "y"))
    with np.errstate(over="ignore", invalid="ignore"):                 # absurd boxes overlap with nothing
        width = np.minimum(one["right"], other["right"]) - np.maximum(one["left"], other["left"])
        height = np.minimum(one["bottom"], other["bottom"]) - np.maximum(one["top"], other["top"])
        shared = width.clip(0) * height.clip(0)
        areas = [(box["right"] - box["left"]) * (box["bottom"] - box["top"]) for box in (one, other)]
        union = areas[0] + areas[1] - shared
        pairs = pairs.assign(iou=np.divide(shared, union, out=np.zeros(len(pairs)), where=union > 0))
    found = pairs[pairs["iou"] >= SAME_FACE].groupby(["track_x", "track_y"]).agg(
        person_x=("person_x", "first"), person_y=("person_y", "first"), frames=("frame", "size"),
        frame=("frame", "min"), iou=("iou", "mean"))
    return [{"tracks": list(pair.Index), "persons": [pair.person_x, pair.person_y], "frames": int(pair.frames),
             "frame": int(pair.frame), "iou": round(float(pair.iou), 3)} for pair in found.itertuples()]


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    """By name; None of nothing."""
    if not len(values):
        return None
    return {name: round(float(value), 2) for name, value
            in zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True)}
