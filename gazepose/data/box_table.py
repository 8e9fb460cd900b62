"""Videos of one's own with a table of boxes -> a data set folder, and face tracks under a policy.

The table is CSV or Parquet with the columns clip, track, frame, x, y, width, height and, if known, label. It is read
as text under a strict schema: what is not what it should be is an error that names file and line, never a guess.
A folder of such data holds videos/<clip>.mp4 (or .mov, .mkv, .avi) and boxes/<split>.csv (or .parquet).
"""

import csv
import filecmp
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gazepose.data.tracks import MAX_FRAME, POLICIES, Clip, FaceTrack, Policy, RawTrack, face_tracks
from gazepose.data.video import SUFFIXES, find_video
from gazepose.io import is_id

TABLES = (".csv", ".parquet")
COLUMNS = ("clip", "track", "frame", "x", "y", "width", "height")
SCHEMA = f"{','.join(COLUMNS)} and, if known, label"
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
LABELS = {"": -1, "-1": -1, "0": 0, "1": 1, "-1.0": -1, "0.0": 0, "1.0": 1}     # pandas writes 1.0 beside gaps
Boxes = dict[int, tuple[list[float], int, str]]      # frame -> x, y, width, height; label; where it stands
Line = tuple[str, Sequence[str | None]]      # where it stands ("line 7"), its values as text; None: not text at all


def find_table(root: Path, split: str) -> Path | None:
    """boxes/<split>.csv or .parquet of a data set; None when it has no tables of boxes.

    Raises:
        FileNotFoundError: it has tables, but none of this split. ValueError: two of this split.
    """
    folder = root / "boxes"
    found = [path for suffix in TABLES if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        raise ValueError(f"{found[0]}: there is a {found[1].name} too -> keep one of them")
    if not found and folder.is_dir() and not (root / "split" / f"{split}.list").is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise FileNotFoundError(f"{folder / split}.csv: no such table of boxes, the folder holds {there} -> name the "
                                f"split that is there, or put the table there ({SCHEMA})")
    return found[0] if found else None


def read_boxes(path: Path, policy: Policy) -> list[Clip]:
    """Face tracks of a table, read by read_table; clips, and tracks of a clip, in the order they have there.

    A face without a label, and one that was filled between two boxes, is of unknown label (-1). Frame numbers are those
    of the decoded pictures (from 0) unless the policy counts from 1.
    """
    clips = []
    for uid, tracks in read_table(path).items():
        clip = Clip(uid)
        clips.append(clip)
        for name, boxes in tracks.items():
            clip.tracks += labelled_tracks(uid, raw_track(name, boxes), boxes, policy, clip.counts)
    return clips


def read_table(path: Path) -> dict[str, dict[str, Boxes]]:
    """The boxes of each clip and track of it, in the order in which they occur first; at least one.

    Raises:
        FileNotFoundError, ImportError (Parquet without pyarrow), or ValueError naming the file and its line: columns
            other than the schema's, an id that is none, a number that is none or not finite, a face twice, no box.
    """
    faces: dict[str, dict[str, Boxes]] = {}
    for place, values in _lines(Path(path)):
        clip, track, frame, box, label = _face(f"{path}: {place}", values)
        boxes = faces.setdefault(clip, {}).setdefault(track, {})
        if frame in boxes:
            raise ValueError(f"{path}: {place}: clip {clip} track {track} frame {frame} stands in {boxes[frame][2]} "
                             "already -> keep one of them")
        boxes[frame] = box, label, place
    if not faces:
        raise ValueError(f"{path}: holds no box -> one face a line is wanted: {SCHEMA}")
    return faces


def raw_track(name: str, boxes: Boxes) -> RawTrack:
    """A track's boxes as records; whose it is, its name says."""
    return RawTrack(name, [name] * len(boxes), np.array(list(boxes), np.float64),
                    np.array([box for box, _, _ in boxes.values()], np.float64))


def labelled_tracks(clip: str, raw: RawTrack, boxes: Boxes, policy: Policy, counts: Counter[str]) -> list[FaceTrack]:
    """As tracks.face_tracks, with the labels that the table gives in place of segments."""
    tracks = face_tracks(clip, raw, [], policy, counts)
    for track in tracks:
        track.labels = np.array([boxes[n][1] if n in boxes else -1 for n in track.frames.tolist()], np.int8)
    return tracks


def lay_out(table: Path, video: Path, out: Path, split: str) -> None:
    """Make a data set folder of a table and its video (or a folder of videos); nothing is decoded yet.

    Videos are linked into it where the file system can, else copied. Run again, it replaces the table.

    Raises:
        ValueError, FileNotFoundError: the table cannot be read, or a clip of it has no video. FileExistsError: `out`
            holds another video of that name, or another kind of split.
    """
    suffix = _suffix(table)
    clips = [clip.uid for clip in read_boxes(table, POLICIES["clean"])]
    goal = out / "boxes" / f"{split}{suffix}"
    for other in (out / "split" / f"{split}.list", *(goal.with_suffix(end) for end in TABLES if end != suffix)):
        if other.exists():
            raise FileExistsError(f"{other}: is of this split already -> name another folder")
    if video.is_dir():
        videos = {clip: find_video(video, clip) for clip in clips}
    elif len(clips) == 1:
        videos = {clips[0]: video}
    else:
        raise ValueError(f"{table}: holds {len(clips)} clips, {video} is one video -> give the folder of the videos, "
                         "each named by its clip")
    for clip, source in videos.items():
        if not source.is_file():
            raise FileNotFoundError(f"{source}: no such video, but {table} has boxes of clip {clip} -> put it there")
        if source.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{source}: {', '.join(SUFFIXES)} are read -> convert it")
        there = find_video(out / "videos", clip)
        if there.exists() and not there.samefile(source) and not filecmp.cmp(there, source, shallow=False):
            raise FileExistsError(f"{there}: is another video than {source} -> delete it, or name another folder")
    for clip, source in videos.items():
        if not find_video(out / "videos", clip).exists():
            _place(source.resolve(), out / "videos" / f"{clip}{source.suffix.lower()}", link=True)
    if not (goal.exists() and goal.samefile(table)):
        _place(table, goal, link=False)


def _place(source: Path, goal: Path, link: bool) -> None:
    """The file under a name of the data set, whole or not at all."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    staged = goal.with_name(f".{goal.name}.part-{os.getpid()}")
    try:
        try:
            (os.link if link else shutil.copyfile)(source, staged)
        except OSError:                                                # another file system, or one without links
            shutil.copyfile(source, staged)
        os.replace(staged, goal)
    finally:
        staged.unlink(missing_ok=True)


def _face(place: str, values: Sequence[str | None]) -> tuple[str, str, int, list[float], int]:
    """One line, checked: clip, track, frame, [x, y, width, height], label."""
    clip, track = values[:2]
    for name, value in (("clip", clip), ("track", track)):
        if not is_id(value):
            raise ValueError(f"{place}: {name} {value!r:.140} is no id -> text of letters, digits, _ . - only")
    assert clip is not None and track is not None
    frame, *box = (_number(place, name, value) for name, value in zip(COLUMNS[2:], values[2:7], strict=True))
    if frame != int(frame) or not 0 <= frame <= MAX_FRAME:
        raise ValueError(f"{place}: frame {values[2]!r} -> a whole number of 0 to {MAX_FRAME} is wanted")
    label = values[7] if len(values) > 7 else ""
    if label not in LABELS:
        raise ValueError(f"{place}: label {label!r:.140} -> 1 looking, 0 not looking, -1 or nothing where it is not "
                         "known")
    return clip, track, int(frame), box, LABELS[label]


def _number(place: str, name: str, value: str | None) -> float:
    number = float(value) if value is not None and NUMBER.fullmatch(value) else float("nan")
    if not np.isfinite(number):
        raise ValueError(f"{place}: {name} {value!r:.140} is not a finite number -> digits with a point, as 12.5")
    return number


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ValueError(f"{path}: a table of boxes is .csv or .parquet -> name it so")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table of boxes -> {SCHEMA}")
    return suffix


def _lines(path: Path) -> Iterator[Line]:
    """Lines with their values in the order of COLUMNS, then the label where the table has it."""
    return _parquet_lines(path) if _suffix(path) == ".parquet" else _csv_lines(path)


def _order(path: Path, header: Sequence[str]) -> list[int]:
    """Where each column of the schema stands in the header; it holds these and no others."""
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in (*COLUMNS, "label")]
    twice = [name for name in header if list(header).count(name) > 1]
    if missing or unknown or twice:
        wrong = (f"no column {missing[0]!r}" if missing else f"column {unknown[0]!r:.140} is unknown" if unknown
                 else f"column {twice[0]!r} occurs twice")
        raise ValueError(f"{path}: {wrong} -> the columns are {SCHEMA}, with commas between them")
    return [list(header).index(name) for name in (*COLUMNS, "label") if name in header]


def _csv_lines(path: Path) -> Iterator[Line]:
    with open(path, newline="", encoding="utf-8-sig") as file:         # Excel begins with a byte order mark
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            order = _order(path, header)
            for values in reader:
                if len(values) == len(header):
                    yield f"line {reader.line_num}", [values[place] for place in order]
                elif values:                                           # an empty line is none
                    raise ValueError(f"{path}: line {reader.line_num}: {len(values)} values for {len(header)} columns")
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: not CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: after line {reader.line_num}: not UTF-8 text -> save it as UTF-8") from error


def _parquet_lines(path: Path) -> Iterator[Line]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow -> pip install 'gazepose[parquet]', or give the table as CSV "
                          f"({error})") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            order = _order(path, file.schema_arrow.names)
            names = [file.schema_arrow.names[place] for place in order]
            row = 0
            for batch in file.iter_batches(columns=names):
                for values in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    row += 1
                    ids = [value if isinstance(value, str) else None for value in values[:2]]
                    yield f"row {row}", [*ids, *map(_text, values[2:])]
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not readable Parquet: {error}") from error


def _text(value: object) -> str | None:
    """A number of Parquet as CSV has it, exactly; None when it is of another kind."""
    if value is None:
        return ""
    return str(value) if type(value) in (int, float) else None
