"""Tables of boxes -> face tracks under a policy.

The table is CSV or Parquet with the columns clip, track, frame, x, y, width, height and, if known, label. It is read
as text under a strict schema: a value that does not fit is an error that names the file, the line and the column.
A folder of such data holds videos/<clip>.mp4 (or .mov, .mkv, .avi) and boxes/<split>.csv (or .parquet); it is made by
data/own_videos.py. Tables of other programs are data/box_formats.py.

pandas is imported inside functions: it is slow to import, and only tables need it.
"""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.conventions import of_boxes, of_frames
from gazepose.data.tracks import MAX_FRAME, Clip, Policy, RawTrack, face_tracks
from gazepose.data.video import VideoFacts
from gazepose.io import UnusableFile, is_id, open_regular, read_object

TABLES = (".csv", ".parquet")
COLUMNS = ("clip", "track", "frame", "x", "y", "width", "height")
SCHEMA = f"{','.join(COLUMNS)} and, if known, label"
CORNERS = "; x is x1, y is y1, width is x2 - x1, height is y2 - y1"
NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
MAX_TABLE, MAX_ROWS, MAX_COLUMNS = 2 << 30, 10_000_000, 5_000       # bytes (of Parquet unpacked), boxes, columns
DECIMAL_COMMA = r"[+-]?[0-9]+,[0-9]+"
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
            other than the schema's, an id or number that is none, a number that is not finite, a face twice, no box,
            more than MAX_ROWS boxes or MAX_TABLE bytes.
    """
    path = Path(path)
    table = _read_parquet(path) if suffix_of(path) == ".parquet" else _read_csv(path)
    return tracks_in(checked(path, table))


def tracks_in(values: Table) -> dict[str, list[RawTrack]]:
    """As `read_table`, of a table that `checked` returned."""
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


def boxes_and_size(tracks: list[RawTrack], width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """All boxes of a clip's tracks, and the size of the picture of each, as conventions.of_boxes takes them."""
    boxes = np.concatenate([np.zeros((0, 4)), *(raw.boxes for raw in tracks)])
    return boxes, np.tile([float(width), float(height)], (len(boxes), 1))


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
    if fault := of_boxes(*boxes_and_size(tracks, facts.width, facts.height)):
        return f"boxes {fault}"
    frames = np.concatenate([np.zeros(0), *(raw.frames for raw in tracks)])
    frames = frames[np.isfinite(frames)]
    if facts.frames and len(frames) and (fault := of_frames(int(frames.min()), int(frames.max()), facts.frames)):
        return f"frames {fault}"
    return ""


def suffix_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ValueError(f"{path}: a table of boxes must be .csv or .parquet -> rename or convert it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table of boxes -> {SCHEMA}")
    return suffix


def _check_size(path: Path, rows: int, columns: int, size: int = 0) -> None:
    """Refuse a table that would take the memory, before it is read."""
    limits = (rows, MAX_ROWS, "boxes"), (columns, MAX_COLUMNS, "columns"), (size, MAX_TABLE, "bytes")
    for number, most, what in limits:
        if number > most:
            raise UnusableFile(f"{path}: {number} {what}, at most {most} are read -> split the table by clips, each "
                               "part into a data set of its own")


def _read_csv(path: Path) -> Table:
    """The table as text. Values that are missing at the end of a line are empty."""
    rows = rows_of(path, text_of(path, content_of(path)))
    header, table = rows.iloc[0].tolist(), rows[1:]
    return _in_order(path, table[(table != "").any(axis=1)], header)


def content_of(path: Path) -> bytes:
    """A table's bytes; ValueError where it is too large."""
    with open_regular(path, "table of boxes", MAX_TABLE) as file:
        content = file.read()
    _check_size(path, content.count(b"\n") + 1, content.partition(b"\n")[0].count(b",") + 1)
    return content


def text_of(path: Path, content: bytes) -> str:
    """A table's text; ValueError naming the line where it is not UTF-8."""
    try:
        text = content.decode("utf-8-sig")                             # Excel begins with a byte order mark
        if "\0" in text:                                               # pandas would end the value there
            raise UnicodeDecodeError("utf-8", content, content.index(0), content.index(0) + 1, "a NUL character")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line}: not UTF-8 text -> save it as UTF-8") from error
    return text


def rows_of(path: Path, text: str, separator: str = ",", **how: Any) -> Table:
    """The lines of a CSV text, the header too, as text; their index says "line 1", "line 2". `how`: as of pandas."""
    import pandas as pd
    try:
        # as rows without a header, so that a longer line is an error; blank lines keep the numbers right
        rows = pd.read_csv(io.StringIO(text), header=None, dtype=str, keep_default_na=False, skip_blank_lines=False,
                           sep=separator, **how)
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame([[""]])
    except ValueError as error:
        raise ValueError(f"{path}: not CSV: {str(error).strip()} -> {SCHEMA}") from error
    rows.index = [f"line {number}" for number in range(1, len(rows) + 1)]
    return rows


def read_parquet(path: Path) -> Table:
    """A table of Parquet as it is stored; its index says "row 1", "row 2"."""
    import pandas as pd
    try:
        import pyarrow.parquet
        with open_regular(path, "table of boxes", MAX_TABLE) as file:
            facts = pyarrow.parquet.read_metadata(file)
            size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
            _check_size(path, facts.num_rows, facts.num_columns, size)
            table: Table = pd.read_parquet(file, engine="pyarrow")
    except UnusableFile:
        raise
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow -> pip install 'gazepose[parquet]', or give the table as CSV "
                          f"({error})") from error
    except Exception as error:                                         # damaged bytes make pyarrow raise anything
        raise ValueError(f"{path}: not readable Parquet: {error}") from error
    table.index = [f"row {number}" for number in range(1, len(table) + 1)]
    return table


def _read_parquet(path: Path) -> Table:
    """As `_read_csv`. Numbers become text as CSV has it; a value of another kind becomes None."""
    import pandas as pd
    table = read_parquet(path)
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


def checked(path: Path, table: Table, followed: bool = True) -> Table:
    """The table with numbers in place of text; label -1 where it has none.

    Args:
        followed: a track has one face in a frame.

    Raises:
        ValueError: naming the first line with a value that does not fit the schema; no box.
    """
    if not len(table):
        raise ValueError(f"{path}: holds no box -> give one face per line: {SCHEMA}")
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
    if followed and again.any():
        row = int(np.argmax(again))
        clip, track, number = values[face].iloc[row]
        first = int(np.argmax((values[face] == values[face].iloc[row]).all(axis=1).to_numpy()))
        faults.append((row, f"clip {clip} track {track} frame {number:.0f} stands in {table.index[first]} already -> "
                            "keep one of them"))
    if faults:
        row, message = min(faults, key=lambda fault: fault[0])
        raise ValueError(f"{path}: {table.index[row]}: {message}")
    return values


class Numbers:
    """Columns of text -> numbers; a value that is none is an error that names its line and its column."""

    def __init__(self, path: Path, table: Table, names: dict[str, str], lines: list[str]) -> None:
        self.path, self.table, self.names, self.lines, self.commas = path, table, names, lines, False

    def of(self, columns: list[str], rows: Any) -> np.ndarray:
        """float64 [rows, columns]."""
        return np.stack([self._column(column, self.table.loc[rows, column]) for column in columns], axis=1)

    def _column(self, column: str, values: Any) -> np.ndarray:
        comma = values.str.fullmatch(DECIMAL_COMMA)
        if comma.any():
            values = values.str.replace(",", ".")
            if not self.commas:
                self.lines.append("decimal commas are read as points")
            self.commas = True
        right = values.str.fullmatch(NUMBER).to_numpy(bool)
        numbers = values.where(right, "nan").astype(np.float64).to_numpy()
        if not np.isfinite(numbers).all():
            row = int(np.argmin(np.isfinite(numbers)))
            raise ValueError(f"{self.path}: {values.index[row]}: {self.names[column]} {values.iloc[row]!r:.140} is not "
                             "a finite number -> digits with a point, as 12.5")
        return numbers
