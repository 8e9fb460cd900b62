"""Videos of one's own with a table of boxes -> a data set folder.

The table is data/box_table.py; tables of other programs are data/box_formats.py.
"""

import filecmp
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from gazepose.data.box_formats import NOT_FOLLOWED, TEXTS, BoxFormat, read_foreign
from gazepose.data.box_table import (
    COLUMNS,
    MAX_TABLE,
    TABLES,
    Table,
    boxes_and_size,
    convention_of,
    read_parquet,
    read_table,
    suffix_of,
    tracks_in,
)
from gazepose.data.conventions import of_boxes, of_rate
from gazepose.data.tracks import RawTrack
from gazepose.data.video import SUFFIXES, find_video, look_at
from gazepose.io import open_regular, write_json, writing, writing_path
from gazepose.text import counted


def _in_schema(path: Path) -> bool:
    """Whether a table has the schema's columns and no others, so that it is taken as it is."""
    if suffix_of(path) == ".parquet":
        header = [str(name) for name in read_parquet(path).columns]
    else:
        with open_regular(path, "table of boxes", MAX_TABLE) as file:
            header = file.readline(1 << 16).decode("utf-8-sig", errors="replace").strip("\r\n").split(",")
    return {*COLUMNS} <= {*header} <= {*COLUMNS, "label"}


Follow = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""frames [n] and boxes x, y, width, height [n, 4] of a clip -> number of each box's track, [n]"""


def _followed(table: Path, values: Table, lines: list[str], follow: Follow | None) -> Table:
    """The boxes of a table without tracks, followed; or as one track for each clip, and then it is a ValueError where a
    frame has several."""
    if not (values["track"] == NOT_FOLLOWED).all():
        return values
    if follow is not None:
        lines.append(f"{table}: has no column track: its boxes are followed")
        for _, rows in values.groupby("clip", sort=False):
            boxes = rows[["x", "y", "width", "height"]].to_numpy(np.float64)
            numbers = follow(rows["frame"].to_numpy(np.float64), boxes)
            values.loc[rows.index, "track"] = [f"P{number + 1}" for number in numbers]
        return values
    again = values.duplicated(["clip", "frame"]).to_numpy()
    if again.any():
        raise ValueError(f"{table}: {values.index[int(np.argmax(again))]}: a second face in one frame, and no column "
                         "track -> add the column track, a name for each face that is followed; or use the table "
                         f"FOLDER/boxes/val.csv of `python -m gazepose watch VIDEO --boxes {table} --out FOLDER`, "
                         "which follows them")
    lines.append(f"{table}: has no column track, and one face in each frame: taken as one track")
    return values.assign(track="1")


def read_tracks(table: Path, video: Path | None, first_number: int = 0, kind: BoxFormat = "auto",
                follow: Follow | None = None
                ) -> tuple[dict[str, list[RawTrack]], int, Table | None, list[str]]:
    """Read a table of the schema, or one of another program by data/box_formats.py.

    Args:
        follow: for a table without tracks; None: then a frame may have one face only.

    Returns:
        The tracks of each clip; the number of the first picture in them; the table in the schema if it was another's;
        and what was recognised.

    Raises:
        As read_table or read_foreign.
    """
    if kind == "auto" and table.suffix.lower() not in TEXTS and _in_schema(table):
        return read_table(table), first_number, None, []
    values, remarks = read_foreign(table, video, kind=kind)
    if values.attrs["from_0"] and first_number:
        first_number = 0
        remarks.append(f"{table}: its frames are known to count from 0: the first number 1 is not used")
    values = _followed(table, values, remarks, follow)
    return tracks_in(values), first_number, values, remarks


def lay_out(table: Path, video: Path, out: Path, split: str, first_number: int = 0, kind: BoxFormat = "auto"
            ) -> list[str]:
    """Make a data set folder of a table and its video (or a folder of videos); one picture of each is decoded.

    A table of the schema is copied; another is read by data/box_formats.py, and written anew.

    Videos are linked into it where the file system can, else copied. Run again, it replaces the table. What is known of
    the table, the number of the first picture (0 or 1), goes into boxes/<split>.json, for whoever reads it later.

    Returns:
        What was recognised in the table, and which videos have another frame rate than that of training.

    Raises:
        ValueError, FileNotFoundError: the table cannot be read, looks as if written under another convention, or a clip
            of it has no video. FileExistsError: `out` holds another video of that name, or another kind of split.
    """
    tracks_of, first_number, values, remarks = read_tracks(table, video, first_number, kind)
    suffix = table.suffix.lower() if values is None else ".csv"
    clips = list(tracks_of)
    goal = out / "boxes" / f"{split}{suffix}"
    for other in (out / "split" / f"{split}.list", *(goal.with_suffix(end) for end in TABLES if end != suffix)):
        if other.exists():
            raise FileExistsError(f"{other}: belongs to this split already -> name another folder")
    if video.is_dir():
        videos = {clip: find_video(video, clip) for clip in clips}
    elif len(clips) == 1:
        videos = {clips[0]: video}
    else:
        raise ValueError(f"{table}: holds {counted(len(clips), 'clip')}, {video} is one video -> give the folder of "
                         "the videos, each named by its clip")
    of_table = []
    aside = f"(if the table is right, copy it to {goal} and the video into {out / 'videos'} yourself)"
    for clip, source in videos.items():
        if not source.is_file():
            raise FileNotFoundError(f"{source}: no such video, but {table} has boxes of clip {clip} -> put it there")
        if source.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{source}: only {', '.join(SUFFIXES)} can be read -> convert it")
        present = find_video(out / "videos", clip)
        if present.exists() and not present.samefile(source) and not filecmp.cmp(present, source, shallow=False):
            raise FileExistsError(f"{present}: is another video than {source} -> delete it, or name another folder")
        facts = None
        with suppress(ValueError, ImportError):          # preparation names a video that cannot be read
            facts, _ = look_at(source.resolve())
        if facts and (words := of_rate(facts.fps)):
            remarks.append(f"{source}: {words}")
        counted_from_0 = [replace(raw, frames=raw.frames - first_number) for raw in tracks_of[clip]]
        if facts and (fault := convention_of(counted_from_0, facts)):
            raise ValueError(f"{table}: clip {clip}: {fault} {aside}")
        if facts:
            of_table.append(boxes_and_size(tracks_of[clip], facts.width, facts.height))
    if of_table and (fault := of_boxes(*map(np.concatenate, zip(*of_table, strict=True)))):
        raise ValueError(f"{table}: the boxes of all clips together {fault} {aside}")
    for clip, source in videos.items():
        if not find_video(out / "videos", clip).exists():
            link_or_copy(source.resolve(), out / "videos" / f"{clip}{source.suffix.lower()}")
    if values is not None:
        with writing(goal, newline="") as file:
            values.astype({"frame": int, "label": int}).to_csv(file, index=False)
    elif not (goal.exists() and goal.samefile(table)):
        with writing_path(goal) as part:
            shutil.copyfile(table, part)
    write_json(goal.with_suffix(".json"), {"first_number": first_number})
    return remarks


def link_or_copy(source: Path, goal: Path) -> None:
    """Link a file, without links in its path, where the file system can, else copy it. Makes the folder."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, goal)
    except OSError:                                                    # another file system, or one without links
        with writing_path(goal) as part:
            shutil.copyfile(source, part)
