"""Every picture of a video with its time of presentation, in one pass, whatever its rate. A still picture is a video of
one frame.

data/video.py reads the frames of a data set by number, as its decoders count them. Here a video may be of any kind:
more containers, damaged pictures in the middle, an end that is missing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from gazepose.data.containers import check_stated_frames, container_of
from gazepose.data.display_turn import DisplayTurn, as_shown
from gazepose.data.images import MAX_BYTES as MAX_PICTURE_BYTES
from gazepose.data.video import MAX_BYTES, open_pyav, picture_stream
from gazepose.io import plain_file
from gazepose.text import counted

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg",
                  ".wmv", ".flv", ".3gp")
FIRST_BYTES = ((0, b"GIF8", "gif"), (0, b"\x00\x00\x01\xba", "mpeg"), (0, b"FLV", "flv"),
               (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"), (4, b"G", "mpegts"), (0, b"G", "mpegts"))
"""(place, bytes, container), beside those that data/video.py knows"""
MARK = "mark its colours as BT.709: ffmpeg -i IN.mp4 -vf setparams=colorspace=bt709 OUT.mp4"
MOST_DAMAGED = 1000          # pictures that cannot be decoded, one after another
PQ = 16                      # a transfer function (SMPTE ST 2084) of HDR: shown as it is, a picture is grey and dim
PQ_WHITE = 203.0             # candela per square metre of a white page in HDR (ITU-R BT.2408)


class TimedPicture(NamedTuple):
    number: int
    """in the order of presentation, from 0"""
    seconds: float
    """from the video's first picture; ascending"""
    duration: float
    """seconds for which it is shown; 0 for a still picture"""
    picture: np.ndarray
    """uint8 [H, W, 3] RGB, turned and mirrored as the file says"""


def is_still(path: Path) -> bool:
    """Whether a file is a still picture, by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def stated_seconds(path: Path) -> float:
    """Length of a video as its headers state it; 0 for a still picture, or where they do not say. Raises as
    `pictures_with_times`."""
    import av
    if is_still(path):
        return 0.0
    with _opened(path) as container:
        stream = picture_stream(container, str(path))
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return float((container.duration or 0) / av.time_base)


def pictures_with_times(path: Path, start: int = 0, notify: Callable[[str], None] = print) -> Iterator[TimedPicture]:
    """The pictures of a video from number `start` on, or the one of a still picture.

    Earlier ones are decoded, because seeking gives wrong pictures in several kinds of files, but not converted. All
    pictures have the size of the first. A damaged picture in the middle is skipped and has no number.

    Args:
        notify: is called at most once, at the end, with how many pictures were damaged and where the file ends early.

    Raises:
        FileNotFoundError: no such file. ValueError: not a video or a picture that can be read, or without a picture
            (the message names the file). ImportError: PyAV is not installed.
    """
    if is_still(path):
        if start == 0:
            yield TimedPicture(0, 0.0, 0.0, _still(path))
        return
    import av.error
    from av.video.reformatter import VideoReformatter
    reformatter, turn, size, first, before = VideoReformatter(), DisplayTurn(), (0, 0), None, -1.0
    number, faults = 0, _Faults()
    with _opened(path) as container:
        stream = picture_stream(container, str(path))
        usual = 1 / float(stream.average_rate or stream.guessed_rate or 30)
        for frame in _decoded(container, stream, faults):
            # an AVI has no times of presentation, and those that are worked out fail where pictures are reordered
            time = None if container.format.name == "avi" else frame.time
            seconds = number * usual if time is None else float(time)
            first = seconds if first is None else first
            seconds = seconds - first
            if seconds <= before:                                      # damaged times: go on at the usual rate
                seconds = before + usual
            before, size = seconds, size if number else (frame.width, frame.height)
            if number >= start:
                length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else usual
                try:
                    picture = _rgb(frame, size, reformatter, turn)
                except av.error.FFmpegError as error:
                    # a rare colour space: its own colours would not survive a conversion either
                    raise ValueError(f"{path}: picture {number}: cannot be shown in colours: {error} -> {MARK}"
                                     ) from error
                yield TimedPicture(number, seconds, length, picture)
            number += 1
    if number == 0:
        raise ValueError(f"{path}: holds no picture that can be decoded{faults.text(' (', ')')} -> give another copy")
    if faults.count or faults.ends:
        notify(f"{path}: {faults.text()}after picture {number - 1} of {before:.2f} s")


class _Faults:
    """What could not be decoded."""

    def __init__(self) -> None:
        self.count, self.ends, self.last = 0, "", ""

    def text(self, before: str = "", after: str = "") -> str:
        words = [f"{counted(self.count, 'damaged picture')} were skipped ({self.last})"] * bool(self.count)
        words += [f"the file ends early ({self.ends})"] * bool(self.ends)
        return f"{before}{'; '.join(words)}{after}" if words else ""


def _decoded(container: Any, stream: Any, faults: _Faults) -> Iterator[Any]:
    """The frames of a stream; what cannot be decoded is noted in `faults`."""
    import av.error
    packets, in_a_row = container.demux(stream), 0
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:                          # cut short
            faults.ends = str(error)
            packet = None
        try:
            frames = [] if packet is None else packet.decode()
            in_a_row = 0
        except av.error.FFmpegError as error:
            frames, in_a_row = [], in_a_row + 1
            faults.count, faults.last = faults.count + 1, str(error)
            if in_a_row >= MOST_DAMAGED:
                faults.ends = "nothing more can be decoded"
                return
        yield from frames
        if packet is None:
            return


def _opened(path: Path) -> Any:
    """PyAV's container of a plain file; only containers that are known by their first bytes, so no playlists."""
    if not path.is_absolute():
        raise ValueError(f"{path}: a video is opened by absolute path only")
    plain_file(path, "video", MAX_BYTES)
    with open(path, "rb") as file:
        head = file.read(256)
    for place, wanted, name in FIRST_BYTES:
        if head[place:place + len(wanted)] == wanted and (name != "mpegts" or head[place + 188 + place:][:1] == b"G"):
            return open_pyav(str(path), name)
    container = container_of(str(path))
    if container == "mov":
        check_stated_frames(str(path))
    return open_pyav(str(path), container)


def _rgb(frame: Any, size: tuple[int, int], reformatter: Any, turn: DisplayTurn) -> np.ndarray:
    """uint8 [H, W, 3] of a frame, in the size of the first, and as it is shown."""
    turned, bright = turn(frame), frame.color_trc == PQ
    if (frame.width, frame.height) != size or frame.format.name.endswith(("p10le", "p12le")):
        picture = reformatter.reformat(frame, *size, format="rgb24").to_ndarray()
    else:
        picture = frame.to_ndarray(format="rgb24")
    if bright:
        picture = cv2.LUT(picture, _shown_of_pq())
    return as_shown(picture, turned) if turned else picture


@cache
def _shown_of_pq() -> np.ndarray:
    """uint8 [256]: levels of a standard picture for levels of PQ; what is brighter than white is pressed together."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875          # SMPTE ST 2084
    root = (np.arange(256) / 255) ** (1 / m2)
    light = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) / PQ_WHITE     # 1: white
    pressed = light * (1 + light / 16) / (1 + light)                                         # Reinhard's operator
    return np.round(255 * np.clip(2 * pressed, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def _still(path: Path) -> np.ndarray:
    """A picture of any usual kind, turned as its EXIF data say."""
    plain_file(path, "picture", MAX_PICTURE_BYTES)
    picture, reason = None, ""
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:                                         # empty, or more pixels than OpenCV reads
        reason = f" ({error.err})"
    if picture is None:
        raise ValueError(f"{path}: not a picture that can be read{reason} -> save it as JPEG or PNG, smaller if it has "
                         "over 2**30 pixels")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


@contextmanager
def open_sound(path: Path) -> Iterator[tuple[Any, float, Iterator[Any]] | None]:
    """The first stream of sound of a video: (PyAV stream, start, its packets in order); None where there is none.

    start: time of the first picture on the stream's clock, seconds.

    Raises:
        As `pictures_with_times`; a damaged packet raises av.error.FFmpegError when it is taken.
    """
    with _opened(path) as container:
        first = next(_decoded(container, picture_stream(container, str(path)), _Faults()), None)
        start = float(first.time) if first is not None and first.time is not None else 0.0
    with _opened(path) as container:                                   # from its beginning again, without seeking
        streams = container.streams.audio
        yield (streams[0], start, container.demux(streams[0])) if streams else None
