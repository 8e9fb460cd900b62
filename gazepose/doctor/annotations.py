"""The annotated clips of a split, one by one: odd collections, repeated names, lost labels, gaps and overlaps."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.annotations import DAMAGED_ANNOTATIONS, whole_number
from gazepose.data.box_table import boxes_and_size, convention_of
from gazepose.data.conventions import of_boxes, unjudged
from gazepose.data.tracks import MAX_FRAME, FaceTrack, Policy, RawTrack, clean_records
from gazepose.data.video import VideoFacts
from gazepose.doctor.checks import Findings, Place
from gazepose.doctor.media import ClipImages, Faces
from gazepose.doctor.policies import BASELINE, CLEAN, Pictures, PolicyClip, PolicyTotals, StoredClip
from gazepose.io import is_id, read_object
from gazepose.text import counted

SMALL = 40                   # pixels of a box's shorter side below which a face shows little
SAME_FACE = 0.5              # boxes that overlap so much (intersection over union) show one face
MOST_JUDGED = 1000           # boxes of a clip that are judged together with others
GAP_LENGTHS = ("1", "2..5", "6..15", "over 15")      # classes of gaps: clean splits a track at those over 15
SIZES = (("width", "height"), ("display_resolution_width", "display_resolution_height"))
MAX_SIDE = 100_000           # pixels
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
    videos: list[dict[str, Any]] = []
    with findings.catching("file_unusable", "annotation file", path, "file_missing", **place):
        document = read_object(path, remedy=DAMAGED_ANNOTATIONS)
        videos = objects(document, "videos", {"split": split}, findings)
        document.clear()
    for number in range(len(videos)):
        video, videos[number] = videos[number], {}                     # read clips make room for what is measured
        place = {"split": split, "detail": f"video {str(video.get('video_uid'))[:140]}"}
        for annotated in objects(video, "clips", place, findings):
            uid = annotated.get("clip_uid")
            findings.add("name_unusable", not is_id(uid), what="clip_uid", **place)
            if is_id(uid):
                yield StoredClip(uid, root, annotated, size=stated_size(annotated, video))


def stated_size(*owners: dict[str, Any]) -> tuple[float, float]:
    """Width and height of the pictures, as the first of these objects states them that does; NaN: none does."""
    for owner in owners:
        metadata = owner.get("video_metadata")
        for facts in (owner, metadata if isinstance(metadata, dict) else {}):
            for width, height in SIZES:
                size = [float(side) for side in (facts.get(width), facts.get(height))
                        if isinstance(side, int | float) and 0 < side < MAX_SIDE]
                if len(size) == 2:
                    return size[0], size[1]
    return math.nan, math.nan


def objects(owner: dict[str, Any], name: str, place: Place, findings: Findings) -> list[dict[str, Any]]:
    """The objects of a collection; anything else that is there is a finding."""
    collection = owner.get(name)
    if isinstance(collection, list):
        entries = [entry for entry in collection if isinstance(entry, dict)]
        findings.add("not_objects", len(collection) - len(entries), what=f"entry of `{name}`", **place)
        return entries
    state = "null" if collection is None else "not a list"
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
    few: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """boxes, and sizes of their pictures, of clips that have too few to judge, and of tables"""

    def count(self, rule: str, uid: str) -> None:
        """Count a rule that leaves out a whole clip, under both policies."""
        for policy in (self.baseline, self.clean):
            policy.count(rule, 1, {"clip": uid})

    def add(self, clip: StoredClip, under_baseline: PolicyClip, under_clean: PolicyClip, pictures: Pictures) -> int:
        """Examine one clip; returns how many rows it has under clean."""
        place: Place = {"split": self.split, "clip": clip.uid}
        if clip.annotated is not None:
            self._check_structure(clip.annotated, place)
        baseline, clean = self.baseline.add(under_baseline, pictures), self.clean.add(under_clean, pictures)
        self.difference += compare_rows(baseline, clean)
        for policy, tracks in enumerate((clean, baseline)):
            for track in tracks:
                frames = self.faces.setdefault((clip.uid, track.track), [np.zeros(0, np.int64)] * 2)
                frames[policy] = np.union1d(frames[policy], track.frames)
        first = clip.first_number or 0
        for raw in under_clean.raw:
            self._check_track(raw, first, pictures, {**place, "track": raw.track})
        self._check_convention(clip, under_clean.raw, first, pictures, place)
        self._check_segments(under_clean, clean, place)
        for pair in overlaps(clean):
            self.totals["overlapping faces"] += pair["frames"]
            self.findings.add("same_face", **place, track=" and ".join(pair["tracks"]), frame=pair["frame"],
                              detail=f"persons {' and '.join(pair['persons'])}, {counted(pair['frames'], 'frame')}, "
                                     f"mean IoU {pair['iou']:.2f}")
        return sum(len(track.frames) for track in clean)

    def facts(self) -> dict[str, Any]:
        sizes = np.concatenate([np.zeros(0), *self.sizes])
        lengths = np.concatenate([np.zeros(0, np.int64), *self.gap_lengths])
        by_length = np.histogram(lengths, [1, 2, 6, 16, np.inf])[0].tolist()
        return {
            **{name: self.totals[name] for name in ("persons", "records", "segments")},
            "policies": {"baseline": self.baseline.facts(), "clean": self.clean.facts()},
            "difference": {name: self.difference[name] for name in DIFFERENCES},
            "face_size": {"pixels": quantiles(sizes), "small": int((sizes < SMALL).sum()), "limit": SMALL},
            "gaps": {"count": len(lengths), "frames": int(lengths.sum()), "lengths": quantiles(lengths),
                     "by_length": dict(zip(GAP_LENGTHS, by_length, strict=True)),
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
            start, end = whole_number(segment.get("start_frame")), whole_number(segment.get("end_frame"))
            at = {**place, "frame": start, "detail": f"segment {number}"}
            add("label_without_face", start is not None and end is not None and end < start,
                what="segment that ends before it starts", **at)
            add("segment_not_at_me", segment.get("is_at_me") is not True, **at)

    def _check_convention(self, clip: StoredClip, tracks: list[RawTrack], first: int, pictures: Pictures, place: Place
                          ) -> None:
        if isinstance(pictures, VideoFacts):
            facts = pictures
        elif isinstance(pictures, ClipImages) and pictures.source == "images" and pictures.width:
            facts = VideoFacts(0, pictures.width, pictures.height, 0)
        else:
            facts = VideoFacts(0, *clip.size, 0)                       # type: ignore[arg-type]
        fault = convention_of([replace(raw, frames=raw.frames - first) for raw in tracks], facts)
        if clip.table is not None or fault.startswith("boxes"):        # annotations count from 0 or 1, by the policy
            self.findings.add("convention", bool(fault), what="boxes", **place, detail=fault)
        known = boxes_and_size(tracks, facts.width, facts.height)
        if not fault and len(known[0]) and unjudged(*known):
            self.few.append((known[0][:MOST_JUDGED], known[1][:MOST_JUDGED]))

    def judge_few(self) -> None:
        """Judge the clips together that have too few boxes each; what cannot be judged is a finding."""
        if self.few:
            boxes, sizes = map(np.concatenate, zip(*self.few, strict=True))
            fault, why = of_boxes(boxes, sizes), unjudged(boxes, sizes)
            place = {"split": self.split, "detail": f"{counted(len(self.few), 'clip')} together: {fault or why}"}
            self.findings.add("convention", bool(fault), what="boxes", **place)
            self.findings.add("convention_unjudged", bool(why) and not fault, what="boxes", **place)

    def _check_track(self, raw: RawTrack, first: int, pictures: Pictures, at: Place) -> None:
        add = self.findings.add_frames
        add("record_contradicts", contradictions(raw), **at)
        add("track_unordered", raw.frames[1:][np.diff(raw.frames) < 0][:1], **at)
        if isinstance(pictures, VideoFacts):
            add("face_without_picture", raw.frames[raw.frames - first >= pictures.frames], what="past the end", **at,
                detail=f"the video has {counted(pictures.frames, 'frame')}")
        elif pictures is not None:               # numbered as under the policy that lacks fewer: they were made for it
            absent = min((_without_image(raw, pictures, policy) for policy in (CLEAN, BASELINE)), key=len)
            add("face_without_picture", absent, what="no image", **at)
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

    def _check_segments(self, under_clean: PolicyClip, clean: list[FaceTrack], place: Place) -> None:
        frames: dict[str, list[np.ndarray]] = {}
        for track in clean:
            frames.setdefault(track.person, []).append(track.frames)
        for segment in under_clean.segments or []:
            if segment.person is None or segment.label < 0:
                who = "any person" if segment.person is None else f"person {segment.person}"
                end = "the last" if segment.end == MAX_FRAME else segment.end
                self.findings.add("label_unreadable", **place, detail=f"{who}, frames {segment.start} to {end}")
                continue
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


def compare_rows(baseline: list[FaceTrack], clean: list[FaceTrack]) -> Counter[str]:
    """How the rows of the two policies differ in one clip; a frame that baseline holds twice counts once."""
    names = sorted({track.track for track in (*baseline, *clean)})
    number, frame, label, box = zip(*(faces_of(tracks, names) for tracks in (baseline, clean)), strict=True)
    span = 1 + max(frames.max(initial=0) for frames in frame)
    once = [np.unique(number[side] * span + frame[side], return_index=True) for side in (0, 1)]
    both, *at = np.intersect1d(once[0][0], once[1][0], assume_unique=True, return_indices=True)
    one, other = (first[here] for (_, first), here in zip(once, at, strict=True))
    moved = (np.abs(box[0][one] - box[1][other]) > 1e-6).any(axis=1)
    return Counter(both=len(both), baseline_only=len(once[0][0]) - len(both), clean_only=len(once[1][0]) - len(both),
                   other_label=int((label[0][one] != label[1][other]).sum()), other_box=int(moved.sum()))


def faces_of(tracks: list[FaceTrack], names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of one clip's n faces: place of the track in `names`, frame and label (each [n]), and sides of the box [n, 4]."""
    place = {name: number for number, name in enumerate(names)}
    return (np.repeat(np.array([place[track.track] for track in tracks], np.int64), [len(t.frames) for t in tracks]),
            np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)]),
            np.concatenate([np.zeros(0, np.int8), *(track.labels for track in tracks)]),
            np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)]))


def overlaps(tracks: list[FaceTrack]) -> list[dict[str, Any]]:
    """Pairs of one clip's tracks whose boxes show the same face in some frames.

    Returns:
        Per pair: tracks and persons (two names each), frames (how many), frame (the first), iou (mean over them).
    """
    persons = {track.track: track.person for track in reversed(tracks)}
    names = sorted(persons)
    number, frame, _, box = faces_of(tracks, names)
    order = np.lexsort((number, frame))
    number, frame, box = number[order], frame[order], box[order]
    later = np.searchsorted(frame, frame, side="right") - np.arange(len(frame)) - 1      # faces of the same frame
    one = np.repeat(np.arange(len(frame)), later)
    other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(later) - later, later)
    with np.errstate(over="ignore", invalid="ignore"):                 # absurd boxes overlap with nothing
        shared = np.minimum(box[one, 2:], box[other, 2:]) - np.maximum(box[one, :2], box[other, :2])
        intersection = shared.clip(0).prod(axis=1)
        area = (box[:, 2:] - box[:, :2]).prod(axis=1)
        union = area[one] + area[other] - intersection
        iou = np.divide(intersection, union, out=np.zeros(len(one)), where=union > 0)
    same = (iou >= SAME_FACE) & (number[one] != number[other])
    one, other, iou = one[same], other[same], iou[same]
    pairs, first, pair, count = np.unique(number[one] * len(names) + number[other],
                                          return_index=True, return_inverse=True, return_counts=True)
    mean = np.bincount(pair, iou, len(pairs)) / count
    return [{"tracks": both, "persons": [persons[name] for name in both], "frames": int(count[n]),
             "frame": int(frame[one[first[n]]]), "iou": round(float(mean[n]), 3)}
            for n, both in enumerate([names[value // len(names)], names[value % len(names)]] for value in pairs)]


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    """By name; None of nothing."""
    if not len(values):
        return None
    return {name: round(float(value), 2) for name, value
            in zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True)}
