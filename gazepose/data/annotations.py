"""Ego4D annotations and split lists -> face tracks under a policy.

Every collection may be null or missing, unknown keys are ignored, and every record that a rule touches is counted. The
rules are data/tracks.py; tables of boxes are data/box_table.py; the folders of the original scripts are
compat/folders.py.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from gazepose.data.box_table import TABLES, find_table, read_boxes
from gazepose.data.tracks import MAX_FRAME, POLICIES, Clip, Policy, RawTrack, Segment, face_tracks
from gazepose.io import is_id, open_regular, read_object

NO_ANNOTATIONS = "download the official annotations, or make the embedded world with `python -m gazepose synthetic`"
DAMAGED_ANNOTATIONS = "download or make it again"
MAX_LIST, MAX_CLIPS = 16 << 20, 200_000      # bytes and entries of a split list; Ego4D has 433 clips
ANNOTATIONS = ("json", "annotations", "v2/annotations", "v1/annotations")
"""where official annotations may lie in a data set; the last three: as Ego4D's downloader leaves them"""
WHOLE = re.compile(r"([+-]?[0-9]{1,15})(?:\.0*)?")


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
    values: dict[str, Any] = {}
    for text in rules:
        rule, _, value = text.partition("=")
        if rule not in known:
            raise ValueError(f"--rule {text}: policy {name} has no rule {rule!r} -> the rules are {', '.join(known)}")
        values[rule] = _rule_value(text, value, kinds[rule])
    changed = {rule: values[rule] for rule in known if rule in values and values[rule] != getattr(policy, rule)}
    return replace(policy, name="+".join([name, *(f"{rule}={value}" for rule, value in changed.items())]), **changed)


def _rule_value(text: str, value: str, kind: Any) -> Any:
    """The value of a rule, of the type of its field in Policy; `text` is NAME=VALUE, for the message."""
    choices = (True, False) if kind is bool else get_args(kind)        # of a Literal, or of int | None
    if kind is bool or get_origin(kind) is Literal:
        for choice in choices:
            if value.lower() == str(choice).lower():
                return choice
        raise ValueError(f"--rule {text} -> give {' or '.join(map(str, choices))}")
    if type(None) in choices and value.lower() == "none":
        return None
    try:
        return float(value) if kind is float else int(value)
    except ValueError:
        number = "a number" if kind is float else "a whole number"
        raise ValueError(f"--rule {text} -> give {number}{' or None' if choices else ''}") from None


def annotated_clips(root: Path, split: str, policy: Policy) -> list[Clip]:
    """Face tracks of train or val from whichever annotations exist, in the split list's order.

    A table of boxes/ comes first, then the official JSON (av_<split>.json, or the av.json that the original scripts
    merge), then the folders that these scripts wrote. Without a split list, all clips of av_<split>.json are used.

    Raises:
        FileNotFoundError or ValueError naming what is missing or damaged.
    """
    if table := find_table(root, split):
        return read_boxes(table, policy)
    official = official_json(root, split)
    uids = None if has_no_list(root, split) else read_split(root / "split" / f"{split}.list")
    if uids is not None and (root / "json_original").is_dir() and not official.is_file():
        from gazepose.compat.folders import read_original
        return read_original(root / "json_original", root / "result_LAM", uids, policy)
    return read_clips(official, uids, policy)


def official_json(root: Path, split: str) -> Path:
    """av_<split>.json in one of ANNOTATIONS, else the merged av.json; json/av_<split>.json when there is neither, so
    that an error names it."""
    paths = [root / folder / f"{name}.json" for folder in ANNOTATIONS for name in (f"av_{split}", "av")]
    return next((path for path in paths if path.is_file()), paths[0])


def has_no_list(root: Path, split: str) -> bool:
    """Whether a split has official annotations of its own, av_<split>.json, and no list of its clips."""
    official = official_json(root, split)
    return official.is_file() and official.name != "av.json" and not (root / "split" / f"{split}.list").exists()


def annotation_files(root: Path, split: str) -> list[Path]:
    """The files that `annotated_clips` reads, and those that it would read first if they came."""
    files = [root / "boxes" / f"{split}{suffix}" for suffix in (*TABLES, ".json")]
    if find_table(root, split):
        return files
    files += [root / "split" / f"{split}.list", *(root / "json" / f"{name}.json" for name in (f"av_{split}", "av"))]
    files += [official] if (official := official_json(root, split)) not in files else []
    if (root / "json_original").is_dir() and not official.is_file():
        for uid in read_split(root / "split" / f"{split}.list"):
            files += [root / "result_LAM" / f"{uid}.json", root / "json_original" / uid,
                      *sorted((root / "json_original" / uid).glob("*.json"))]
    return files


def read_split(path: str | Path) -> list[str]:
    """Clip uids of a split list, one a line, in order.

    Raises:
        FileNotFoundError: no such list. ValueError: a line is no id, a clip occurs twice, there is none, or the list
            has more than MAX_LIST bytes or MAX_CLIPS clips.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no split list -> put the clip uids there, one a line (the official lists are "
                                "train.list and val.list)")
    with open_regular(path, "split list", MAX_LIST) as file:
        text = file.read().decode(errors="replace")
    uids = [line.strip() for line in text.splitlines()]
    uids = [uid for uid in uids if uid]
    if len(uids) > MAX_CLIPS:
        raise ValueError(f"{path}: {len(uids)} entries, at most {MAX_CLIPS} are read -> split the list")
    for number, uid in enumerate(uids, 1):
        if not is_id(uid):
            raise ValueError(f"{path}: entry {number}: {uid[:140]!r} is not a clip uid -> letters, digits, _ . - only")
    if twice := [uid for uid, count in Counter(uids).items() if count > 1]:
        raise ValueError(f"{path}: {twice[0]} occurs twice -> keep one of the lines")
    if not uids:
        raise ValueError(f"{path}: the split is empty -> put the clip uids there, one a line")
    return uids


def read_clips(json_path: str | Path, clip_uids: Sequence[str] | None, policy: Policy) -> list[Clip]:
    """Face tracks of these clips of an av_train.json or av_val.json, in the order of `clip_uids`; None: of all its
    clips, in its order.

    A clip without an annotation, or left out by a rule, has no tracks, and the reason is counted.

    Raises:
        FileNotFoundError or ValueError naming the file (see io.read_object).
    """
    document = read_object(json_path, missing=NO_ANNOTATIONS, remedy=DAMAGED_ANNOTATIONS)
    listed, clips = None if clip_uids is None else set(clip_uids), dict[str, Clip]()
    for video in objects_in(document.get("videos")):
        for annotated in objects_in(video.get("clips")):
            uid = annotated.get("clip_uid")
            if isinstance(uid, str) and (is_id(uid) if listed is None else uid in listed):
                if uid in clips:
                    clips[uid].counts["clip annotated twice: the first is used"] += 1
                else:
                    clips[uid] = _clip(uid, annotated, policy)
    return [clips.get(uid) or Clip(uid, counts=Counter({"clip left out: not annotated": 1}))
            for uid in (clips if clip_uids is None else clip_uids)]


def original_segments(tracks: Path, results: Path, uid: str, policy: Policy, counts: Counter[str]
                      ) -> list[Segment] | None:
    """As compat.folders.original_segments."""
    from gazepose.compat import folders
    return folders.original_segments(tracks, results, uid, policy, counts)


def original_tracks(tracks: Path, uid: str, counts: Counter[str]) -> list[RawTrack]:
    """As compat.folders.original_tracks."""
    from gazepose.compat import folders
    return folders.original_tracks(tracks, uid, counts)


def raw_tracks(annotated: dict[str, Any], policy: Policy, counts: Counter[str]) -> list[RawTrack]:
    """Tracks of one annotated clip as they are stored, without the wearer's."""
    tracks: dict[str, RawTrack] = {}
    for number, person in enumerate(objects_in(annotated.get("persons"))):
        if number == 0 if policy.wearer == "first" else person.get("camera_wearer") is True:
            counts["person left out: camera wearer"] += 1
            continue
        name = person_name(person.get("person_id"))
        for path in objects_in(person.get("tracking_paths")):
            uid = path.get("track_id")
            if not is_id(uid):
                counts["track dropped: its id is not letters, digits, _ . -"] += 1
            elif uid in tracks:
                counts["track dropped: its id occurred before in the clip"] += 1
            else:
                records = objects_in(path.get("track"))
                raw = track_of_records(uid, records, [name] * len(records), "frame", counts)
                raw.suspect = path.get("suspect") is True
                unmapped = path.get("unmapped_frames")
                if isinstance(unmapped, list):
                    raw.unmapped = np.array([frame for frame in map(whole_number, unmapped)
                                             if frame is not None and 0 <= frame <= MAX_FRAME], np.int64)
                tracks[uid] = raw
    return list(tracks.values())


def looking_segments(annotated: dict[str, Any], policy: Policy, counts: Counter[str]) -> list[Segment] | None:
    """Looking segments of one annotated clip; None, and counted, where it has none and the policy leaves it out."""
    looking = annotated.get("social_segments_looking")
    if not isinstance(looking, list):
        counts["clip left out: no list of looking segments"] += 1
        return None
    if not looking and not policy.empty_is_negative:
        counts["clip left out: empty list of looking segments"] += 1
        return None
    return segments_of(looking, ("person", "start_frame", "end_frame"), policy, counts)


def _clip(uid: str, annotated: dict[str, Any], policy: Policy) -> Clip:
    clip = Clip(uid)
    segments = looking_segments(annotated, policy, clip.counts)
    if segments is not None:
        for raw in raw_tracks(annotated, policy, clip.counts):
            clip.tracks += face_tracks(uid, raw, segments, policy, clip.counts)
    return clip


def segments_of(stored: Any, keys: tuple[str, str, str], policy: Policy, counts: Counter[str]) -> list[Segment]:
    """Segments of a list of records; `keys` name the person, the first and the last frame. Others are counted.

    A segment that cannot be read has the label -1: faces that may lie in it are unknown. One that names no person
    (null) labels nobody, as published.
    """
    segments = []
    for segment in stored if isinstance(stored, list) else []:
        if segment is None:
            continue
        if not isinstance(segment, dict):
            counts["segment dropped: not an object, so faces of the clip are unknown"] += 1
            segments.append(Segment(None, 0, MAX_FRAME, -1))
            continue
        person, start, end = segment.get(keys[0]), *(whole_number(segment.get(key)) for key in keys[1:])
        if person is None:
            counts["segment dropped: no person"] += 1
        elif policy.at_me_only and segment.get("is_at_me") is not True:
            counts["segment dropped: not at me"] += 1
        elif isinstance(person, bool | list | dict):
            counts["segment dropped: person is no name, so faces in it are unknown"] += 1
            segments.append(Segment(None, start or 0, MAX_FRAME if end is None else end, -1))
        elif start is None or end is None:
            counts["segment dropped: start or end is not a whole number, so faces in it are unknown"] += 1
            segments.append(Segment(person_name(person), start or 0, MAX_FRAME if end is None else end, -1))
        else:
            segments.append(Segment(person_name(person), start, end))
    return segments


def whole_number(value: Any) -> int | None:
    """A whole number, also where it is written as 3.0 or as text; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (digits := WHOLE.fullmatch(value)):
        return int(digits[1])
    return value if type(value) is int else None


def person_name(value: Any) -> str:
    """A person's id as text: 1, 1.0 and "1.0" are one person; "" for null."""
    text = "" if value is None else str(value)
    digits = WHOLE.fullmatch(text)
    return digits[1] if digits and "." in text else text


def track_of_records(uid: str, records: list[dict[str, Any]], persons: list[str], frame: str, counts: Counter[str]
                     ) -> RawTrack:
    """Records -> arrays; a record that lacks a number gets NaN, which every policy drops and counts.

    Args:
        persons: of each record. frame: the key of the frame number.
    """
    keys = (frame, "x", "y", "width", "height")
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


def objects_in(collection: Any) -> list[dict[str, Any]]:
    """The objects of a collection that may be null, missing or of another kind."""
    return [entry for entry in collection if isinstance(entry, dict)] if isinstance(collection, list) else []
