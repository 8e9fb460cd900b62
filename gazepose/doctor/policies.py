"""What the policies clean and baseline make of a clip: its rows, what each rule touched, and how the two differ.

The rules are those of preparation (data/tracks.py); nothing is judged here.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.annotations import looking_segments, original_segments, original_tracks, raw_tracks
from gazepose.data.box_table import Boxes, labelled_tracks, raw_track
from gazepose.data.crops import outside
from gazepose.data.tracks import POLICIES, FaceTrack, Policy, RawTrack, RuleCounts, Segment, face_tracks
from gazepose.data.video import VideoFacts
from gazepose.doctor.checks import EXAMPLES, Place
from gazepose.doctor.media import ClipImages

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]
NO_PICTURE = {"videos": "row left out: past the end of the video", "images": "row left out: no extracted picture",
              "faces": "row left out: no face image"}
Pictures = VideoFacts | ClipImages | None    # None: unknown, or not usable


@dataclass
class StoredClip:
    """One clip of an annotation file, of a table of boxes (by track), or of the original scripts' folders in `root`."""

    uid: str
    root: Path
    annotated: dict[str, Any] | None = None
    table: dict[str, Boxes] | None = None


@dataclass
class PolicyClip:
    """One clip under one policy, before its pictures are looked at.

    Attributes:
        segments: None where the policy leaves the clip out.
        stored: tracks as annotated, without the wearer's.
        touched: (rule, how many, place of the first) of each rule that touched something.
    """

    segments: list[Segment] | None
    stored: list[RawTrack]
    faces: list[FaceTrack] = field(default_factory=list)
    touched: list[tuple[str, int, Place]] = field(default_factory=list)


def apply_policy(clip: StoredClip, policy: Policy) -> PolicyClip:
    """ValueError naming the file, where the original scripts' file of the clip cannot be read."""
    reading, of_tracks = Counter[str](), Counter[str]()
    segments: list[Segment] | None = []
    if clip.table is not None:
        stored = [raw_track(name, boxes) for name, boxes in clip.table.items()]
    elif clip.annotated is not None:
        segments = looking_segments(clip.annotated, policy, reading)
        stored = raw_tracks(clip.annotated, policy, of_tracks)
    else:
        folder = clip.root / "json_original"
        segments = original_segments(folder, clip.root / "result_LAM", clip.uid, policy, reading)
        stored = original_tracks(folder, clip.uid, of_tracks)
    made = PolicyClip(segments, stored)
    if segments is not None:
        reading += of_tracks
        for raw in stored:
            counts = RuleCounts()
            made.faces += (face_tracks(clip.uid, raw, segments, policy, counts) if clip.table is None
                           else labelled_tracks(clip.uid, raw, clip.table[raw.track], policy, counts))
            made.touched += [(rule, number, {"clip": clip.uid, "track": raw.track, **(
                {"frame": frame_number(counts.first[rule])} if rule in counts.first else {})})
                for rule, number in counts.items() if number]
    made.touched += [(rule, number, {"clip": clip.uid}) for rule, number in reading.items()]
    return made


def pictures_needed(clips: list[tuple[Policy, PolicyClip]]) -> dict[str, np.ndarray]:
    """Numbers (from 0) of the pictures that any of the policies cuts a face from, by track; int64, ascending."""
    needed: dict[str, np.ndarray] = {}
    for policy, made in clips:
        for track in made.faces:
            numbers = track.frames - policy.first_number
            needed[track.track] = np.union1d(needed.get(track.track, numbers), numbers)
    return needed


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

    def add(self, made: PolicyClip, pictures: Pictures) -> list[FaceTrack]:
        """Count one clip; returns the rows that preparation would store."""
        for rule, number, place in made.touched:
            self.count(rule, number, place)
        absent_rule = NO_PICTURE[pictures.source if isinstance(pictures, ClipImages) else "videos"]
        outside_rule = ("row left out: outside the picture" if self.policy.drop_outside
                        else "crop black: outside the picture")
        rows = []
        for track in made.faces:
            absent, invisible = without_picture(track, pictures, self.policy)
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


def compare_rows(baseline: list[FaceTrack], clean: list[FaceTrack]) -> Counter[str]:
    """How the rows of the two policies differ in one clip; a frame that baseline holds twice counts once."""
    one, other = (face_table(tracks).drop_duplicates(["track", "frame"]) for tracks in (baseline, clean))
    both = one.merge(other, on=["track", "frame"])
    moved = [np.abs(both[f"{side}_x"] - both[f"{side}_y"]) > 1e-6 for side in ("left", "top", "right", "bottom")]
    return Counter(both=len(both), baseline_only=len(one) - len(both), clean_only=len(other) - len(both),
                   other_label=int((both["label_x"] != both["label_y"]).sum()),
                   other_box=int(np.logical_or.reduce(moved).sum()))


def face_table(tracks: list[FaceTrack]) -> Any:
    """The faces of one clip as a pandas table: track, person, frame, label, left, top, right, bottom."""
    import pandas as pd
    lengths = [len(track.frames) for track in tracks]
    boxes = np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)])
    return pd.DataFrame({
        "track": np.repeat(np.array([track.track for track in tracks], object), lengths),
        "person": np.repeat(np.array([track.person for track in tracks], object), lengths),
        "frame": np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)]),
        "label": np.concatenate([np.zeros(0, np.int8), *(track.labels for track in tracks)]),
        **dict(zip(("left", "top", "right", "bottom"), boxes.T, strict=True))})


def frame_number(frame: float) -> int | None:
    """For a place: None for what is no frame number."""
    return int(frame) if np.isfinite(frame) else None
