"""What the two policies make of a clip: the faces that become rows, what each rule touched and where, and how the
policies differ. Rules are those of preparation (data/tracks.py); nothing is judged here."""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.annotations import looking_segments, original_segments, original_tracks, raw_tracks
from gazepose.data.box_table import Boxes, labelled_tracks, raw_track
from gazepose.data.crops import outside
from gazepose.data.tracks import (
    POLICIES,
    FaceTrack,
    Policy,
    RawTrack,
    Segment,
    broken_rules,
    clean_records,
    face_tracks,
)
from gazepose.data.video import VideoFacts
from gazepose.doctor.checks import EXAMPLES
from gazepose.doctor.images import ClipImages

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]
RULES = [rule.name for rule in fields(Policy)
         if rule.name != "name" and getattr(BASELINE, rule.name) != getattr(CLEAN, rule.name)]
NO_PICTURE = {"videos": "row left out: past the end of the video", "images": "row left out: no extracted picture",
              "faces": "row left out: no face image"}
BLACK, OUTSIDE = "crop black: outside the picture", "row left out: outside the picture"


@dataclass
class StoredClip:
    """One clip as it lies in an annotation file, a table of boxes or the folders of the original scripts; and what
    there is to take its crops from."""

    uid: str
    annotated: dict[str, Any] | None
    root: Path
    table: dict[str, Boxes] | None = None
    """boxes by track"""
    pictures: VideoFacts | ClipImages | None = None
    """None: unknown, or not usable"""
    _tracks: dict[str, tuple[list[RawTrack], Counter[str]]] = field(default_factory=dict)

    def segments(self, policy: Policy, counts: Counter[str]) -> list[Segment] | None:
        if self.table is not None:
            return []
        if self.annotated is not None:
            return looking_segments(self.annotated, policy, counts)
        return original_segments(self.root / "json_original", self.root / "result_LAM", self.uid, policy, counts)

    def tracks(self, policy: Policy) -> tuple[list[RawTrack], Counter[str]]:
        """Tracks as stored and what reading them counted; read once per way of finding the wearer."""
        if policy.wearer not in self._tracks:
            counts: Counter[str] = Counter()
            raws = ([raw_track(name, boxes) for name, boxes in self.table.items()] if self.table is not None
                    else raw_tracks(self.annotated, policy, counts) if self.annotated is not None
                    else original_tracks(self.root / "json_original", self.uid, counts))
            self._tracks[policy.wearer] = raws, counts
        return self._tracks[policy.wearer]

    def face_tracks(self, raw: RawTrack, segments: list[Segment], policy: Policy, counts: Counter[str]
                    ) -> list[FaceTrack]:
        if self.table is not None:
            return labelled_tracks(self.uid, raw, self.table[raw.track], policy, counts)
        return face_tracks(self.uid, raw, segments, policy, counts)

    def wanted(self) -> dict[str, np.ndarray]:
        """Numbers (from 0) of the pictures that one of the presets cuts a face from, by track; int64 ascending."""
        wanted: dict[str, np.ndarray] = {}
        for policy in (BASELINE, CLEAN):
            for track in rows_of(replace(self, pictures=None), policy):
                numbers = track.frames - policy.first_number
                wanted[track.track] = np.union1d(wanted.get(track.track, numbers), numbers)
        return wanted

    def read_original(self) -> list[Segment] | None:
        """Read what the original scripts left of the clip; ValueError naming the file that is not readable."""
        self.tracks(CLEAN)
        return self.segments(CLEAN, Counter())


def rows_of(clip: StoredClip, policy: Policy) -> list[FaceTrack]:
    """The faces that preparation stores: those of the policy that lie in the video and in its picture."""
    segments = clip.segments(policy, Counter())
    if segments is None:
        return []
    tracks = [track for raw in clip.tracks(policy)[0]
              for track in clip.face_tracks(raw, segments, policy, Counter())]
    return [_kept(track, ~_without_picture(clip, track, policy) & ~(_unseen(clip, track) & policy.drop_outside))
            for track in tracks]


@dataclass
class Preset:
    """Totals of one policy over a split's clips."""

    policy: Policy
    clips: int = 0
    tracks: int = 0
    rows: int = 0
    labelled: int = 0
    looking: int = 0
    rows_with_picture: int = 0
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def count(self, rule: str, number: int, place: dict[str, Any]) -> None:
        entry = self.counts.setdefault(rule, {"count": 0, "examples": []})
        entry["count"] += int(number)
        if len(entry["examples"]) < EXAMPLES:
            entry["examples"].append(place)

    def add(self, clip: StoredClip) -> list[FaceTrack]:
        """Count one clip; returns its rows."""
        counts: Counter[str] = Counter()
        segments = clip.segments(self.policy, counts)
        raws, reading = clip.tracks(self.policy) if segments is not None else ([], Counter())
        for rule, number in (counts + reading).items():
            self.count(rule, number, {"clip": clip.uid})
        rows, no_picture = [], NO_PICTURE[getattr(clip.pictures, "source", "videos")]
        for raw in raws:
            touched: Counter[str] = Counter()
            for track in clip.face_tracks(raw, segments or [], self.policy, touched):
                past, unseen = _without_picture(clip, track, self.policy), _unseen(clip, track)
                for rule, which in ((no_picture, past),
                                    (OUTSIDE if self.policy.drop_outside else BLACK, ~past & unseen)):
                    if which.any():
                        self.count(rule, int(which.sum()), _place(clip, raw, track.frames[np.argmax(which)]))
                rows.append(_kept(track, ~past & ~(unseen & self.policy.drop_outside)))
            for rule, number in touched.items():
                if number:
                    self.count(rule, number, _place(clip, raw, self._first(rule, raw)))
        rows = [track for track in rows if len(track.frames)]
        self.clips += bool(rows)
        self.tracks += len(rows)
        faces = sum(len(track.frames) for track in rows)
        self.rows += faces
        self.rows_with_picture += faces if clip.pictures is not None else 0
        self.labelled += sum(int((track.labels >= 0).sum()) for track in rows)
        self.looking += _size(rows)[1]
        return rows

    def _first(self, rule: str, raw: RawTrack) -> float | None:
        """The first frame of a track that a rule touched; None when it touched the track as a whole."""
        kind, _, what = rule.partition(": ")
        if kind == "record dropped" and what != "frame number repeated":
            intact = np.ones(len(raw.frames), bool)
            for name, bad in broken_rules(raw, self.policy):
                if name == what:
                    return raw.frames[np.argmax(intact & bad)]
                intact &= ~bad
        frames, corners = clean_records(raw, replace(self.policy, keep_repeats=True, negative_corner="cut"), Counter())
        steps = np.diff(frames)
        if kind in ("box moved", "box cut"):
            kept = raw.boxes[np.isin(raw.frames, frames)]
            return raw.frames[np.isin(raw.frames, frames)][np.argmax((kept[:, :2] < 0).any(axis=1))]
        if what == "frame number repeated":
            return frames[1:][np.argmax(steps == 0)]
        if kind == "gap":
            limit, honoured = self.policy.max_gap, raw.unmapped[:len(raw.unmapped) * self.policy.honour_flags]
            split = steps - 1 > limit if limit is not None else np.zeros(len(steps), bool)
            split |= np.diff(np.searchsorted(np.sort(honoured), frames)) > 0
            wanted = split if what == "track split" else (steps > 1) & ~split
            return frames[:-1][np.argmax(wanted)] if wanted.any() else None
        return None

    def facts(self) -> dict[str, Any]:
        return {"clips": self.clips, "tracks": self.tracks, "rows": self.rows,
                "rows_with_picture": self.rows_with_picture, "labelled": self.labelled, "looking": self.looking,
                "rate": round(self.looking / self.labelled, 4) if self.labelled else None,
                "rules": dict(sorted(self.counts.items()))}


@dataclass
class Difference:
    """How the rows of the two presets differ, and what each rule alone changes."""

    totals: Counter[str] = field(default_factory=Counter)
    rules: dict[str, Counter[str]] = field(default_factory=lambda: {rule: Counter() for rule in RULES})

    def add(self, clip: StoredClip, baseline: list[FaceTrack], clean: list[FaceTrack]) -> None:
        number: dict[str, int] = {}
        one, other = _table(baseline, number), _table(clean, number)
        same, at, there = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
        self.totals.update(
            both=len(same), baseline_only=len(one[0]) - len(same), clean_only=len(other[0]) - len(same),
            other_label=int((one[1][at] != other[1][there]).sum()),
            other_box=int((np.abs(one[2][at] - other[2][there]) > 1e-6).any(axis=1).sum()))
        rows, looking = _size(clean)
        for rule in RULES:
            changed = _size(rows_of(clip, replace(CLEAN, **{rule: getattr(BASELINE, rule)})))
            self.rules[rule].update(rows=changed[0] - rows, looking=changed[1] - looking)

    def facts(self) -> dict[str, Any]:
        names = ("both", "baseline_only", "clean_only", "other_label", "other_box")
        return {**{name: self.totals[name] for name in names}, "rules": {
            rule: {"baseline": getattr(BASELINE, rule), "clean": getattr(CLEAN, rule), "rows": change["rows"],
                   "looking": change["looking"]} for rule, change in self.rules.items()}}


def whole_number(frame: float | None) -> int | None:
    """For a place: None for what is no frame number."""
    return int(frame) if frame is not None and np.isfinite(frame) else None


def _place(clip: StoredClip, raw: RawTrack, frame: float | None) -> dict[str, Any]:
    return {"clip": clip.uid, "track": raw.track, **({} if frame is None else {"frame": whole_number(frame)})}


def _without_picture(clip: StoredClip, track: FaceTrack, policy: Policy) -> np.ndarray:
    picture = track.frames - policy.first_number
    if isinstance(clip.pictures, ClipImages):
        return ~clip.pictures.there(track.track, picture)
    return (picture < 0) | (picture >= clip.pictures.frames) if clip.pictures else np.zeros(len(picture), bool)


def _unseen(clip: StoredClip, track: FaceTrack) -> np.ndarray:
    if clip.pictures is None or isinstance(clip.pictures, ClipImages) and clip.pictures.source == "faces":
        return np.zeros(len(track.frames), bool)                       # what others cut out is taken as it is
    return outside(track.boxes, clip.pictures.width, clip.pictures.height)


def _kept(track: FaceTrack, keep: np.ndarray) -> FaceTrack:
    if keep.all():
        return track
    return FaceTrack(track.clip, track.track, track.person, track.frames[keep], track.boxes[keep], track.labels[keep])


def _size(tracks: list[FaceTrack]) -> tuple[int, int]:
    return sum(len(track.frames) for track in tracks), sum(int((track.labels == 1).sum()) for track in tracks)


def _table(tracks: list[FaceTrack], number: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(faces as one number made of track and frame, each once, ascending; their labels; their boxes)."""
    faces = np.concatenate([np.zeros(0, np.int64), *(
        (number.setdefault(track.track, len(number)) << 32) + track.frames for track in tracks)])
    faces, first = np.unique(faces, return_index=True)
    labels = np.concatenate([np.zeros(0, np.int8), *(track.labels for track in tracks)])
    boxes = np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)])
    return faces, labels[first], boxes[first]
