"""Prior files: the published code's JSON and tables of one's own -> columns of the index.

The JSON files are nested or flat, with the same keys: clip:track:frame, clip:track:unique_id:frame, or clip -> track ->
frame or unique id. They are read a few megabytes at a time, as 3.5 million entries would be gigabytes of objects.
A bad entry is counted and left out. Which rows an entry speaks of is data/index.py.
"""

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from gazepose.data.index import COLUMNS, Index
from gazepose.data.join import Match, match
from gazepose.io import is_id
from gazepose.priors.head_pose import from_hopenet
from gazepose.priors.landmarks import five_landmarks, from_eye_centred

Prior = Literal["head_pose", "landmarks", "quality", "quality_p"]
BLOCK = 8 << 20              # bytes of JSON read at a time
CSV_ROWS = 500_000           # rows of a table read at a time
FRAME_DIGITS = 7             # a longer number is no frame of a clip
LANDMARK_NAMES = ("nose", "left_eye", "right_eye", "left_mouth", "right_mouth")
CSV_COLUMNS: dict[Prior, tuple[str, ...]] = {
    "head_pose": ("yaw", "pitch", "roll"),
    "landmarks": tuple(f"{point}_{part}" for point in LANDMARK_NAMES for part in ("x", "y", "confidence")),
    "quality": ("quality",), "quality_p": ("quality_p",)}
WANTED: dict[Prior, str] = {
    "head_pose": "yaw, pitch, roll in degrees",
    "landmarks": "5 or 33 points of x, y, z, visibility, or the 15 published numbers",
    "quality": "one number, 0 or more", "quality_p": "one number in 0..1"}


class Key(NamedTuple):
    """Whose prior an entry is."""

    clip: str
    track: str
    face: str
    """the last part as written: digits of a frame number, or a unique id"""
    frame: int
    """said beside a unique id; -1: not"""


@dataclass(frozen=True)
class Entries:
    """The good entries of some files.

    names: (clip, track); number int32 [n] into them; face bytes [n], frame int32 [n] as in Key; values float32
    [n, ...] of the prior's column; example: a key; counts: entries, and how many each rule touched ("bad: ...": left
    out).
    """

    prior: Prior
    names: list[tuple[str, str]]
    number: np.ndarray
    face: np.ndarray
    frame: np.ndarray
    values: np.ndarray
    example: str
    counts: Counter[str]

    def summary(self) -> str:
        counts = "; ".join(f"{what}: {count}" for what, count in sorted(self.counts.items()) if what != "entries")
        return f"{self.counts['entries']} entries" + (f"; {counts}" if counts else "")


@dataclass(frozen=True)
class Joined:
    """A column made of entries."""

    values: np.ndarray
    """float32 [rows, ...], NaN unknown"""
    rows: int
    """that an entry speaks of"""
    unknown: int
    """entries whose face the index does not have"""
    twice: int
    """entries that a later one replaced"""


def parse_key(text: str) -> Key | None:
    """clip:track:frame, clip:track:unique_id or clip:track:unique_id:frame; None for anything else."""
    parts = text.split(":")
    if len(parts) not in (3, 4) or not all(is_id(part) for part in parts):
        return None
    if len(parts) == 3:
        return Key(parts[0], parts[1], parts[2], -1)
    digits = parts[3].isdigit() and len(parts[3]) <= FRAME_DIGITS
    return Key(parts[0], parts[1], parts[2], int(parts[3])) if digits else None


def read_priors(paths: Sequence[Path], prior: Prior, *, hopenet_signs: bool = True,
                max_bad_fraction: float = 0.01) -> Entries:
    """Entries of JSON files or tables (.csv), one file after another; of equal faces the last counts when joined.

    Args:
        hopenet_signs: yaw is counted as Hopenet does, and turned to the index's sign (head_pose.py).
        max_bad_fraction: of entries that are bad; more is an error.

    Raises:
        FileNotFoundError: no such file. ValueError: a file is neither, has no entry, has too many bad ones, or holds
            something else than this prior (pixels for landmarks, p for the variance).
    """
    if not paths:
        raise ValueError(f"no file of {prior} was named -> give one or more JSON or CSV files")
    collected = _Collected(prior)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file -> give the priors' JSON or CSV file")
        (_read_csv if path.suffix.lower() == ".csv" else _read_json)(path, collected)
    entries = collected.done()
    named, counts = ", ".join(map(str, paths)), entries.counts
    bad = {what: count for what, count in counts.items() if what.startswith("bad")}
    if sum(bad.values()) > max_bad_fraction * counts["entries"] or not counts["entries"]:
        reasons = "; ".join(f"{what}: {count}" for what, count in bad.items()) or "it is empty"
        raise ValueError(f"{named}: {sum(bad.values())} of {counts['entries']} entries cannot be used, more than "
                         f"{max_bad_fraction:.1%} ({reasons}) -> wanted for {prior}: clip:track:frame -> "
                         f"{WANTED[prior]}")
    known = entries.values[np.isfinite(entries.values)]
    if prior == "landmarks" and len(known) and np.nanmedian(np.abs(entries.values[..., :2])) > 10:
        raise ValueError(f"{named}: the landmarks look like pixels -> divide x by the crop's width and y by its "
                         "height, so that 0..1 spans the crop")
    if prior == "quality" and len(known) and known.max() <= 1:
        raise ValueError(f"{named}: all of it lies in 0..1, so it looks like p rather than the Laplacian variance -> "
                         "`priors import quality_p`")
    if prior == "head_pose" and hopenet_signs:
        entries.values[:] = from_hopenet(entries.values)
    return entries


def join_entries(index: Index, entries: Entries) -> Joined:
    """Lay entries beside the rows of an index.

    Where the index has unique ids (test crops), the last part of a key is read as one or as a frame number, whichever
    fits more entries; a frame said beside a unique id must be that crop's.
    """
    by_frame = match(index, entries.names, entries.number, np.where(entries.frame >= 0, entries.frame,
                                                                    _numbers(entries.face)), index.frame)
    matched = by_frame
    if index.unique_id is not None:
        by_face = _match_unique(index, entries, index.unique_id)
        matched = by_face if by_face.known.sum() >= by_frame.known.sum() else by_frame
    found = np.flatnonzero(matched.entry >= 0)
    values = np.full((len(index), *COLUMNS[entries.prior][1]), np.nan, np.float32)
    values[found] = entries.values[matched.entry[found]]
    return Joined(values, len(found), int((~matched.known).sum()), int(matched.twice.sum()))


def _match_unique(index: Index, entries: Entries, unique_id: np.ndarray) -> Match:
    ids, code = np.unique(unique_id, return_inverse=True)
    at = np.minimum(np.searchsorted(ids, entries.face), len(ids) - 1) if len(ids) else np.zeros(0, np.int64)
    place = np.where(ids[at] == entries.face, at, -1)
    found = match(index, entries.names, entries.number, place, code.astype(np.int64))
    said = entries.frame[np.maximum(found.entry, 0)]
    wrong = (found.entry >= 0) & (said >= 0) & (index.frame >= 0) & (said != index.frame)
    if not wrong.any():
        return found
    place[found.entry[wrong]] = -1                                        # once more without them
    return match(index, entries.names, entries.number, place, code.astype(np.int64))


def _numbers(text: np.ndarray) -> np.ndarray:
    """ASCII digits to whole numbers, bytes [n] -> int64 [n]; -1 for anything else."""
    width = text.dtype.itemsize
    if not len(text) or not width:
        return np.full(len(text), -1, np.int64)
    letters = np.ascontiguousarray(text).view(np.uint8).reshape(len(text), width)[:, :FRAME_DIGITS + 1]  # NUL: the end
    number, good = np.zeros(len(text), np.int64), letters[:, 0] != 0
    for letter in letters.T:
        digit = (letter >= 48) & (letter <= 57)
        number = np.where(digit, number * 10 + letter - 48, number)
        good &= digit | (letter == 0)
    if letters.shape[1] > FRAME_DIGITS:
        good &= letters[:, FRAME_DIGITS] == 0
    return np.where(good, number, -1)


class _Collected:
    """Gathers entries as arrays, block by block."""

    def __init__(self, prior: Prior) -> None:
        self.prior: Prior = prior
        self.counts: Counter[str] = Counter()
        self.example = ""
        self._tracks: dict[tuple[str, str], int] = {}
        self._heads: dict[str, int] = {}                                  # "clip:track" -> number, of good ones
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, keys: Sequence[str], values: list[Any] | np.ndarray) -> None:
        """Entries of a block: JSON values, or numbers float64 [n, ...] in the column's form."""
        number, face, frame, kept = [], [], [], []
        heads = self._heads
        for at, key in enumerate(keys):
            head, _, last = key.rpartition(":")
            track = heads.get(head)
            if track is not None and last.isdigit() and last.isascii() and len(last) < 20:     # nearly all of millions
                number.append(track)
                face.append(last)
                frame.append(-1)
            elif (parsed := parse_key(key)) is not None:
                number.append(self._tracks.setdefault((parsed.clip, parsed.track), len(self._tracks)))
                face.append(parsed.face)
                frame.append(parsed.frame)
                if parsed.frame < 0:
                    heads[head] = number[-1]
            else:
                continue
            kept.append(at)
        self.counts["entries"] += len(keys)
        self.counts["bad: its key is not clip:track:frame"] += len(keys) - len(kept)
        self.example = self.example or (keys[0] if keys else "")
        if isinstance(values, np.ndarray):
            column, good = _from_numbers(self.prior, values[kept], self.counts)
        else:
            column, good = _column_of(self.prior, [values[at] for at in kept], self.counts)
        if len(good):
            self._parts.append((np.array(number, np.int32)[good], np.array(face, np.bytes_)[good],
                                np.array(frame, np.int32)[good], column))

    def done(self) -> Entries:
        nothing = (np.zeros(0, np.int32), np.zeros(0, np.bytes_), np.zeros(0, np.int32),
                   np.zeros((0, *COLUMNS[self.prior][1]), np.float32))
        number, face, frame, values = (np.concatenate(part) for part in zip(*(self._parts or [nothing]), strict=True))
        return Entries(self.prior, list(self._tracks), number, face, frame, values, self.example, +self.counts)


def _column_of(prior: Prior, values: list[Any], counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """JSON values -> (column float32 [k, ...], which values it holds int64 [k] ascending)."""
    table = _table(values)
    groups = None if table is None else [(np.arange(len(values)), table)]
    if groups is None:
        shapes: dict[tuple[int, ...] | None, list[int]] = {}
        for at, value in enumerate(values):
            shapes.setdefault(_shape(value), []).append(at)
        counts[f"bad: not {WANTED[prior]}"] += len(shapes.pop(None, ()))
        groups = [(np.array(places), np.array([values[at] or [] if shape == (0,) else values[at] for at in places],
                                              np.float64).reshape(len(places), *shape))
                  for shape, places in shapes.items() if shape is not None]
    columns, kept = [np.zeros((0, *COLUMNS[prior][1]), np.float32)], [np.zeros(0, np.int64)]
    for places, table in groups:
        numbers = _layout(prior, table, counts)
        if numbers is None:
            counts[f"bad: not {WANTED[prior]}"] += len(table)
            continue
        column, good = _from_numbers(prior, numbers, counts)
        columns.append(column)
        kept.append(places[good])
    order = np.argsort(np.concatenate(kept), kind="stable")
    return np.concatenate(columns)[order], np.concatenate(kept)[order]


def _table(values: list[Any]) -> np.ndarray | None:
    """Numbers, or lists of them, or lists of those, all of one shape, float64 [n, ...]; None when they are not."""
    shape, items = [len(values)], values
    for _ in range(3):
        kinds = set(map(type, items))
        if kinds <= {float, int}:
            try:
                return np.array(items, np.float64).reshape(shape)
            except OverflowError:                                         # a whole number that floats cannot hold
                return None
        lengths = set(map(len, items)) if kinds == {list} else ()
        if len(lengths) != 1:
            return None
        shape.extend(lengths)
        items = list(chain.from_iterable(items))
    return None


def _shape(value: Any, deep: int = 0) -> tuple[int, ...] | None:
    """() of a number, (n,) or (n, m) of lists of numbers, (0,) of null or []: nothing is known; None of the rest."""
    if deep == 0 and (value is None or value == []):
        return (0,)
    if isinstance(value, list):
        shapes = {_shape(item, deep + 1) for item in value} if deep < 2 else set()
        inner = shapes.pop() if len(shapes) == 1 else None
        return None if inner is None else (len(value), *inner)
    whole = isinstance(value, int) and not isinstance(value, bool) and -1e300 < value < 1e300  # floats can hold it
    return () if whole or isinstance(value, float) else None


def _layout(prior: Prior, table: np.ndarray, counts: Counter[str]) -> np.ndarray | None:
    """Values of one shape -> the column's shape, float64 [n, ...]; None when it is not a form of this prior."""
    shape = table.shape[1:]
    if shape == (0,):
        return np.full((len(table), *COLUMNS[prior][1]), np.nan)
    if prior == "head_pose" and len(shape) == 1 and shape[0] >= 3:
        if shape[0] > 3:
            counts["the numbers after roll (a label) are not used"] += len(table)
        return table[:, :3].astype(np.float64)
    if prior == "landmarks" and shape in ((5, 4), (33, 4)):
        return five_landmarks(table.astype(np.float64))
    if prior == "landmarks" and shape == (15,):
        counts["already normalised: the eyes' middle is put at the middle of the crop"] += len(table)
        return from_eye_centred(table.astype(np.float64))
    return table.astype(np.float64) if prior in ("quality", "quality_p") and shape == () else None


def _from_numbers(prior: Prior, numbers: np.ndarray, counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [n, ...] in the column's form -> (column float32 [k, ...], which were good int64 [k]).

    All NaN is an entry that says "unknown"; a part of it NaN, inf, or out of range is bad.
    """
    flat = numbers.reshape(len(numbers), int(np.prod(numbers.shape[1:])))
    unknown = np.isnan(flat).all(axis=1)
    good = np.isfinite(flat).all(axis=1)
    counts["unknown"] += int(unknown.sum())
    counts["bad: not finite"] += int((~good & ~unknown).sum())
    with np.errstate(invalid="ignore"):
        in_range = {"head_pose": (np.abs(flat) <= 180).all(axis=1), "landmarks": (np.abs(flat) < 1e6).all(axis=1),
                    "quality": (flat >= 0).all(axis=1), "quality_p": ((flat >= 0) & (flat <= 1)).all(axis=1)}[prior]
    counts[f"bad: not {WANTED[prior]}"] += int((good & ~in_range).sum())
    kept = np.flatnonzero(unknown | good & in_range)
    return numbers[kept].astype(np.float32), kept


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys."""


def _read_json(path: Path, collected: _Collected) -> None:
    collecting = gc.isenabled()
    gc.disable()                                                          # lists by the million, none of them a cycle
    try:
        for pairs in _top_level(path):
            keys, values = [], []
            _flatten(pairs, "", 1, keys.append, values.append)
            collected.add(keys, values)
    finally:
        if collecting:
            gc.enable()


def _flatten(pairs: _Pairs, head: str, level: int, add_key: Callable[[str], None],
             add_value: Callable[[Any], None]) -> None:
    for key, value in pairs:
        if type(value) is _Pairs and level < 5:
            _flatten(value, f"{head}{key}:", level + 1, add_key, add_value)
        else:
            add_key(head + key)
            add_value(value)


def _top_level(path: Path) -> Iterator[_Pairs]:
    """The entries of a file's object, some megabytes of them at a time, cut between two of its own.

    Raises:
        ValueError: not a JSON object, or it ends early; names the file and the byte.
    """
    with open(path, "rb") as file:
        content, begins, block = file.read(BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip(), 0, BLOCK
        if not content.startswith(b"{"):
            raise ValueError(f"{path}: not a JSON object -> clip:track:frame -> values, or a table whose name ends in "
                             ".csv, is wanted")
        content, begins = content[1:], 1
        while more := file.read(block):
            content += more
            cut = _last_cut(content)
            if cut < 0:
                block *= 2                                                # a long entry: a nested file's clip
                continue
            yield _parsed(path, content[:cut] + b"}", begins)
            content, begins, block = content[cut + 1:], begins + cut + 1, BLOCK
            if not content.strip().removesuffix(b"}"):
                raise ValueError(f"{path}: byte {begins}: an entry is wanted after the comma -> the file was cut short "
                                 "or edited; get it again")
        yield _parsed(path, content, begins)


def _parsed(path: Path, text: bytes, begins: int) -> _Pairs:
    try:
        return json.loads(b"{" + text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: near byte {begins + error.pos}: {error.msg}: not JSON, or cut short -> get the file "
                         "again") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: near byte {begins}: not JSON that can be read ({error}) -> get the file "
                         "again") from error


_STRUCTURE = np.zeros(256, np.int8)
_STRUCTURE[list(b'{[}]"')] = 1, 1, -1, -1, 2


def _last_cut(content: bytes) -> int:
    """Place of the last comma between two entries of the object that content begins inside of; -1: none."""
    marks = _STRUCTURE[np.frombuffer(content, np.uint8)]
    places = np.flatnonzero(marks)
    marks = marks[places]
    if b"\\" in content:
        kept = np.array([content[place] != 34 or not _is_escaped(content, place) for place in places.tolist()], bool)
        places, marks = places[kept], marks[kept]
    quote = marks == 2
    inside = np.cumsum(quote) % 2 == 1                                    # of a string, its opening quote included
    depth = np.cumsum(np.where(quote | inside, 0, marks))
    for start in reversed(places[quote & inside & (depth == 0)].tolist()):
        if content[max(start - 64, 0):start].rstrip()[-1:] == b",":       # a key that follows an entry
            return content.rindex(b",", 0, start)
    return -1


def _is_escaped(content: bytes, place: int) -> bool:
    before = place
    while before and content[before - 1] == 92:
        before -= 1
    return (place - before) % 2 == 1


def _read_csv(path: Path, collected: _Collected) -> None:
    """clip (or video_id), track (or track_id), frame and/or unique_id, and the columns of the prior; empty: unknown."""
    wanted = CSV_COLUMNS[collected.prior]
    try:
        tables = pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=CSV_ROWS, encoding="utf-8")
        for table in tables:
            table = table.rename(columns={"video_id": "clip", "track_id": "track"})
            missing = [name for name in ("clip", "track", *wanted) if name not in table]
            if missing or not {"frame", "unique_id"} & set(table.columns):
                raise ValueError(f"no column {', '.join(missing) or 'frame or unique_id'}")
            numbers = np.stack([_column_numbers(table[name]) for name in wanted], axis=1)
            named = [table[name].tolist() for name in ("clip", "track", "unique_id", "frame") if name in table]
            keys = [":".join(part.replace(":", "?") for part in parts if part) for parts in zip(*named, strict=True)]
            collected.add(keys, numbers.reshape(-1, *COLUMNS[collected.prior][1]))
    except (ValueError, UnicodeDecodeError) as error:                     # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: {error} -> a table with clip,track,frame,{','.join(wanted)} is wanted (test crops: "
                         "unique_id beside or instead of frame)") from error


def _column_numbers(text: pd.Series) -> np.ndarray:
    """Cells to float64 [n]; empty: NaN; not a number: inf, which is not finite and so bad."""
    numbers = np.array(pd.to_numeric(text, errors="coerce"), np.float64)
    numbers[np.isnan(numbers) & np.array(text.str.strip() != "", bool)] = np.inf
    return numbers
