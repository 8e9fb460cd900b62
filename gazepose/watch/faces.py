"""The parts of a pass -> the table of faces of a video (table.py): who is who, what is codable, and the score.

Everything here is a function of the parts, so a change of these rules needs no new pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gazepose.watch.config import LANDMARKS
from gazepose.watch.table import FACES, Table, Video
from gazepose.watch.video_pass import READING, finished_parts, read_part

SHORTEST = 0.25              # seconds of a track
WHOLE_SHOT = 0.9             # part of its shot that a shorter track must fill to stay


@dataclass
class Pass:
    """All parts of a video, as one."""

    frame: np.ndarray
    """int64 [rows]"""
    track: np.ndarray
    """int64 [rows]"""
    box: np.ndarray
    """x, y, width, height, float64 [rows, 4]"""
    reading: np.ndarray
    """float64 [rows, len(READING)]; NaN: unknown"""
    looking: dict[str, np.ndarray]
    """probability of each trained scorer, by name, float64 [rows]; NaN: unknown"""
    seconds: np.ndarray
    """of each picture, float64 [frames]"""
    cuts: tuple[float, ...]
    size: tuple[int, int]
    end: float
    notes: list[str]


def read_pass(folder: Path, scorers: Sequence[str] = ()) -> Pass:
    """Join the parts of a video.

    Raises:
        ValueError: naming the part that is damaged, or missing.
    """
    paths = finished_parts(folder)
    wanted = ("frame", "track", "box", "reading", "seconds", "cuts", "size", "end", "last", "notes",
              *(f"{name}.{column}" for name in scorers for column in ("row", "looking")))
    parts = [read_part(path, wanted) for path in paths]
    if not parts or not parts[-1]["last"]:
        raise ValueError(f"{folder}: its last part is missing -> run the command again")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in parts])

    looking = {}
    for name in scorers:
        looking[name] = np.full(len(joined("frame")), np.nan)
        looking[name][joined(f"{name}.row")] = joined(f"{name}.looking")
    notes = bytes(parts[-1]["notes"]).decode()
    width, height = parts[-1]["size"].tolist()
    return Pass(joined("frame"), joined("track"), joined("box"), joined("reading"), looking, joined("seconds"),
                tuple(joined("cuts").tolist()), (width, height), float(parts[-1]["end"]), notes.splitlines())


def video_of(name: str, path: Path, done: Pass) -> Video:
    """The facts of a video."""
    seconds = done.end if len(done.seconds) > 1 else 0.0
    return Video(name, path, *done.size, len(done.seconds), len(done.seconds) / seconds if seconds else 0.0, seconds,
                 done.cuts)


def faces_of(name: str, done: Pass, scorers: Sequence[str], persons: Sequence[str] | None = None) -> Table:
    """The table of faces of a video, not smoothed. The first scorer gives `looking`, each other `looking_<name>`. What
    is codable is said of the first; another may score smaller faces or fewer.

    Args:
        scorers: LANDMARKS, or a name in `done.looking`; at least one.
        persons: the name of each track, where the boxes are the user's. Then all of them stay, and none is filled in.
    """
    import pandas as pd
    rows = np.arange(len(done.frame)) if persons is not None else np.flatnonzero(~_short(done)[done.track])
    table = pd.DataFrame({"video": name, "frame": done.frame[rows], "seconds": done.seconds[done.frame[rows]]})
    table[["x", "y", "width", "height"]] = done.box[rows]
    known = {column: done.reading[rows, place] for place, column in enumerate(READING)}
    for column in ("yaw", "pitch", "eye_x", "eye_y", "blink"):
        table[column] = known[column]
    columns = ["looking", *(f"looking_{other}" for other in scorers[1:])]
    for column, scorer in zip(columns, scorers, strict=True):
        score = _landmark_score(known) if scorer == LANDMARKS else done.looking[scorer][rows]
        codable, reason = _judge(done.box[rows, 3], known, None if scorer == LANDMARKS else np.isfinite(score))
        table[column] = np.where(codable, score, np.nan)
        if column == "looking":
            table["codable"], table["reason"] = codable.astype(np.int64), np.where(codable, "", reason)
    track = done.track[rows]
    if persons is None:
        table, track = _filled(table, track, done)
        persons = _names(table, track)
    table["person"] = np.array([*persons, ""], object)[track]
    table = table[[*FACES, *columns[1:]]]
    return table.iloc[np.lexsort([track, table["frame"]])].reset_index(drop=True)


def _landmark_score(known: dict[str, np.ndarray]) -> np.ndarray:
    from gazepose.watch.readout import READ, Readout
    return Readout.shipped().probability(*(known[name] for name in READ))


def _judge(height: np.ndarray, known: dict[str, np.ndarray], scored: np.ndarray | None
           ) -> tuple[np.ndarray, np.ndarray]:
    from gazepose.watch.codable import judge
    named = {name: known[name] for name in ("light", "presence", "yaw", "pitch", "fit", "eye")}
    return judge(height, **named, scored=scored)


def _short(done: Pass) -> np.ndarray:
    """Whether each track is too short to be a person, bool [tracks]: it lasts less than SHORTEST, and does not fill a
    shot that is as short."""
    count = int(done.track.max()) + 1 if len(done.track) else 0
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    seconds = done.seconds[done.frame]
    np.minimum.at(first, done.track, seconds)
    np.maximum.at(last, done.track, seconds)
    step = float(np.median(np.diff(done.seconds))) if len(done.seconds) > 1 else done.end
    lasts = last - first + step                                        # a picture is shown until the next
    borders = np.array([0.0, *done.cuts, max(done.end, step)])
    shot = np.searchsorted(borders[1:-1], first, side="right")
    return (lasts < SHORTEST) & (lasts < WHOLE_SHOT * np.diff(borders)[shot])


def _filled(table: Table, track: np.ndarray, done: Pass) -> tuple[Table, np.ndarray]:
    """The table with a row for each picture in which a track was not found between two in which it was."""
    import pandas as pd
    order = np.lexsort([table["frame"], track])
    frame, own = table["frame"].to_numpy()[order], track[order]
    gaps = np.flatnonzero((np.diff(frame) > 1) & (own[1:] == own[:-1]))
    if not len(gaps):
        return table, track
    box = table[["x", "y", "width", "height"]].to_numpy()[order]
    pieces, tracks = [table], [track]
    for gap in gaps.tolist():
        inside = np.arange(frame[gap] + 1, frame[gap + 1])
        began, ended = done.seconds[frame[gap]], done.seconds[frame[gap + 1]]
        way = ((done.seconds[inside] - began) / (ended - began))[:, None]
        piece = pd.DataFrame({"video": table["video"].iloc[0], "frame": inside, "seconds": done.seconds[inside]})
        piece[["x", "y", "width", "height"]] = (1 - way) * box[gap] + way * box[gap + 1]
        piece = piece.assign(codable=0, reason="not detected")
        pieces.append(piece)
        tracks.append(np.full(len(inside), own[gap]))
    return pd.concat(pieces, ignore_index=True), np.concatenate(tracks)


def _names(table: Table, track: np.ndarray) -> list[str]:
    """P1, P2, ... of each track, in the order in which they appear, from left to right; "" of a track that has gone."""
    order = np.lexsort([table["x"], table["frame"]])
    tracks, first = np.unique(track[order], return_index=True)
    names = [""] * (int(tracks.max()) + 1 if len(tracks) else 0)
    for number, place in enumerate(np.argsort(first).tolist(), 1):
        names[int(tracks[place])] = f"P{number}"
    return names
