"""Corrections: what a user changed by hand on the page, applied to the table of faces and to the looks.

A correction is a line of a table, see CORRECTIONS. Lines count in their order, so of two that contradict each
other the later one is used. The table of corrections is kept and applied again when the videos are watched again.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gazepose.text import counted, printable
from gazepose.watch.bouts import SLACK, LookRules, find_looks, frame_ends, looks_table
from gazepose.watch.table import Table, Video

CORRECTIONS = {"action": "str", "video": "str", "person": "str", "start": "float64", "end": "float64", "value": "str"}
"""Columns of a table of corrections. action: rename (value: the new name), merge (value: the person that it joins),
look, no_look or not_codable (start and end in seconds)."""
IN_TIME = ("look", "no_look", "not_codable")
ACTIONS = ("rename", "merge", *IN_TIME)
EXAMPLES = 3
ROUNDED = 1e-4               # seconds; times in a table of corrections are rounded
SETS = {"look": (1.0, 1, ""), "no_look": (0.0, 1, ""), "not_codable": (np.nan, 0, "marked by hand")}
"""action in time -> looking, codable, reason of its faces"""


class Corrected(NamedTuple):
    """What corrections lead to."""

    table: Table
    looks: Table
    remarks: list[str]
    """lines for the user: corrections that overrule others, or that were not used, and why"""


class _Look(NamedTuple):
    start: float
    end: float
    probability: float
    source: str


def apply_corrections(table: Table, looks: Table, corrections: Table, videos: Sequence[Video] = (),
                      rules: LookRules = LookRules()) -> Corrected:                                  # noqa: B008
    """Apply corrections in their order; people may be called by their old or their new name.

    Names come first: looks of merged people are found again in the faces of both. Then times: faces whose frame has its
    middle between start and end get the probability 1 or 0, or become not codable. A look is joined with the looks that
    it touches; it reaches no further than the person's faces.

    Args:
        table: the table of faces, smoothed. looks: as found in it.
        corrections: as `tables.read_corrections` gives them.
        videos, rules: as for `bouts.find_looks`.

    Returns:
        New tables; the arguments are not changed.
    """
    table, unused, overruled = table.copy(), [], []
    lines = corrections.to_dict("records")
    for number, line in enumerate(lines, 2):
        line.setdefault("line", number)
    names = _Names(table)
    in_time = [line for line in lines if names.use(line, unused, overruled)]
    table, dropped = names.rename(table)
    if dropped:
        overruled.append(f"{counted(dropped, 'face')} of merged people were in one frame with the person they joined: "
                         "these were left out")
    renamed = names.renamed(looks)
    merged = {(video, names.name(video, person)) for video, person in names.joined}
    if merged:
        keys = [list(zip(each["video"], each["person"], strict=True)) for each in (renamed, table)]
        of_merged, faces = (np.array([key in merged for key in some], bool) for some in keys)
        import pandas as pd
        renamed = pd.concat([renamed[~of_merged], find_looks(table[faces], videos, rules)], ignore_index=True)
    looks_of: dict[Any, list[_Look]] = {
        name: [_Look(*look) for look in group[list(_Look._fields)].itertuples(index=False, name=None)]
        for name, group in renamed.groupby(["video", "person"])}
    _set_times(table, looks_of, in_time, names, frame_ends(table, videos), unused, overruled)
    found = [(video, person, look.start, look.end, look.probability, look.source)
             for (video, person), some in looks_of.items() for look in some]
    return Corrected(table, looks_table(found), [*overruled, *_as_remarks(unused, len(lines))])


class _Names:
    """People of each video. A person is known by the name that the table of faces has, and has a present name."""

    def __init__(self, table: Table) -> None:
        pairs = table[["video", "person"]].drop_duplicates()
        self.people: dict[str, dict[str, str]] = {video: {name: name for name in group["person"]}
                                                  for video, group in pairs.groupby("video")}
        """video -> present name -> person"""
        self.former: dict[tuple[str, str], str] = {}
        """(video, a name that nobody has any more) -> person"""
        self.joined: dict[tuple[str, str], str] = {}
        """(video, person) -> the person that it was merged into"""
        self.present = {(video, person): person for video, people in self.people.items() for person in people}
        """(video, person) -> its present name"""

    def person(self, video: str, name: str) -> str | None:
        """Who has this name, or had it last; None for nobody."""
        person = self.people[video].get(name, self.former.get((video, name)))
        return None if person is None else self._whole(video, person)

    def _whole(self, video: str, person: str) -> str:
        while (video, person) in self.joined:
            person = self.joined[video, person]
        return person

    def name(self, video: str, person: str) -> str:
        """The present name of a person, or of the person that it was merged into."""
        return self.present.get((video, self._whole(video, person)), person)

    def use(self, line: dict[str, Any], unused: list[tuple[str, str]], overruled: list[str]) -> bool:
        """Apply a line that changes names; True for one that changes times, with its person in `person`.

        `unused` and `overruled` get what there is to say of the line.
        """
        where, video, new = f"line {line['line']}", line["video"], line["value"]
        if video not in self.people and video.rpartition(".")[0] in self.people:         # the name of its file
            video = line["video"] = video.rpartition(".")[0]
        if video not in self.people:
            unused.append((f"unknown video {video!r:.140} -> write {_one_of(self.people)}", where))
            return False
        people, person = self.people[video], self.person(video, line["person"])
        if line["action"] == "rename" and person is None and new in people:
            self.former[video, line["person"]] = people[new]       # it was renamed when the table was made
            return False
        for name in (line["person"], new) if line["action"] == "merge" else (line["person"],):
            if self.person(video, name) is None:
                unused.append((f"unknown person {name!r:.140} of {video!r:.140} -> write {_one_of(people)}", where))
                return False
        assert person is not None
        if line["action"] == "merge":
            self._merge(video, person, str(self.person(video, new)))
        elif line["action"] == "rename" and people.get(new, person) != person:
            unused.append((f"the name {new!r:.140} belongs to another person -> merge them, or choose another name",
                           where))
        elif line["action"] == "rename":
            if line["person"] not in people:
                overruled.append(printable(f"{where} renames {line['person']!r:.140} again: it is now {new!r:.140}"))
            self._leave(video, person)
            self.former.pop((video, new), None)
            people[new], self.present[video, person] = person, new
        else:
            line["person"] = person
        return line["action"] in IN_TIME

    def _merge(self, video: str, person: str, other: str) -> None:
        if person != other:
            self._leave(video, person)
            self.joined[video, person] = other

    def _leave(self, video: str, person: str) -> None:
        name = self.present[video, person]
        del self.people[video][name]
        self.former[video, name] = person

    def rename(self, table: Table) -> tuple[Table, int]:
        """The table with the present names, and how many faces of merged people were dropped, because the person that
        they joined has a face in the same frame."""
        joined = np.array([key in self.joined for key in zip(table["video"], table["person"], strict=True)], bool)
        table = self.renamed(table)
        order = np.argsort(joined, kind="stable")          # the face of the person that was joined is kept
        twice = np.zeros(len(table), bool)
        twice[order] = table.iloc[order].duplicated(["video", "person", "frame"]).to_numpy()
        return table[~twice].reset_index(drop=True), int(twice.sum())

    def renamed(self, table: Table) -> Table:
        """A table with the columns video and person, with the present names."""
        return table.assign(person=[self.name(*key) for key in zip(table["video"], table["person"], strict=True)])


def _set_times(table: Table, looks_of: dict[tuple[str, str], list[_Look]], lines: list[dict[str, Any]], names: _Names,
               ends: np.ndarray, unused: list[tuple[str, str]], overruled: list[str]) -> None:
    """Apply corrections in time to the faces and to the looks of each person, in place."""
    begin = table["seconds"].to_numpy(np.float64)
    columns = {name: table[name].to_numpy(copy=True) for name in ("looking", "codable")}
    reason = table["reason"].to_numpy(object, copy=True)
    rows_of = table.groupby(["video", "person"]).indices
    earlier: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        key = line["video"], names.name(line["video"], line["person"])
        rows, start, end = rows_of[key], float(line["start"]), float(line["end"])
        middle = (begin[rows] + ends[rows]) / 2
        rows = rows[(middle > start - ROUNDED) & (middle < end + ROUNDED)]
        if not len(rows):
            unused.append((f"no face of {key[1]!r:.140} at that time", f"line {line['line']}"))
            continue
        for other in earlier.setdefault(key, []):
            if other["action"] != line["action"] and start < other["end"] and other["start"] < end:
                overruled.append(printable(
                    f"line {line['line']} ({line['action']} of {key[1]}, {start:g} to {end:g} s) overrules line "
                    f"{other['line']} ({other['action']}, {other['start']:g} to {other['end']:g} s) where both apply"))
        earlier[key].append(line)
        columns["looking"][rows], columns["codable"][rows], reason[rows] = SETS[line["action"]]
        start, end = max(start, begin[rows].min()), min(end, ends[rows].max())
        some = looks_of.get(key, [])
        if line["action"] == "look":
            touched = [look for look in some if look.start <= end + SLACK and look.end >= start - SLACK]
            whole = _Look(min([start, *(look.start for look in touched)]),
                          max([end, *(look.end for look in touched)]), np.nan, "correction")
            some = [look for look in some if look not in touched]
            if whole.end - whole.start > SLACK:
                some.append(whole)
        else:
            some = [piece for look in some for piece in _without(look, start, end)]
        looks_of[key] = some
    for name, values in columns.items():
        table[name] = values
    table["reason"] = reason.astype(str)
    for key, some in looks_of.items():
        rows = rows_of.get(key, np.zeros(0, np.int64))
        middle = (begin[rows] + ends[rows]) / 2
        for place, look in enumerate(some):
            if look.source == "correction":
                inside = columns["looking"][rows[(middle >= look.start) & (middle <= look.end)]]
                inside = inside[~np.isnan(inside)]
                some[place] = look._replace(probability=float(inside.mean()) if len(inside) else np.nan)


def _without(look: _Look, start: float, end: float) -> list[_Look]:
    """What is left of a look without the time from start to end."""
    if end <= look.start or start >= look.end:
        return [look]
    pieces = [look._replace(end=start, source="correction"), look._replace(start=end, source="correction")]
    return [piece for piece in pieces if piece.end - piece.start > SLACK]


def _one_of(names: Iterable[str]) -> str:
    some = sorted(names)
    return " or ".join(some[:EXAMPLES]) + (" or another name of faces.csv" if len(some) > EXAMPLES else "")


def _as_remarks(unused: list[tuple[str, str]], lines: int) -> list[str]:
    """Corrections that were not used: a line for each reason, with the first places."""
    reasons = dict.fromkeys(reason for reason, _ in unused)
    remarks = []
    for reason in reasons:
        places = [place for other, place in unused if other == reason]
        more = ", ..." if len(places) > EXAMPLES else ""
        remarks.append(printable(f"{len(places)} of {lines} corrections not used: {reason} "
                                 f"({', '.join(places[:EXAMPLES])}{more})"))
    return remarks
