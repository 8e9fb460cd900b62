"""Drawn videos: the source's times and sound, boxes by state, faces that nobody recognises."""

import gc
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from gazepose.data.video_times import pictures_with_times
from gazepose.watch.bouts import LOOKS
from gazepose.watch.draw import draw_video, drawn_name
from gazepose.watch.overlay import COLOURS, LOOKING, NOT_CODABLE, NOT_LOOKING, Overlay, pixelate
from gazepose.watch.table import FACES, Video

WIDTH, HEIGHT, RATE = 320, 240, 48_000
FACE = (100, 80, 60, 70)


def film(path: Path, times: list[int], sound: str = "", late: int = 0) -> Path:
    """A grey H.264 video whose pictures are shown at these milliseconds, with a second of sound per second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=1000, options={"bf": "2", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        heard: Any = container.add_stream(sound, rate=RATE, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 60 + number % 40, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time + late, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if heard:
            form = heard.codec_context.format.name
            samples = np.sin(np.arange((times[-1] + late) * RATE // 1000) / 20) * 0.3
            for start in range(0, len(samples) - 959, 960):
                part = samples[None, start:start + 960].astype(np.float32)
                if form.startswith("s16"):
                    part = (part * 32767).astype(np.int16)
                tone = av.AudioFrame.from_ndarray(part, format=form, layout="mono")
                tone.sample_rate, tone.pts, tone.time_base = RATE, start, Fraction(1, RATE)
                container.mux(heard.encode(tone))
            container.mux(heard.encode())
    return path


def faces(times: list[int], name: str = "a.mp4", frames: list[int] | None = None, **columns: Any) -> pd.DataFrame:
    """One face, P1, in these frames of a video with such times."""
    rows = [{"video": name, "person": "P1", "frame": k, "seconds": times[k] / 1000, "looking": 0.2, "codable": 1,
             "reason": "", **dict(zip(("x", "y", "width", "height"), map(float, FACE), strict=True)), **columns}
            for k in (range(len(times)) if frames is None else frames)]
    return pd.DataFrame(rows, columns=list(FACES))


def looks(*spans: tuple[float, float], name: str = "a.mp4") -> pd.DataFrame:
    return pd.DataFrame([(name, "P1", start, end, end - start, 0.9, "score") for start, end in spans],
                        columns=list(LOOKS))


def facts(path: Path, times: list[int]) -> Video:
    return Video(path.name, path, WIDTH, HEIGHT, len(times), 25.0, (times[-1] + 40) / 1000)


def drawn(tmp_path: Path, times: list[int], path: Path, **how: Any) -> Path:
    out = tmp_path / "out" / drawn_name(facts(path, times))
    draw_video(facts(path, times), faces(times, path.name), looks(name=path.name), out, **how)
    return out


def streams(path: Path) -> tuple[list[float], list[tuple[float, bytes]]]:
    """Times of the pictures, and (time, bytes) of the packets of sound."""
    with av.open(str(path)) as container:
        pictures = [float(frame.time or 0) for frame in container.decode(container.streams.video[0])]
    with av.open(str(path)) as container:
        heard = [(float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(audio=0)
                 if packet.size] if container.streams.audio else []
    return pictures, heard


TIMES = [0, 40, 80, 200, 240, 500, 540, 900, 940, 1400]      # a variable rate


def test_frame_times_of_a_variable_rate_and_the_bytes_of_the_sound_are_kept(tmp_path):
    source = film(tmp_path / "a.mp4", TIMES, "aac")
    out = drawn(tmp_path, TIMES, source)
    before, after = streams(source), streams(out)
    assert after[0] == pytest.approx([time / 1000 for time in TIMES], abs=1e-4)
    assert [sound for _, sound in after[1]] == [sound for _, sound in before[1]] and len(after[1]) > 50
    assert [time for time, _ in after[1]] == pytest.approx([time for time, _ in before[1]], abs=1e-3)


def test_browsers_can_play_it_while_it_loads(tmp_path):
    out = drawn(tmp_path, TIMES, film(tmp_path / "a.mp4", TIMES))
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width % 2, context.height % 2) == ("h264", "yuv420p", 0, 0)
    content = out.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libopus"), ("a.mov", "pcm_s16le")])
def test_sound_that_browsers_cannot_play_in_an_mp4_becomes_aac_of_the_same_length(tmp_path, name, codec):
    out = drawn(tmp_path, TIMES, film(tmp_path / name, TIMES, codec))
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = sum(frame.samples for frame in container.decode(audio=0)) / RATE
    assert heard == pytest.approx(TIMES[-1] / 1000, abs=0.06)


def test_pictures_that_begin_after_the_sound_begin_at_0_and_the_sound_moves_with_them(tmp_path):
    source = film(tmp_path / "a.mkv", TIMES, "aac", late=500)
    pictures, heard = streams(drawn(tmp_path, TIMES, source))
    assert pictures == pytest.approx([time / 1000 for time in TIMES], abs=1e-3)
    assert heard[0][0] == pytest.approx(0, abs=0.03)
    assert heard[-1][0] == pytest.approx(TIMES[-1] / 1000, abs=0.05)


def test_a_drawing_that_is_stopped_leaves_no_file(tmp_path):
    def stop(number: int) -> None:
        if number == 5:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, TIMES, film(tmp_path / "a.mp4", TIMES), each=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_video_that_ends_early_is_drawn_as_far_as_it_goes(tmp_path):
    times, notes = list(range(0, 4000, 40)), []
    source = film(tmp_path / "a.mkv", times)
    source.write_bytes(source.read_bytes()[:source.stat().st_size // 2])
    pictures, _ = streams(drawn(tmp_path, times, source, notify=notes.append))
    assert 10 < len(pictures) < 100 and len(notes) <= 1


def test_a_picture_becomes_a_picture(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    video = Video("a.png", path, WIDTH, HEIGHT, 1, 0.0, 0.0)
    draw_video(video, faces([0], "a.png"), looks(), tmp_path / drawn_name(video))
    assert cv2.imread(str(tmp_path / "a.png.watched.jpg")).shape == (HEIGHT, WIDTH, 3)


# ---- what is drawn

def overlay(table: pd.DataFrame, spans: pd.DataFrame, **how: Any) -> Overlay:
    return Overlay(WIDTH, HEIGHT, table, spans, how.pop("blur", False), **how)


def colours_of_box(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour of the box's corner and of the middle of its lower side."""
    x, y, width, height = FACE
    return picture[y + height, x], picture[y + height, x + width // 2]


def test_a_state_has_a_colour_and_a_line_of_its_own():
    table = faces([0, 500, 1000])
    table.loc[2, ["codable", "reason"]] = 0, "too small"
    drawing = overlay(table, looks((0.4, 0.6)))
    plain, corners, middles = np.full((HEIGHT, WIDTH, 3), 60, np.uint8), {}, {}
    for number, state in ((0, NOT_LOOKING), (1, LOOKING), (2, NOT_CODABLE)):
        corners[state], middles[state] = colours_of_box(drawing.draw(number, number / 2, plain))
    for state, corner in corners.items():
        assert np.abs(corner - np.array(COLOURS[state], int)).max() < 40, state
    assert np.abs(middles[LOOKING] - np.array(COLOURS[LOOKING], int)).max() < 40      # a whole line
    assert (middles[NOT_LOOKING] == 60).all()                                         # corners only
    assert (plain == 60).all()


def test_strips_lie_below_the_picture_and_show_the_last_ten_seconds():
    times = list(range(0, 20_000, 100))
    drawing = overlay(faces(times), looks((8.0, 12.0)))
    plain = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    assert drawing.height > HEIGHT
    teal = np.array(COLOURS[LOOKING]) * 0.62
    share = []
    for seconds in (7.0, 12.0, 19.0):
        strip = drawing.draw(int(seconds * 10), seconds, plain)[HEIGHT + 14]
        share.append((np.abs(strip - teal).max(1) < 12).sum())
    assert share[0] == 0 and share[1] > 60 and 0 < share[2] < share[1]


def test_a_crowd_gets_no_more_strips_than_a_third_of_the_picture():
    table = pd.concat([faces([0, 100], person=f"P{k}") for k in range(60)], ignore_index=True)
    assert overlay(table, looks()).height <= 1.4 * HEIGHT


def test_a_blurred_face_has_a_few_flat_squares_also_in_gaps_and_just_before_and_after():
    times = list(range(0, 4000, 100))
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    x, y, width, height = FACE
    table = faces(times, frames=[10, 11, 25])                # seen at 1.0, 1.1 and 2.5 s
    drawing = overlay(table, looks(), blur=True, strips=False)

    def is_blurred(seconds: float) -> bool:
        picture = drawing.draw(round(10 * seconds), seconds, noise)
        inside = picture[y + 8:y + height - 8, x + 8:x + width - 8].reshape(-1, 3)
        return len(np.unique(inside, axis=0)) <= 49
    assert [is_blurred(time) for time in (0.3, 0.6, 1.0, 1.1, 1.8, 2.5, 2.9, 3.2)] == [
        False, True, True, True, True, True, True, False]


def test_a_pixelated_face_keeps_36_colours_and_its_margin():
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    before = noise.copy()
    pixelate(noise, np.array(FACE, float))
    changed = (noise != before).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows[0] <= 80 - 13 and rows[-1] >= 80 + 70 + 13 and columns[0] <= 100 - 11 and columns[-1] >= 160 + 11
    assert len(np.unique(noise[rows[0]:rows[-1], columns[0]:columns[-1]].reshape(-1, 3), axis=0)) <= 36


def test_pictures_are_freed_as_they_are_read(tmp_path):
    path, alive = film(tmp_path / "a.mp4", list(range(0, 4000, 40))), []
    gc.collect()
    gc.freeze()                          # only objects that are made from here on are counted
    gc.disable()                         # what refers to itself would wait for the garbage collector
    try:
        for _ in pictures_with_times(path):
            alive.append(sum(type(each) is av.VideoFrame for each in gc.get_objects()))
    finally:
        gc.enable()
    assert len(alive) == 100 and max(alive) < 30


def test_a_turned_video_is_drawn_as_it_is_shown(tmp_path):
    source = film(tmp_path / "a.mp4", TIMES)
    content = bytearray(source.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start:start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)      # a quarter
    source.write_bytes(content)
    out = tmp_path / "out.mp4"
    video = Video("a.mp4", source, HEIGHT, WIDTH, len(TIMES), 25.0, 1.44)
    draw_video(video, faces(TIMES, frames=[]), looks(), out)
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (HEIGHT, WIDTH)
