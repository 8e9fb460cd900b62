"""Annotations that the original scripts wrote: json_original/<clip>/<track>.json and result_LAM/<clip>.json.

Their pictures and faces (video_imgs, face_imgs) are data/images.py; their result_TTM and wave are about speech.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gazepose.data.annotations import objects_in, person_name, segments_of, track_of_records
from gazepose.data.tracks import Clip, Policy, RawTrack, Segment, face_tracks
from gazepose.io import MAX_JSON, is_id, unique_names
from gazepose.text import read_text

BLANK = re.compile(r"\s*")


def read_original(tracks: Path, results: Path, clip_uids: Sequence[str], policy: Policy) -> list[Clip]:
    """As annotations.read_clips, from the folders json_original and result_LAM; tracks in order of name.

    The scripts left out the first person of each clip and dropped is_at_me, suspect and unmapped_frames, so the rules
    about these cannot be applied. They wrote no result for a clip without segments.

    Raises:
        FileNotFoundError: no results at all. ValueError: a file cannot be read, or the policy has at_me_only.
    """
    if policy.at_me_only:
        raise ValueError(f"{results}: the original scripts left out is_at_me -> give --rule at_me_only=False, or put "
                         "the official annotations into json/")
    if not results.is_dir():
        raise FileNotFoundError(f"{results}: no such folder, so {tracks} has no labels -> put result_LAM beside it, or "
                                "the official annotations into json/")
    clips = [Clip(uid) for uid in clip_uids]
    for clip in clips:
        segments = original_segments(tracks, results, clip.uid, policy, clip.counts)
        if segments is not None:
            for raw in original_tracks(tracks, clip.uid, clip.counts):
                clip.tracks += face_tracks(clip.uid, raw, segments, policy, clip.counts)
    return clips


def original_segments(tracks: Path, results: Path, uid: str, policy: Policy, counts: Counter[str]
                      ) -> list[Segment] | None:
    """Looking segments of result_LAM/<uid>.json; None, and counted, where the clip has no such file or no tracks."""
    result = results / f"{uid}.json"
    if not result.is_file():
        counts["clip left out: no list of looking segments"] += 1
        return None
    if not (tracks / uid).is_dir():
        counts["clip left out: not annotated"] += 1
        return None
    lists = _read_appended(result, counts)
    if len(lists) > 1:
        raise ValueError(f"{result}: holds {len(lists)} different lists -> delete the file and write it again")
    return segments_of(lists[0], ("label", "start_frame", "end_frame"), policy, counts)


def original_tracks(tracks: Path, uid: str, counts: Counter[str]) -> list[RawTrack]:
    """Tracks of json_original/<uid>, one file each, in order of name."""
    raw = []
    for path in sorted((tracks / uid).glob("*.json")):
        if not is_id(path.stem):
            counts["track dropped: its id is not letters, digits, _ . -"] += 1
            continue
        lists = _read_appended(path, counts)
        if len(lists) > 1:                                             # as read_clips: the first of that name
            counts["track dropped: its id occurred before in the clip"] += len(lists) - 1
        records = objects_in(lists[0])
        persons = [person_name(record.get("Person ID")) for record in records]
        raw.append(track_of_records(path.stem, records, persons, "frameNumber", counts))
    return raw


def _read_appended(path: Path, counts: Counter[str]) -> list[Any]:
    """The different values of a file that the original scripts append to, in order, at least one.

    They open files for appending: a second run, or a second track of the same id, adds its value at the end.
    """
    decoder, values, at = json.JSONDecoder(object_pairs_hook=unique_names), [], 0
    try:
        text = read_text(path, "JSON file", MAX_JSON).strip()
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
