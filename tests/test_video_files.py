"""Videos as the world writes them: names in capitals, covers, sound alone, sizes that change, mirrors, odd sizes."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from making import HEIGHT, WIDTH, data_set, prepare, write_video

from gazepose.data.clip_crops import by_either_decoder
from gazepose.data.images import read_image, size_by_header
from gazepose.data.index import Index
from gazepose.data.own_videos import lay_out
from gazepose.data.video import DECODERS, OTHER_SHAPE, find_video, frames_in_order, look_at, shape_change, video_facts
from gazepose.doctor import examine
from gazepose.io import UnusableFile


def first_picture(path: Path, decoder: str = "pyav", **options: Any) -> np.ndarray:
    return next(picture for _, picture in frames_in_order(path, [0], decoder, **options))


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Bright at the upper left, less so at the upper right, dark below."""
    levels = np.array([[240, 120], [60, 0]], np.uint8)
    return cv2.resize(levels, (width, height), interpolation=cv2.INTER_NEAREST)[..., None].repeat(3, 2)


def corners(picture: np.ndarray) -> list[int]:
    """Levels of the four corners in classes: 2 the bright, 1 the less bright, 0 the others."""
    return [int(level > 180) + int(level > 90) for level in
            (picture[4, 4, 1], picture[4, -5, 1], picture[-5, 4, 1], picture[-5, -5, 1])]


def film(path: Path, pictures: list[np.ndarray], codec: str = "libx264", rate: int = 30) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for shown in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


# ---- names

@pytest.mark.parametrize("name", ["c.mp4", "c.MP4", "c.MOV", "c.mkv"])
def test_a_video_is_found_in_capitals_too(tmp_path, name):
    (tmp_path / name).touch()
    assert find_video(tmp_path, "c").name == name
    assert find_video(tmp_path, "d").name == "d.mp4"


def test_two_videos_of_one_clip_are_refused(tmp_path):
    root = data_set(tmp_path / "data", {"c": [("t", list(range(30)))]})
    write_video(root / "videos" / "c.MOV", 40)
    with pytest.raises(ValueError, match=r"c\.mp4: there is a c\.MOV too -> keep one of them"):
        prepare(root, "train", jobs=1)
    found = examine(root, notify=lambda line: None)["findings"]["pictures_damaged"]
    assert found["examples"][0]["detail"] == "c.mp4: there is a c.MOV too -> keep one of them"
    (root / "videos" / "c.mp4").unlink()                   # as the message says
    assert len(Index.open(prepare(root, "train", jobs=1))) == 30
    assert "clip_unused" not in examine(root, notify=lambda line: None)["findings"]


# ---- streams

def test_a_cover_before_the_video_is_not_the_video(tmp_path):
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        stream: Any = container.add_stream("libx264", rate=30)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9, np.uint8), format="rgb24")))
        container.mux(cover.encode())
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        container.mux(stream.encode())
    assert corners(first_picture(path)) == [2, 1, 0, 0]
    facts, whole = look_at(path)
    assert (facts.frames, facts.width, facts.height, whole) == (10, WIDTH, HEIGHT, 10)
    with pytest.raises(ValueError, match="several streams of pictures, of which decord may .* -> use `--deco"):
        first_picture(path, "decord")


def test_sound_alone_is_named(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for number in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for read in (look_at, first_picture, lambda path: video_facts(path, "pyav")):
        with pytest.raises(ValueError, match=r"sound\.mp4: holds no pictures, only sound -> give the video"):
            read(path)


# ---- sizes

def changing(path: Path, pictures: list[np.ndarray]) -> Path:
    """A video whose pictures have the sizes of these, each a key frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p"
        for number, shown in enumerate(pictures):
            coder: Any = av.CodecContext.create("mjpeg", "w")
            coder.height, coder.width = shown.shape[:2]
            coder.pix_fmt, coder.time_base = "yuvj420p", Fraction(1, 30)
            for packet in coder.encode(av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 30)
                container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_faces_of_a_picture_of_another_shape_are_refused_by_name(tmp_path, suffix, decoder):
    root = data_set(tmp_path, {"c": [("t", list(range(40)))], "d": [("t", list(range(30)))]}, videos=False)
    for uid in ("c", "d"):                                 # d has no face where the shape changes
        changing(root / "videos" / f"{uid}{suffix}", [picture()] * 30 + [picture(WIDTH, HEIGHT)] * 10)
    index = Index.open(prepare(root, "train", jobs=1, decoder=decoder, max_bad_fraction=0.5))
    reason = index.facts["bad_clips"]["c"]
    assert index.clips == ["d"] and reason.endswith(f"-> {OTHER_SHAPE}")
    assert f"frame 30: the picture has {HEIGHT} x {WIDTH} pixels, the first {WIDTH} x {HEIGHT}, of another" in reason
    found = examine(root, notify=lambda line: None)["findings"]["pictures_damaged"]
    assert found["parts"] == {"shape changes": 2} and "s the picture has 128 x 320" in found["examples"][0]["detail"]


def test_a_size_that_is_rounded_is_of_the_same_shape(tmp_path):
    path = changing(tmp_path / "c.avi", [picture(720, 1280), picture(480, 854), picture(361, 640)])
    assert [shown.shape for _, shown in frames_in_order(path, range(3), "pyav")] == [(720, 1280, 3)] * 3
    assert shape_change(path) == ""


def test_pictures_of_a_size_that_changes_are_scaled_to_the_first_by_both_decoders(tmp_path):
    path = changing(tmp_path / "change.avi", [picture(HEIGHT // n, WIDTH // n) for n in (1, 1, 2, 2)])
    for decoder in DECODERS:
        for whole in (True, False):
            pictures = [shown[0:HEIGHT, 0:WIDTH] for _, shown in frames_in_order(path, range(4), decoder, whole)]
            assert [shown.shape for shown in pictures] == [(HEIGHT, WIDTH, 3)] * 4
            assert [corners(shown) for shown in pictures] == [[2, 1, 0, 0]] * 4


@pytest.mark.parametrize("width", [16, 24, 48, 72])
def test_a_width_that_decord_misreads_is_refused_by_it_and_prepared_by_the_other(tmp_path, width):
    path = film(tmp_path / "a.mp4", [picture(60, width)] * 2)
    for read in (video_facts, first_picture):
        with pytest.raises(UnusableFile, match=f"a.mp4: is {width} pixels wide, which decord misreads -> use"):
            read(path, "decord")
    notes: dict[str, str] = {}
    shown = by_either_decoder("decord", notes, lambda decoder: first_picture(path, decoder))
    assert shown.shape == (60, width, 3) and corners(shown) == [2, 1, 0, 0] and "misreads" in notes["decoder"]


def test_parts_of_a_picture_of_odd_size_are_parts_of_the_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (129, 321, 3), np.uint8)
    path = film(tmp_path / "odd.mkv", [noise] * 2, "libvpx-vp9")
    whole, parts = first_picture(path), first_picture(path, whole=False)
    assert parts.shape == whole.shape == (129, 321, 3)
    for y1, y2, x1, x2 in ((0, 129, 0, 321), (100, 129, 300, 321), (3, 50, 17, 90)):
        assert np.array_equal(parts[y1:y2, x1:x2], whole[y1:y2, x1:x2])


@pytest.mark.parametrize("decoder", DECODERS)
def test_parts_of_a_picture_are_kept_while_the_video_is_read_on(tmp_path, decoder):
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    path = film(tmp_path / "v.mp4", list(noise))
    parts = [shown[3:40, 5:50] for _, shown in frames_in_order(path, range(40), decoder, whole=False)]
    for part, (_, whole) in zip(parts, frames_in_order(path, range(40), decoder), strict=True):
        assert (part == whole[3:40, 5:50]).all()


# ---- turned and mirrored pictures

SHOWN = {                                                  # display matrix a, b, c, d -> the corners of `picture`
    (1, 0, 0, 1): [2, 1, 0, 0], (0, 1, -1, 0): [0, 2, 0, 1], (-1, 0, 0, -1): [0, 0, 1, 2], (0, -1, 1, 0): [1, 0, 2, 0],
    (-1, 0, 0, 1): [1, 2, 0, 0], (1, 0, 0, -1): [0, 0, 2, 1], (0, 1, 1, 0): [2, 0, 1, 0], (0, -1, -1, 0): [0, 1, 0, 2]}


@pytest.mark.parametrize("matrix", SHOWN)
def test_a_picture_is_shown_as_its_display_matrix_says(tmp_path, matrix):
    path = film(tmp_path / "turned.mp4", [picture()] * 3)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = matrix
    content[start:start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    shown = first_picture(path)
    assert shown.shape == ((HEIGHT, WIDTH, 3) if a else (WIDTH, HEIGHT, 3)) and corners(shown) == SHOWN[matrix]
    assert look_at(path)[0].width == shown.shape[1]
    if a * d < b * c:
        with pytest.raises(ValueError, match=r"turned\.mp4: is mirrored, which decord leaves out -> use `--decoder"):
            first_picture(path, "decord")
    else:
        assert corners(first_picture(path, "decord")) == SHOWN[matrix]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(tmp_path, orientation):
    done, jpeg = cv2.imencode(".jpg", picture())
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    path = tmp_path / "img_00001.jpg"
    path.write_bytes(bytes(jpeg[:2]) + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + bytes(jpeg[2:]))
    wanted = cv2.imread(str(path), cv2.IMREAD_COLOR)       # as the original scripts read it
    shown = read_image(path)[1]
    assert done and shown.shape == wanted.shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    assert corners(shown) == corners(wanted) and size_by_header(path) == wanted.shape[:2]


# ---- frame rates

@pytest.mark.parametrize(("rate", "words"), [
    (60, "60.000 frames per second: models learn from 30, so seven frames span 0.50 of the time"),
    (24, "24.000 frames per second: models learn from 30, so seven frames span 1.25 of the time"), (30, "")])
def test_another_frame_rate_than_that_of_training_is_said(tmp_path, rate, words):
    video = film(tmp_path / "c.mp4", [picture()] * 30, rate=rate)
    table = tmp_path / "b.csv"
    table.write_text("clip,track,frame,x,y,width,height\n" + "".join(f"c,t,{n},9,9,60,60\n" for n in range(30)))
    lines = lay_out(table, video, tmp_path / "mine", "val")
    assert [line.startswith(f"{video}: {words}") for line in lines] == [True] * bool(words)
    findings = examine(tmp_path / "mine", notify=lambda line: None)["findings"]
    assert ("rate_differs" in findings) == bool(words)
    assert not words or findings["rate_differs"]["examples"][0]["detail"].startswith(words)


def test_a_text_in_a_video_that_is_not_utf8_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.mp4", 4)
    content = path.read_bytes()
    assert b"VideoHandler" in content
    path.write_bytes(content.replace(b"VideoHandler", b"Video\xffandler"))
    assert len(list(frames_in_order(path, [0, 3], "pyav"))) == 2


def test_an_unknown_codec_is_named(tmp_path):
    path = write_video(tmp_path / "a.mp4", 4)
    content = path.read_bytes()
    tag = next(tag for tag in (b"avc1", b"mp4v") if tag in content)
    path.write_bytes(content.replace(tag, b"zzzz"))
    with pytest.raises(UnusableFile, match=r"a\.mp4: holds no pictures -> give the video"):
        next(frames_in_order(path, [0, 3], "pyav"))
