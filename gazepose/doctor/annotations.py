"""The annotated clips of a split: what is null or twice, whose label has no face, how the tracks lie; clip by clip."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gazepose.data.tracks import FaceTrack, RawTrack, clean_records
from gazepose.data.video import VideoFacts
from gazepose.doctor.checks import EXAMPLES, Findings
from gazepose.doctor.images import ClipImages
from gazepose.doctor.measures import gaps, overlaps, repeats, spread
from gazepose.doctor.policies import BASELINE, CLEAN, Difference, Preset, StoredClip, whole_number
from gazepose.io import is_id

SMALL = 40                   # pixels of a box's shorter side below which a face shows little
GAP_LENGTHS = (1, 5, CLEAN.max_gap or 15)


@dataclass
class SplitExam:
    """What is gathered over the clips of train or val."""

    split: str
    findings: Findings
    baseline: Preset = field(default_factory=lambda: Preset(BASELINE))
    clean: Preset = field(default_factory=lambda: Preset(CLEAN))
    difference: Difference = field(default_factory=Difference)
    collections: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    faces: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=dict)
    """frames of clean, then of baseline, per clip and track: for the priors to be joined to"""
    totals: Counter[str] = field(default_factory=Counter)
    sizes: list[np.ndarray] = field(default_factory=list)
    gap_lengths: list[np.ndarray] = field(default_factory=list)
    longest_gap: dict[str, Any] = field(default_factory=lambda: {"length": 0})

    def add(self, clip: StoredClip) -> None:
        place = {"split": self.split, "clip": clip.uid}
        if clip.annotated is not None:
            self._structure(clip.annotated, place)
        baseline, clean = self.baseline.add(clip), self.clean.add(clip)
        self.difference.add(clip, baseline, clean)
        for policy, tracks in enumerate((clean, baseline)):
            for track in tracks:
                known = self.faces.setdefault((clip.uid, track.track), [np.zeros(0, np.int64)] * 2)
                known[policy] = np.union1d(known[policy], track.frames)
        self._tracks(clip.tracks(CLEAN)[0], clip, place)
        self._labels(clip, clean, place)
        copied = self._copies(clip.tracks(CLEAN)[0], place)
        for pair in overlaps(clean):
            if frozenset(pair["tracks"]) not in copied:
                self.totals["overlapping faces"] += pair["frames"]
                self.findings.add("tracks_overlap", **place, track=" and ".join(pair["tracks"]), frame=pair["frame"],
                                  detail=f"persons {' and '.join(pair['persons'])}, {pair['frames']} frames, "
                                         f"mean IoU {pair['iou']:.2f}")

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
            "difference": self.difference.facts(), "collections": self.collections,
            "face_size": {"pixels": spread(sizes), "small": int((sizes < SMALL).sum()), "limit": SMALL},
            "gaps": {"count": len(lengths), "frames": int(lengths.sum()), "lengths": spread(lengths),
                     "by_length": {name: int(number) for name, number in classes.items()},
                     "longest": self.longest_gap},
            "overlapping_faces": self.totals["overlapping faces"]}

    def collection(self, owner: dict[str, Any], name: str, title: str, place: dict[str, Any]) -> list[dict[str, Any]]:
        """The objects of a collection; what it is instead of a list of objects is counted."""
        stored = owner.get(name)
        if isinstance(stored, list):
            objects = [entry for entry in stored if isinstance(entry, dict)]
            self.findings.add("entry_no_object", len(stored) - len(objects), **{**place, "detail": title})
            return objects
        state = "missing" if name not in owner else "null" if stored is None else "not a list"
        entry = self.collections.setdefault(title, {}).setdefault(state, {"count": 0, "examples": []})
        entry["count"] += 1
        if len(entry["examples"]) < EXAMPLES:
            entry["examples"].append(place)
        return []

    def _structure(self, annotated: dict[str, Any], place: dict[str, Any]) -> None:
        if annotated.get("valid") is False:
            self.findings.add("clip_invalid", **place)
        seen: set[str] = set()
        for number, person in enumerate(self.collection(annotated, "persons", "persons", place)):
            if person.get("camera_wearer") is True:
                continue                                               # need not have tracks, and none are read
            self.totals["persons"] += 1
            paths = self.collection(person, "tracking_paths", "tracking_paths",
                                    {**place, "detail": f"person {person.get('person_id')}"})
            if paths and person.get("person_id") in (None, ""):
                self.findings.add("person_without_id", **place, detail=f"number {number} of the list")
            for path in paths:
                self._path(path, seen, place)
        for number, segment in enumerate(self.collection(
                annotated, "social_segments_looking", "social_segments_looking", place)):
            self.totals["segments"] += 1
            start, end = segment.get("start_frame"), segment.get("end_frame")
            at = {**place, "frame": start if type(start) is int else None, "detail": f"segment {number}"}
            self.findings.add("segment_without_person", segment.get("person") is None, **at)
            self.findings.add("segment_backwards", type(start) is int and type(end) is int and end < start, **at)
            self.findings.add("segment_not_at_me", segment.get("is_at_me") is not True, **at)
        if not isinstance(annotated.get("social_segments_looking"), list):
            state = "null" if annotated.get("social_segments_looking", 0) is None else "missing or not a list"
            self.findings.add("clip_without_segments", **place, detail=state)
        elif not annotated["social_segments_looking"]:
            self.findings.add("clip_segments_empty", **place)

    def _path(self, path: dict[str, Any], seen: set[str], place: dict[str, Any]) -> None:
        uid = path.get("track_id")
        place = {**place, "track": str(uid)[:140]}
        self.totals["records"] += len(self.collection(path, "track", "track", place))
        if path.get("unmapped_frames", []) is None or not isinstance(path.get("unmapped_frames", []), list):
            self.collection(path, "unmapped_frames", "unmapped_frames", place)
        if not is_id(uid):
            self.findings.add("track_bad_id", **place)
        elif uid in seen:
            self.findings.add("track_twice", **place)
        else:
            seen.add(uid)

    def _tracks(self, raws: list[RawTrack], clip: StoredClip, place: dict[str, Any]) -> None:
        for raw in raws:
            at = {**place, "track": raw.track}
            copied, contradicting = repeats(raw)
            for kind, frames in (("record_repeated", copied), ("record_contradicts", contradicting)):
                if len(frames):
                    self.findings.add(kind, len(frames), **at, frame=whole_number(frames[0]))
            steps = np.diff(raw.frames)
            if (steps < 0).any():
                self.findings.add("track_unordered", **at, frame=whole_number(raw.frames[1:][np.argmax(steps < 0)]))
            unmapped = np.isin(raw.frames, raw.unmapped)
            if unmapped.any():
                self.findings.add("frame_unmapped", int(unmapped.sum()), **at,
                                  frame=whole_number(raw.frames[np.argmax(unmapped)]))
            if isinstance(clip.pictures, VideoFacts):
                past = raw.frames >= clip.pictures.frames
                if past.any():
                    self.findings.add("face_past_end", int(past.sum()), **at, frame=whole_number(
                        raw.frames[np.argmax(past)]), detail=f"the video has {clip.pictures.frames} frames")
            elif clip.pictures is not None:
                self._images(raw, clip.pictures, at)
            if raw.suspect:
                self.findings.add("track_suspect", **at)
                continue
            frames, corners = clean_records(raw, CLEAN, Counter())
            self.sizes.append((corners[:, 2:] - corners[:, :2]).min(axis=1).astype(np.float32) if len(frames)
                              else np.zeros(0, np.float32))
            lengths, starts = gaps(frames)
            self.gap_lengths.append(lengths)
            if len(lengths) and lengths.max() > self.longest_gap["length"]:
                longest = int(np.argmax(lengths))
                self.longest_gap = {"length": int(lengths[longest]), "clip": clip.uid, "track": raw.track,
                                    "frame": int(starts[longest])}

    def _images(self, raw: RawTrack, images: ClipImages, at: dict[str, Any]) -> None:
        """Faces without an image, numbered as that preset numbers them which lacks fewer: the images were made so."""
        lacking = []
        for policy in (CLEAN, BASELINE):
            frames = clean_records(raw, policy, Counter())[0]
            lacking.append(frames[~images.there(raw.track, frames - policy.first_number)])
        fewer = min(lacking, key=len)
        if len(fewer):
            self.findings.add("face_without_image", len(fewer), **at, frame=int(fewer[0]))

    def _copies(self, raws: list[RawTrack], place: dict[str, Any]) -> set[frozenset[str]]:
        """Tracks with the very frames and boxes of another."""
        first: dict[bytes, str] = {}
        pairs = set()
        for raw in raws:
            if not len(raw.frames):
                continue
            original = first.setdefault(raw.frames.tobytes() + raw.boxes.tobytes(), raw.track)
            if original != raw.track:
                pairs.add(frozenset((original, raw.track)))
                self.findings.add("track_copied", **place, track=raw.track, frame=whole_number(raw.frames[0]),
                                  detail=f"as track {original}")
        return pairs

    def _labels(self, clip: StoredClip, clean: list[FaceTrack], place: dict[str, Any]) -> None:
        frames: dict[str, list[np.ndarray]] = {}
        for track in clean:
            frames.setdefault(track.person, []).append(track.frames)
        for segment in clip.segments(CLEAN, Counter()) or []:
            mine = frames.get(segment.person)
            at = {**place, "frame": segment.start, "detail": f"person {segment.person}, frames {segment.start}.."
                                                             f"{segment.end}"}
            if mine is None:
                self.findings.add("segment_without_track", **at)
            elif not any(((track >= segment.start) & (track < segment.end)).any() for track in mine):
                self.findings.add("segment_without_face", **at)
