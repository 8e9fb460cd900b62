"""Agreement of two codings of the same videos: kappa, F1 of looks, ICC of times, each with an interval over videos.

Time that is not codable for one of the two is left out of all measures, and its amount is stated. agree_page.py shows
the result.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.errors import UsageError
from gazepose.evaluation.comparison import draws_of_clips
from gazepose.text import printable
from gazepose.watch.coding_files import Codes, Coding, Span, ignored, read_coding

FPS = 30.0                   # of the frame bins where no coding knows the frame rate
MOST_FPS = 1000.0
LONGEST = 864_000.0          # seconds; a time with a digit too many would fill the memory with frames
OVERLAP = 0.5                # of two looks that are the same event: time in both / time in any
DRAWS = 200
STATES = ("both look", "nobody looks", "only mine", "only theirs", "not codable")


@dataclass(frozen=True)
class Unit:
    """One person of one video, coded twice."""

    video: str
    person: str
    """as in MINE"""
    states: list[tuple[float, float, str]]
    """(start, end, one of STATES) from 0 to the end of the video"""
    seconds: np.ndarray
    """[2, 2] bins of one second: [mine looks, theirs looks]"""
    frames: np.ndarray
    """[2, 2], the same of frames"""
    looks: tuple[int, int]
    """how many looks each has in codable time"""
    left_out: int
    """looks that lie mostly in time that is not codable for the other"""
    matched: np.ndarray
    """durations of the looks that are the same event, float64 [n, 2], seconds"""
    looking: tuple[float, float]
    """seconds of looking of each, in codable time"""
    codable: float
    """seconds that are codable for both"""
    hidden: tuple[float, float]
    """seconds that are not codable for each"""


@dataclass(frozen=True)
class Agreement:
    """The result: units, and what there is to say of videos, people and codes that were left out."""

    units: list[Unit]
    remarks: list[str]


Measure = Callable[[Sequence[Unit]], float]


def agree(mine: Path, theirs: Path, match: Sequence[tuple[str, str]] = (), codes: Codes = Codes(),      # noqa: B008
          fps: float | None = None) -> Agreement:
    """Compare two codings.

    Args:
        mine, theirs: as `coding_files.read_coding` takes them.
        match: (person in MINE, person in THEIRS) whose names differ.
        codes: which words mean looking and not codable.
        fps: of the frame bins; None: that of the video if a coding has it, else 30.

    Raises:
        ValueError: no person of a video is in both; names all of them, and what to do. Otherwise as `read_coding`.
    """
    if fps is not None and not 0 < fps <= MOST_FPS:
        raise UsageError(f"--fps {fps:g} -> give more than 0 and at most {MOST_FPS:g} frames per second")
    both = read_coding(mine, codes), read_coding(theirs, codes)
    remarks = [f"{path}: {line}" for path, coding in zip((mine, theirs), both, strict=True)
               for line in ignored(coding)]
    for side, coding, names in zip(("MINE", "THEIRS"), both, tuple(zip(*match, strict=True)) or ((), ()), strict=True):
        people = {person for _, person in coding.looks}
        if unknown := [name for name in names if name not in people]:
            raise UsageError(printable(f"--match names {unknown[0]!r:.140}, but {side} has no such person -> it has "
                                       f"{', '.join(sorted(people)):.300}"))
    units = []
    for video, other in _same_videos(*both, remarks):
        people = _same_people(both[0].people(video), both[1].people(other), match, video, remarks)
        rate = fps or min(both[0].fps.get(video) or both[1].fps.get(other) or FPS, MOST_FPS)
        length = max(_length(both[0], video), _length(both[1], other))
        for person, name in people:
            spans = [[coding.looks[key], coding.hidden[key]]
                     for coding, key in zip(both, ((video, person), (other, name)), strict=True)]
            units.append(compare(video, person, spans[0], spans[1], length, rate))
    if not units:
        found = [", ".join(f"{person} ({video})" for video, person in list(coding.looks)[:5]) or "nobody"
                 for coding in both]
        raise ValueError(printable(f"no person of a video is in both: {mine} has {found[0]}; {theirs} has {found[1]} "
                                   "-> --match NAME_IN_MINE=NAME_IN_THEIRS, or give the videos the same name"))
    return Agreement(units, remarks)


def _length(coding: Coding, video: str) -> float:
    ends = [end for spans in (coding.looks, coding.hidden) for (name, _), some in spans.items() if name == video
            for _, end in some if math.isfinite(end)]
    length = max([coding.length.get(video, 0.0), *ends])
    if length > LONGEST:
        raise ValueError(printable(f"{video!r:.140} lasts until {length:g} s, which is more than ten days -> correct "
                                   "the times; they are in seconds"))
    return length


def _same_videos(mine: Coding, theirs: Coding, remarks: list[str]) -> Iterator[tuple[str, str]]:
    """Videos of both: by name, else by name without its end, else the only one of each."""
    rest = theirs.videos()
    alone = len(mine.videos()) == len(rest) == 1
    for video in mine.videos():
        plain = [other for other in rest if _stem(other) == _stem(video)]
        found = next((other for other in (video, *plain) if other in rest), rest[0] if alone else None)
        if found is None:
            remarks.append(printable(f"the video {video!r:.140} is in MINE only"))
            continue
        rest.remove(found)
        if _stem(found) != _stem(video):
            remarks.append(printable(f"the only videos were taken as the same: {video!r:.140} and {found!r:.140}"))
        yield video, found
    remarks += [printable(f"the video {other!r:.140} is in THEIRS only") for other in rest]


def _stem(video: str) -> str:
    return video.split(".")[0].lower() if not video.startswith(".") else video.lower()


def _same_people(mine: Sequence[str], theirs: Sequence[str], match: Sequence[tuple[str, str]], video: str,
                 remarks: list[str]) -> list[tuple[str, str]]:
    pairs = [(one, two) for one, two in match if one in mine and two in theirs]
    by_name = {name.strip().lower(): name for name in theirs if name not in [two for _, two in pairs]}
    pairs += [(person, by_name[person.strip().lower()]) for person in mine
              if person not in [one for one, _ in pairs] and person.strip().lower() in by_name]
    used_mine, used_theirs = zip(*pairs, strict=True) if pairs else ((), ())
    for side, people, used in (("MINE", mine, used_mine), ("THEIRS", theirs, used_theirs)):
        if rest := [person for person in people if person not in used]:
            remarks.append(printable(f"{video}: only in {side}: {', '.join(rest):.300} (use --match if the person has "
                                     "another name)"))
    return pairs


# ---- one person of one video

def compare(video: str, person: str, mine: Sequence[Sequence[Span]], theirs: Sequence[Sequence[Span]], length: float,
            fps: float) -> Unit:
    """Compare two codings of one person.

    Args:
        mine, theirs: looks, and times that are not codable; each in order, without overlap.
        length: of the video, seconds.
        fps: of the frame bins.

    A frame is what it is in its middle. A second is codable if half of its frames are, and looking if half of these
    are. Looks are compared after time that is not codable has been cut out. A look with less than half of its time left
    is left out. Two looks are the same event if they have half of the time in any of them in common.
    """
    sides = [[_clipped(spans, length) for spans in side] for side in (mine, theirs)]
    states = list(_states(sides, length))
    # seconds of codable time up to each point in time: what is not codable takes none
    edges = np.array([0.0, *(end for _, end, _ in states)])
    clock = np.append(0.0, np.cumsum([(end - start) * (state != STATES[4]) for start, end, state in states]))
    kept, dropped = [], 0
    for looks, _ in sides:
        times = np.array(looks, np.float64).reshape(-1, 2)
        cut = np.interp(times, edges, clock)
        stays = np.diff(cut)[:, 0] >= np.diff(times)[:, 0] / 2
        kept.append(cut[stays])
        dropped += int((~stays).sum())
    total = {state: sum(end - start for start, end, name in states if name == state) for state in STATES}
    frames, seconds = _bins(states, length, fps)
    return Unit(video, person, states, seconds, frames, (len(kept[0]), len(kept[1])), dropped,
                same_events(*kept), (total[STATES[0]] + total[STATES[2]], total[STATES[0]] + total[STATES[3]]),
                length - total[STATES[4]], (_sum(sides[0][1]), _sum(sides[1][1])))


def _clipped(spans: Sequence[Span], length: float) -> list[Span]:
    return [(start, min(end, length)) for start, end in spans if start < length]


def _sum(spans: Sequence[Span]) -> float:
    return float(sum(end - start for start, end in spans))


def _states(sides: Sequence[Sequence[Sequence[Span]]], length: float) -> Iterator[tuple[float, float, str]]:
    """Times of one state each; neighbours differ."""
    everything = [spans for side in sides for spans in side]
    edges = np.unique(np.array([0.0, length, *(edge for spans in everything for span in spans for edge in span)]))
    middle = (edges[1:] + edges[:-1]) / 2
    one, hidden_one, other, hidden_other = (_inside(spans, middle) for spans in everything)
    state = np.select([hidden_one | hidden_other, one & other, one, other], [4, 0, 2, 3], 1)
    changes = np.flatnonzero(np.diff(state, prepend=-1))
    for first, last in zip(changes, np.append(changes[1:], len(state)), strict=True):
        yield float(edges[first]), float(edges[last]), STATES[state[first]]


def _inside(spans: Sequence[Span], time: np.ndarray) -> np.ndarray:
    if not spans:
        return np.zeros(len(time), bool)
    start, end = np.array(spans, np.float64).T
    place = np.searchsorted(start, time, side="right") - 1
    return (place >= 0) & (time < end[np.maximum(place, 0)])


def _bins(states: Sequence[tuple[float, float, str]], length: float, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames and seconds, each [2, 2]: [mine looks, theirs looks]."""
    middle = (np.arange(math.ceil(length * fps - 1e-6)) + 0.5) / fps
    ends = np.array([end for _, end, _ in states])
    state = np.array([STATES.index(name) for _, _, name in states], np.int64)
    state = state[np.minimum(np.searchsorted(ends, middle, side="right"), len(ends) - 1)] if len(ends) else middle
    codable = state != 4
    looks = [np.isin(state, (0, 2)), np.isin(state, (0, 3))]
    second = middle.astype(np.int64)
    frames, known = np.bincount(second), np.bincount(second, codable)
    counted = (known > 0) & (2 * known >= frames)
    whole = [(2 * np.bincount(second, look) >= known)[counted] for look in looks]
    return _table(looks[0][codable], looks[1][codable]), _table(*whole)


def _table(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.bincount(2 * mine.astype(np.int64) + theirs, minlength=4).reshape(2, 2)


def same_events(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Durations of the looks of both that are the same event, float64 [n, 2].

    Args:
        mine, theirs: starts and ends, float64 [n, 2], in order and without overlap.
    """
    pairs, one, two = [], 0, 0
    while one < len(mine) and two < len(theirs):
        (start, end), (begin, finish) = mine[one], theirs[two]
        common = min(end, finish) - max(start, begin)
        if common > 0 and common >= OVERLAP * (max(end, finish) - min(start, begin)) - 1e-9:
            pairs.append((end - start, finish - begin))
            one, two = one + 1, two + 1
        elif end <= finish:                                # it ends before all later ones of the other begin
            one += 1
        else:
            two += 1
    return np.array(pairs, np.float64).reshape(-1, 2)


# ---- measures over several people and videos

def kappa(counts: np.ndarray) -> float:
    """Cohen's kappa of a table [2, 2]; NaN where chance alone would agree fully, as if nobody looks in any bin."""
    from sklearn.metrics import cohen_kappa_score  # slow to import
    if not counts.sum() or (counts.sum(0) * counts.sum(1)).sum() == counts.sum() ** 2:
        return float("nan")
    return float(cohen_kappa_score([0, 0, 1, 1], [0, 1, 0, 1], sample_weight=counts.ravel()))


def icc(ratings: np.ndarray) -> float:
    """ICC(2,1) of Shrout and Fleiss (1979): two-way random effects, absolute agreement, one coder.

    Not ICC(3,1): that ignores a coder who always sees more looking than the other, which is what must show here.

    Args:
        ratings: float [things, coders].

    Returns:
        NaN with fewer than two things, or where all ratings are equal.
    """
    things, coders = ratings.shape
    if things < 2 or coders < 2:
        return float("nan")
    mean = ratings.mean()
    between_things = coders * ((ratings.mean(1) - mean) ** 2).sum() / (things - 1)
    between_coders = things * ((ratings.mean(0) - mean) ** 2).sum() / (coders - 1)
    rest = ratings - ratings.mean(1, keepdims=True) - ratings.mean(0) + mean
    error = (rest ** 2).sum() / ((things - 1) * (coders - 1))
    total = between_things + (coders - 1) * error + coders * (between_coders - error) / things
    return float((between_things - error) / total) if total > 1e-12 else float("nan")


def f1(units: Sequence[Unit]) -> float:
    """2 × same events / looks of both; NaN without a look."""
    looks = sum(sum(unit.looks) for unit in units)
    return 2 * sum(len(unit.matched) for unit in units) / looks if looks else float("nan")


MEASURES: dict[str, tuple[str, Measure]] = {
    "kappa_seconds": ("kappa, seconds", lambda units: kappa(np.sum([unit.seconds for unit in units], axis=0))),
    "kappa_frames": ("kappa, frames", lambda units: kappa(np.sum([unit.frames for unit in units], axis=0))),
    "f1": ("F1 of looks", f1),
    "icc_looking": ("ICC, looking", lambda units: icc(np.array([unit.looking for unit in units]))),
    "icc_looks": ("ICC, looks", lambda units: icc(np.concatenate([unit.matched for unit in units])))}
"""name -> its words, and how it is computed. ICC, looking: of the seconds of looking of each person of each video.
ICC, looks: of the durations of looks that are the same event."""


def measures(units: Sequence[Unit]) -> dict[str, Any]:
    """All measures of these units, and the amounts that they are made from.

    Returns:
        Each of MEASURES, and NAME_low and NAME_high: its 95 % interval over videos, NaN with fewer than five videos or
        where it is defined in fewer than half of the draws; videos, people, looks_mine, looks_theirs, looks_left_out,
        seconds_mine, seconds_theirs (of looking), seconds_codable, seconds_not_codable_mine, _theirs.
    """
    _, video = np.unique([unit.video for unit in units], return_inverse=True)
    draws = [[units[row] for row in rows] for rows in draws_of_clips(video, DRAWS)]
    result: dict[str, Any] = {"videos": len(set(video.tolist())), "people": len(units)}
    for name, (_, compute) in MEASURES.items():
        drawn = np.array([compute(draw) for draw in draws])
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.percentile(drawn, (2.5, 97.5)).tolist() if len(drawn) > len(draws) / 2 else (math.nan, math.nan)
        result |= {name: compute(units), f"{name}_low": low, f"{name}_high": high}
    sums = {"looks": [unit.looks for unit in units], "seconds": [unit.looking for unit in units],
            "seconds_not_codable": [unit.hidden for unit in units]}
    for name, pairs in sums.items():
        result[f"{name}_mine"], result[f"{name}_theirs"] = np.sum(pairs, axis=0).tolist()
    return result | {"looks_left_out": sum(unit.left_out for unit in units),
                     "seconds_codable": sum(unit.codable for unit in units)}
