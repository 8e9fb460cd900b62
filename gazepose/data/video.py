"""Videos: a path and ascending frame numbers -> pictures, in one sequential pass. Only this file knows the decoders.

Never seeks: random access gave silently wrong frames for several kinds of files. Frames are numbered by order of
presentation, from 0. Cutting faces out of the pictures is data/crops.py.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.containers import check_stated_frames, container_of
from gazepose.data.decoded import NotCopied, Planes
from gazepose.data.display_turn import DisplayTurn, as_shown, display_turn
from gazepose.io import UnusableFile, plain_file

DECODERS = ("decord", "pyav")
SUFFIXES = (".mp4", ".mov", ".mkv", ".avi")
MAX_BYTES = 64 << 30
MAX_AHEAD = 2 << 30          # bytes of pictures that decord may decode ahead
OTHER_SHAPE = ("cut the video there into two (ffmpeg -i IN.mp4 -t SECONDS ONE.mp4; ffmpeg -ss SECONDS -i IN.mp4 "
               "TWO.mp4), each with its own boxes")
STILL_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")
MAX_LOST_S = 0.25            # at the end of a file that states its duration only: rounding
SAMPLES, SAMPLE_S = 24, 5    # key frames that are looked at to see whether a video's shape changes; one in 5 s
SAME_SHAPE = 0.02            # by how much width / height may differ: sizes are rounded to even pixels


@dataclass(frozen=True)
class VideoFacts:
    """By the container's headers; with PyAV frames are counted, without those that an edit list hides."""

    frames: int
    width: int
    height: int
    fps: float


def find_video(folder: Path, clip: str) -> Path:
    """The clip's video under any of SUFFIXES, or these in capitals; its mp4 when there is none, so that the error names
    that.

    Raises:
        ValueError: there are two.
    """
    paths = [folder / f"{clip}{suffix}" for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES))]
    found = [path for path in paths if path.is_file()]
    if different := [path for path in found[1:] if not path.samefile(found[0])]:
        raise ValueError(f"{found[0]}: there is a {different[0].name} too -> keep one of them")
    return found[0] if found else paths[0]


@lru_cache
def usable_decoder() -> tuple[str, str]:
    """(decord, ""), or (pyav, the reason) where decord cannot be loaded; it may be installed and not fit the system."""
    try:
        import decord
        assert decord
    except Exception as error:                   # a library that does not fit may raise anything
        return "pyav", f"{type(error).__name__}: {_reason(error)}"
    return "decord", ""


def video_facts(path: str | Path, decoder: str = "auto") -> VideoFacts:
    """Facts as the decoder will give them. Raises as frames_in_order."""
    decoder = usable_decoder()[0] if decoder == "auto" else decoder
    name = _checked(path, decoder)
    if decoder == "decord":
        reader = _decord(name)
        height, width, _ = _next(reader, name, 0).shape if len(reader) else (0, 0, 3)
        return VideoFacts(len(reader), width, height, float(reader.get_avg_fps()))
    import av.error
    try:
        with open_pyav(name) as container:
            stream = picture_stream(container, name)
            frames = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
            return VideoFacts(frames, stream.width, stream.height, float(stream.average_rate or 0))
    except av.error.FFmpegError as error:
        raise UnusableFile(f"{name}: cannot be decoded by pyav: {error}") from error


def look_at(path: str | Path) -> tuple[VideoFacts, int]:
    """(facts by the headers and the first picture, how many frames the file holds whole).

    With fewer whole frames than the facts state, the file was cut short, and decoding will fail there. A container
    without a table of its frames (all but mp4 and mov, and these in fragments) is read through, without decoding.
    One that does not state the number of frames (mkv) states its duration. Damaged pictures further on are noticed
    only when they are decoded.

    Raises:
        As frames_in_order, of PyAV.
    """
    name = _checked(path, "pyav")
    size = os.stat(name).st_size
    import av.error
    try:
        with open_pyav(name) as container:
            stream = picture_stream(container, name)
            table = [(entry.pos, entry.size) for entry in getattr(stream, "index_entries", ())]
            fps, ends = float(stream.average_rate or 0), 0.0
            if not stream.frames or len(table) != stream.frames:
                table = []
                for packet in container.demux():                       # sound may last longer than the pictures
                    if packet.size and packet.pts is not None and packet.time_base is not None:
                        ends = max(ends, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    if packet.size and packet.stream.index == stream.index:
                        table.append((packet.pos or 0, packet.size))
            lost = (container.duration or 0) / av.time_base - ends     # seconds that are stated, but missing
            frames = stream.frames or len(table) + (round(lost * fps) if lost > MAX_LOST_S else 0)
    except av.error.FFmpegError as error:
        raise UnusableFile(f"{name}: cannot be read by pyav: {error}") from error
    first = next(frames_in_order(name, [0], "pyav"), None)
    if first is None:
        raise UnusableFile(f"{name}: holds no picture")
    height, width, _ = first[1].shape
    return VideoFacts(frames, width, height, fps), sum(start + length <= size for start, length in table)


def times_of(path: str | Path) -> np.ndarray:
    """Seconds at which the pictures are shown, from the first on, ascending float64 [frames]. Raises as
    frames_in_order, of PyAV."""
    import av.error
    name = _checked(path, "pyav")
    try:
        with open_pyav(name) as container:
            stream = picture_stream(container, name)
            times = sorted(float(packet.pts * packet.time_base) for packet in container.demux(stream)
                           if packet.size and packet.pts is not None and packet.time_base and not packet.is_discard)
    except av.error.FFmpegError as error:
        raise UnusableFile(f"{name}: cannot be read by pyav: {error}") from error
    if not times:
        raise UnusableFile(f"{name}: holds no picture")
    return np.array(times) - times[0]


def frames_in_order(path: str | Path, numbers: Sequence[int], decoder: str = "auto", whole: bool = True
                    ) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (number, uint8 [H, W, 3] RGB) for these frames, ascending, each once.

    Args:
        numbers: ascending from 0, each once. decoder: one of DECODERS, or auto: that of `usable_decoder`.
        whole: False where only parts of each picture are needed: then a picture may be an object with `shape`, whose
            parts `picture[y1:y2, x1:x2]` are the same arrays, not to be written to. PyAV converts only these to RGB, a
            third less work; decord's picture is not copied.

    Pictures are turned and mirrored as the file says, and scaled to the size of the first where a file changes it. A
    picture of another shape is an error, since nobody knows what its boxes refer to. With decord such a file is noticed
    at SAMPLES of its key frames, and refused.
    Numbers past the video's end are not yielded, so the caller must compare. Take each picture at once: decord decodes
    ahead without bound while it waits, and past MAX_AHEAD it is stopped with an error.

    Raises:
        FileNotFoundError: no such file. ValueError: not an absolute path of a regular video file, or it cannot be
            decoded (UnusableFile, which names the file). ImportError: the decoder is not installed.
    """
    ascending = np.asarray(numbers, np.int64)
    if len(ascending) and (ascending[0] < 0 or (np.diff(ascending) <= 0).any()):
        raise ValueError(f"{path}: frame numbers must ascend from 0, each once")
    decoder = usable_decoder()[0] if decoder == "auto" else decoder
    name = _checked(path, decoder)
    if not len(ascending):
        return iter(())
    return _by_decord(name, ascending, whole) if decoder == "decord" else _by_pyav(name, ascending, whole)


def _by_decord(name: str, numbers: np.ndarray, whole: bool) -> Iterator[tuple[int, np.ndarray]]:
    reader, position, picture, before = _decord(name), 0, None, _memory()
    for number in numbers[numbers < len(reader)].tolist():
        while position <= number:                                      # in order only: seeking is where it goes wrong
            picture, position = _next(reader, name, position), position + 1
            if position % 32 == 0 and (held := _memory() - before) > MAX_AHEAD:
                raise UnusableFile(f"{name}: frame {position}: decord decodes ahead of what is taken and holds "
                                 f"{held >> 20} MiB -> use `--decoder pyav`")
        assert picture is not None                                     # numbers ascend, so at least one was read
        yield number, picture.asnumpy() if whole else np.from_dlpack(NotCopied(picture))


def _memory() -> int:
    """Resident bytes of this process."""
    import psutil
    return psutil.Process().memory_info().rss


def _next(reader: Any, name: str, position: int) -> Any:
    from decord import DECORDError
    try:
        picture = reader.next()
    except (DECORDError, RuntimeError, StopIteration) as error:
        raise UnusableFile(f"{name}: frame {position}: cannot be decoded by decord: {_reason(error)}") from error
    if picture.shape[2] != 3:            # it takes bytes that fill up the lines of a narrow picture for channels
        raise UnusableFile(f"{name}: is {picture.shape[1]} pixels wide, which decord misreads -> use `--decoder pyav`")
    return picture


def _by_pyav(name: str, numbers: np.ndarray, whole: bool) -> Iterator[tuple[int, Any]]:
    import av.error
    from av.video.reformatter import VideoReformatter
    position, following, size = -1, iter(numbers.tolist()), (0, 0)
    number, reformatter, turn = next(following), VideoReformatter(), DisplayTurn()
    try:
        with open_pyav(name) as container:
            for position, frame in enumerate(container.decode(picture_stream(container, name))):
                if not position:
                    size = frame.width, frame.height
                if position == number:
                    turned = turn(frame)                               # decord turns pictures by itself
                    same_size, odd = (frame.width, frame.height) == size, frame.width % 2 or frame.height % 2
                    if not same_size and _other_shape(frame, *size):
                        raise UnusableFile(f"{name}: frame {position}: {_change(frame, *size)} -> {OTHER_SHAPE}")
                    if whole or turned or odd or not same_size or frame.format.name not in ("yuv420p", "yuvj420p"):
                        if not same_size:
                            frame = reformatter.reformat(frame, *size, format="rgb24")
                        picture = frame.to_ndarray(format="rgb24")
                        yield position, as_shown(picture, turned) if turned else picture
                    else:                                              # parts of an odd picture differ from the whole
                        yield position, Planes(frame, reformatter)
                    number = next(following, None)
                    if number is None:
                        return
        if position < 0:
            raise UnusableFile(f"{name}: holds no picture")
    except av.error.FFmpegError as error:
        raise UnusableFile(f"{name}: frame {position + 1}: cannot be decoded by pyav: {error}") from error


def _decord(name: str) -> Any:
    try:
        import decord
    except (ImportError, OSError) as error:
        raise ImportError("decord is not installed: decord 0.6.0 has wheels for Linux x86-64 only -> install it there, "
                          f"or use `--decoder pyav` ({error})") from error
    try:
        reader = decord.VideoReader(name, ctx=decord.cpu(0), num_threads=1)
        early = len(reader) and reader.get_frame_timestamp(0)[0] < 0
    except (decord.DECORDError, RuntimeError, IndexError) as error:    # IndexError: frames, but no time of any
        raise UnusableFile(f"{name}: cannot be opened by decord: {_reason(error)}") from error
    if early:
        raise UnusableFile(f"{name}: has an edit list, whose frames decord miscounts -> use `--decoder pyav`")
    if reason := _not_for_decord(name, os.stat(name).st_mtime_ns):
        raise UnusableFile(f"{name}: {reason} -> use `--decoder pyav`")
    return reader


@lru_cache
def _not_for_decord(name: str, changed: int) -> str:
    """What decord does silently otherwise than PyAV; `changed` is the file's time."""
    import av.error
    try:
        with open_pyav(name) as container:
            if len(container.streams.video) > 1:
                return "has several streams of pictures, of which decord may take another"
            first = next(container.decode(picture_stream(container, name)), None)
            a, b, c, d = (first and display_turn(first)) or (1, 0, 0, 1)
            if a * d < b * c:
                return "is mirrored, which decord leaves out"
        change = shape_change(name)
        return f"{change}, which decord stretches to the first" if change else ""
    except (UnusableFile, av.error.FFmpegError):                       # decord may still read it
        return ""


def shape_change(path: str | Path) -> str:
    """Where a video turns into one of another shape (width / height), in words; "" if no sampled key frame shows it.

    Raises:
        As frames_in_order, of PyAV.
    """
    import av.error
    name = _checked(path, "pyav")
    with open_pyav(name) as container:
        stream = picture_stream(container, name)
        first = next(container.decode(stream), None)
        length, start = (container.duration or 0) / av.time_base, (container.start_time or 0) / av.time_base
        samples = min(SAMPLES, int(length / SAMPLE_S) + 1)
        decoder = stream.codec_context
        for number in range(1, samples + 1):
            with suppress(av.error.FFmpegError):                       # some files cannot be sought in
                container.seek(int((start + length * number / samples) * av.time_base))
                # the key frame alone: the decoder, at its end, gives it without those that follow
                frame = next(iter([*decoder.decode(next(container.demux(stream))), *decoder.decode(None)]), None)
                decoder.flush_buffers()
                if frame and first and _other_shape(frame, first.width, first.height):
                    return f"at {frame.time or 0:.1f} s {_change(frame, first.width, first.height)}"
    return ""


def _other_shape(frame: Any, width: int, height: int) -> bool:
    return abs(frame.width * height / (frame.height * width) - 1) > SAME_SHAPE


def _change(frame: Any, width: int, height: int) -> str:
    return f"the picture has {frame.width} x {frame.height} pixels, the first {width} x {height}, of another shape"


def picture_stream(container: Any, name: str) -> Any:
    """The stream of the video: the first that is no cover picture, if there is another."""
    from av.stream import Disposition
    streams = [stream for stream in container.streams.video if stream.codec_context]     # None: of an unknown codec
    if not streams:
        sound = ", only sound" * bool(container.streams.audio)
        raise UnusableFile(f"{name}: holds no pictures{sound} -> give the video")
    moving = [stream for stream in streams if stream.codec_context.name not in STILL_CODECS
              and not stream.disposition & Disposition.attached_pic]
    return (moving or streams)[0]


def open_pyav(name: str, container: str | None = None) -> Any:
    """PyAV's container of a plain file, opened as what its first bytes say, or as `container`."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise ImportError(f"PyAV is not installed -> pip install av ({error})") from error
    try:
        return av.open(name, format=container or container_of(name), options={"protocol_whitelist": "file"},
                       metadata_errors="replace")                      # texts of a file are not always UTF-8
    except av.error.FFmpegError as error:
        raise UnusableFile(f"{name}: cannot be opened by pyav: {error}") from error


def _checked(path: str | Path, decoder: str) -> str:
    """The path of a plain video file. Decoders would also open playlists, protocols and devices."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder {decoder!r} is unknown: {' or '.join(DECODERS)}")
    name = os.fspath(path)
    if not os.path.isabs(name):
        raise ValueError(f"{name}: a video is opened by absolute path only, not by a relative one or a protocol")
    plain_file(name, "video", MAX_BYTES)
    if container_of(name) == "mov":
        check_stated_frames(name)
    return name


def _reason(error: BaseException) -> str:
    """decord's first line without clock times and the source files of its build."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", line)[:300]
