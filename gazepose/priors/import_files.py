"""Prior files: the published code's JSON, and tables of your own -> columns of the index.

JSON files are flat or nested, with keys clip:track:frame, clip:track:unique_id:frame, or clip -> track -> frame or
unique id. They are read a few megabytes at a time, since millions of entries would be gigabytes of objects. A bad entry
is counted and left out. Entries are joined to the rows of an index by data/join.py.
"""

import gc
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from gazepose.data.conventions import of_prior
from gazepose.data.head_angles import from_hopenet
from gazepose.data.index import COLUMNS, Index
from gazepose.data.join import match, place_numbers, refuse_frames_from_one
from gazepose.io import open_regular
from gazepose.priors.landmarks import five_landmarks, from_eye_centred
from gazepose.text import counted

Prior = Literal["head_pose", "landmarks", "quality", "quality_p"]
BLOCK = 8 << 20              # characters of JSON read at a time
CSV_ROWS = 500_000           # rows of a table read at a time
FRAME_DIGITS = 7             # a longer number is no frame of a clip
LONGEST_STRING = 1 << 20     # characters; JSON that fails this far before the end of a block is damaged, not cut
LANDMARK_NAMES = ("nose", "left_eye", "right_eye", "left_mouth", "right_mouth")
CSV_COLUMNS: dict[Prior, tuple[str, ...]] = {
    "head_pose": ("yaw", "pitch", "roll"),
    "landmarks": tuple(f"{point}_{part}" for point in LANDMARK_NAMES for part in ("x", "y", "confidence")),
    "quality": ("quality",), "quality_p": ("quality_p",)}
FORMS: dict[Prior, str] = {
    "head_pose": "yaw, pitch, roll in degrees",
    "landmarks": "5 or 33 points of x, y, z, visibility, or the 15 published numbers",
    "quality": "one number, 0 or more", "quality_p": "one number in 0..1"}
RANGES: dict[Prior, tuple[float, float]] = {
    "head_pose": (-180, 180), "landmarks": (-1e6, 1e6), "quality": (0, np.inf), "quality_p": (0, 1)}


_ID = r"(?!\.+(?::|\Z))([A-Za-z0-9_.-]{1,128})"     # as io.is_id
KEY = re.compile(rf"{_ID}:{_ID}:{_ID}(?::([0-9]{{1,{FRAME_DIGITS}}}))?")


class Key(NamedTuple):
    """The face that an entry is for."""

    clip: str
    track: str
    face: str
    """last part as written: digits of a frame number, or a unique id"""
    frame: int
    """frame number beside a unique id; -1: none"""


class Entries:
    """The good entries of some files. `add` gathers them as arrays, block by block; `finish` joins the blocks.

    names: (clip, track) -> its number; number int32 [n] of the entries; face bytes [n], frame int32 [n] as in Key;
    values float32 [n, ...] of the prior's column; example: a key; counts: entries, and how many each rule touched
    ("bad: ...": left out).
    """

    def __init__(self, prior: Prior) -> None:
        self.prior: Prior = prior
        self.counts: Counter[str] = Counter()
        self.example = ""
        self.names: dict[tuple[str, str], int] = {}
        self._blocks: list[tuple[np.ndarray, ...]] = []

    def add(self, entries: Iterable[tuple[str, Any]], from_json: bool) -> None:
        """Add the entries of a block: (key, JSON value), or (key, numbers in the column's form).

        All NaN, null or [] means unknown. An entry of which only a part is NaN, or that has inf or a number out of
        range, is bad.
        """
        keys, values = [], []
        for text, value in entries:
            self.counts["entries"] += 1
            self.example = self.example or text
            key = parse_key(text)
            if key is None:
                self.counts["bad: its key is not clip:track:frame"] += 1
            else:
                keys.append(key)
                values.append(value)
        numbers = np.full((len(keys), *COLUMNS[self.prior][1]), np.nan)
        malformed = np.zeros(len(keys), bool)
        if from_json:
            known = [place for place, value in enumerate(values) if value is not None and value != []]
            for places in chain([known], ([place] for place in known)):   # all at once; if that fails, one by one
                block = _in_form(self.prior, [values[place] for place in places], self.counts)
                malformed[places] = block is None
                if block is not None:
                    numbers[places] = block
                    if places is known:                                   # nearly always
                        break
        elif values:
            numbers[:] = values
        flat = numbers.reshape(len(numbers), int(np.prod(numbers.shape[1:])))
        unknown = np.isnan(flat).all(axis=1) & ~malformed
        finite = np.isfinite(flat).all(axis=1)
        least, most = RANGES[self.prior]
        in_range = ((flat >= least) & (flat <= most)).all(axis=1)
        self.counts["unknown"] += int(unknown.sum())
        self.counts["bad: not finite"] += int((~finite & ~unknown & ~malformed).sum())
        self.counts[f"bad: not {FORMS[self.prior]}"] += int((malformed | finite & ~in_range).sum())
        good = np.flatnonzero(unknown | finite & in_range)
        self._blocks.append((
            np.array([self.names.setdefault(key[:2], len(self.names)) for key in keys], np.int32)[good],
            np.array([key.face for key in keys], np.bytes_)[good],
            np.array([key.frame for key in keys], np.int32)[good], numbers[good].astype(np.float32)))

    def finish(self) -> None:
        self.add([], from_json=True)                                      # so that there is a block
        self.number, self.face, self.frame, self.values = map(np.concatenate, zip(*self._blocks, strict=True))
        self._blocks.clear()
        self.counts = +self.counts                                        # only rules that touched something

    def summary(self) -> str:
        counts = "; ".join(f"{rule}: {count}" for rule, count in sorted(self.counts.items()) if rule != "entries")
        return f"{counted(self.counts['entries'], 'entry', 'entries')}" + (f"; {counts}" if counts else "")


@dataclass(frozen=True)
class PriorColumn:
    """A column of an index, made of entries."""

    values: np.ndarray
    """float32 [rows, ...], NaN unknown"""
    rows: int
    """rows that have an entry"""
    unknown: int
    """entries whose face the index does not have"""
    twice: int
    """entries that a later one replaced"""


def parse_key(text: str) -> Key | None:
    """clip:track:frame, clip:track:unique_id or clip:track:unique_id:frame; None for anything else."""
    if not (parts := KEY.fullmatch(text)):
        return None
    return Key(parts[1], parts[2], parts[3], -1 if parts[4] is None else int(parts[4]))


def read_priors(paths: Sequence[Path], prior: Prior, *, hopenet_signs: bool = True,
                max_bad_fraction: float = 0.01) -> Entries:
    """Entries of JSON files or tables (.csv), one file after another; of two entries for a face the later one counts.

    Args:
        hopenet_signs: the files count yaw as Hopenet does; it is turned to the index's sign (data/head_angles.py).
        max_bad_fraction: share of bad entries that is accepted; more is an error.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file cannot be read, has no entry, has too many bad ones, or holds something else than this prior
            (pixels for landmarks, p for the variance).
    """
    if not paths:
        raise ValueError(f"no file of {prior} was named -> give one or more JSON or CSV files")
    entries = Entries(prior)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file -> give the priors' JSON or CSV file")
        (_read_csv if path.suffix.lower() == ".csv" else _read_json)(path, entries)
    entries.finish()
    files, counts = ", ".join(map(str, paths)), entries.counts
    bad = {rule: count for rule, count in counts.items() if rule.startswith("bad")}
    if sum(bad.values()) > max_bad_fraction * counts["entries"] or not counts["entries"]:
        reasons = "; ".join(f"{rule}: {count}" for rule, count in bad.items()) or "it is empty"
        raise ValueError(f"{files}: {sum(bad.values())} of {counts['entries']} entries cannot be used, more than "
                         f"{max_bad_fraction:.1%} ({reasons}) -> {prior} needs clip:track:frame -> {FORMS[prior]}")
    if fault := of_prior(prior, entries.values):
        raise ValueError(f"{files}: {prior} {fault}")
    if prior == "head_pose" and hopenet_signs:
        entries.values[:] = from_hopenet(entries.values)
    return entries


def join_entries(index: Index, entries: Entries) -> PriorColumn:
    """Join entries to the rows of an index.

    Where the index has unique ids (test crops), the last part of a key is read as a unique id or as a frame number,
    whichever fits more entries. A frame number beside a unique id must be that crop's.
    """
    names, number = list(entries.names), entries.number
    frame = np.where(entries.frame >= 0, entries.frame, _frame_numbers(entries.face))
    matched = match(index, names, number, frame, index.frame)
    if index.unique_id is not None:
        place, row_place = place_numbers(entries.face, index.unique_id)
        by_unique = match(index, names, number, place, row_place)
        frame = entries.frame[np.maximum(by_unique.entry, 0)]
        wrong = (by_unique.entry >= 0) & (frame >= 0) & (index.frame >= 0) & (frame != index.frame)
        if wrong.any():
            place[by_unique.entry[wrong]] = -1
            by_unique = match(index, names, number, place, row_place)     # once more without them
        if by_unique.known.sum() >= matched.known.sum():
            matched = by_unique
    else:
        refuse_frames_from_one(index, names, number, frame, matched)
    rows = np.flatnonzero(matched.entry >= 0)
    values = np.full((len(index), *COLUMNS[entries.prior][1]), np.nan, np.float32)
    values[rows] = entries.values[matched.entry[rows]]
    return PriorColumn(values, len(rows), int((~matched.known).sum()), int(matched.twice.sum()))


def _frame_numbers(text: np.ndarray) -> np.ndarray:
    """ASCII digits to whole numbers, bytes [n] -> int64 [n]; -1 for anything else."""
    good = np.strings.isdigit(text) & (np.strings.str_len(text) <= FRAME_DIGITS)
    numbers = np.full(len(text), -1, np.int64)
    numbers[good] = text[good].astype(np.int64)
    return numbers


def _in_form(prior: Prior, values: list[Any], counts: Counter[str]) -> np.ndarray | None:
    """JSON values of one shape as float64 [n, ...] in the column's form; None when the prior has no such form."""
    leaves = np.array(values, object)                                     # lists of several lengths stay lists
    if not set(map(type, leaves.flat)) <= {int, float} or _Pairs in map(type, values):
        return None
    try:
        numbers = leaves.astype(np.float64)
    except OverflowError:                                                 # a whole number that floats cannot hold
        return None
    shape = numbers.shape[1:]
    if prior == "head_pose" and len(shape) == 1 and shape[0] >= 3:
        counts["the numbers after roll (a label) are not used"] += len(numbers) * (shape[0] > 3)
        return numbers[:, :3]
    if prior == "landmarks" and shape in ((5, 4), (33, 4)):
        return five_landmarks(numbers)
    if prior == "landmarks" and shape == (15,):
        counts["already normalised: the eyes' middle is put at the middle of the crop"] += len(numbers)
        return from_eye_centred(numbers)
    return numbers if prior in ("quality", "quality_p") and shape == () else None


# ---- JSON files

class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys."""


# json's own decoder, entry by entry: published files hold NaN, which packages for streaming (ijson) refuse
DECODER = json.JSONDecoder(object_pairs_hook=_Pairs)
NAME = re.compile(r'[ \t\n\r]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
AFTER = re.compile(r"[ \t\n\r]*[,}]")
EMPTY_OBJECT = re.compile(r"\{\s*\}\s*")


def _read_json(path: Path, entries: Entries) -> None:
    collecting = gc.isenabled()
    gc.disable()                                                          # lists by the million, none of them a cycle
    try:
        with TextIOWrapper(open_regular(path, "file of priors"), encoding="utf-8-sig") as file:
            for pairs in _top_level(file):
                entries.add(_flat(pairs, "", 1), from_json=True)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: near character {error.pos}: {error.msg}: not JSON, or cut short -> get the file "
                         "again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error} -> give a JSON object of clip:track:frame -> values, or a table whose name "
                         "ends in .csv") from error
    finally:
        if collecting:
            gc.enable()


def _flat(pairs: _Pairs, head: str, level: int) -> Iterator[tuple[str, Any]]:
    for key, value in pairs:
        if type(value) is _Pairs and level < 5:
            yield from _flat(value, f"{head}{key}:", level + 1)
        else:
            yield head + key, value


def _top_level(file: TextIO) -> Iterator[_Pairs]:
    """The entries of a file's object, about a block of them at a time.

    Raises:
        ValueError: not a JSON object; as json.JSONDecodeError with the place in the file: damaged, or it ends early.
    """
    text, before, at, block = file.read(BLOCK).lstrip(), 0, 0, BLOCK      # at: the brace or comma before an entry
    if not text.startswith("{"):
        raise ValueError("not a JSON object")
    fault = None
    while not fault:
        pairs = _Pairs()
        try:
            while text[at] != "}":
                key, value, at = _read_entry(text, at)
                pairs.append((key, value))
        except json.JSONDecodeError as error:                             # damaged, or cut by the end of the block
            fault = error
        except (RecursionError, ValueError) as error:                     # nested absurdly, or a number of 5000 digits
            raise json.JSONDecodeError(str(error), "", before + at) from error
        yield pairs
        more = file.read(block)
        if not fault and (text[at + 1:] + more).strip():
            fault = json.JSONDecodeError("Extra data", text, at)
        elif fault and more and fault.pos >= len(text) - LONGEST_STRING:
            before, text, at, block = before + at, text[at:] + more, 0, BLOCK if pairs else 2 * block
            fault = None
        elif not more:
            break
    if fault and (before or not EMPTY_OBJECT.fullmatch(text)):
        raise json.JSONDecodeError(fault.msg, "", before + fault.pos)


def _read_entry(text: str, at: int) -> tuple[str, Any, int]:
    """Key and value after the brace or comma at a place, and the place of the next one.

    Raises:
        json.JSONDecodeError: there is no entry, or the text ends inside it.
    """
    name = NAME.match(text, at + 1)
    if not name:
        raise json.JSONDecodeError("a name in quotes and a colon are missing", text, at)
    value, end = DECODER.raw_decode(text, name.end())
    after = AFTER.match(text, end)
    if not after:
        raise json.JSONDecodeError("a comma or a closing brace is missing", text, end)
    key = name[1]
    return json.loads(f'"{key}"') if "\\" in key else key, value, after.end() - 1


# ---- tables

def _read_csv(path: Path, entries: Entries) -> None:
    """clip (or video_id), track (or track_id), frame and/or unique_id, and the columns of the prior; empty: unknown."""
    import pandas as pd  # half a second, which only tables need
    columns = CSV_COLUMNS[entries.prior]
    try:
        open_regular(path, "table of priors").close()
        for table in pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=CSV_ROWS, encoding="utf-8"):
            table = table.rename(columns={"video_id": "clip", "track_id": "track"})
            missing = [name for name in ("clip", "track", *columns) if name not in table]
            if missing or not {"frame", "unique_id"} & set(table.columns):
                raise ValueError(f"no column {', '.join(missing) or 'frame or unique_id'}")
            numbers = np.array(table[list(columns)].apply(pd.to_numeric, errors="coerce"), np.float64)
            empty = table[list(columns)].apply(lambda cells: cells.str.strip() == "").to_numpy(bool)
            numbers[np.isnan(numbers) & ~empty] = np.inf                  # not a number: not finite, and so bad
            parts = [table[name].str.replace(":", "?") for name in ("clip", "track", "unique_id", "frame")
                     if name in table]
            keys = [":".join(filter(None, key)) for key in zip(*parts, strict=True)]
            entries.add(zip(keys, numbers.reshape(-1, *COLUMNS[entries.prior][1]), strict=True), from_json=False)
    except (ValueError, UnicodeDecodeError) as error:                     # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: {error} -> give a table with clip,track,frame,{','.join(columns)} (test crops: "
                         "unique_id beside or instead of frame)") from error
