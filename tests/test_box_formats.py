"""Tables of boxes as other programs write them: each form read, and said; what fits two readings refused with both."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import HEIGHT, WIDTH, barcode, number_in, prepare, write_video

from gazepose.data.box_formats import read_foreign
from gazepose.data.box_table import COLUMNS, read_table
from gazepose.data.index import Index
from gazepose.data.own_videos import lay_out

SIZE = (WIDTH, HEIGHT)
FACES = [("t", 3, 10.5, 20.0, 30.0, 40.25), ("t", 4, 12.0, 21.0, 30.0, 40.0), ("u", 3, 200.0, 5.5, 60.0, 70.0)]


def written(path: Path, header: str, lines: list[str], end: str = "\n", encoding: str = "utf-8") -> Path:
    path.write_bytes(end.join([*([header] if header else []), *lines, ""]).encode(encoding))
    return path


def faces(table: Any) -> list[tuple[Any, ...]]:
    return list(table[["track", "frame", "x", "y", "width", "height"]].itertuples(index=False, name=None))


def sizes(separator: str = ",", point: str = ".") -> list[str]:
    return [separator.join(map(str, face)).replace(".", point) if point != "." else separator.join(map(str, face))
            for face in FACES]


def corners() -> list[str]:
    return [f"{track},{frame},{x},{y},{x + w},{y + h}" for track, frame, x, y, w, h in FACES]


def centres() -> list[str]:
    return [f"{track},{frame},{x + w / 2},{y + h / 2},{w},{h}" for track, frame, x, y, w, h in FACES]


def parts() -> list[str]:
    return [f"{track},{frame},{x / WIDTH},{y / HEIGHT},{w / WIDTH},{h / HEIGHT}" for track, frame, x, y, w, h in FACES]


HEADER = "track,frame,x,y,width,height"
FORMS: dict[str, tuple[str, list[str], dict[str, str], str]] = {      # header, lines, how, what is said
    "other names": ("Person ID,Frame Number,left,top,w,h", sizes(), {}, ""),
    "prefixed": ("face_id,frame_idx,bbox_x,bbox_y,bbox_w,bbox_h", sizes(), {}, ""),
    "units": ("track,frame,x (px),y (px),width [px],height [px]", sizes(), {}, ""),
    "semicolons": (HEADER.replace(",", ";"), sizes(";"), {}, "separated by semicolons"),
    "decimal commas": (HEADER.replace(",", ";"), sizes(";", ","), {}, "decimal commas are read as points"),
    "tabs": (HEADER.replace(",", "\t"), sizes("\t"), {}, "separated by tabs"),
    "byte order mark": (HEADER, sizes(), {"encoding": "utf-8-sig"}, ""),
    "windows lines": (HEADER, sizes(), {"end": "\r\n"}, ""),
    "excel": (HEADER.replace(",", "\t"), sizes("\t"), {"encoding": "utf-16", "end": "\r\n"}, "separated by tabs"),
    "spaces": (HEADER.replace(",", ", "), [line.replace(",", ", ") for line in sizes()], {}, ""),
    "x1": ("track,frame,x1,y1,x2,y2", corners(), {}, "boxes are read as corners x1, y1, x2, y2"),
    "xmin": ("id,frame,xmin,ymin,xmax,ymax", corners(), {}, "boxes are read as corners"),
    "left": ("id,frame,left,top,right,bottom", corners(), {}, "boxes are read as corners"),
    "centres": ("id,frame,cx,cy,w,h", centres(), {}, "boxes are read as x, y of the centre"),
    "parts": (HEADER, parts(), {}, "boxes are parts of the picture (0..1): multiplied"),
    "more columns": (HEADER + ",confidence,Note", [line + ",.9,fine" for line in sizes()], {},
                     "columns that are not used: confidence, Note"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_read_and_said(tmp_path, form):
    header, lines, how, said = FORMS[form]
    path = written(tmp_path / "b.csv", header, lines, **how)
    table, told = read_foreign(path, Path("my clip.mp4"), SIZE)
    assert [face[:2] for face in faces(table)] == [face[:2] for face in FACES]
    np.testing.assert_allclose([face[2:] for face in faces(table)], [face[2:] for face in FACES])
    assert list(table.columns) == [*COLUMNS, "label"] and set(table["clip"]) == {"my_clip"}
    assert not table.attrs["from_0"]
    assert all(line.startswith(f"{path}: ") for line in told)
    assert any(said in line for line in told) if said else not told


@pytest.mark.parametrize("kind", ["sizes", "corners", "centres"])
def test_a_flag_says_what_the_numbers_are(tmp_path, kind):
    path = written(tmp_path / "b.csv", HEADER, {"sizes": sizes, "corners": corners, "centres": centres}[kind]())
    np.testing.assert_allclose([face[2:] for face in faces(read_foreign(path, None, SIZE, kind)[0])],
                               [face[2:] for face in FACES])


def test_clips_are_named_by_their_videos_and_labels_are_kept(tmp_path):
    path = written(tmp_path / "b.csv", "video;person;frame;x;y;w;h;looking", [
        r"D:\films\one.MP4;t;3;10;20;30;40;1", "two.mp4;t;3;10;20;30;40;", "three;t;3;10;20;30;40;0"])
    table, _ = read_foreign(path, None, SIZE)
    assert table["clip"].tolist() == ["one", "two", "three"] and table["label"].tolist() == [1, -1, 0]


def test_numbers_that_fit_two_readings_are_refused_with_both(tmp_path):
    for header in ("track,frame,bbox_0,bbox_1,bbox_2,bbox_3", ""):
        lines = ["7,3,10,20,110,60"] if header else ["3,7,10,20,110,60"]
        path = written(tmp_path / "b.csv", header, lines)
        with pytest.raises(ValueError, match=r"b\.csv: the four numbers of a box fit two readings") as caught:
            read_foreign(path, None, SIZE)
        message = str(caught.value)
        assert f"\n  {header or lines[0]}\n" in message and lines[0] in message
        assert "--boxes_format sizes: x, y of the upper left corner, width and height, so the first face has 110 x" in (
            message)
        assert "--boxes_format corners: corners x1, y1, x2, y2, so the first face has 100 x 40 pixels" in message
        assert faces(read_foreign(path, None, SIZE, "corners")[0]) == [("7", 3, 10, 20, 100, 40)]
        assert faces(read_foreign(path, None, SIZE, "sizes")[0]) == [("7", 3, 10, 20, 110, 60)]
        more = ("8" if header else "4") + lines[0][1:].replace("10,20,110,60", "300,90,315,120")
        only = written(tmp_path / "b.csv", header, [*lines, more])
        table, said = read_foreign(only, None, SIZE)       # as sizes, this face would end far past the picture
        assert faces(table)[0][2:] == (10, 20, 100, 40) and any("the only reading that fits" in line for line in said)


@pytest.mark.parametrize(("header", "lines", "message"), [
    ("track;frame;x;y;w;h", ["t;1;5;5;9;9", "t;2;5;?;9;9"], r"b\.csv: line 3: y '\?' is not a finite number"),
    ("track,frame,left,top,right,bottom", ["t,1,9,9,5,20"], r"line 2: right, bottom are not right of and below left"),
    ("track,frame,x1,y1,x2,y2", ["t,1.5,1,1,9,9"], r"line 2: frame '1\.5' -> a whole number"),
    ("track,frame,x1,y1,x2,y2", ["t,1,1,1,9,9", "t,1,2,2,9,9"], r"line 3: clip c track t frame 1 stands in line 2"),
    ("track,frame,x1,y1,x2,y2", ["a b,1,1,1,9,9"], r"line 2: track 'a b' is no id"),
    ("track,frame,x1,y1,x2,y2,label", ["t,1,1,1,9,9,yes"], r"line 2: label 'yes' -> 1 looking"),
    ("track,frame,u,v", ["t,1,1,1"], r"no columns of a box among track, frame, u, v -> clip,track,frame"),
    ("track,x,y,w,h", ["t,1,1,9,9"], r"no column of frames or of times among track, x, y, w, h"),
    ("track,frame,x,y,w,h", ["t,1,300,100,310,120"], r"boxes look like corners .* --boxes_format"),
    ("track,time,x,y,w,h", ["t,1,1,1,9,9"], r"has times, not frames, and no video of clip"),
    ("track,frame,x,X,y,w,h", ["t,1,1,1,1,9,9"], r"column 'X' occurs twice"),
    ("clip,track,frame,x1,y1,x2,y2", ["../x,t,1,1,1,9,9"], r"clip '\.\./x' is no id"),
    ("track,frame,bbox_0,bbox_1,bbox_2,bbox_3", [], "holds no box"),
    ("track,frame,x,x,y,w,h", ["t,1,1,1,1,9,9"], r"column 'x' occurs twice"),
    ("", ["1,2,3"], r"has no header, and 3 columns"), ("track,frame,x1,y1,x2,y2", [], "holds no box"),
    ("track;frame,x;1", ["t"], "no columns of a box")])
def test_a_value_that_does_not_fit_is_named_by_line_and_column(tmp_path, header, lines, message):
    with pytest.raises(ValueError, match=message):
        read_foreign(written(tmp_path / "b.csv", header, lines), Path("c.mp4"), SIZE)


def test_parts_of_the_picture_need_its_size(tmp_path):
    path = written(tmp_path / "b.csv", HEADER, parts())
    with pytest.raises(ValueError, match=r"boxes are parts of the picture \(0\.\.1\) -> give its video"):
        read_foreign(path, None)
    table, _ = read_foreign(path, write_video(tmp_path / "c.mp4", 9))  # which says its size
    np.testing.assert_allclose([face[2:] for face in faces(table)], [face[2:] for face in FACES])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\xff\xfea", b"\xfe\xff\xd8\x00", b"\0" * 40, b",,,\n,,,", b'"',
                                     "a\0b;c".encode("utf-16"), b"x" * 9000, b"1" * 5000 + b",2,3,4,5,6"])
def test_what_is_no_table_is_refused_by_name(tmp_path, content):
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"b\.csv: "):
        read_foreign(tmp_path / "b.csv", None, SIZE)


# ---- times

def uneven(path: Path) -> tuple[Path, list[float]]:
    """A video whose pictures are shown for other times each."""
    times = [0, 40, 80, 200, 240, 700, 720, 1000]          # milliseconds
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(barcode(number), format="rgb24")
            frame.pts, frame.time_base = time, stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path, [time / 1000 for time in times]


@pytest.mark.parametrize(("column", "as_text"), [
    ("seconds", str), ("timestamp", str), ("time_ms", lambda time: str(1000 * time)),
    ("time", lambda time: f"0:00:{time:06.3f}")])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_time_belongs_to_the_nearest_picture(tmp_path, column, as_text, suffix):
    video, times = uneven(tmp_path / f"c{suffix}")
    box = f"0,0,{WIDTH},{HEIGHT}"
    lines = [f"t,{as_text(time + shift)},{box}" for time, shift in zip(times, (0, .01, -.01, .01, 0, -.1, 0, .3),
                                                                      strict=True)]
    path = written(tmp_path / "b.csv", f"track,{column},x,y,width,height", lines)
    table, said = read_foreign(path, video)
    assert table["frame"].tolist() == list(range(8)) and table.attrs["from_0"]
    assert any(f"{column} is read as times" in line for line in said)
    lay_out(path, video, tmp_path / "set", "val")
    index = Index.open(prepare(tmp_path / "set", "val"))
    assert [number_in(index.crop(row)) for row in range(8)] == list(range(8))
    late = written(tmp_path / "b.csv", f"track,{column},x,y,width,height", [*lines, f"t,{as_text(3.5)},{box}"])
    with pytest.raises(ValueError, match=rf"b\.csv: line 10: {column} .* is not within the video, 1\.00 s long"):
        read_foreign(late, video)


# ---- other programs

def openface(path: Path, first: int = 1, faces: int = 2) -> Path:
    """As FeatureExtraction writes it, apart from columns that are not used."""
    names = ["frame", "face_id", "timestamp", "confidence", "success", "gaze_0_x", "pose_Rx",
             *(f"x_{point}" for point in range(68)), *(f"y_{point}" for point in range(68))]
    x, y = np.linspace(10, 50, 68), np.linspace(20, 90, 68)
    lines = [", ".join(map(str, [frame + first, face, frame / 30, .98, int(frame != 2), .1, .2, *(x + 100 * face),
                                 *y])) for frame in range(4) for face in range(faces)]
    return written(path, ", ".join(names), lines)


@pytest.mark.parametrize("kind", ["auto", "openface"])
def test_openface_is_read(tmp_path, kind):
    table, said = read_foreign(openface(tmp_path / "b.csv"), None, SIZE, kind)
    assert table["frame"].tolist() == [0, 0, 1, 1, 3, 3] and table["track"].tolist() == ["0", "1"] * 3
    assert faces(table)[1] == ("1", 0, 110, 20, 40, 70) and table.attrs["from_0"]
    text = "\n".join(said)
    for words in ("2 of 8 lines without a face (success 0): left out", "boxes around 68 landmarks, without the fore",
                  "counts frames from 1: 1 is subtracted", "that are not used: timestamp, confidence, gaze_0_x"):
        assert words in text
    assert read_foreign(openface(tmp_path / "b.csv", 0), None, SIZE, kind)[0]["frame"].tolist() == [0, 0, 1, 1, 3, 3]
    with pytest.raises(ValueError, match="no landmarks of OpenFace"):
        read_foreign(written(tmp_path / "c.csv", HEADER, sizes()), None, SIZE, "openface")


def test_a_first_number_of_one_is_not_used_twice(tmp_path):
    video = write_video(tmp_path / "c.mp4", 8)
    lines = lay_out(openface(tmp_path / "b.csv"), video, tmp_path / "set", "val", first_number=1)
    assert any("known to count from 0: the first number 1 is not used" in line for line in lines)
    assert Index.open(prepare(tmp_path / "set", "val")).frame.min() == 0


def mediapipe(path: Path, form: str) -> Path:
    points = np.random.default_rng(0).uniform(0, 1, (3, 2, 478, 2)) * [.2, .4] + [[[[.1, .1]], [[.6, .3]]]]
    points[:, :, :2] = [[[.1, .1], [.3, .5]], [[.6, .3], [.8, .7]]]
    if form == "wide":
        header = ",".join(["frame", "face", *(f"landmark_{n}_{axis}" for n in range(478) for axis in "xy")])
        lines = [",".join(map(str, [frame, face, *points[frame, face].ravel()])) for frame in range(3)
                 for face in range(2)]
    else:
        header = "frame,face_id,landmark_index,x,y,z"
        lines = [f"{frame},{face},{n},{x},{y},0" for frame in range(3) for face in range(2)
                 for n, (x, y) in enumerate(points[frame, face])]
    return written(path, header, lines)


@pytest.mark.parametrize("form", ["wide", "long"])
@pytest.mark.parametrize("kind", ["auto", "mediapipe"])
def test_mediapipe_is_read(tmp_path, form, kind):
    table, said = read_foreign(mediapipe(tmp_path / "b.csv", form), None, (1000, 500), kind)
    assert [face[:2] for face in faces(table)] == [(str(face), frame) for frame in range(3) for face in range(2)]
    np.testing.assert_allclose([face[2:] for face in faces(table)][:2], [(100, 50, 200, 200), (600, 150, 200, 200)])
    assert any("MediaPipe: boxes around " in line for line in said)
    assert any("multiplied by its width and height" in line for line in said)


# ---- from end to end

def test_a_table_without_clip_and_track_is_prepared(tmp_path):
    video = write_video(tmp_path / "my film.mp4", 12)
    lines = [f"{number};0;0;{WIDTH};{HEIGHT};.9" for number in range(9)]
    path = written(tmp_path / "b.txt", "frame;left;top;right;bottom;p", lines)
    table, _ = read_foreign(path, video)
    assert set(table["track"]) == {"-1"}                   # to be followed by who calls
    lines = lay_out(path, video, tmp_path / "set", "val")
    assert "no column track, and one face in each frame: taken as one track" in "\n".join(lines)
    assert list(read_table(tmp_path / "set" / "boxes" / "val.csv")) == ["my_film"]
    index = Index.open(prepare(tmp_path / "set", "val"))
    assert [number_in(index.crop(row)) for row in range(len(index))] == list(range(9))
    written(path, "frame;left;top;right;bottom", ["1;0;0;50;50", "1;60;0;99;50"])
    assert len(read_foreign(path, video)[0]) == 2
    with pytest.raises(ValueError, match=r"b\.txt: line 3: a second face in one frame, and no column track -> add"):
        lay_out(path, video, tmp_path / "set", "val")


def test_a_folder_of_several_videos_needs_the_column_clip(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / "films" / f"{name}.mp4", 9)
    path = written(tmp_path / "b.csv", "frame,id,x1,y1,x2,y2", ["1,t,0,0,50,50"])
    with pytest.raises(ValueError, match=r"has no column clip, and .*films holds 2 videos -> add the column clip"):
        lay_out(path, tmp_path / "films", tmp_path / "set", "val")
    written(path, "video,frame,id,x1,y1,x2,y2", ["a.mp4,1,t,0,0,.5,.5", "b.mp4,2,t,0,0,.5,1"])
    lay_out(path, tmp_path / "films", tmp_path / "set", "val")
    assert Index.open(prepare(tmp_path / "set", "val")).box.tolist() == [[0, 0, WIDTH / 2, HEIGHT / 2],
                                                                        [0, 0, WIDTH / 2, HEIGHT]]


def test_parquet_of_others_is_read(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"id": [1, 1], "frame": [3, 4], "x1": [1.5, 2], "y1": [3, 4], "x2": [30, 31.5], "y2": [40, 41],
                  "score": [.5, None]}).to_parquet(tmp_path / "b.parquet")
    table, said = read_foreign(tmp_path / "b.parquet", None, SIZE)
    assert faces(table) == [("1", 3, 1.5, 3, 28.5, 37), ("1", 4, 2, 4, 29.5, 37)]
    assert any("not used: score" in line for line in said)


boxes = st.tuples(*[st.integers(0, 200).map(lambda n: n / 4)] * 2, *[st.integers(12, 200).map(lambda n: n / 4)] * 2)


@given(st.dictionaries(st.tuples(st.sampled_from(["a", "7", "x.y"]), st.integers(0, 50)), boxes, min_size=1,
                       max_size=6),
       st.sampled_from(",;\t"), st.booleans(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
       st.sampled_from(["\n", "\r\n"]), st.sampled_from(["sizes", "corners", "centres"]), st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_form_of_the_same_boxes_is_the_same_table(tmp_path_factory, faces_of, separator, commas, encoding, end,
                                                        kind, random):
    names = {"sizes": ["left", "top", "w", "h"], "corners": ["x1", "y1", "x2", "y2"], "centres": ["cx", "cy", "w", "h"]}
    header, order = ["person", "frame", *names[kind], "more"], list(range(7))
    random.shuffle(order)
    lines = []
    for (track, frame), (x, y, w, h) in faces_of.items():
        four = {"sizes": (x, y, w, h), "corners": (x, y, x + w, y + h), "centres": (x + w / 2, y + h / 2, w, h)}[kind]
        cells = [track, str(frame), *(str(number).replace(".", "," if commas and separator != "," else ".")
                                      for number in four), ""]
        lines.append(separator.join(cells[at] for at in order))
    path = written(tmp_path_factory.mktemp("forms") / "b.csv", separator.join(header[at] for at in order), lines, end,
                   encoding)
    table, _ = read_foreign(path, None, SIZE)
    assert faces(table) == [(track, frame, *box) for (track, frame), box in faces_of.items()]
