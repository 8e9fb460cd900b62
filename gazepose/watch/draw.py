"""The drawn video: the source's pictures with a box for each face and a strip for each person, and the source's sound.

One pass in constant memory: a picture is read, drawn on and encoded before the next is read. What is drawn on a
picture is overlay.py.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.video_times import open_sound, pictures_with_times
from gazepose.io import writing_path
from gazepose.watch.overlay import Overlay
from gazepose.watch.table import Table, Video

CLOCK = 90_000               # ticks per second of the drawn pictures
COPIED = ("aac", "mp3")      # sound that browsers play in an mp4; other sound becomes AAC
X264 = {"preset": "veryfast", "crf": "21", "bf": "0", "profile": "high"}
"""Without B-frames the first picture has time 0 in every player. At 21 the letters stay sharp."""
BT709 = 1                    # number of the colour space of HD video
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
        shown = next(pictures)
        height, width, _ = shown.picture.shape
        overlay = Overlay(width, height, table, looks, blur)
        found = stack.enter_context(open_sound(video.path.absolute()))
        container = stack.enter_context(av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}))
        encoder = _Pictures(container, overlay.width, overlay.height, video.fps or 30.0)
        sound = _Sound(container, *found, notify=notify) if found else None
        while shown is not None:
            each(shown.number)
            drawn = overlay.draw(shown.number, shown.seconds, shown.picture)
            following = next(pictures, None)
            ends = following.seconds if following else shown.seconds + shown.duration
            encoder.add(drawn, shown.seconds, ends)
            if sound:
                sound.copy_until(shown.seconds)
            shown = following
        encoder.end()
        if sound:
            sound.copy_until(float("inf"))
            sound.end()


class _Pictures:
    """H.264 encoder of RGB pictures at any times."""

    def __init__(self, container: Any, width: int, height: int, fps: float) -> None:
        rate = Fraction(min(max(fps, 1.0), 1000.0)).limit_denominator(1001)
        self.container = container
        self.stream = container.add_stream("libx264", rate=rate, options=X264 | {"g": str(max(1, round(fps)))})
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        context = self.stream.codec_context
        context.time_base = Fraction(1, CLOCK)
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1                  # 16 to 235, as browsers expect of any video
        self.lengths: dict[int, int] = {}        # of pictures in the encoder, by their time, in ticks
        self.last = -1

    def add(self, picture: np.ndarray, seconds: float, ends: float) -> None:
        import av
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        ticks = max(round(seconds * CLOCK), self.last + 1)
        frame.pts, frame.time_base, self.last = ticks, Fraction(1, CLOCK), ticks
        self.lengths[ticks] = max(round(ends * CLOCK) - ticks, 1)
        self._write(frame)

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
