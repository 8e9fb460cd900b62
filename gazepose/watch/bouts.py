"""Bouts: scores of faces become looks with an onset and an offset, and counts for each person.

All rules are in seconds, so that they mean the same at any frame rate, also at a variable one. A frame lasts from its
time of presentation to that of the next frame. What is not codable is never taken for looking or for not looking.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from gazepose.watch.table import Table, Video

LOOKS = {"video": "str", "person": "str", "start": "float64", "end": "float64", "duration": "float64",
         "probability": "float64", "source": "str"}
"""Columns of looks.csv, sorted by video, person, start. start, end: seconds from the video's first picture; the looks
of a person do not overlap. probability: mean over the codable frames of the look. source: "score", or "correction"
where a user set the look or changed an end of it."""
PEOPLE = {"video": "str", "person": "str", "first_seen": "float64", "last_seen": "float64", "seconds_seen": "float64",
          "seconds_codable": "float64", "looks": "int64", "looks_per_minute": "float64", "seconds_looking": "float64",
          "share_looking": "float64", "mean_look": "float64", "median_look": "float64", "first_look_after": "float64",
          "seconds_with_others": "float64", "seconds_others_look_too": "float64"}
"""Columns of people.csv, sorted by video and person; one row for each person of a video. All times are in seconds.

first_seen, last_seen: start of the first frame and end of the last one. seconds_seen: in frames with the face.
seconds_codable: of these, in codable ones. looks_per_minute: of codable time. seconds_looking: sum of the looks'
durations. share_looking: part of the codable time that lies in a look, 0 to 1. first_look_after: from the first
codable frame to the first look. seconds_with_others: in frames with another person's face too. seconds_others_look_too:
in frames in which this person and another one look. NaN where a number is not defined."""
PAIRS = {"video": "str", "person": "str", "other": "str", "seconds_together": "float64",
         "seconds_both_look": "float64"}
"""Columns of the table of pairs, one row for each two persons with at least one frame in common."""
NOT_CODABLE = {"video": "str", "person": "str", "start": "float64", "end": "float64", "reason": "str"}
"""Columns of the table of times that are not codable. reason: one of table.REASONS, or NO_FACE."""
NO_FACE = "no face"
SLACK = 0.002
"""seconds; three frames at 29.97 per second take 0.1001 s, and times may be rounded to thousandths"""
NEAR = 1e-6
"""seconds; sums of times are not exact"""


@dataclass(frozen=True, kw_only=True)
class LookRules:
    """How looks are found in the probabilities."""

    on: float = 0.5
    """a look begins at this probability"""
    off: float = 0.4
    """and ends below this one; lower than `on`, so that noise around one number does not make many looks of one"""
    shortest: float = 0.1
    """seconds; shorter looks are dropped. The filter I-VT of eye trackers drops fixations below 0.1 s (Olsen 2012)"""
    join: float = 0.2
    """seconds; two looks so near to each other are one. A glance elsewhere and back takes longer: two saccades of about
    0.05 s and a fixation of 0.1 s or more"""
    bridge: float = 0.3
    """seconds without a codable face, at most, that a look lasts through. In a blink the eye is closed for at most
    0.3 s (Stern, Walrath and Goldstein 1984)"""

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= 1:
            raise ValueError(f"--on {self.on} --off {self.off} -> give probabilities from 0 to 1, --off not above --on")
        for name in ("shortest", "join", "bridge"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} {getattr(self, name)} -> give seconds, 0 or more")


def frame_ends(table: Table, videos: Sequence[Video] = ()) -> np.ndarray:
    """When the frame of each row ends, in seconds, float64 [rows].

    That is when the next frame begins. Where no face is in the next frame, its time is not in the table, and the frames
    up to the next one that is share the time between them. The last frame ends with its video. If that is not in
    `videos`, it lasts as long as the frame before it, and no time at all if it is the only one.
    """
    ends = table["seconds"].to_numpy(np.float64, copy=True)
    facts = {video.name: video for video in videos}
    for name, rows in _groups(table, ["video"]):
        frame, first = np.unique(table["frame"].to_numpy()[rows], return_index=True)
        time = table["seconds"].to_numpy(np.float64)[rows][first]
        each = np.diff(time) / np.diff(frame)
        last = each[-1] if len(each) else 0.0
        video = facts.get(name[0])
        if video is not None and video.frames > frame[-1] and video.seconds >= time[-1]:
            last = (video.seconds - time[-1]) / (video.frames - frame[-1])
        end = time + np.append(each, last)
        ends[rows] = end[np.searchsorted(frame, table["frame"].to_numpy()[rows])]
    return ends


def smooth(table: Table, seconds: float = 0.1, causal: bool = False, videos: Sequence[Video] = ()) -> Table:
    """The table with the running median of `looking`, of each person, within a shot.

    Args:
        table: the table of faces; of a person one row per frame.
        seconds: on each side of a frame; at 30 frames per second 0.1 s are three frames. 0 changes nothing.
        causal: the window ends with the frame itself and is as long as otherwise.
        videos: their cuts end a shot; a window does not reach past one.

    Returns:
        A copy. Faces that are not codable stay so: their probability is NaN, and they count in no window.
    """
    import pandas as pd
    smoothed = table.copy()
    if seconds <= 0 or not len(table):
        return smoothed
    value = table["looking"].where(table["codable"] == 1).to_numpy(np.float64)
    time, median, shot = table["seconds"].to_numpy(np.float64), np.full(len(table), np.nan), shots(table, videos)
    reach = timedelta(seconds=2 * (seconds + SLACK))
    for _, rows in _groups(table.assign(shot=shot), ["video", "person", "shot"]):
        series = pd.Series(value[rows], pd.to_datetime(time[rows], unit="s"))
        median[rows] = series.rolling(reach, center=not causal, closed="both", min_periods=1).median()
    smoothed["looking"] = np.where(np.isnan(value), np.nan, median)
    return smoothed


def shots(table: Table, videos: Sequence[Video]) -> np.ndarray:
    """Which shot of its video each row is in, from 0, int64 [rows]; a frame at the time of a cut is in the new shot."""
    cuts = {video.name: np.sort(np.asarray(video.cuts, np.float64)) for video in videos}
    shot = np.zeros(len(table), np.int64)
    for (name,), rows in _groups(table, ["video"]):
        if name in cuts:
            shot[rows] = np.searchsorted(cuts[name] - NEAR, table["seconds"].to_numpy()[rows], side="right")
    return shot


def _groups(table: Table, columns: list[str]) -> list[tuple[tuple, np.ndarray]]:
    """(values of the columns, numbers of its rows in the order of time) of each group."""
    order = np.argsort(table["frame"].to_numpy(), kind="stable")
    places = table[columns].iloc[order].groupby(columns).indices
    return [(name if isinstance(name, tuple) else (name,), order[np.sort(rows)]) for name, rows in places.items()]


# ---- looks

def find_looks(table: Table, videos: Sequence[Video], rules: LookRules = LookRules()) -> Table:      # noqa: B008
    """Looks of each person, by hysteresis over the probabilities of the codable frames.

    1. A look begins with a frame of probability `on` or more and goes on while frames have `off` or more.
    2. Time without a codable face splits the frames where it is longer than `bridge`, and so does a cut. A look ends
       there with its last frame. Over shorter ones it goes on, if the next codable frame has `off` or more.
    3. Looks that are at most `join` apart, with no such split between them, become one.
    4. Looks shorter than `shortest` are dropped.

    Returns:
        The table of looks, see LOOKS. A picture has no duration, so no looks are found in one.
    """
    ends, shot, found = frame_ends(table, videos), shots(table, videos), []
    pictures = {video.name for video in videos if video.seconds == 0}
    seconds, looking = table["seconds"].to_numpy(np.float64), table["looking"].to_numpy(np.float64)
    known = (table["codable"].to_numpy() == 1) & ~np.isnan(looking)
    for (video, person), rows in _groups(table, ["video", "person"]):
        rows = rows[known[rows]]
        if video in pictures or not len(rows):
            continue
        start, end, value = seconds[rows], ends[rows], looking[rows]
        split = (start[1:] - end[:-1] > rules.bridge + NEAR) | (np.diff(shot[rows]) != 0)
        for piece in np.split(np.arange(len(rows)), np.flatnonzero(split) + 1):
            for first, last in _joined(hysteresis(value[piece], rules), start[piece], end[piece], rules):
                here = piece[first:last + 1]
                found.append((video, person, start[here[0]], end[here[-1]], value[here].mean(), "score"))
    return looks_table(found)


def hysteresis(value: np.ndarray, rules: LookRules) -> list[tuple[int, int]]:
    """First and last place of each run that begins at `on` or more and goes on at `off` or more; value: float [n]."""
    change = np.where(value >= rules.on, 1, np.where(value < rules.off, 0, -1))       # -1: as it was before
    decided = np.maximum.accumulate(np.where(change >= 0, np.arange(len(value)), -1))
    state = np.where(decided >= 0, change[decided], 0)
    edges = np.diff(state, prepend=0, append=0)
    return list(zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True))


def _joined(runs: list[tuple[int, int]], start: np.ndarray, end: np.ndarray,
            rules: LookRules) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and start[first] - end[joined[-1][1]] <= rules.join + NEAR:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return [(first, last) for first, last in joined if end[last] - start[first] >= max(rules.shortest - NEAR, NEAR)]


def looks_table(found: Iterable[tuple[str, str, float, float, float, str]]) -> Table:
    """The table of looks from (video, person, start, end, probability, source), see LOOKS."""
    import pandas as pd
    columns = ["video", "person", "start", "end", "probability", "source"]
    looks = pd.DataFrame(list(found), columns=columns)
    looks["duration"] = looks["end"].astype(np.float64) - looks["start"].astype(np.float64)
    return _typed(looks, LOOKS)


def times_not_codable(table: Table, videos: Sequence[Video] = ()) -> Table:
    """All time in which a person's face is not codable or not there, with the reason; see NOT_CODABLE.

    It begins with the video and ends with it, or with the person's last frame if the video is not in `videos`.
    """
    import pandas as pd
    ends, length = frame_ends(table, videos), {video.name: video.seconds for video in videos}
    columns = [table[name].to_numpy() for name in ("seconds", "codable", "reason")]
    found: list[tuple[str, str, float, float, str]] = []
    for (video, person), rows in _groups(table, ["video", "person"]):
        seconds, codable, reason = (column[rows] for column in columns)
        stop = max(ends[rows[-1]], length.get(video, 0.0))
        start, end = np.append(seconds, stop), np.append(0.0, ends[rows])      # of the time without a face before a row
        pieces = [(*piece, NO_FACE) for piece in zip(end, start, strict=True) if piece[1] - piece[0] > NEAR]
        pieces += [(*piece[:2], piece[2] or "not codable") for piece in
                   zip(seconds[codable == 0], ends[rows][codable == 0], reason[codable == 0], strict=True)]
        merged: list[tuple[float, float, str]] = []
        for begin, finish, why in sorted(pieces):
            if merged and merged[-1][2] == why and begin - merged[-1][1] <= NEAR:
                merged[-1] = (merged[-1][0], finish, why)
            else:
                merged.append((begin, finish, why))
        found += [(video, person, *piece) for piece in merged]
    return _typed(pd.DataFrame(found, columns=list(NOT_CODABLE)), NOT_CODABLE)


# ---- counts

def in_look(table: Table, looks: Table, ends: np.ndarray) -> np.ndarray:
    """Whether the middle of each row's frame lies in a look of its person, bool [rows]."""
    middle, inside = (table["seconds"].to_numpy(np.float64) + ends) / 2, np.zeros(len(table), bool)
    of_person = {name: group for name, group in looks.groupby(["video", "person"])}
    for name, rows in _groups(table, ["video", "person"]):
        if name in of_person:
            start, end = (np.sort(of_person[name][side].to_numpy(np.float64)) for side in ("start", "end"))
            place = np.searchsorted(start, middle[rows], side="right") - 1
            inside[rows] = (place >= 0) & (middle[rows] < end[np.maximum(place, 0)])
    return inside


def count_people(table: Table, looks: Table, videos: Sequence[Video] = ()) -> Table:
    """Counts of each person in each video; see PEOPLE."""
    import pandas as pd
    faces = _faces(table, looks, videos)
    of_person = {name: group for name, group in looks.groupby(["video", "person"])}
    lines = []
    for (video, person), rows in _groups(table, ["video", "person"]):
        own, known = faces.iloc[rows], faces.iloc[rows].query("codable == 1")
        found = of_person.get((video, person), looks.iloc[:0])
        seen, codable = own["lasts"].sum(), known["lasts"].sum()
        latency = found["start"].min() - known["seconds"].min()
        lines.append((video, person, own["seconds"].min(), own["end"].max(), seen, codable, len(found),
                      60 * len(found) / codable if codable else np.nan, found["duration"].sum(),
                      known["lasts"][known["look"]].sum() / codable if codable else np.nan, found["duration"].mean(),
                      found["duration"].median(), latency, own["lasts"][own["here"] > 1].sum(),
                      own["lasts"][own["look"] & (own["looking_here"] > 1)].sum()))
    return _typed(pd.DataFrame(lines, columns=list(PEOPLE)), PEOPLE)


def count_pairs(table: Table, looks: Table, videos: Sequence[Video] = ()) -> Table:
    """How long each two people are in the same frames, and look in the same frames; see PAIRS."""
    import pandas as pd
    faces = _faces(table, looks, videos)[["video", "frame", "person", "lasts", "look"]]
    faces = faces[faces.groupby(["video", "frame"])["person"].transform("size") > 1]
    lines = []
    for video, own in faces.groupby("video"):
        # frames by people, one matrix per video: a join of the faces with themselves would be a row for each two faces
        present = own.pivot_table(index="frame", columns="person", values="lasts", aggfunc="max", fill_value=0.0)
        look = own.pivot_table(index="frame", columns="person", values="look", aggfunc="max", fill_value=False)
        lasts, here, looks_here = present.max(axis=1).to_numpy(), present.to_numpy() > 0, look.to_numpy(np.float64)
        together, both = (here * lasts[:, None]).T @ here, (looks_here * lasts[:, None]).T @ looks_here
        names = present.columns.tolist()
        lines += [(video, names[one], names[other], together[one, other], both[one, other])
                  for one in range(len(names)) for other in range(one + 1, len(names)) if together[one, other] > 0]
    return _typed(pd.DataFrame(lines, columns=list(PAIRS)), PAIRS)


def _faces(table: Table, looks: Table, videos: Sequence[Video]) -> Table:
    """The table with: end and lasts of the frame, look, and how many people are here and look here in that frame."""
    end = frame_ends(table, videos)
    faces = table.assign(end=end, lasts=end - table["seconds"], look=in_look(table, looks, end))
    in_frame = faces.groupby(["video", "frame"])
    return faces.assign(here=in_frame["person"].transform("nunique"), looking_here=in_frame["look"].transform("sum"))


def _typed(table: Table, columns: Mapping[str, Any]) -> Table:
    numbers = {name: kind for name, kind in columns.items() if kind != "str"}
    return in_order(table[list(columns)].astype(numbers), ["video", "person", *columns])


def in_order(table: Table, columns: Sequence[str]) -> Table:
    """The table sorted by these columns; in names, numbers count as such: P2 comes before P10."""
    def places(column: Any) -> Any:
        if column.name not in ("video", "person", "other"):
            return column
        names = sorted(column.unique(), key=lambda name: re.sub("[0-9]+", lambda digits: digits[0].zfill(20), name))
        return column.map({name: place for place, name in enumerate(names)})

    return table.sort_values(list(dict.fromkeys(columns)), key=places, ignore_index=True, kind="stable")
