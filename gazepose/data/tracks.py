"""One face followed in time: drop bad records, fill gaps, split, label. Pure functions of arrays and a policy.

The rules decide which rows exist and which are positive, so policies have names. `baseline` does what the published
loader does; only its scores can be compared with published ones. `clean` is better to train on. Files are read by
data/annotations.py; pictures are cut by data/clip_crops.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

import numpy as np

MAX_FRAME = 1_000_000        # nine hours; a larger number is damage
MAX_GAP = 18_000             # ten minutes, longer than a clip of Ego4D: what lies beyond is damage, and is never filled
FILLED_EACH = 500            # frames that are filled for each record of a track, so that a small file fills little
TOO_LONG = "gap: too long to be filled, track split"
TOO_MANY = f"gap: track split, since more than {FILLED_EACH} frames a record would be filled"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules by name; --rule NAME=VALUE changes one."""

    name: str
    """the policy, and the rules that differ from it: clean, clean+max_gap=30"""
    drop_frame_zero: bool
    """records of frame 0 are dropped (extracted images are numbered from 1)"""
    drop_outside: bool
    """faces wholly outside the picture are dropped; else their crop is black"""
    negative_corner: Literal["move", "cut"]
    """x or y below 0: set to 0 with the size kept, so that the box moves, or cut at the picture's border"""
    max_gap: int | None
    """longest run of missing frames that is filled; the track is split at longer ones. None: all are filled, of up to
    MAX_GAP frames. FILLED_EACH bounds them all"""
    keep_repeats: bool
    """a frame number that occurs twice keeps both records, unless the track has too few records for its frames"""
    honour_flags: bool
    """suspect tracks are dropped; unmapped frames are dropped, and not filled"""
    end_inclusive: bool
    """the end frame of a segment is looking"""
    empty_is_negative: bool
    """a clip with an empty list of segments is all negative; else left out, as one without a list always is"""
    wearer: Literal["first", "flag"]
    """which person is the camera wearer and left out: the first of the list, or the one with the flag"""
    first_number: Literal[0, 1]
    """frame number of the first decoded picture"""
    at_me_only: bool = False
    """only segments with is_at_me count"""
    box_scale: float = 1.0
    """grows the box about its centre before the crop is cut"""

    def __post_init__(self) -> None:
        if self.max_gap is not None and self.max_gap < 0:
            raise ValueError(f"max_gap {self.max_gap} -> give 0 or more missing frames, or None to fill all")
        if not 0.1 <= self.box_scale <= 10:
            raise ValueError(f"box_scale {self.box_scale} -> give 0.1 to 10; 1 is the box as it is")
        if self.first_number not in (0, 1):
            raise ValueError(f"first_number {self.first_number} -> give 0 or 1")


POLICIES: dict[str, Policy] = {
    "baseline": Policy(name="baseline", drop_frame_zero=True, drop_outside=False, negative_corner="move", max_gap=None,
                       keep_repeats=True, honour_flags=False, end_inclusive=True, empty_is_negative=False,
                       wearer="first", first_number=1),
    "clean": Policy(name="clean", drop_frame_zero=False, drop_outside=True, negative_corner="cut", max_gap=15,
                    keep_repeats=False, honour_flags=True, end_inclusive=False, empty_is_negative=True, wearer="flag",
                    first_number=0),
}


@dataclass
class RawTrack:
    """A track as annotated: frames float64 [n], boxes float64 [n, 4] (x, y, width, height), person per record."""

    track: str
    persons: list[str]
    frames: np.ndarray
    boxes: np.ndarray
    suspect: bool = False
    unmapped: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray | None = None
    """int8 [n], -1 unknown, as a table of boxes gives them in place of segments"""


@dataclass
class FaceTrack:
    """frames int64 [n] (numbers of the annotation), boxes float64 [n, 4] x1, y1, x2, y2 pixels, labels int8 [n]."""

    clip: str
    track: str
    person: str
    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass
class Clip:
    """One clip's face tracks, and how many records each rule touched."""

    uid: str
    tracks: list[FaceTrack] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Segment:
    """Someone looks from `start` to `end`."""

    person: str | None
    """None: unknown, so it may be anyone; only with label -1"""
    start: int
    end: int
    label: int = 1
    """-1: the segment could not be read, so faces that may lie in it are unknown"""


class RuleCounts(Counter[str]):
    """Counts by rule that also keep the first frame that each rule touched, to serve as an example."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, float] = {}


def _count(counts: Counter[str], rule: str, frames: np.ndarray) -> None:
    counts[rule] += len(frames)
    if isinstance(counts, RuleCounts) and len(frames):
        counts.first.setdefault(rule, float(frames[0]))


def broken_rules(raw: RawTrack, policy: Policy) -> list[tuple[str, np.ndarray]]:
    """The policy's rules for single records, each with the records that break it, bool [n]. A record may break several;
    it is counted by the first."""
    frames, (x, y, width, height) = raw.frames, raw.boxes.T
    with np.errstate(over="ignore", invalid="ignore"):
        corners = 2 * max(policy.box_scale, 1) * np.abs(raw.boxes).sum(axis=1)     # bounds them, of the grown box too
        right, bottom = x + width, y + height
    rules = [("not a finite number", ~(np.isfinite(frames) & np.isfinite(corners))),
             ("frame number not whole, negative or absurd",
              (frames < 0) | (frames > MAX_FRAME) | (frames != np.floor(frames))),
             ("width or height not positive", (width <= 0) | (height <= 0)),
             ("person id empty", np.array([not person for person in raw.persons], bool))]
    if policy.drop_frame_zero:
        rules.append(("frame 0", frames == 0))
    if policy.drop_outside:
        rules.append(("outside the picture", (right <= 0) | (bottom <= 0)))
    if policy.honour_flags and len(raw.unmapped):
        rules.append(("unmapped frame", np.isin(frames, raw.unmapped)))
    return rules


def clean_records(raw: RawTrack, policy: Policy, counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """Usable records in order of frame: frames int64 [k], corners float64 [k, 4]. `counts` gains a rule's touches."""
    keep = np.ones(len(raw.frames), bool)
    for rule, bad in broken_rules(raw, policy):                        # a record is counted by the first rule it fails
        if bad.any():
            _count(counts, f"record dropped: {rule}", raw.frames[keep & bad])
            keep &= ~bad
    kept = np.flatnonzero(keep)
    order = kept[np.argsort(raw.frames[kept], kind="stable")]
    frames, corners = raw.frames[order].astype(np.int64), raw.boxes[order].copy()
    negative = frames[(corners[:, :2] < 0).any(axis=1)]
    inside = np.maximum(corners[:, :2], 0)
    if policy.negative_corner == "move":
        _count(counts, "box moved: x or y negative", negative)
        corners[:, 2:] += inside
    else:
        _count(counts, "box cut: x or y negative", negative)
        corners[:, 2:] += corners[:, :2]
    corners[:, :2] = inside
    if not policy.keep_repeats and len(frames):
        first = np.ones(len(frames), bool)
        first[1:] = frames[1:] != frames[:-1]
        if not first.all():
            _count(counts, "record dropped: frame number repeated", frames[~first])
            frames, corners = frames[first], corners[first]
    return frames, corners


def fill(frames: np.ndarray, corners: np.ndarray, policy: Policy, unmapped: np.ndarray,
         counts: Counter[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Missing frames between kept ones get linearly interpolated corners; longer gaps split the track.

    Args:
        frames, corners: as clean_records returns them.
        unmapped: frame numbers that may not be filled (when the policy honours them).

    Returns:
        Pieces (frames, corners); within a piece every frame number occurs, once (twice only under keep_repeats).
    """
    if not len(frames):
        return []
    steps = np.diff(frames)
    cuts = np.zeros(len(steps), bool)
    if policy.max_gap is not None:
        cuts |= steps - 1 > policy.max_gap
    if policy.honour_flags and len(unmapped):
        places = np.searchsorted(np.sort(unmapped), frames)
        cuts |= np.diff(places) > 0
    _count(counts, "gap: track split", frames[:-1][cuts])
    too_long = ~cuts & (steps - 1 > MAX_GAP)
    _count(counts, TOO_LONG, frames[:-1][too_long])
    cuts |= too_long
    gaps = np.flatnonzero(~cuts & (steps > 1))
    gaps = gaps[np.argsort(steps[gaps], kind="stable")]                # the shortest are filled first
    too_many = np.sort(gaps[np.cumsum(steps[gaps] - 1) > FILLED_EACH * len(frames)])
    _count(counts, TOO_MANY, frames[too_many])
    cuts[too_many] = True
    starts = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(frames)]
    pieces = []
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        known, boxes = frames[start:stop], corners[start:stop]
        span = int(known[-1] - known[0]) + 1
        if len(known) < span:                                          # the published test: counts are compared
            whole = np.arange(known[0], known[0] + span)
            boxes = np.stack([np.interp(whole, known, corner) for corner in boxes.T], axis=1)
            _count(counts, "gap: frames filled", np.setdiff1d(whole, known))
            known = whole
        pieces.append((known, boxes))
    return pieces


def label_frames(frames: np.ndarray, person: str, segments: Sequence[Segment], policy: Policy) -> np.ndarray:
    """int8 [n]: 1 where the frame lies in any segment of the person (ids are compared as text), -1 where it may lie in
    one that could not be read, else 0.

    Raises:
        TypeError: a segment's person is not text.
    """
    labels = np.zeros(len(frames), np.int8)
    for segment in sorted(segments, key=attrgetter("label")):          # a segment that was read is written last
        if segment.label == 1 and not isinstance(segment.person, str):
            raise TypeError(f"segment {segment.start}..{segment.end}: person {segment.person!r} is not text")
        if segment.person in (person, None):
            end = frames <= segment.end if policy.end_inclusive or segment.label < 0 else frames < segment.end
            labels[(frames >= segment.start) & end] = segment.label
    return labels


def face_tracks(clip: str, raw: RawTrack, segments: Sequence[Segment], policy: Policy,
                counts: Counter[str]) -> list[FaceTrack]:
    """A track as annotated -> its pieces, cleaned, filled and labelled; they keep the track's name.

    The person is that of the record with the lowest frame number, even if that record was dropped (as published; in
    the official annotations a track has one person only).
    """
    if policy.honour_flags and raw.suspect:
        counts["track dropped: suspect"] += 1
        return []
    frames, corners = clean_records(raw, policy, counts)
    if not len(frames):
        counts["track dropped: no usable record"] += 1
        return []
    person = raw.persons[int(np.argmin(np.where(np.isnan(raw.frames), np.inf, raw.frames)))]
    return [FaceTrack(clip, raw.track, person, numbers, boxes, _labels(raw, numbers, person, segments, policy))
            for numbers, boxes in fill(frames, corners, policy, raw.unmapped, counts)]


def _labels(raw: RawTrack, frames: np.ndarray, person: str, segments: Sequence[Segment], policy: Policy) -> np.ndarray:
    """int8 [n]: the track's own labels, unknown (-1) in frames between its records; else by the segments."""
    if raw.labels is None:
        return label_frames(frames, person, segments, policy)
    label_of = dict(zip(raw.frames.tolist(), raw.labels.tolist(), strict=True))
    return np.array([label_of.get(frame, -1) for frame in frames.tolist()], np.int8)
