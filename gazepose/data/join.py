"""Join: which entry of a table belongs to which row of an index, by clip, track and place within the track.

The place is a frame number, or the number of a unique id (`place_numbers`). Arrays go in and arrays come out, with no
Python object per entry, since tables have millions. An index is data/index.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gazepose.data.conventions import of_prior
from gazepose.data.index import COLUMNS, Index

FEW_TRACKS = 3               # of fewer it is not judged from where their frames are counted


@dataclass(frozen=True)
class Match:
    """Which entries of a table belong to which rows."""

    entry: np.ndarray
    """int64 [rows]: the entry of each row, the last one if there are several; -1: none"""
    known: np.ndarray
    """bool [n]: a row has the entry's face"""
    twice: np.ndarray
    """bool [n]: a row has the entry's face, and a later entry has the same face"""


def match(index: Index, names: Sequence[tuple[str, str]], number: np.ndarray, place: np.ndarray,
          row_place: np.ndarray) -> Match:
    """Join the entries of a table with the rows of an index.

    Args:
        names: (clip, track), each once; number: int [n], the position in names of each entry (see `number_names`).
        place: int [n], of each entry within its track; below 0: it belongs to no row.
        row_place: int [rows], the same of each row.
    """
    tracks: dict[tuple[str, str], int] = {}
    row_track = np.array([tracks.setdefault((index.clips[clip], name), len(tracks))    # pieces of a track: one number
                          for clip, name in zip(index.track_clip, index.track_name, strict=True)], np.int64)
    track_of_name = np.array([tracks.get(name, -1) for name in names], np.int64)
    return match_keys(face_keys(track_of_name[number], place),
                      face_keys(np.repeat(row_track, np.diff(index.track_start)), row_place))


def refuse_frames_from_one(index: Index, names: Sequence[tuple[str, str]], number: np.ndarray, frame: np.ndarray,
                           matched: Match) -> None:
    """Raises ValueError where the last entry of each track has no row, but one frame before all entries have one."""
    missing = int((~matched.known).sum())
    if missing < max(FEW_TRACKS, len(np.unique(number[matched.known]))):
        return
    if match(index, names, number, frame - 1, index.frame).known.all():
        raise ValueError(f"{index.folder}: the frame numbers of the table to join look as if counted from 1: {missing} "
                         f"of {len(frame)} faces are not there, but all are one frame before -> subtract 1 from them")


def number_names(clip: np.ndarray, track: np.ndarray) -> tuple[list[tuple[str, str]], np.ndarray]:
    """The (clip, track) of a table's entries, each once, and int64 [n], the position of each entry's in that list.

    Text is compared with that of the entry before, so a table whose tracks lie together costs one lookup per track.
    """
    if not len(clip):
        return [], np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, (clip[1:] != clip[:-1]) | (track[1:] != track[:-1])])
    numbers: dict[tuple[str, str], int] = {}
    of_start = [numbers.setdefault((str(clip[start]), str(track[start])), len(numbers)) for start in starts]
    return list(numbers), np.repeat(np.array(of_start, np.int64), np.diff(np.r_[starts, len(clip)]))


def place_numbers(unique_id: np.ndarray, row_unique_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique ids as places: int64 of the entries [n], -1 where no row has the id, and of the rows [rows]."""
    ids, row_place = np.unique(row_unique_id, return_inverse=True)
    if not len(ids):
        return np.full(len(unique_id), -1, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(ids, unique_id), len(ids) - 1)
    return np.where(ids[at] == unique_id, at, -1), row_place.astype(np.int64)


def face_keys(track: np.ndarray, place: np.ndarray) -> np.ndarray:
    """One number for each face: its track's number and its place; int64 [n], -1: no face."""
    track, place = np.asarray(track, np.int64), np.asarray(place, np.int64)
    return np.where((track >= 0) & (place >= 0) & (place < 1 << 32), (track << 32) + place, -1)


def match_keys(key: np.ndarray, row_key: np.ndarray) -> Match:
    """Join by one number per face, as `face_keys` gives them: int64 [n] of the entries, int64 [rows] of the rows."""
    import pandas as pd
    known = np.isin(key, row_key[row_key >= 0])
    later = pd.Series(key).duplicated(keep="last").to_numpy()
    last = np.flatnonzero(known & ~later)
    at = pd.Index(key[last]).get_indexer(pd.Index(row_key))            # -1: none
    return Match(np.append(last, -1)[at], known, known & later)


def join(index: Index, table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of a table, laid beside the rows of the index.

    Args:
        table: arrays clip, track, frame [n] and one for each column [n, ...]. Entries of other faces are left out.

    Returns:
        Each column as float32 [rows, ...], NaN where the table has no entry.

    Raises:
        ValueError: the table lacks clip, track or frame; a column is unknown or of another shape; a face occurs twice;
            frames or a column look as if written under another convention.
    """
    missing = {"clip", "track", "frame"} - set(table)
    if missing:
        raise ValueError(f"{index.folder}: the table to join lacks {', '.join(sorted(missing))}")
    clip, track, frame = (np.asarray(table[name]) for name in ("clip", "track", "frame"))
    if not clip.shape == track.shape == frame.shape == (clip.size,) or not np.issubdtype(frame.dtype, np.integer):
        raise ValueError(f"{index.folder}: the table to join has clips {clip.shape}, tracks {track.shape} and frames "
                         f"{frame.shape} ({frame.dtype}); one length is wanted, and frames of whole numbers")
    matched = match(index, *number_names(clip, track), frame, index.frame)
    refuse_frames_from_one(index, *number_names(clip, track), frame, matched)
    if matched.twice.any():
        entry = int(np.argmax(matched.twice))
        raise ValueError(f"{index.folder}: the table to join has clip {clip[entry]} track {track[entry]} "
                         f"frame {frame[entry]} twice")
    joined = {}
    for name, values in ((name, np.asarray(table[name])) for name in table if name not in ("clip", "track", "frame")):
        if name not in COLUMNS:
            raise ValueError(f"{index.folder}: column {name} of the table to join is unknown; columns that can be "
                             f"joined: {', '.join(COLUMNS)}")
        if values.shape != (len(clip), *COLUMNS[name][1]) or not np.issubdtype(values.dtype, np.number):
            raise ValueError(f"{index.folder}: column {name} of the table to join: {values.dtype} {values.shape}, "
                             f"numbers {(len(clip), *COLUMNS[name][1])} are wanted")
        if fault := of_prior(name, values):
            raise ValueError(f"{index.folder}: the table to join: {name} {fault}")
        joined[name] = np.full((len(index), *COLUMNS[name][1]), np.nan, np.float32)
        joined[name][matched.entry >= 0] = values[matched.entry[matched.entry >= 0]]
    return joined
