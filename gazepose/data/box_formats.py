"""Tables of boxes as other programs write them -> the columns of data/box_table.py, and what was recognised, in words.

Read are: separators , ; and tab, decimal commas, UTF-8 and UTF-16, other names of columns, corners and centres, parts
of the picture (0..1), times in place of frames, OpenFace's FeatureExtraction, landmarks of MediaPipe. What fits two
readings is an error that shows both, and the format that chooses.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gazepose.data import box_table
from gazepose.data.box_table import DECIMAL_COMMA, NUMBER, Numbers
from gazepose.data.conventions import of_boxes
from gazepose.data.video import SUFFIXES, find_video, look_at, times_of
from gazepose.io import is_id
from gazepose.text import counted, printable

BoxFormat = Literal["auto", "sizes", "corners", "centres", "openface", "mediapipe"]
TEXTS = (".tsv", ".txt")     # beside box_table.TABLES
NAMES = {"clip": ("clip", "clip_uid", "clip_id", "video", "video_id", "video_name", "file", "filename", "file_name"),
         "track": ("track", "track_id", "person", "person_id", "face_id", "face", "id", "subject"),
         "frame": ("frame", "frame_number", "frame_num", "frame_no", "frame_id", "frame_index", "frame_idx"),
         "seconds": ("seconds", "time", "timestamp", "time_s", "timestamp_s", "sec", "t"),
         "milliseconds": ("milliseconds", "time_ms", "timestamp_ms", "ms"),
         "label": ("label", "looking")}
PREFIX = re.compile(r"(?:bbox|box|bb|face|rect)_(?=.)")
BOXES: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "corners": (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"),
                ("left", "top", "right", "bottom"), ("x_1", "y_1", "x_2", "y_2")),
    "centres": tuple((x, y, w, h) for w, h in (("width", "height"), ("w", "h")) for x, y in (
        ("cx", "cy"), ("x_center", "y_center"), ("xc", "yc"), ("center_x", "center_y"))),
    "sizes": tuple((x, y, w, h) for w, h in (("width", "height"), ("w", "h")) for x, y in (
        ("x", "y"), ("left", "top"), ("x1", "y1"), ("xmin", "ymin"))),
    "unnamed": (("0", "1", "2", "3"), ("1", "2", "3", "4"), ("bbox0", "bbox1", "bbox2", "bbox3"),
                ("bbox1", "bbox2", "bbox3", "bbox4"), ("box0", "box1", "box2", "box3"))}
WORDS = {"sizes": "x, y of the upper left corner, width and height", "corners": "corners x1, y1, x2, y2",
         "centres": "x, y of the centre, width and height"}
POINT = re.compile(r"(?:landmark|lm|point|l)?_?(\d+)_?([xy])|(?:landmark_|lm_)?([xy])_?(\d+)")
LANDMARK = ("landmark", "landmark_id", "landmark_index", "landmark_idx", "point", "lm")
MESH = 100                   # so many points of a line are a mesh of MediaPipe
FAR_S = 0.5                  # seconds from the nearest picture beyond which a time is not of this video
NOT_FOLLOWED = "-1"          # the track of boxes that no one has followed
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")         # byte order marks, as Excel writes them
Table = Any                  # a pandas.DataFrame of text, whose index says where a row stands


class _Videos:
    """The videos of a table: one file, a folder of several, or none; sizes and times are looked up once each."""

    def __init__(self, path: Path, video: Path | None, size: tuple[int, int] | None) -> None:
        self.path, self.video, self.size = path, video, size
        self.sizes: dict[str, tuple[int, int] | None] = {}

    def only(self) -> str:
        """The name of the one clip; ValueError where there are several."""
        if self.video is None:
            return "video"
        files = [self.video]
        if self.video.is_dir():
            files = sorted(file for file in self.video.iterdir() if file.suffix.lower() in SUFFIXES)
        if len(files) != 1:
            raise ValueError(f"{self.path}: has no column clip, and {self.video} holds "
                             f"{counted(len(files), 'video')} -> add the column clip, with the name of each "
                             "video without its suffix")
        return _as_id(files[0].stem)

    def of(self, clip: str) -> Path | None:
        """The video of a clip, whose name must not lead out of the folder."""
        if not is_id(clip):
            raise ValueError(f"{self.path}: clip {clip!r:.140} is no id -> text of letters, digits, _ . - only")
        return find_video(self.video, clip) if self.video is not None and self.video.is_dir() else self.video

    def size_of(self, clip: str) -> tuple[int, int] | None:
        if self.size is None and clip not in self.sizes:
            video = self.of(clip)
            facts = look_at(video.resolve())[0] if video is not None and video.is_file() else None
            self.sizes[clip] = (facts.width, facts.height) if facts else None
        return self.size or self.sizes[clip]


def read_foreign(path: Path, video: Path | None, size: tuple[int, int] | None = None, kind: BoxFormat = "auto"
                 ) -> tuple[Table, list[str]]:
    """Read a table of boxes that another program wrote.

    Args:
        path: CSV, TSV or Parquet. video: their video, or a folder of videos named by clip; None: not known.
        size: width and height of the pictures; default: those of the videos.
        kind: what the table holds; auto: by its header and its numbers.

    Returns:
        A table of the columns clip, track, frame, x, y, width, height, label (-1 unknown), and lines that say what was
        recognised. Track "-1": the table has none, so its boxes must be followed. `attrs["from_0"]` is True where
        frames are known to count from 0.

    Raises:
        FileNotFoundError, ImportError; ValueError naming file, line and column of a value that does not fit; or both
        readings of numbers that fit two.
    """
    import pandas as pd
    path = Path(path)
    if path.suffix.lower() not in TEXTS:
        box_table.suffix_of(path)
    lines: list[str] = []
    videos = _Videos(path, video, size)
    table, shown = _read(path, lines)
    if not len(table):
        raise ValueError(f"{path}: holds no box -> give one face per line: {box_table.SCHEMA}")
    names: dict[str, str] = {}
    for name in table.columns:
        if _plain(name) in names:
            raise ValueError(f"{path}: column {name!r:.140} occurs twice -> name each column otherwise")
        names[_plain(name)] = name
    table = table.set_axis(list(names), axis=1)
    found = {what: next((name for name in known if name in names), None) for what, known in NAMES.items()}
    form = _kind_of(kind, table)
    numbers = Numbers(path, table, names, lines)
    when = next((name for name in ("frame", "seconds", "milliseconds") if found[name]), None)
    used = {name for what, name in found.items() if what in ("clip", "track", "label", when)}
    if form == "openface":
        table, points = _openface(path, table, numbers, lines)
        used |= {*points, "success"}
        four = _around(numbers.of(points, table.index), points)
    elif form == "mediapipe":
        table, four, points = _mediapipe(path, table, numbers, found, lines)
        used |= {*points}
    else:
        columns, form = _four(path, table, form, numbers, shown, videos, lines)
        used |= {*columns}
        four = _as_sizes(numbers.of(columns, table.index), form)
        if form == "corners" and (four[:, 2:] <= 0).any():
            row = int(np.argmax((four[:, 2:] <= 0).any(axis=1)))
            x1, y1, x2, y2 = (names[column] for column in columns)
            raise ValueError(f"{path}: {table.index[row]}: {x2}, {y2} are not right of and below {x1}, {y1} -> correct "
                             "the line, or give --boxes_format sizes if they are width and height")
    result = pd.DataFrame(index=table.index)
    clip, track, label = found["clip"], found["track"], found["label"]
    result["clip"] = table[clip].map(_without_suffix) if clip else videos.only()
    result["track"] = table[track] if track else NOT_FOLLOWED
    result["label"] = table[label] if label else ""
    four = _in_pixels(path, four, result["clip"].to_numpy(), videos, lines, normalised=form == "mediapipe")
    frame = _frames(path, table, found, numbers, result["clip"].to_numpy(), videos, lines)
    from_0 = found["frame"] is None
    if form == "openface" and not from_0 and len(frame) and frame.min() >= 1:
        frame, from_0 = frame - 1, True
        lines.append("OpenFace counts frames from 1: 1 is subtracted")
    if extra := [names[name] for name in table.columns if name in names and name not in used]:
        lines.append(f"columns that are not used: {printable(', '.join(extra[:8]))}"
                     + f" and {len(extra) - 8} more" * (len(extra) > 8))
    result["frame"] = [repr(number).removesuffix(".0") for number in frame.tolist()]
    result[["x", "y", "width", "height"]] = np.vectorize(repr, otypes=[object])(four.astype(float))
    checked = box_table.checked(path, result[[*box_table.COLUMNS, "label"]],
                                track is not None and found["frame"] is not None)
    if track is not None and found["frame"] is None:
        again = checked.duplicated(["clip", "track", "frame"])
        checked = checked[~again]
        if again.any():
            lines.append(f"{counted(again.sum(), 'box', 'boxes')} share a picture with an earlier one of their track: "
                         "left out")
    checked.attrs["from_0"] = from_0
    return checked, [f"{path}: {line}" for line in lines]


# ---- text

def _read(path: Path, lines: list[str]) -> tuple[Table, list[str]]:
    """(the table as text under its own header, its first lines)."""
    if path.suffix.lower() == ".parquet":
        table = box_table.read_parquet(path).map(lambda value: "" if value is None or value != value else str(value))
        table.columns = [str(name) for name in table.columns]
        return table, table.head(3).to_string(index=False).splitlines()
    content = box_table.content_of(path)
    if content[:2] in UTF_16:
        content = content.decode("utf-16", errors="replace").encode()
    text = box_table.text_of(path, content)
    first = text.lstrip("\r\n").split("\n", 1)[0].strip("\r")
    separator = max(",;\t", key=lambda mark: (sum(_plain(cell.strip('"')) in ALL for cell in first.split(mark)),
                                              first.count(mark)))
    if separator != ",":
        lines.append(f"separated by {'semicolons' if separator == ';' else 'tabs'}")
    rows = box_table.rows_of(path, text, separator, skipinitialspace=True)
    rows = rows[(rows != "").any(axis=1)].map(str.strip)
    if not len(rows):
        return rows, []
    header, shown = rows.iloc[0].tolist(), text.lstrip("\r\n").splitlines()[:4]
    if all(re.fullmatch(rf"{NUMBER}|{DECIMAL_COMMA}", cell) for cell in header if cell):
        lines.append("has no header: read as frame, track and the four numbers of a box")
        if len(header) < 6:
            raise ValueError(f"{path}: has no header, and {counted(len(header), 'column')} -> {box_table.SCHEMA}")
        more = [f"column {number}" for number in range(7, len(header) + 1)]
        return rows.set_axis(["frame", "track", "0", "1", "2", "3", *more], axis=1), shown
    return rows.iloc[1:].set_axis(header, axis=1), shown


def _plain(name: str) -> str:
    """A column's name as it is compared: lower case, without units and prefixes."""
    plain = re.sub(r"[\s-]+", "_", re.sub(r"\s*[\[(].*", "", name.strip().lower()))
    return PREFIX.sub("", plain) if plain not in ALL else plain


ALL = {name for known in (*NAMES.values(), *(names for kinds in BOXES.values() for names in kinds)) for name in known}


def _as_id(name: str) -> str:
    return name if is_id(name) else re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:128]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.replace("\\", "/").rpartition("/")[2].rpartition(".")
    return _as_id(stem) if f"{dot}{suffix}".lower() in SUFFIXES else name


# ---- boxes

def _kind_of(kind: BoxFormat, table: Table) -> str:
    if kind != "auto":
        return kind
    if "success" in table and ("pose_rx" in table or "gaze_0_x" in table):
        return "openface"
    mesh = sum(POINT.fullmatch(name) is not None for name in table.columns) >= 2 * MESH
    return "mediapipe" if mesh or any(name in table for name in LANDMARK) and "x" in table else "auto"


def _four(path: Path, table: Table, kind: str, numbers: Numbers, shown: list[str], videos: _Videos, lines: list[str]
          ) -> tuple[list[str], str]:
    """(the four columns of a box, how to read them)."""
    found = [(meaning, list(names)) for meaning, several in BOXES.items() for names in several
             if all(name in table for name in names)]
    if not found:
        raise ValueError(f"{path}: no columns of a box among {printable(', '.join(numbers.names.values()))[:300]} -> "
                         f"{box_table.SCHEMA}; x1,y1,x2,y2 or left,top,right,bottom are read too")
    meaning, columns = found[0]
    if kind in WORDS:
        return columns, kind
    if meaning == "unnamed":
        meaning = _chosen(path, numbers.of(columns, table.index), shown, videos, table)
        lines.append(f"boxes are read as {WORDS[meaning]}, the only reading that fits")
    elif meaning != "sizes":
        lines.append(f"boxes are read as {WORDS[meaning]}")
    return columns, meaning


def _chosen(path: Path, four: np.ndarray, shown: list[str], videos: _Videos, table: Table) -> str:
    """"sizes" or "corners", whichever the numbers fit; ValueError where both fit, or none."""
    sizes = [videos.size_of(clip) for clip in ([videos.only()] if "clip" not in table else table["clip"].unique())]
    side = np.array([size for size in sizes if size] or [[np.inf, np.inf]], float).max(axis=0)
    fits = {"sizes": bool((four[:, 2:] > 0).all() and (four[:, :2] + four[:, 2:] / 2 <= 1.02 * side).all()),
            "corners": bool((four[:, 2:] > four[:, :2]).all() and (four[:, 2:] <= 1.02 * side).all())}
    if fits["sizes"] != fits["corners"]:
        return "sizes" if fits["sizes"] else "corners"
    readings = "".join(f"\n  --boxes_format {kind}: {WORDS[kind]}, so the first face has {width:g} x {height:g} pixels"
                       for kind in ("sizes", "corners") for _, _, width, height in [_as_sizes(four[:1], kind)[0]])
    raise ValueError(f"{path}: the four numbers of a box fit {'two readings' if fits['sizes'] else 'no reading'}:\n  "
                     + "\n  ".join(printable(line)[:120] for line in shown) + readings
                     + "\n-> give the one that is right, or name the columns")


def _as_sizes(four: np.ndarray, kind: str) -> np.ndarray:
    """Corner, width and height of boxes [n, 4]."""
    if kind == "corners":
        return np.concatenate([four[:, :2], four[:, 2:] - four[:, :2]], axis=1)
    if kind == "centres":
        return np.concatenate([four[:, :2] - four[:, 2:] / 2, four[:, 2:]], axis=1)
    return four


def _in_pixels(path: Path, four: np.ndarray, clip: np.ndarray, videos: _Videos, lines: list[str], normalised: bool
               ) -> np.ndarray:
    """Boxes in pixels; parts of the picture (0..1) are multiplied by its size."""
    sizes = {name: videos.size_of(name) for name in np.unique(clip.astype(str)).tolist()}
    known = np.array([sizes[str(name)] or (np.nan, np.nan) for name in clip], float).reshape(-1, 2)
    if not normalised and not (len(four) and 0 < (four[:, :2] + four[:, 2:]).max() <= 2):
        if fault := of_boxes(four, known):
            raise ValueError(f"{path}: boxes {fault}, or name the right reading with --boxes_format")
        return four
    if np.isnan(known).any():
        raise ValueError(f"{path}: boxes are parts of the picture (0..1) -> give its video, for the size")
    lines.append("boxes are parts of the picture (0..1): multiplied by its width and height")
    return four * np.tile(known, 2)


# ---- landmarks

def _points(path: Path, table: Table, what: str) -> list[str]:
    """Columns of landmarks: all x, then all y, in the same order."""
    place: dict[tuple[str, str], str] = {}
    for name in table.columns:
        if found := POINT.fullmatch(name):
            place[found[2] or found[3], found[1] or found[4]] = name
    numbers = sorted({number for axis, number in place if axis == "x" and ("y", number) in place}, key=int)
    if not numbers:
        raise ValueError(f"{path}: no landmarks of {what} (columns such as x_0, y_0) -> write them with that program, "
                         "or give --boxes_format auto")
    return [place[axis, number] for axis in "xy" for number in numbers]


def _around(values: np.ndarray, columns: list[str]) -> np.ndarray:
    """The smallest boxes [n, 4] around points [n, 2 * points], all x before all y."""
    x, y = np.split(values, [len(columns) // 2], axis=1)
    return np.stack([x.min(axis=1), y.min(axis=1), np.ptp(x, axis=1), np.ptp(y, axis=1)], axis=1)


def _openface(path: Path, table: Table, numbers: Numbers, lines: list[str]) -> tuple[Table, list[str]]:
    """(rows in which OpenFace has found a face, the columns of its landmarks)."""
    points = _points(path, table, "OpenFace")
    if "success" in table:
        success = numbers.of(["success"], table.index)[:, 0] > 0
        if not success.all():
            lines.append(f"{int((~success).sum())} of {len(success)} lines without a face (success 0): left out")
        table = table[success]
    lines.append(f"OpenFace: boxes around {len(points) // 2} landmarks, without the forehead -> --rule box_scale=1.3 "
                 "widens them")
    return table, points


def _mediapipe(path: Path, table: Table, numbers: Numbers, found: dict[str, str | None], lines: list[str]
               ) -> tuple[Table, np.ndarray, list[str]]:
    """(a row for each face, its box in parts of the picture, columns used): landmarks in a line, or one a line."""
    landmark = next((name for name in LANDMARK if name in table), None)
    if landmark is None or "x" not in table or "y" not in table:
        points = _points(path, table, "MediaPipe")
        lines.append(f"MediaPipe: boxes around {len(points) // 2} landmarks")
        return table, _around(numbers.of(points, table.index), points), points
    keys = [name for name in (found["clip"], found["track"], found["frame"] or found["seconds"] or
                              found["milliseconds"]) if name]
    places = table[keys].assign(**dict(zip(("px", "py"), numbers.of(["x", "y"], table.index).T, strict=True)))
    faces = places.groupby(keys, sort=False)
    low, high = (faces[["px", "py"]].agg(which).to_numpy(float) for which in ("min", "max"))
    first = table.loc[~table.duplicated(keys)]
    lines.append(f"MediaPipe: boxes around the landmarks of {len(first)} faces, one landmark a line")
    return first, np.concatenate([low, high - low], axis=1), [landmark, "x", "y", "z"]


# ---- frames

def _frames(path: Path, table: Table, found: dict[str, str | None], numbers: Numbers, clip: np.ndarray,
            videos: _Videos, lines: list[str]) -> np.ndarray:
    """float64 [n]: the frame of each row; of a time, the picture that is nearest."""
    if found["frame"] is not None:
        return numbers.of([found["frame"]], table.index)[:, 0]
    column = found["seconds"] or found["milliseconds"]
    if column is None:
        raise ValueError(f"{path}: no column of frames or of times among "
                         f"{printable(', '.join(numbers.names.values()))[:300]} -> add frame or seconds")
    clocks = [CLOCK.fullmatch(value.replace(",", ".")) for value in table[column].tolist()]
    if len(clocks) and all(clocks):
        seconds = np.array([3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
                            for clock in clocks if clock])
    else:
        seconds = numbers.of([column], table.index)[:, 0] / (1 if found["seconds"] else 1000)
    frames = np.zeros(len(seconds))
    for name in np.unique(clip.astype(str)).tolist():
        video = videos.of(name)
        if video is None or not video.is_file():
            raise ValueError(f"{path}: has times, not frames, and no video of clip {name} -> give the video, which "
                             "says when each picture is shown")
        times, rows = times_of(video.resolve()), np.flatnonzero(clip == name)
        after = np.clip(np.searchsorted(times, seconds[rows]), 1, max(len(times) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(times) - 1)
        nearer = np.abs(times[after] - seconds[rows]) < np.abs(times[before] - seconds[rows])
        frames[rows] = np.where(nearer, after, before)
        off = np.abs(times[frames[rows].astype(int)] - seconds[rows])
        if (off > FAR_S).any():
            row = rows[int(np.argmax(off > FAR_S))]
            raise ValueError(f"{path}: {table.index[row]}: {numbers.names[column]} {table[column].iloc[row]!r:.40} is "
                             f"not within the video, {times[-1]:.2f} s long -> in seconds from its first picture, or "
                             "name the column milliseconds")
    lines.append(f"{numbers.names[column]} is read as times: each box belongs to the nearest picture")
    return frames
