"""The drawn video: the source's pictures with a box for each face and a strip for each person, and the source's sound.

One pass in constant memory. One thread reads and draws, another encodes, so one video keeps two cores busy. What is
drawn on a picture is overlay.py.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from gazepose.data.video_times import TimedPicture, open_sound, pictures_with_times
from gazepose.io import writing_path
from gazepose.watch.overlay import Overlay
from gazepose.watch.table import Table, Video
from gazepose.watch.video_pass import ahead

CLOCK = 90_000               # ticks per second of the drawn pictures
COPIED = ("aac", "mp3")      # sound that browsers play in an mp4; other sound becomes AAC
X264 = {"preset": "superfast", "crf": "21", "bf": "0", "profile": "high", "x264-params": "mbtree=1:rc-lookahead=10"}
"""Without B-frames the first picture has time 0 in every player. At 21 the letters stay sharp. With the tree of
macroblocks `superfast` takes two thirds of the time of `veryfast`, for a tenth more bytes of the same quality."""
THREADS = 2                  # of the encoder; always as many, so that the bytes are the same on every machine
BT709, BT601 = 1, 6          # numbers of colour spaces
MAX_RATE = 48_000            # samples per second of AAC


def drawn_name(video: Video) -> str:
    """Name of the file that `draw_video` makes of a video or a picture."""
    return f"{video.name}.watched.{'mp4' if video.seconds > 0 else 'jpg'}"


def draw_video(video: Video, table: Table, looks: Table, out: Path, blur: bool = False, *,
               each: Callable[[int], None] = lambda number: None, notify: Callable[[str], None] = print) -> None:
    """Draw the faces of a video on its pictures, and write H.264 in an mp4 that browsers play; of a picture, a JPEG.

    Times of the pictures and the sound are the source's. The file appears when it is whole. Damaged pictures and
    damaged sound are left out, and `notify` is called.

    Args:
        table: faces of this and perhaps of other videos (FACES). looks: looks, with columns video, person, start, end.
        blur: make each face unrecognisable, also in gaps of a track and half a second before and after it.
        each: called with the number of each picture before it is drawn; what it raises ends the drawing.

    Raises:
        As pictures_with_times: the source cannot be opened, or no picture of it can be decoded.
    """
    table, looks = table[table["video"] == video.name], looks[looks["video"] == video.name]
    with writing_path(out) as part:
        if video.seconds > 0:
            _draw_moving(video, table, looks, part, blur, each, notify)
        else:
            _draw_still(table, looks, video.path.absolute(), part, blur)


def _draw_still(table: Table, looks: Table, path: Path, out: Path, blur: bool) -> None:
    from PIL import Image
    picture = next(pictures_with_times(path)).picture
    drawn = Overlay(picture.shape[1], picture.shape[0], table, looks, blur, strips=False).draw(0, 0.0, picture)
    Image.fromarray(drawn).save(out, "JPEG", quality=92)


def _draw_moving(video: Video, table: Table, looks: Table, out: Path, blur: bool, each: Callable[[int], None],
                 notify: Callable[[str], None]) -> None:
    import av
    with ExitStack() as stack:
        pictures = pictures_with_times(video.path.absolute(), notify=notify)
        first = next(pictures)
        height, width, _ = first.picture.shape
        overlay = Overlay(width, height, table, looks, blur)
        found = stack.enter_context(open_sound(video.path.absolute()))
        container = stack.enter_context(av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}))
        encoder = _Pictures(container, overlay.width, overlay.height, video.fps or 30.0)
        sound = _Sound(container, *found, notify=notify) if found else None
        for drawn in stack.enter_context(closing(ahead(_drawn(overlay, first, pictures)))):
            each(drawn.number)
            encoder.add(drawn)
            if sound:
                sound.copy_until(drawn.seconds)
        encoder.end()
        if sound:
            sound.copy_until(float("inf"))
            sound.end()


class _Drawn(NamedTuple):
    """A picture as the encoder takes it."""

    number: int
    seconds: float
    ends: float
    """seconds at which the next picture is shown"""
    planes: np.ndarray
    """luma, then the two chromas at half size, one after the other, uint8 [height * 3 / 2, width]"""


def _drawn(overlay: Overlay, shown: TimedPicture | None, following: Iterator[TimedPicture]) -> Iterator[_Drawn]:
    """Draw on a picture and on all that follow."""
    while shown is not None:
        drawn = overlay.draw(shown.number, shown.seconds, shown.picture)
        # FFmpeg's converter takes three times as long; OpenCV's is BT.601
        planes = np.asarray(cv2.cvtColor(drawn, cv2.COLOR_RGB2YUV_I420), np.uint8)
        after = next(following, None)
        yield _Drawn(shown.number, shown.seconds, after.seconds if after else shown.seconds + shown.duration, planes)
        shown = after


class _Pictures:
    """H.264 encoder of pictures at any times."""

    def __init__(self, container: Any, width: int, height: int, fps: float) -> None:
        import av
        rate = Fraction(min(max(fps, 1.0), 1000.0)).limit_denominator(1001)
        self.container = container
        self.stream = container.add_stream("libx264", rate=rate, options=X264 | {"g": str(max(1, round(fps)))})
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        context = self.stream.codec_context
        context.time_base = Fraction(1, CLOCK)
        context.thread_count = THREADS
        context.color_primaries = context.color_trc = BT709
        context.colorspace = BT601               # as in `_drawn`; players follow this number
        context.color_range = 1                  # 16 to 235, as browsers expect of any video
        self.frame = av.VideoFrame(width, height, "yuv420p")
        self.frame.time_base = context.time_base
        self.lengths: dict[int, int] = {}        # of pictures in the encoder, by their time, in ticks
        self.last = -1

    def add(self, drawn: _Drawn) -> None:
        at, values = 0, drawn.planes.reshape(-1)
        planes: Any = self.frame.planes
        for plane in planes:                                           # x264 copies them before it returns
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            size = plane.height * plane.width
            rows[:, :plane.width], at = values[at:at + size].reshape(plane.height, plane.width), at + size
        ticks = max(round(drawn.seconds * CLOCK), self.last + 1)
        self.frame.pts = self.last = ticks
        self.lengths[ticks] = max(round(drawn.ends * CLOCK) - ticks, 1)
        self._write(self.frame)

    def end(self) -> None:
        self._write(None)

    def _write(self, frame: Any) -> None:
        for packet in self.stream.encode(frame):
            packet.duration = self.lengths.pop(packet.pts, packet.duration)
            self.container.mux(packet)


class _Sound:
    """The source's sound, copied or made AAC, on the clock of the drawn pictures: what comes before the first is cut.

    Args:
        source: its stream. start: time of the first picture on its clock. packets: of the source, in order.
    """

    def __init__(self, container: Any, source: Any, start: float, packets: Iterator[Any], *,
                 notify: Callable[[str], None]) -> None:
        self.container, self.start, self.notify = container, start, notify
        self.times = _in_time(packets, start)
        self.waiting: tuple[float, Any] | None = None
        self.resampler = None
        if source.codec_context.name in COPIED or source.codec_context.name.removesuffix("float") in COPIED:
            self.stream = container.add_stream_from_template(source)
        else:
            from av.audio.resampler import AudioResampler
            rate = min(source.codec_context.sample_rate or MAX_RATE, MAX_RATE)
            layout = "mono" if source.codec_context.channels == 1 else "stereo"
            self.stream = container.add_stream("aac", rate=rate, layout=layout)
            self.resampler = AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)

    def copy_until(self, seconds: float) -> None:
        """Write all packets that begin up to then; at a damaged one the sound ends."""
        import av.error
        try:
            while True:
                if self.waiting is None:
                    self.waiting = next(self.times, None)
                if self.waiting is None or self.waiting[0] > seconds:
                    return
                packet, self.waiting = self.waiting[1], None
                self._write(packet)
        except av.error.FFmpegError as error:
            self.times, self.waiting = iter(()), None
            self.notify(f"the sound cannot be read to its end: {error}; the drawn video is silent from there")

    def end(self) -> None:
        if self.resampler:
            for packet in (*self._encoded(None), *self.stream.encode(None)):
                self.container.mux(packet)

    def _write(self, packet: Any) -> None:
        shift = round(self.start / packet.time_base)
        if self.resampler is None:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self.stream
            self.container.mux(packet)
            return
        for frame in packet.decode():
            frame.pts = None if frame.pts is None else frame.pts - round(self.start / frame.time_base)
            for encoded in self._encoded(frame):
                self.container.mux(encoded)

    def _encoded(self, frame: Any) -> Iterator[Any]:
        for even in self.resampler.resample(frame) if self.resampler else ():
            yield from self.stream.encode(even)


def _in_time(packets: Iterator[Any], start: float) -> Iterator[tuple[float, Any]]:
    """(seconds since the first picture, packet) of packets with times, from the last one before that picture on.

    That last one is needed to decode the next. Players do not play what has a time below 0.
    """
    before: list[tuple[float, Any]] = []
    for packet in packets:
        if not packet.size or packet.pts is None or packet.dts is None:
            continue
        begins = float(packet.pts * packet.time_base) - start
        if begins < 0:
            before = [(begins, packet)]
            continue
        yield from before
        yield begins, packet
        before = []
