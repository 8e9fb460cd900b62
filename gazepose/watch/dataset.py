"""Watched videos -> a data set folder with labels, which train.py takes as --data.

A label is the landmark score where that is sure, with a margin on both sides, and unknown elsewhere. Small copies of
the videos show the same faces with the same labels at sizes at which landmarks fail, so that a model can learn what the
landmark network cannot see. Videos, not faces, are divided into train and val.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from gazepose.data.crops import as_cut
from gazepose.data.outcome import some
from gazepose.data.own_videos import link_or_copy
from gazepose.data.video import SUFFIXES
from gazepose.data.video_times import pictures_with_times
from gazepose.data.video_writer import write_mp4
from gazepose.io import read_object, write_json, writing, writing_path
from gazepose.text import counted
from gazepose.watch.table import SIDES, Table, Video

SURE = (0.1, 0.6)
"""A score up to the first is the label 0, from the second on 1; between them the label is unknown. A face that looks
straight ahead has .61, and hardly any has .75. Of 3,500 rendered faces, 11 % up to .1 look and 82 % from .6 on, 84 %
from .65 on"""
SMALL = (36, 28, 20)
"""median height of the detector's boxes in the small copies, pixels"""
MIN_HEIGHT = 12              # pixels; a smaller face shows nothing to learn from
BLUR, CRF = 0.7, 30          # of small copies: standard deviation in their pixels, x264's quality
VAL_EVERY = 5                # one video of so many is for validation; of a single video the last part is
SPLITS = ("train", "val")
COLUMNS = "clip,track,frame,x,y,width,height,label"


@dataclass(frozen=True)
class Part:
    """A video, or a stretch of one, that goes into one split under a clip's name."""

    clip: str
    split: str
    video: Video
    start: float = 0.0
    end: float = float("inf")
    """seconds; faces of start <= seconds < end"""


def write_dataset(out: Path, videos: Sequence[Video], table: Table, *, origin: str, own_boxes: bool = False,
                  small: bool = False, notify: Callable[[str], None] = print) -> None:
    """Write videos/, boxes/train.csv and boxes/val.csv of the faces in `table`.

    Videos are linked where the file system can, else copied; pictures and GIFs become videos. The same call again
    replaces what it wrote.

    Args:
        table: of faces, as in table.py; boxes that no detector saw are left out.
        origin: who made the labels; it goes into boxes/<split>.json, from there into the index and into checkpoints.
        own_boxes: the boxes are the user's, and stay as they are; else they are the detector's.
        small: add a copy of each video for each of SMALL.

    Raises:
        FileExistsError: `out` holds a data set of other videos. ValueError: no face has a sure score.
    """
    watched = sorted(clip_name(video.name) for video in videos)
    for split in SPLITS:
        _check_mine(out / "boxes" / f"{split}.json", watched)
    faces = labelled(table, own_boxes)
    sure = set(faces.loc[faces["label"] >= 0, "video"])
    if not sure:
        raise ValueError(f"{out}: no face has a sure score (up to {SURE[0]} or from {SURE[1]} on) -> watch more videos")
    if without := [video.name for video in videos if video.name not in sure]:
        notify(f"{out}: left out, without a sure score: {some(without)}")
    parts = [(part, faces[(faces["video"] == part.video.name) & (faces["seconds"] >= part.start)
                          & (faces["seconds"] < part.end)])
             for part in divide([video for video in videos if video.name in sure])]
    copies = [copy for part, rows in parts for copy in _copies(part, rows)] if small else []
    parts = [*((part, rows, 1.0) for part, rows in parts), *copies]
    for split in SPLITS:
        lines: list[str] = []
        clips = [part.clip for part, _, _ in parts if part.split == split]
        for part, rows, scale in parts:
            if part.split == split:
                _put_video(part.video, out / "videos", part.clip, scale)
                lines += _lines(part.clip, rows)
        with writing(out / "boxes" / f"{split}.csv") as file:
            file.write("\n".join([COLUMNS, *lines, ""]))
        write_json(out / "boxes" / f"{split}.json", {
            "first_number": 0, "labels": f"{origin}; 1 from {SURE[1]} on, 0 up to {SURE[0]}", "watched": watched})
        known = sum(not line.endswith(",") for line in lines)
        notify(f"{out}: {split}: {counted(len(clips), 'clip')}, {counted(len(lines), 'face')}, {known} with a label")


def divide(videos: Sequence[Video]) -> list[Part]:
    """Which video is for which split: every fifth one, or the last of fewer, for val. A single video is divided in
    time, after four fifths."""
    parts = [Part(clip_name(video.name), "train", video) for video in sorted(videos, key=lambda video: video.name)]
    if len(parts) == 1:
        border = parts[0].video.seconds * (1 - 1 / VAL_EVERY)
        return [replace(parts[0], end=border),
                replace(parts[0], clip=f"{parts[0].clip}-end", split="val", start=border)]
    last = VAL_EVERY if len(parts) >= VAL_EVERY else len(parts)
    return [replace(part, split="val" if number % last == 0 else "train") for number, part in enumerate(parts, 1)]


def clip_name(name: str) -> str:
    """A video's name as the id of a clip. Other characters than letters, digits, _ and - become _; then a digest of the
    name follows, so that two names stay two."""
    stem = Path(name).stem
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "_-") else "_" for sign in stem)[:80]
    if plain == stem:
        return stem
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def labelled(table: Table, own_boxes: bool) -> Table:
    """Faces that a detector saw, with a column `label` (1, 0, or -1 where the score is not sure), with boxes as the
    crops of a data set lie on a face, and with the height of the detector's in `tall`."""
    seen = table[table["reason"] != "not detected"]
    looking, boxes = (seen[names].to_numpy(np.float64) for names in ("looking", SIDES))
    boxes = boxes if own_boxes else as_cut(boxes)
    with np.errstate(invalid="ignore"):
        label = np.select([looking >= SURE[1], looking <= SURE[0]], [1, 0], -1)
    return seen.assign(label=label, tall=seen["height"], **dict(zip(SIDES, boxes.T, strict=True)))


def _check_mine(facts: Path, clips: list[str]) -> None:
    if facts.with_suffix(".csv").exists() and not facts.exists() or (
            facts.exists() and read_object(facts).get("watched") != clips):
        raise FileExistsError(f"{facts.with_suffix('.csv')}: belongs to a data set of other videos -> name another "
                              "folder")


def _copies(part: Part, faces: Table) -> Iterator[tuple[Part, Table, float]]:
    """Small copies of a part: its name, its faces, and the scale; of sizes below that of its faces."""
    for height in SMALL:
        scale = height / float(faces.loc[faces["label"] >= 0, "tall"].median())
        if scale < 1:                                                  # not NaN: no face of this part has a label
            width, tall = _even(part.video, scale)
            across, down = width / part.video.width, tall / part.video.height
            kept = faces[faces["tall"] * scale >= MIN_HEIGHT]
            yield (replace(part, clip=f"{part.clip}-{height}px"),
                   kept.assign(x=kept["x"] * across, width=kept["width"] * across, y=kept["y"] * down,
                               height=kept["height"] * down), scale)


def _even(video: Video, scale: float) -> tuple[int, int]:
    """Width and height of a copy, even, as H.264 needs them."""
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (video.width, video.height))
    return width, height


def _lines(clip: str, faces: Table) -> list[str]:
    tracks = faces["person"].map({name: f"t{number}" for number, name in enumerate(faces["person"].unique(), 1)})
    values = faces[["frame", *SIDES]].to_numpy(np.float64)
    return [f"{clip},{track},{frame:.0f},{x:.2f},{y:.2f},{width:.2f},{height:.2f},{label if label >= 0 else ''}"
            for track, (frame, x, y, width, height), label in zip(tracks, values, faces["label"], strict=True)]


def _put_video(video: Video, folder: Path, clip: str, scale: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    suffix = video.path.suffix.lower()
    if scale == 1 and suffix in SUFFIXES:
        goal = folder / f"{clip}{suffix}"
        if goal.exists() and goal.samefile(video.path):
            return
        goal.unlink(missing_ok=True)                                   # ours, of an earlier state of the video
        link_or_copy(video.path, goal)
        return
    size = _even(video, scale)
    rate = Fraction(video.fps or 30).limit_denominator(1001)
    with writing_path(folder / f"{clip}.mp4") as part:
        write_mp4(part, _shrunk(video, size, blur=scale < 1), size, CRF if scale < 1 else 14, rate)


def _shrunk(video: Video, size: tuple[int, int], blur: bool) -> Iterator[np.ndarray]:
    for timed in pictures_with_times(video.path, notify=lambda line: None):      # the pass has said what is damaged
        picture = cv2.resize(timed.picture, size, interpolation=cv2.INTER_AREA)
        yield cv2.GaussianBlur(picture, (0, 0), BLUR) if blur else picture
