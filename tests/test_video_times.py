"""Every picture of any video with its time: rates, turns, colours, damage, stills."""

import struct
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from squares import film, picture

from gazepose.data.video_times import pictures_with_times, stated_seconds


def levels(path: Path, **how: Any) -> list[int]:
    """Mean brightness of each picture."""
    return [round(float(shown.picture.mean())) for shown in pictures_with_times(path, **how)]


def grounds(count: int) -> list[np.ndarray]:
    return [picture([], 10 + 5 * number) for number in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.ts", "a.flv"])
def test_pictures_are_numbered_in_order_with_their_times(tmp_path, name):
    shown = list(pictures_with_times(film(tmp_path / name, grounds(12), rate=25)))
    assert [each.number for each in shown] == list(range(12))
    assert [each.seconds for each in shown] == pytest.approx(np.arange(12) / 25, abs=0.002)
    assert [each.duration for each in shown] == pytest.approx([1 / 25] * 12, abs=0.002)
    means = [round(float(each.picture.mean())) for each in shown]
    assert means == pytest.approx([10 + 5 * number for number in range(12)], abs=3)


def test_times_of_a_variable_rate_are_those_of_presentation(tmp_path):
    times = [0.0, 0.04, 0.3, 0.31, 1.5, 2.0]
    shown = pictures_with_times(film(tmp_path / "a.mkv", grounds(6), times=times))
    assert [each.seconds for each in shown] == pytest.approx(times, abs=0.001)


def test_a_video_that_begins_late_begins_at_0(tmp_path):
    shown = pictures_with_times(film(tmp_path / "a.mkv", grounds(3), times=[5.0, 5.1, 5.2]))
    assert [each.seconds for each in shown] == pytest.approx([0, 0.1, 0.2], abs=0.001)


def test_a_start_leaves_out_earlier_pictures_and_changes_no_later_one(tmp_path):
    path = film(tmp_path / "a.mp4", grounds(20), bf="3")
    whole, rest = list(pictures_with_times(path)), list(pictures_with_times(path, 7))
    assert [each.number for each in rest] == list(range(7, 20))
    for one, other in zip(whole[7:], rest, strict=True):
        assert one.seconds == other.seconds and np.array_equal(one.picture, other.picture)


def test_a_turned_video_is_upright(tmp_path):
    path = film(tmp_path / "a.mp4", [picture([(0, 0, 60)])] * 2)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start:start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    shown = next(pictures_with_times(path)).picture
    assert shown.shape == (320, 240, 3) and shown[5, -5].min() > 200 > shown[5, 5].max()


def test_ten_bit_hdr_is_shown_with_standard_levels(tmp_path):
    # a white page in HDR has 58 % of the signal: shown as it is, it would be a dim grey of 148
    path = film(tmp_path / "a.mp4", [picture([], 148)] * 3, codec="libx265", pixels="yuv420p10le",
                **{"x265-params": "log-level=0:transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"})
    shown = next(pictures_with_times(path)).picture
    assert shown.dtype == np.uint8 and shown.mean() > 220
    plain = film(tmp_path / "b.mp4", [picture([], 148)] * 3, codec="libx265", pixels="yuv420p10le",
                 **{"x265-params": "log-level=0"})
    assert next(pictures_with_times(plain)).picture.mean() == pytest.approx(148, abs=3)


def test_a_gif_has_the_times_of_its_pictures(tmp_path):
    path = film(tmp_path / "a.gif", grounds(5), rate=10, codec="gif", pixels="rgb8")
    assert [each.seconds for each in pictures_with_times(path)] == pytest.approx([0, .1, .2, .3, .4], abs=0.01)


def test_sound_alone_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for read in (lambda path: next(pictures_with_times(path)), stated_seconds):
        with pytest.raises(ValueError, match=r"sound\.mp4: holds no pictures, only sound -> give the video"):
            read(path)


def test_a_cover_before_the_video_is_not_the_video(tmp_path):
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        stream: Any = container.add_stream("libx264", rate=30)
        for each, pixels in ((cover, "yuvj420p"), (stream, "yuv420p")):
            each.width, each.height, each.pix_fmt = 64, 64, pixels
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture([], 9, (64, 64)), format="rgb24")))
        container.mux(cover.encode())
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture([], 200, (64, 64)), format="rgb24")))
        container.mux(stream.encode())
    assert levels(path) == pytest.approx([200] * 4, abs=3)


def test_a_file_that_was_cut_short_gives_what_it_has_and_says_so(tmp_path):
    path, notes = film(tmp_path / "a.mp4", grounds(40), g="5", movflags="faststart"), []
    with av.open(str(path)) as container, av.open(str(tmp_path / "b.mkv"), "w") as other:
        copy: Any = other.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                other.mux(packet)
    content = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(content[:len(content) // 2])
    found = levels(tmp_path / "b.mkv", notify=notes.append)
    assert 5 < len(found) < 40 and len(notes) <= 1


def test_damage_in_the_middle_costs_only_its_pictures(tmp_path):
    path, notes = film(tmp_path / "a.mkv", grounds(40), codec="mpeg4", g="1"), []
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    content[places[10] + 8:places[12] - 8] = b"\xff" * (places[12] - 8 - places[10] - 8)
    path.write_bytes(content)
    found = list(pictures_with_times(path, notify=notes.append))
    assert 30 <= len(found) < 40 and found[-1].seconds == pytest.approx(39 / 30, abs=0.01)
    assert [each.number for each in found] == list(range(len(found)))


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nhttp://example.com/a.ts\n", b"\0" * 500, b"GIF89a"])
def test_what_is_no_video_is_refused_and_named(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mp4: "):
        list(pictures_with_times(tmp_path / "a.mp4"))


# ---- still pictures

def test_a_still_picture_is_a_video_of_one_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture([], 77))
    shown = list(pictures_with_times(tmp_path / "a.png"))
    assert [(each.number, each.seconds, each.duration) for each in shown] == [(0, 0.0, 0.0)]
    assert shown[0].picture.mean() == 77 and stated_seconds(tmp_path / "a.png") == 0
    assert list(pictures_with_times(tmp_path / "a.png", 1)) == []


def test_a_still_picture_is_turned_as_its_exif_data_say(tmp_path):
    from PIL import Image
    exif = Image.Exif()
    exif[0x0112] = 6                                                   # the camera was turned by a quarter
    Image.fromarray(picture([(0, 0, 60)])).save(tmp_path / "a.jpg", exif=exif)
    shown = next(pictures_with_times(tmp_path / "a.jpg")).picture
    assert shown.shape == (320, 240, 3) and shown[5, -5].min() > 200 > shown[5, 5].max()


def test_a_damaged_still_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8nothing")
    with pytest.raises(ValueError, match=r"a\.jpg: not a picture that can be read -> save it as JPEG or PNG"):
        list(pictures_with_times(tmp_path / "a.jpg"))
