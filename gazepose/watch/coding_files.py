"""Codings of videos, read from the files of the programs in which people code: ELAN, BORIS, any table with onsets.

A coding says of each person of each video when they look and when that cannot be coded. Files are small and made by
hand, so every fault is named with its line.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from gazepose.io import open_regular
from gazepose.machine import needed
from gazepose.text import counted, printable, read_text
from gazepose.watch.bouts import frame_ends, times_not_codable
from gazepose.watch.coding import LOOKING, UNCODABLE
from gazepose.watch.tables import read_faces, read_looks, with_formula

MOST = 256 << 20             # bytes of a coding made by hand
SUFFIXES = (".eaf", ".csv", ".tsv", ".txt")
NOT_LOOKING = ("0", "no", "not looking", "away", "off", "none")
"""codes that are left out without a word"""
COLUMNS = {"video": ("video", "clip", "file", "media", "media file name", "media file path", "observation id"),
           "person": ("person", "subject", "participant", "tier", "name"),
           "start": ("start", "onset", "begin", "begin time", "start (s)"),
           "end": ("end", "offset", "stop", "end time", "stop (s)"),
           "code": ("code", "behavior", "value", "label", "annotation"), "time": ("time",),
           "edge": ("behavior type", "status"),
           "length": ("media duration (s)", "total length", "observation duration")}
"""what a column holds -> names that it may have, the better ones first; times may end in (ms) or _ms"""
MINUTE = 60                  # seconds; looks are shorter, in milliseconds they are longer
Span = tuple[float, float]


@dataclass(frozen=True)
class Codes:
    """Which words of a coding mean what; capitals do not matter."""

    looking: tuple[str, ...] = (LOOKING, "look", "looks", "eye contact", "eye_contact", "gaze", "1", "yes", "on")
    """looking at the camera"""
    not_codable: tuple[str, ...] = (UNCODABLE, "not_codable", "uncodable", "not visible", "missing")
    """cannot be coded"""


@dataclass
class Coding:
    """What one coder says. Times are in seconds from the beginning of the video."""

    looks: dict[tuple[str, str], list[Span]] = field(default_factory=dict)
    """(video, person) -> looks in order that do not overlap; also of people without a look"""
    hidden: dict[tuple[str, str], list[Span]] = field(default_factory=dict)
    """(video, person) -> times that are not codable"""
    length: dict[str, float] = field(default_factory=dict)
    """video -> its length, where it is known"""
    fps: dict[str, float] = field(default_factory=dict)
    """video -> frames per second, where they are known"""
    other: Counter[str] = field(default_factory=Counter)
    """codes that mean neither, and how often they occur"""

    def add(self, video: str, person: str, span: Span | None, is_look: bool = True) -> None:
        """Add a person, and a look or a time that is not codable."""
        for spans in (self.looks, self.hidden):
            spans.setdefault((video, person), [])
        if span is not None:
            (self.looks if is_look else self.hidden)[video, person].append(span)

    def add_coded(self, video: str, person: str, span: Span, code: str, codes: Codes) -> None:
        """As `add`, by the word of a code."""
        word = code.strip().lower()
        if word in codes.not_codable:
            self.add(video, person, span, is_look=False)
        elif word in codes.looking or not word:
            self.add(video, person, span)
        else:
            self.add(video, person, None)
            if word not in NOT_LOOKING:
                self.other[code.strip()] += 1

    def videos(self) -> list[str]:
        return list(dict.fromkeys(video for video, _ in self.looks))

    def people(self, video: str) -> list[str]:
        return [person for name, person in self.looks if name == video]

    def sort(self) -> None:
        """Put the spans of each person in order, and unite those that overlap."""
        for spans in (*self.looks.values(), *self.hidden.values()):
            united: list[Span] = []
            for start, end in sorted(spans):
                if united and start < united[-1][1] - 1e-9:
                    united[-1] = united[-1][0], max(united[-1][1], end)
                else:
                    united.append((start, end))
            spans[:] = united


def read_coding(path: Path, codes: Codes = Codes()) -> Coding:                                     # noqa: B008
    """Read a coding.

    Args:
        path: the folder that `watch` wrote; an ELAN file; events of BORIS, exported as a table or as it pastes them; a
            table with person, onset and offset; or a folder of such files.
        codes: which words mean looking and not codable.

    Raises:
        FileNotFoundError; ImportError without pympi-ling; ValueError naming the file and the line: not such a file, a
            time that is none, an end without a start, no code that means looking.
    """
    codes = Codes(*(tuple(word.strip().lower() for word in words) for words in (codes.looking, codes.not_codable)))
    coding = Coding()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such coding -> name a folder that `watch` wrote, or a file that ends in "
                                f"{', '.join(SUFFIXES)}")
    if path.is_dir() and (path / "faces.csv").is_file():
        _read_watched(path, coding)
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise FileNotFoundError(f"{path}: holds no coding -> name a folder that `watch` wrote, or one with files "
                                    f"that end in {', '.join(SUFFIXES)}")
        for file in files:
            _read_file(file, coding, codes)
    else:
        _read_file(path, coding, codes)
    if coding.other and not any(coding.looks.values()):
        found = ", ".join(repr(code) for code, _ in coding.other.most_common(5))
        raise ValueError(printable(f"{path}: no look in it; its codes are {found:.300} -> name the one that means "
                                   "looking with --looking"))
    coding.sort()
    return coding


def _read_file(path: Path, coding: Coding, codes: Codes) -> None:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: a coding must end in {', '.join(SUFFIXES)} -> rename or convert it")
    if suffix == ".eaf":
        _read_elan(path, coding, codes)
    else:
        _read_table(path, coding, codes)


def _read_watched(folder: Path, coding: Coding) -> None:
    """The output of `watch`: time without a codable face is not codable."""
    table = read_faces(folder / "faces.csv")
    for row in table[["video", "person"]].drop_duplicates().itertuples(index=False):
        coding.add(row.video, row.person, None)
    for name, is_look, spans in (("looks.csv", True, read_looks(folder / "looks.csv")),
                                 ("faces.csv", False, times_not_codable(table))):
        for row in spans.itertuples(index=False):
            if (row.video, row.person) not in coding.looks:
                raise ValueError(printable(f"{folder / name}: {row.person!r:.140} of {row.video!r:.140} is not in "
                                           "faces.csv -> run watch again with --replace"))
            coding.add(row.video, row.person, (row.start, row.end), is_look)
    last = table.assign(end=frame_ends(table)).groupby(["video", "person"])["end"].max()
    for (video, person), end in last.items():              # after the last frame nothing is known of this person
        coding.add(video, person, (end, math.inf), is_look=False)
        coding.length[video] = max(end, coding.length.get(video, 0.0))
    for video, seconds in table.groupby("video")["seconds"]:
        steps = np.diff(np.sort(seconds.unique())).astype(np.float64)
        if len(steps):
            coding.fps[str(video)] = float(1 / np.median(steps))


# ---- ELAN

def _read_elan(path: Path, coding: Coding, codes: Codes) -> None:
    """A tier is a person, named by its participant or else by itself. A tier whose name ends in "not codable" holds the
    times that are not codable, whatever its annotations say."""
    open_regular(path, "ELAN file", MOST).close()
    elan = needed("pympi", "watch", "pympi-ling")
    try:
        document = elan.Eaf(str(path), suppress_version_warning=True)
        tiers = {tier: (document.get_parameters_for_tier(tier), document.tiers[tier][0]) for tier in document.tiers}
        times = dict(document.timeslots)
    except Exception as error:                             # damaged XML makes pympi raise anything
        raise ValueError(f"{path}: not an ELAN file: {error} -> open it in ELAN and save it again") from None
    link = next((found for media in document.media_descriptors for name in ("RELATIVE_MEDIA_URL", "MEDIA_URL")
                 if (found := media.get(name))), "")
    video = video_name(unquote(link)) or path.name.removesuffix(path.suffix)
    for tier, (facts, annotations) in tiers.items():
        if tier == "default" and not annotations:
            continue
        ends = [word for word in codes.not_codable if tier.lower().rstrip("*").endswith(word)]
        person = facts.get("PARTICIPANT") or (tier[:-len(ends[0])].strip(" -_") if ends else tier)
        coding.add(video, person, None)
        for begin, finish, text, _ in annotations.values():
            if times.get(begin) is None or times.get(finish) is None:
                raise ValueError(f"{path}: tier {tier!r:.140} has an annotation without a time -> give it one in ELAN")
            span = times[begin] / 1000, times[finish] / 1000
            if ends:
                coding.add(video, person, span, is_look=False)
            else:
                coding.add_coded(video, person, span, text, codes)


def video_name(link: str) -> str:
    """The file name at the end of a path or an address, as Windows and others write them."""
    return PurePosixPath(link.replace("\\", "/")).name


# ---- tables

def _read_table(path: Path, coding: Coding, codes: Codes) -> None:
    """A table with a header, or BORIS's events as they are pasted: time, subject, code, without a header."""
    text = read_text(path, "coding", MOST).removeprefix("\ufeff")
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max("\t;,", key=head.count)
    try:
        rows = list(enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 1))
    except csv.Error as error:
        raise ValueError(f"{path}: not a table: {error} -> save it as CSV") from None
    rows = [(number, [cell.strip() for cell in row]) for number, row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: is empty -> it needs a first line with the names of the columns")
    if separator == "\t" and 3 <= len(rows[0][1]) <= 7 and _number(rows[0][1][0]) is not None:
        video = path.name.removesuffix(path.suffix).removesuffix(".boris")
        events = [(path, number, video, row[1], row[2], row[0], row[4] if len(row) > 4 else "")
                  for number, row in rows if len(row) >= 3 or _fault(path, number, "has fewer than three cells")]
        _pair(events, coding, codes)
        return
    for place, (_, names) in enumerate(rows):              # BORIS writes lines of its own above the header
        columns = _columns(names)
        if {"person", "start", "end"} <= columns.keys():
            _read_spans(path, rows[place + 1:], names, columns, coding, codes)
            return
        if {"person", "code", "time", "edge"} <= columns.keys():
            _read_boris(path, rows[place + 1:], columns, coding, codes)
            return
    raise ValueError(printable(f"{path}: the first line is {head!r:.140}, without columns for person, start and end -> "
                               "name them person,start,end; or export the tabular events of BORIS"))


def _columns(names: Sequence[str]) -> dict[str, int]:
    """What is in which column of a table."""
    plain = [re.sub(r"[ _]*[(\[]?\bms[)\]]?$|_ms$|_s$", "", name.strip().lower()) for name in names]
    found = {}
    for what, choices in COLUMNS.items():
        places = [plain.index(name) for name in choices if name in plain]
        if places:
            found[what] = places[0]
    return found


def _read_spans(path: Path, rows: Iterable[tuple[int, list[str]]], names: Sequence[str], columns: dict[str, int],
                coding: Coding, codes: Codes) -> None:
    """A table with a start and an end in each line; without them the line names a person who never looks."""
    default = path.name.removesuffix(path.suffix)
    factor = [0.001 if re.search(r"(?:\b|_)ms\b", names[columns[side]].lower()) else 1.0 for side in ("start", "end")]
    whole, lasts = True, []
    for number, row in rows:
        row = [with_formula(cell) for cell in row] + [""] * (len(names) - len(row))
        video = video_name(row[columns["video"]]) if "video" in columns else default
        person = row[columns["person"]] or str(_fault(path, number, "names no person"))
        _note_length(video, row, columns, coding)
        cells = [row[columns[side]] for side in ("start", "end")]
        if cells == ["", ""]:
            coding.add(video, person, None)
            continue
        start, end = (_time(path, number, cell) * unit for cell, unit in zip(cells, factor, strict=True))
        if end < start:
            _fault(path, number, f"ends at {end:g} s, before its start at {start:g} s")
        whole, lasts = whole and all(cell.isdigit() for cell in cells), [*lasts, end - start]
        coding.add_coded(video, person, (start, end), row[columns["code"]] if "code" in columns else "", codes)
    if factor == [1.0, 1.0] and whole and lasts and np.median(lasts) >= MINUTE:
        raise ValueError(f"{path}: all times are whole numbers, and half of the looks last {np.median(lasts):g} or "
                         "more, so they may be milliseconds -> name the columns start_ms and end_ms, or write 12.0 for "
                         "seconds")


def _read_boris(path: Path, rows: Iterable[tuple[int, list[str]]], columns: dict[str, int], coding: Coding,
                codes: Codes) -> None:
    """The tabular events that BORIS exports: a line for each start and each stop of a state."""
    events = []
    for number, row in rows:
        row = row + [""] * (max(columns.values()) + 1 - len(row))
        if row[columns["edge"]].upper() == "POINT":
            coding.other[f"{row[columns['code']]} (point event)"] += 1
            continue
        video = video_name(row[columns["video"]]) if "video" in columns else path.name.removesuffix(path.suffix)
        _note_length(video, row, columns, coding)
        events.append((path, number, video, row[columns["person"]], row[columns["code"]], row[columns["time"]],
                       row[columns["edge"]]))
    _pair(events, coding, codes)


def _note_length(video: str, row: Sequence[str], columns: dict[str, int], coding: Coding) -> None:
    length = _number(row[columns["length"]]) if "length" in columns else None
    if length is not None:
        coding.length[video] = max(length, coding.length.get(video, 0.0))


def _pair(events: Sequence[tuple[Path, int, str, str, str, str, str]], coding: Coding, codes: Codes) -> None:
    """Pair starts and stops: (file, line, video, person, code, time, "START", "STOP" or "") by time; without the word,
    each second event of a person and code is a stop."""
    running: dict[tuple[str, str, str], tuple[Path, int, float]] = {}
    timed = [(_time(path, number, time), edge.upper() != "STOP", number, path, (video, person, code), edge.upper())
             for path, number, video, person, code, time, edge in events]
    for time, _, number, path, key, edge in sorted(timed, key=lambda event: (event[0], event[1], event[2])):
        starts = edge == "START" or (edge != "STOP" and key not in running)
        if starts == (key in running):
            _fault(path, number, f"{key[2]!r:.80} of {key[1]!r:.80} " + ("starts twice" if starts else "never started"))
        if starts:
            running[key] = path, number, time
        else:
            video, person, code = key
            coding.add_coded(video, person, (running.pop(key)[2], time), code, codes)
    for (_, person, code), (path, number, _) in running.items():
        _fault(path, number, f"{code!r:.80} of {person!r:.80} never stops")


def _fault(path: Path, number: int, words: str) -> bool:
    raise ValueError(printable(f"{path}: line {number}: {words} -> correct the line"))


def _number(cell: str) -> float | None:
    return float(cell.replace(",", ".")) if re.fullmatch(r"[0-9]+([.,][0-9]*)?|[.,][0-9]+", cell) else None


def _time(path: Path, number: int, cell: str) -> float:
    """Seconds: 12.5 or 12,5 or 00:00:12.500 or 0:12.5."""
    parts = cell.split(":")
    values = [_number(part) for part in parts]
    if not 1 <= len(parts) <= 3 or None in values:
        _fault(path, number, f"{cell!r:.80} is no time, as 12.5 or 00:00:12.500")
    seconds = 0.0
    for value in values:
        seconds = 60 * seconds + float(value or 0)
    return seconds


def ignored(coding: Coding) -> Iterator[str]:
    """What is to be said of codes that were left out."""
    if coding.other:
        some = ", ".join(f"{code!r:.60} ({times})" for code, times in coding.other.most_common(5))
        yield printable(f"left out, {counted(coding.other.total(), 'time')}: {some}")
