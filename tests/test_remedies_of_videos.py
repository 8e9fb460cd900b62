"""Remedies for videos and pictures; what a message says helps. States as in test_remedies_of_inputs."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import pytest
from av.filter import Graph
from making import HEIGHT, WIDTH, refused_until_mended, write_video
from squares import film
from test_remedies_of_inputs import State, written
from test_streaming import hide_first
from test_video_files import changing, picture

from gazepose.data import video
from gazepose.data.conventions import of_rate
from gazepose.data.video import DECODERS, frames_in_order, look_at, open_pyav
from gazepose.data.video_times import pictures_with_times


def other_decoder(make: Callable[[Path], Any], least: int = 1) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        path, decoder = tmp / "c.mp4", [*DECODERS]
        make(path)

        def read() -> None:
            assert len(list(frames_in_order(path, range(40), decoder[0]))) >= least
        return read, "use `--decoder pyav`", lambda: decoder.pop(0)
    return state


def hidden_first(path: Path) -> None:
    hide_first(write_video(path, 10), 3)


def mirrored_or_several(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for stream in streams:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
            container.mux(stream.encode())


def decodes_ahead(tmp: Path) -> State:
    attempt, words, mend = other_decoder(lambda path: write_video(path, 40), 40)(tmp)
    held = [0]

    def read() -> None:
        def memory() -> int:
            held[0] += 2 * video.MAX_AHEAD               # as a decoder that runs ahead
            return held[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(video, "_memory", memory)
            attempt()
    return read, words, mend


def other_shape(tmp: Path) -> State:
    pictures = [picture()] * 3 + [picture(WIDTH, HEIGHT)] * 3
    parts_of = [(changing(tmp / "c.avi", pictures), 6)]

    def cut() -> None:
        parts_of[:] = [(changing(tmp / f"{name}.avi", part), 3) for name, part in (("one", pictures[:3]), (
            "two", pictures[3:]))]

    def read() -> None:
        for path, frames in parts_of:
            assert len(list(frames_in_order(path, range(frames), "pyav"))) == frames
    return read, "cut the video there into two", cut


def without_pyav(tmp: Path) -> State:
    path, patch = write_video(tmp / "c.mp4", 3), pytest.MonkeyPatch()
    patch.setitem(sys.modules, "av", None)
    return lambda: open_pyav(str(path)).close(), "pip install av", patch.undo


def times(path: Path) -> list[float]:
    return [shown.seconds for shown in pictures_with_times(path)]


def all_pictures_damaged(tmp: Path) -> State:
    path = film(tmp / "a.mkv", [picture()] * 4, codec="mpeg4", g="1")
    content = path.read_bytes()
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for start, size in places:
        path.write_bytes(path.read_bytes()[:start + 6] + b"\xff" * (size - 6) + path.read_bytes()[start + size:])
    return lambda: times(path), "give another copy", lambda: path.write_bytes(content)


def marked(source: Path, target: Path, filters: str) -> None:
    """ffmpeg -i SOURCE -vf FILTERS TARGET."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream: Any = new.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        graph, (name, _, value) = Graph(), filters.partition("=")
        graph.link_nodes(graph.add_buffer(template=old.streams.video[0]), graph.add(name, value),
                         graph.add("buffersink")).configure()
        for frame in old.decode(video=0):
            graph.push(frame)
            with suppress(av.error.BlockingIOError):     # a filter may keep a picture until it has the next
                passed: Any = graph.pull()
                passed.pict_type, passed.time_base = 0, Fraction(1, 30)
                new.mux(stream.encode(passed))
        new.mux(stream.encode())


def colours_unknown(tmp: Path) -> State:
    path = film(tmp / "in.mp4", [picture()] * 3, pixels="yuv420p10le", **{"x264-params": "colormatrix=bt2020c"})
    paths, words = [path], "mark its colours as BT.709: ffmpeg -i IN.mp4 -vf setparams=colorspace=bt709 OUT.mp4"
    return (lambda: times(paths[0]), words, lambda: (marked(path, tmp / "out.mp4", words.split()[-2]),
                                                    paths.__setitem__(0, tmp / "out.mp4")))


def still(content: bytes) -> Callable[[Path], State]:
    good = cv2.imencode(".png", picture())[1].tobytes()
    return lambda tmp: written(tmp / "a.png", content, good, times, "save it as JPEG or PNG")


HUGE = cv2.imencode(".png", picture())[1].tobytes()
HUGE = HUGE[:16] + (40_000).to_bytes(4, "big") * 2 + HUGE[24:]           # pixels, by its header
VIDEOS: list[Callable[[Path], State]] = [
    other_decoder(hidden_first), other_decoder(mirrored_or_several), decodes_ahead, other_shape, without_pyav,
    all_pictures_damaged, colours_unknown, still(b"no picture"), still(b""), still(HUGE)]


def test_a_video_of_another_rate_has_that_of_the_models_after_the_command_of_the_line(tmp_path):
    command = re.search(r"ffmpeg -i IN.mp4 -r (\d+) OUT.mp4", of_rate(look_at(film(tmp_path / "in.mp4", [picture()] * 8,
                                                                                    rate=25))[0].fps))
    assert command
    marked(tmp_path / "in.mp4", tmp_path / "out.mp4", f"fps={command[1]}")                # which -r stands for
    assert of_rate(look_at(tmp_path / "out.mp4")[0].fps) == ""


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*VIDEOS)
