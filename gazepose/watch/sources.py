"""Which videos and pictures are watched, under which names, and with which boxes of the user's own."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from gazepose.data.box_formats import BoxFormat
from gazepose.data.own_videos import read_tracks
from gazepose.data.tracks import RawTrack
from gazepose.data.video_times import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from gazepose.errors import UsageError
from gazepose.text import printable
from gazepose.training.hub import is_on_hub, pinned
from gazepose.watch.detect import BOX, COLUMNS
from gazepose.watch.tracker import Tracker

SUFFIXES = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
Boxes = dict[int, tuple[np.ndarray, np.ndarray]]
"""frame -> (numbers of tracks, int64 [n]; x, y, width, height, float64 [n, 4])"""


def name_sources(sources: Iterable[Path], notify: Callable[[str], None]) -> dict[str, Path]:
    """Name -> absolute path, without links, of each video or picture. Of a folder, all that lie directly in it.

    A name is that of the file without its ending. Files of one name get numbers: clip, clip-2. A file that is named
    twice counts once. `notify` is called with each new name.

    Raises:
        FileNotFoundError: a path does not exist. ValueError: no source, or a folder without any.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
            if not inside:
                raise ValueError(f"{source}: holds no video and no picture -> give files, or a folder that holds some "
                                 f"({', '.join(SUFFIXES)})")
            files += inside
        elif source.exists():
            files.append(source)
        else:
            raise FileNotFoundError(f"{source}: no such video or picture -> check the path")
    if not files:
        raise UsageError("watch needs a video or a picture -> name one or more files, or a folder")
    unique: dict[Path, Path] = {}
    for path in files:
        unique.setdefault(path.resolve(), path)
    files = list(unique.values())
    stems = {path.stem for path in files}
    named: dict[str, Path] = {}
    for path in files:
        name, number = path.stem, 1
        while name in named or (number > 1 and name in stems):
            number += 1
            name = f"{path.stem}-{number}"
        if number > 1:
            notify(printable(f"{path}: is called {name} here, since another file has its name"))
        named[name] = path.resolve()
    return named


def read_own_boxes(table: Path, videos: Mapping[str, Path], kind: BoxFormat = "auto", first_number: int = 0,
                   notify: Callable[[str], None] = print) -> dict[str, tuple[list[str], Boxes]]:
    """The user's boxes of each video: names of its tracks, and the boxes of each frame, counted from 0.

    The table may be of another program (data/box_formats.py); `notify` is called with what was recognised. Boxes
    without tracks are followed.

    Raises:
        As data.own_videos.read_tracks. ValueError: the table has a clip that is not among the videos.
    """
    names = list(videos)
    video = next(iter(videos.values())) if len(names) == 1 else None
    clips, first_number, _, lines = read_tracks(table, video, first_number, kind, follow)
    for line in lines:
        notify(printable(line))
    if len(names) == len(clips) == 1:
        clips = {names[0]: next(iter(clips.values()))}                 # then the clip's name does not matter
    if unknown := [clip for clip in clips if clip not in names]:
        raise ValueError(f"{table}: clip {unknown[0]} is none of the videos ({', '.join(names):.200}) -> name the "
                         "videos as the clips are named, without the ending")
    return {name: _by_frame(clips.get(name, []), first_number) for name in names}


def follow(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The track of each box of a clip, int64 [n], as if there were 30 frames a second.

    Args:
        frames: of each box, whole numbers, in any order, [n].
        boxes: x, y, width, height in pixels, [n, 4].
    """
    tracker, tracks = Tracker(), np.zeros(len(frames), np.int64)
    for frame in np.unique(frames):
        rows = np.flatnonzero(frames == frame)
        faces = np.full((len(rows), COLUMNS), np.nan)
        faces[:, BOX] = boxes[rows]
        tracks[rows] = tracker.step(frame / 30, faces)
    return tracks


def _by_frame(tracks: list[RawTrack], first_number: int) -> tuple[list[str], Boxes]:
    persons = list(dict.fromkeys(raw.track for raw in tracks))
    if not tracks:
        return persons, {}
    frames = np.concatenate([raw.frames for raw in tracks]).astype(np.int64) - first_number
    number = np.concatenate([np.full(len(raw.frames), persons.index(raw.track)) for raw in tracks])
    places = np.concatenate([raw.boxes for raw in tracks])
    order = np.lexsort([number, frames])
    frames, number, places = frames[order], number[order], places[order]
    values, first = np.unique(frames, return_index=True)
    pieces = zip(np.split(number, first[1:]), np.split(places, first[1:]), strict=True)
    return persons, dict(zip(values.tolist(), pieces, strict=True))


def name_scorers(scorers: Iterable[str], own: str) -> Mapping[str, Path | None]:
    """Name of each scorer -> its run or checkpoint; None for `own`, the landmarks.

    Raises:
        FileNotFoundError: no such run. ValueError: a scorer twice.
    """
    named: dict[str, Path | None] = {}
    for scorer in scorers:
        name, path = own, None
        if is_on_hub(scorer):
            path = pinned(Path(scorer))
            name = plain_name(path.name.partition("@")[0])
        elif scorer != own:
            path = Path(scorer).absolute()
            name = plain_name(path.stem)
            if not path.exists():
                raise FileNotFoundError(f"{scorer}: no such run -> give {own}, or the folder of a run or a checkpoint")
        if name in named:
            raise UsageError(f"--scorer: two are called {name} -> name each once, or rename a folder")
        named[name] = path
    return named


def plain_name(text: str) -> str:
    """A name as part of a column's: letters, digits and _."""
    return "".join(c if c.isalnum() else "_" for c in text)
