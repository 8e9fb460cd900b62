"""Videos of one's own with a table of boxes -> a data set folder, and face tracks under a policy.

The table is CSV or Parquet with the columns clip, track, frame, x, y, width, height and, if known, label. It is read
as text under a strict schema: a value that does not fit is an error that names the file, the line and the column.
A folder of such data holds videos/<clip>.mp4 (or .mov, .mkv, .avi) and boxes/<split>.csv (or .parquet).

pandas is imported inside functions: it is slow to import, and only tables need it.
"""

import filecmp
import io
import os
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.conventions import of_boxes, of_frames, of_rate
from gazepose.data.tracks import MAX_FRAME, Clip, Policy, RawTrack, face_tracks
from gazepose.data.video import SUFFIXES, VideoFacts, find_video, look_at
from gazepose.io import is_id, read_object, write_json, writing_path

TABLES = (".csv", ".parquet")
COLUMNS = ("clip", "track", "frame", "x", "y", "width", "height")
SCHEMA = f"{','.join(COLUMNS)} and, if known, label"
CORNERS = "; x is x1, y is y1, width is x2 - x1, height is y2 - y1"
NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
MAX_ORIGIN = 300             # characters
Table = Any                  # a pandas.DataFrame, whose index says where a row stands: "line 7", "row 7"
LABELS = {"": -1, "-1": -1, "0": 0, "1": 1, "-1.0": -1, "0.0": 0, "1.0": 1}     # pandas writes 1.0 beside gaps


def find_table(root: Path, split: str) -> Path | None:
    """boxes/<split>.csv or .parquet of a data set; None when it has no tables of boxes.

    Raises:
        FileNotFoundError: it has tables, but none of this split. ValueError: two of this split.
    """
    folder = root / "boxes"
    tables = [path for path in (folder / f"{split}{suffix}" for suffix in TABLES) if path.is_file()]
    if len(tables) > 1:
        raise ValueError(f"{tables[0]}: there is a {tables[1].name} too -> keep one of them")
    if not tables and folder.is_dir() and not (root / "split" / f"{split}.list").is_file():
        names = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in TABLES)) or "nothing"
        raise FileNotFoundError(f"{folder / split}.csv: no such table of boxes, the folder holds {names} -> name one "
                                f"of these splits, or put the table there ({SCHEMA})")
    return tables[0] if tables else None


def read_boxes(path: Path, policy: Policy) -> list[Clip]:
    """Face tracks of a table, read by read_table; clips, and tracks of a clip, in the order they have there.

    The label of a face without one, and of one that is filled between two boxes, is unknown (-1). Frame numbers are
    those of the decoded pictures (from 0) unless the policy counts from 1.
    """
    clips = []
    for uid, tracks in read_table(path).items():
        clip = Clip(uid)
        clips.append(clip)
        for raw in tracks:
            clip.tracks += face_tracks(uid, raw, [], policy, clip.counts)
    return clips


def read_table(path: Path) -> dict[str, list[RawTrack]]:
    """The tracks of each clip, in the order in which they occur first; at least one. Their names stand for the persons.

    Raises:
        FileNotFoundError, ImportError (Parquet without pyarrow), or ValueError naming the file and its line: columns
            other than the schema's, an id or number that is none, a number that is not finite, a face twice, no box.
    """
    path = Path(path)
    table = _read_parquet(path) if _suffix(path) == ".parquet" else _read_csv(path)
    if not len(table):
        raise ValueError(f"{path}: holds no box -> give one face per line: {SCHEMA}")
    values = _checked(path, table)
    clips: dict[str, list[RawTrack]] = {}
    for (clip, track), rows in values.groupby(["clip", "track"], sort=False):
        clips.setdefault(clip, []).append(RawTrack(
            track, [track] * len(rows), rows["frame"].to_numpy(np.float64),
            rows[["x", "y", "width", "height"]].to_numpy(np.float64), labels=rows["label"].to_numpy(np.int8)))
    return clips


def table_rules(root: Path, split: str, rules: tuple[str, ...]) -> tuple[str, ...]:
    """Rules of a policy, with what boxes/<split>.json states of its table, the number of the first picture, in place of
    what a policy or a checkpoint says."""
    path = root / "boxes" / f"{split}.json"
    if not path.is_file():
        return rules
    first = read_object(path).get("first_number")
    if type(first) is not int or first not in (0, 1):
        raise ValueError(f"{path}: first_number {first!r:.40} -> write 0 or 1, or delete the file")
    return (*(rule for rule in rules if not rule.startswith("first_number=")), f"first_number={first}")


def label_origin(root: Path, split: str) -> dict[str, str]:
    """What boxes/<split>.json states of who made the labels of its table, as a fact of the index; {} for nothing."""
    path = root / "boxes" / f"{split}.json"
    origin = read_object(path).get("labels") if path.is_file() else None
    if origin is None:
        return {}
    if not isinstance(origin, str) or not 0 < len(origin) <= MAX_ORIGIN:
        raise ValueError(f"{path}: labels {origin!r:.40} -> write who made them, in at most {MAX_ORIGIN} characters, "
                         "or leave it out")
    return {"labels": origin}


def convention_of(tracks: list[RawTrack], facts: VideoFacts) -> str:
    """What of a clip's boxes and frames, counted from 0, looks like another convention than ours; "" for nothing."""
    boxes = np.concatenate([np.zeros((0, 4)), *(raw.boxes for raw in tracks)])
    frames = np.concatenate([np.zeros(0), *(raw.frames for raw in tracks)])
    if fault := of_boxes(boxes, np.tile([float(facts.width), float(facts.height)], (len(boxes), 1))):
        return f"boxes {fault}"
    frames = frames[np.isfinite(frames)]
    if len(frames) and (fault := of_frames(int(frames.min()), int(frames.max()), facts.frames)):
        return f"frames {fault}"
    return ""


def lay_out(table: Path, video: Path, out: Path, split: str, first_number: int = 0) -> list[str]:
    """Make a data set folder of a table and its video (or a folder of videos); one picture of each is decoded.

    Videos are linked into it where the file system can, else copied. Run again, it replaces the table. What is known of
    the table, the number of the first picture (0 or 1), goes into boxes/<split>.json, for whoever reads it later.

    Returns:
        What is to be said of the videos: those of another frame rate than that of training.

    Raises:
        ValueError, FileNotFoundError: the table cannot be read, looks as if written under another convention, or a clip
            of it has no video. FileExistsError: `out` holds another video of that name, or another kind of split.
    """
    suffix = _suffix(table)
    tracks_of = read_table(table)
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
        raise ValueError(f"{table}: holds {len(clips)} clips, {video} is one video -> give the folder of the videos, "
                         "each named by its clip")
    remarks = []
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
            raise ValueError(f"{table}: clip {clip}: {fault} (if the table is right, copy it to {goal} and the video "
                             f"into {out / 'videos'} yourself)")
    for clip, source in videos.items():
        if not find_video(out / "videos", clip).exists():
            _link_or_copy(source.resolve(), out / "videos" / f"{clip}{source.suffix.lower()}")
    if not (goal.exists() and goal.samefile(table)):
        with writing_path(goal) as part:
            shutil.copyfile(table, part)
    write_json(goal.with_suffix(".json"), {"first_number": first_number})
    return remarks


def _link_or_copy(source: Path, goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, goal)
    except OSError:                                                    # another file system, or one without links
        with writing_path(goal) as part:
            shutil.copyfile(source, part)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ValueError(f"{path}: a table of boxes must be .csv or .parquet -> rename or convert it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table of boxes -> {SCHEMA}")
    return suffix


def _read_csv(path: Path) -> Table:
    """The table as text. Values that are missing at the end of a line are empty."""
    import pandas as pd
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")                             # Excel begins with a byte order mark
        if "\0" in text:                                               # pandas would end the value there
            raise UnicodeDecodeError("utf-8", content, content.index(0), content.index(0) + 1, "a NUL character")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line}: not UTF-8 text -> save it as UTF-8") from error
    try:
        # as rows without a header, so that a longer line is an error; blank lines keep the numbers right
        rows = pd.read_csv(io.StringIO(text), header=None, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame([[""]])
    except ValueError as error:
        raise ValueError(f"{path}: not CSV: {str(error).strip()} -> {SCHEMA}") from error
    header, table = rows.iloc[0].tolist(), rows[1:]
    table.index = [f"line {number}" for number in range(2, len(rows) + 1)]
    return _in_order(path, table[(table != "").any(axis=1)], header)


def _read_parquet(path: Path) -> Table:
    """As `_read_csv`. Numbers become text as CSV has it; a value of another kind becomes None."""
    import pandas as pd
    try:
        table: Table = pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow -> pip install 'gazepose[parquet]', or give the table as CSV "
                          f"({error})") from error
    except Exception as error:                                         # damaged bytes make pyarrow raise anything
        raise ValueError(f"{path}: not readable Parquet: {error}") from error
    table.index = [f"row {number}" for number in range(1, len(table) + 1)]
    table = _in_order(path, table, [str(name) for name in table.columns])

    def as_text(value: Any, is_name: bool) -> str | None:
        if is_name:
            return value if isinstance(value, str) else None
        if value is None or value != value:                            # NaN: pandas' form of a missing number
            return ""
        return str(value) if type(value) in (int, float) else None

    return pd.DataFrame({name: pd.Series([as_text(value, name in COLUMNS[:2]) for value in table[name].tolist()],
                                         table.index, dtype=object) for name in table})


def _in_order(path: Path, table: Table, header: list[str]) -> Table:
    """The table with the schema's columns, in its order; the header must hold these and no others."""
    faults = [f"no column {name!r}" for name in COLUMNS if name not in header]
    faults += [f"column {name!r:.140} is unknown" for name in header if name not in (*COLUMNS, "label")]
    faults += [f"column {name!r} occurs twice" for name, count in Counter(header).items() if count > 1]
    if faults:
        raise ValueError(f"{path}: {faults[0]} -> the columns are {SCHEMA}, with commas between them"
                         + CORNERS * {"x1", "y1", "x2", "y2"}.issubset(header))
    return table.set_axis(header, axis=1)[[name for name in (*COLUMNS, "label") if name in header]]


def _checked(path: Path, table: Table) -> Table:
    """The table with numbers in place of text; label -1 where it has none.

    Raises:
        ValueError: naming the first line with a value that does not fit the schema.
    """
    table = table if "label" in table else table.assign(label="")
    values = table.astype(object)
    faults: list[tuple[int, str]] = []                                 # (row, message): of each check the first

    def check(name: str, right: np.ndarray, message: str) -> None:
        if not right.all():
            row = int(np.argmin(right))
            faults.append((row, f"{name} {table[name].iloc[row]!r:.140} {message}"))

    for name in COLUMNS[:2]:
        ids = [value for value in table[name].unique() if is_id(value)]
        check(name, table[name].isin(ids).to_numpy(), "is no id -> text of letters, digits, _ . - only")
    for name in COLUMNS[2:]:
        is_number = values[name].str.fullmatch(NUMBER).eq(True)
        values[name] = values[name].where(is_number, "nan").astype(np.float64)
        check(name, np.isfinite(values[name].to_numpy()), "is not a finite number -> digits with a point, as 12.5")
    frame = values["frame"].to_numpy()
    check("frame", (frame == np.floor(frame)) & (frame >= 0) & (frame <= MAX_FRAME),
          f"-> a whole number of 0 to {MAX_FRAME} is wanted")
    values["label"] = values["label"].map(LABELS)
    check("label", values["label"].notna().to_numpy(), "-> 1 looking, 0 not looking, -1 or nothing where it is unknown")
    face = ["clip", "track", "frame"]
    again = values.duplicated(face).to_numpy()
    if again.any():
        row = int(np.argmax(again))
        clip, track, number = values[face].iloc[row]
        first = int(np.argmax((values[face] == values[face].iloc[row]).all(axis=1).to_numpy()))
        faults.append((row, f"clip {clip} track {track} frame {number:.0f} stands in {table.index[first]} already -> "
                            "keep one of them"))
    if faults:
        row, message = min(faults, key=lambda fault: fault[0])
        raise ValueError(f"{path}: {table.index[row]}: {message}")
    return values
