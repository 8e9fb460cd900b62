"""Ego4D annotations and split lists -> face tracks under a policy.

Every collection may be null or missing, unknown keys are ignored, and every record a rule touches is counted. Also
reads what the original scripts left (json_original/<clip>/<track>.json, result_LAM/<clip>.json; their result_TTM and
wave are of speech, their video_imgs are pictures: data/images.py). What the rules do is data/tracks.py; the pictures
are data/clip_crops.py.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from gazepose.data.tracks import MAX_FRAME, POLICIES, FaceTrack, Policy, RawTrack, Segment, face_tracks
from gazepose.io import is_id, read_json, unique_names

BLANK = re.compile(r"\s*")
NO_ANNOTATIONS = "download the official annotations, or make the embedded world with `python -m gazepose synthetic`"
DAMAGED_ANNOTATIONS = "download or make it again"
CORNERS = ("x", "y", "width", "height")


@dataclass
class Clip:
    """One clip's face tracks, and how many records each rule touched."""

    uid: str
    tracks: list[FaceTrack] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def policy_named(name: str, rules: Sequence[str] = ()) -> Policy:
    """A policy with some of its rules changed; its name says which: clean+max_gap=30.

    Args:
        rules: NAME=VALUE each.

    Raises:
        ValueError: naming the policies or the rules there are, or a value that is out of range.
    """
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is unknown -> use {' or '.join(POLICIES)}")
    policy, kinds = POLICIES[name], get_type_hints(Policy)
    known = [rule.name for rule in fields(Policy) if rule.name != "name"]
    wanted: dict[str, Any] = {}
    for text in rules:
        rule, _, value = text.partition("=")
        if rule not in known:
            raise ValueError(f"--rule {text}: policy {name} has no rule {rule!r} -> the rules are {', '.join(known)}")
        wanted[rule] = _rule_value(text, value, kinds[rule])
    changed = {rule: wanted[rule] for rule in known if rule in wanted and wanted[rule] != getattr(policy, rule)}
    return replace(policy, name="+".join([name, *(f"{rule}={value}" for rule, value in changed.items())]), **changed)


def _rule_value(text: str, value: str, kind: Any) -> Any:
    choices = get_args(kind) if get_origin(kind) is Literal else (kind,)
    if kind is bool:
        choices = (True, False)
    for choice in choices if get_origin(kind) is Literal or kind is bool else ():
        if value.lower() == str(choice).lower():
            return choice
    try:
        if type(None) in get_args(kind):
            return None if value.lower() == "none" else int(value)
        if kind in (int, float):
            return kind(value)
    except ValueError:
        choices = ("a number",) if kind in (int, float) else ("a whole number", "None")
    raise ValueError(f"--rule {text} -> give {' or '.join(map(str, choices))}")


def read_split(path: str | Path) -> list[str]:
    """Clip uids of a split list, one a line, in order.

    Raises:
        FileNotFoundError: no such list. ValueError: a line is no id, a clip occurs twice, or there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no split list -> put the clip uids there, one a line (the official lists are "
                                "train.list and val.list)")
    uids = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    uids = [uid for uid in uids if uid]
    for number, uid in enumerate(uids, 1):
        if not is_id(uid):
            raise ValueError(f"{path}: entry {number}: {uid[:140]!r} is not a clip uid -> letters, digits, _ . - only")
    if twice := [uid for uid, count in Counter(uids).items() if count > 1]:
        raise ValueError(f"{path}: {twice[0]} occurs twice -> keep one of the lines")
    if not uids:
        raise ValueError(f"{path}: the split is empty -> put the clip uids there, one a line")
    return uids


def read_clips(json_path: str | Path, clip_uids: Sequence[str], policy: Policy) -> list[Clip]:
    """Face tracks of the wanted clips of an av_train.json or av_val.json, in the order wanted.

    A clip without an annotation, or left out by a rule, comes back without tracks and with the reason counted.

    Raises:
        FileNotFoundError or ValueError naming the file (see io.read_json).
    """
    document = read_json(json_path, missing=NO_ANNOTATIONS, remedy=DAMAGED_ANNOTATIONS)
    if not isinstance(document, dict):
        raise ValueError(f"{json_path}: an object with `videos` is wanted, this is a {type(document).__name__}")
    wanted, found = set(clip_uids), {}
    for video in _objects(document.get("videos")):
        for annotated in _objects(video.get("clips")):
            uid = annotated.get("clip_uid")
            if isinstance(uid, str) and uid in wanted:
                if uid in found:
                    found[uid].counts["clip annotated twice: the first is used"] += 1
                else:
                    found[uid] = _clip(uid, annotated, policy)
    return [found.get(uid) or Clip(uid, counts=Counter({"clip left out: not annotated": 1})) for uid in clip_uids]


def read_original(tracks: str | Path, results: str | Path, clip_uids: Sequence[str], policy: Policy) -> list[Clip]:
    """As read_clips, from the folders json_original and result_LAM of the original scripts; tracks by name.

    The scripts left out the first person of each clip and dropped is_at_me, suspect and unmapped_frames, so the rules
    about these cannot be applied; they wrote no result for a clip without segments.

    Raises:
        FileNotFoundError: there are no results at all. ValueError: a file cannot be read, or at_me_only is asked for.
    """
    tracks, results = Path(tracks), Path(results)
    if policy.at_me_only:
        raise ValueError(f"{results}: the original scripts left out is_at_me -> leave --at_me_only out, or put the "
                         "official annotations into json/")
    if not results.is_dir():
        raise FileNotFoundError(f"{results}: no such folder, so {tracks} has no labels -> put result_LAM beside it, or "
                                "the official annotations into json/")
    clips = []
    for uid in clip_uids:
        clip = Clip(uid)
        clips.append(clip)
        segments = original_segments(tracks, results, uid, policy, clip.counts)
        if segments is not None:
            for raw in original_tracks(tracks, uid, clip.counts):
                clip.tracks += face_tracks(uid, raw, segments, policy, clip.counts)
    return clips


def original_segments(tracks: str | Path, results: str | Path, uid: str, policy: Policy, counts: Counter[str]
                      ) -> list[Segment] | None:
    """Looking segments of result_LAM/<uid>.json; None, and counted, where the clip has no such file or no tracks."""
    result = Path(results) / f"{uid}.json"
    if not result.is_file():
        counts["clip left out: no list of looking segments"] += 1
        return None
    if not (Path(tracks) / uid).is_dir():
        counts["clip left out: not annotated"] += 1
        return None
    written = _read_appended(result, counts)
    if len(written) > 1:
        raise ValueError(f"{result}: holds {len(written)} different lists -> delete the file and write it again")
    return _segments(written[0], ("label", "start_frame", "end_frame"), policy, counts)


def original_tracks(tracks: str | Path, uid: str, counts: Counter[str]) -> list[RawTrack]:
    """Tracks of json_original/<uid>, one file each, in order of name."""
    raw = []
    for path in sorted((Path(tracks) / uid).glob("*.json")):
        if not is_id(path.stem):
            counts["track dropped: its id is not letters, digits, _ . -"] += 1
            continue
        written = _read_appended(path, counts)
        if len(written) > 1:                                           # as read_clips: the first of that name
            counts["track dropped: its id occurred before in the clip"] += len(written) - 1
        records = _objects(written[0])
        persons = ["" if name is None else str(name) for name in (record.get("Person ID") for record in records)]
        raw.append(_raw_track(path.stem, records, persons, "frameNumber", counts))
    return raw


def raw_tracks(annotated: dict[str, Any], policy: Policy, counts: Counter[str]) -> list[RawTrack]:
    """Tracks of one annotated clip as they are stored, without the wearer's."""
    tracks: dict[str, RawTrack] = {}
    for number, person in enumerate(_objects(annotated.get("persons"))):
        if number == 0 if policy.wearer == "first" else person.get("camera_wearer") is True:
            counts["person left out: camera wearer"] += 1
            continue
        name = person.get("person_id")
        for path in _objects(person.get("tracking_paths")):
            uid = path.get("track_id")
            if not is_id(uid):
                counts["track dropped: its id is not letters, digits, _ . -"] += 1
            elif uid in tracks:
                counts["track dropped: its id occurred before in the clip"] += 1
            else:
                records = _objects(path.get("track"))
                raw = _raw_track(uid, records, ["" if name is None else str(name)] * len(records), "frame", counts)
                raw.suspect = path.get("suspect") is True
                unmapped = path.get("unmapped_frames")
                if isinstance(unmapped, list):
                    raw.unmapped = np.array([frame for frame in unmapped if type(frame) is int
                                             and 0 <= frame <= MAX_FRAME], np.int64)
                tracks[uid] = raw
    return list(tracks.values())


def _read_appended(path: Path, counts: Counter[str]) -> list[Any]:
    """The different values of a file that the original scripts append to, in order, at least one.

    They open files for appending: a second run, or a second track of that id, writes behind what is there.
    """
    decoder, values, at = json.JSONDecoder(object_pairs_hook=unique_names), [], 0
    try:
        text = path.read_text(encoding="utf-8").strip()
        while at < len(text) or not values:
            value, at = decoder.raw_decode(text, at)
            at = BLANK.match(text, at).end()                           # type: ignore[union-attr]
            values.append(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable JSON: {error} -> delete the file and run the original scripts again, "
                         "or put the official annotations into json/") from error
    different = [value for n, value in enumerate(values) if value not in values[:n]]
    if len(different) < len(values):
        counts["file written more than once by the original scripts: read once"] += 1
    return different


def looking_segments(annotated: dict[str, Any], policy: Policy, counts: Counter[str]) -> list[Segment] | None:
    """Looking segments of one annotated clip; None, and counted, where the policy leaves it out for want of any."""
    looking = annotated.get("social_segments_looking")
    if not isinstance(looking, list):
        counts["clip left out: no list of looking segments"] += 1
        return None
    if not looking and not policy.empty_is_negative:
        counts["clip left out: empty list of looking segments"] += 1
        return None
    return _segments(looking, ("person", "start_frame", "end_frame"), policy, counts)


def _clip(uid: str, annotated: dict[str, Any], policy: Policy) -> Clip:
    clip = Clip(uid)
    segments = looking_segments(annotated, policy, clip.counts)
    if segments is not None:
        for raw in raw_tracks(annotated, policy, clip.counts):
            clip.tracks += face_tracks(uid, raw, segments, policy, clip.counts)
    return clip


def _segments(stored: Any, keys: tuple[str, str, str], policy: Policy, counts: Counter[str]) -> list[Segment]:
    segments = []
    for segment in _objects(stored):
        person, start, end = (segment.get(key) for key in keys)
        if person is None:
            counts["segment dropped: no person"] += 1
        elif type(start) is not int or type(end) is not int:
            counts["segment dropped: start or end is not a whole number"] += 1
        elif policy.at_me_only and segment.get("is_at_me") is not True:
            counts["segment dropped: not at me"] += 1
        else:
            segments.append(Segment(str(person), start, end))
    return segments


def _raw_track(uid: str, records: list[dict[str, Any]], persons: list[str], frame: str,
               counts: Counter[str]) -> RawTrack:
    """Records -> arrays; one that lacks a number becomes NaN, which every policy drops and counts."""
    keys = (frame, *CORNERS)
    try:
        values = np.array(list(map(itemgetter(*keys), records)), np.float64)
        if records and values.ndim != 2:
            raise ValueError("a list where a number belongs")
    except (KeyError, TypeError, ValueError, OverflowError):
        values = np.array([[_number(record.get(key)) for key in keys] for record in records], np.float64)
        counts["record malformed: a number missing or not a number"] += int(np.isnan(values).any(axis=1).sum())
    values = values.reshape(-1, len(keys))
    return RawTrack(uid, persons, values[:, 0], values[:, 1:])


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else float("nan")
    except OverflowError:
        return float("inf")


def _objects(collection: Any) -> list[dict[str, Any]]:
    """The objects of a collection that may be null, missing or of another kind."""
    return [entry for entry in collection if isinstance(entry, dict)] if isinstance(collection, list) else []
