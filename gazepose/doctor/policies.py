"""What the policies clean and baseline make of a clip: its rows, what each rule touched, and how the two differ.

The rules are those of preparation (data/tracks.py); nothing is judged here.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.annotations import looking_segments, original_segments, original_tracks, raw_tracks
from gazepose.data.crops import outside
from gazepose.data.tracks import POLICIES, FaceTrack, Policy, RawTrack, RuleCounts, Segment, face_tracks
from gazepose.data.video import VideoFacts
from gazepose.doctor.checks import EXAMPLES, Place, frame_number
from gazepose.doctor.media import ClipImages

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]
NO_PICTURE = {"videos": "row left out: past the end of the video", "images": "row left out: no extracted picture",
              "faces": "row left out: no face image"}
Pictures = VideoFacts | ClipImages | None    # None: unknown, or not usable


@dataclass
class StoredClip:
    """One clip of an annotation file, of a table of boxes, or of the original scripts' folders in `root`."""

    uid: str
    root: Path
    annotated: dict[str, Any] | None = None
    table: list[RawTrack] | None = None
    first_number: int | None = None
    """of the first picture, where a table states it"""
    size: tuple[float, float] = (math.nan, math.nan)
    """width and height of the pictures, where the annotation states them"""


@dataclass
class PolicyClip:
    """One clip under one policy, before its pictures are looked at.

    Attributes:
        segments: None where the policy leaves the clip out.
        raw: tracks as annotated, without the wearer's.
        rules: (rule, how many it touched, place of the first) of each rule and track, or rule and clip.
    """

    policy: Policy
    segments: list[Segment] | None
    raw: list[RawTrack]
    faces: list[FaceTrack] = field(default_factory=list)
    rules: list[tuple[str, int, Place]] = field(default_factory=list)


def apply_policy(clip: StoredClip, policy: Policy) -> PolicyClip:
    """Read one clip under a policy; ValueError naming the original scripts' file that cannot be read."""
    if clip.first_number is not None:
        policy = replace(policy, first_number=clip.first_number)
    reading, of_tracks = Counter[str](), Counter[str]()
    segments: list[Segment] | None = []
    if clip.table is not None:
        raw_of_clip = clip.table
    elif clip.annotated is not None:
        segments = looking_segments(clip.annotated, policy, reading)
        raw_of_clip = raw_tracks(clip.annotated, policy, of_tracks)
    else:
        folder = clip.root / "json_original"
        segments = original_segments(folder, clip.root / "result_LAM", clip.uid, policy, reading)
        raw_of_clip = original_tracks(folder, clip.uid, of_tracks)
    result = PolicyClip(policy, segments, raw_of_clip)
    if segments is not None:
        reading += of_tracks
        for raw in raw_of_clip:
            counts = RuleCounts()
            result.faces += face_tracks(clip.uid, raw, segments, policy, counts)
            result.rules += [(rule, number, {"clip": clip.uid, "track": raw.track, **(
                {"frame": frame_number(counts.first[rule])} if rule in counts.first else {})})
                for rule, number in counts.items() if number]
    result.rules += [(rule, number, {"clip": clip.uid}) for rule, number in reading.items()]
    return result


def pictures_needed(under: list[PolicyClip]) -> dict[str, np.ndarray]:
    """Numbers (from 0) of the pictures that any of the policies cuts a face from, by track; int64, ascending."""
    of_track: dict[str, np.ndarray] = {}
    for clip in under:
        for track in clip.faces:
            numbers = track.frames - clip.policy.first_number
            of_track[track.track] = np.union1d(of_track.get(track.track, numbers), numbers)
    return of_track


@dataclass
class PolicyTotals:
    """Totals of one policy over a split's clips."""

    policy: Policy
    totals: Counter[str] = field(default_factory=Counter)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)

    def count(self, rule: str, number: int, place: Place) -> None:
        entry = self.rules.setdefault(rule, {"count": 0, "examples": []})
        entry["count"] += int(number)
        if len(entry["examples"]) < EXAMPLES:
            entry["examples"].append(place)

    def add(self, clip: PolicyClip, pictures: Pictures) -> list[FaceTrack]:
        """Count one clip; returns the rows that preparation would store."""
        for rule, number, place in clip.rules:
            self.count(rule, number, place)
        absent_rule = NO_PICTURE[pictures.source if isinstance(pictures, ClipImages) else "videos"]
        outside_rule = ("row left out: outside the picture" if self.policy.drop_outside
                        else "crop black: outside the picture")
        rows = []
        for track in clip.faces:
            absent, invisible = without_picture(track, pictures, clip.policy)
            for rule, which in ((absent_rule, absent), (outside_rule, invisible)):
                if which.any():
                    self.count(rule, int(which.sum()), {"clip": track.clip, "track": track.track,
                                                        "frame": int(track.frames[np.argmax(which)])})
            keep = ~(absent | invisible) if self.policy.drop_outside else ~absent
            if keep.any():
                rows.append(replace(track, frames=track.frames[keep], boxes=track.boxes[keep],
                                    labels=track.labels[keep]))
        labels = np.concatenate([np.zeros(0, np.int8), *(track.labels for track in rows)])
        self.totals.update(clips=int(bool(rows)), tracks=len(rows), rows=len(labels),
                           rows_with_picture=len(labels) if pictures is not None else 0,
                           labelled=int((labels >= 0).sum()), looking=int((labels == 1).sum()))
        return rows

    def facts(self) -> dict[str, Any]:
        names = ("clips", "tracks", "rows", "rows_with_picture", "labelled", "looking")
        labelled = self.totals["labelled"]
        return {**{name: self.totals[name] for name in names},
                "rate": round(self.totals["looking"] / labelled, 4) if labelled else None,
                "rules": dict(sorted(self.rules.items()))}


def without_picture(track: FaceTrack, pictures: Pictures, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """Faces without a picture, and faces outside their picture, bool [n] each; a face is of one kind at most."""
    number = track.frames - policy.first_number
    nothing = np.zeros(len(number), bool)
    if pictures is None:
        return nothing, nothing
    if isinstance(pictures, VideoFacts):
        absent = (number < 0) | (number >= pictures.frames)
    else:
        absent = ~pictures.has(track.track, number)
        if pictures.source == "faces":                                 # these are already cut: their boxes do not count
            return absent, nothing
    return absent, ~absent & outside(track.boxes, pictures.width, pictures.height)
