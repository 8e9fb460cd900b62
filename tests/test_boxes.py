"""Videos of one's own: a table of boxes is read strictly or not at all, and a folder made of it is a data set."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import HEIGHT, WIDTH, data_set, number_in, prepare, prepared_index, write_video
from warm import ran

from gazepose.config import TrainConfig, asdict, parse
from gazepose.data import annotations, box_table
from gazepose.data.annotations import read_split
from gazepose.data.box_table import COLUMNS, read_boxes
from gazepose.data.index import Index
from gazepose.data.own_videos import lay_out
from gazepose.data.tracks import POLICIES
from gazepose.data.windows import WindowRule, centre_rows, window_rows
from gazepose.models import build_model
from gazepose.report.records import read_records
from gazepose.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
CLEAN = POLICIES["clean"]
HEADER = ",".join(COLUMNS)


def table(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def whole(clip: str, track: str, *frames: int, label: str | None = None) -> list[str]:
    """Lines whose box is the whole picture."""
    return [f"{clip},{track},{frame},0,0,{WIDTH},{HEIGHT}" + ("" if label is None else f",{label}") for frame in frames]


def read(path: Path) -> dict[tuple[str, str], tuple[list[int], list[list[float]], list[int]]]:
    return {(track.clip, track.track): (track.frames.tolist(), track.boxes.tolist(), track.labels.tolist())
            for clip in read_boxes(path, CLEAN) for track in clip.tracks}


def test_a_table_becomes_tracks_whose_unknown_labels_stay_unknown(tmp_path):
    path = table(tmp_path / "b.csv", "c,001,4,10,20,30,40,1", "c,001,2,0,20,30,40,0", "c,NA,9,1,2,3,4,",
                 "c,NA,10,1,2,3,4,-1", header=HEADER + ",label")
    assert read(path) == {("c", "001"): ([2, 3, 4], [[0, 20, 30, 60], [5, 20, 35, 60], [10, 20, 40, 60]], [0, -1, 1]),
                          ("c", "NA"): ([9, 10], [[1, 2, 4, 6]] * 2, [-1, -1])}
    assert set(sum((labels for _, _, labels in read(table(tmp_path / "n.csv", "c,t,1,0,0,9,9")).values()), [])) == {-1}


def test_boxes_obey_the_policy_and_are_counted(tmp_path):
    path = table(tmp_path / "b.csv", *whole("c", "t", 1, 30), "c,t,2,5,5,0,9")
    (clip,) = read_boxes(path, CLEAN)
    assert [track.frames.tolist() for track in clip.tracks] == [[1], [30]]
    assert clip.counts["record dropped: width or height not positive"] == 1 and clip.counts["gap: track split"] == 1


@pytest.mark.parametrize(("lines", "header", "message"), [
    (["c,t,1,0,0,9,9", "c d,t,1,0,0,9,9"], HEADER, r"line 3: clip 'c d' is no id -> text of letters"),
    (["c,../t,1,0,0,9,9"], HEADER, r"line 2: track '\.\./t' is no id"),
    (["c,t,1,NA,0,9,9"], HEADER, r"line 2: x 'NA' is not a finite number -> digits"),
    (["c,t,1,0,nan,9,9"], HEADER, r"line 2: y 'nan' is not a finite number"),
    (["c,t,1,0,0,1e999,9"], HEADER, r"line 2: width '1e999' is not a finite number"),
    (["", "", "c,t,1,0,0,9,1_0"], HEADER, r"line 4: height '1_0' is not a finite number"),
    (["c,t,1.5,0,0,9,9"], HEADER, r"line 2: frame '1\.5' -> a whole number of 0 to 1000000"),
    (["c,t,-1,0,0,9,9"], HEADER, r"line 2: frame '-1' -> a whole number"),
    (["c,t,10000000,0,0,9,9"], HEADER, r"line 2: frame '10000000' -> a whole number"),
    (["c,t,1,0,0,9,9,yes"], HEADER + ",label", r"line 2: label 'yes' -> 1 looking, 0 not looking"),
    (["c,t,1,0,0,9"], HEADER, r"line 2: height '' is not a finite number"),
    (["c,t,1,0,0,9,9", "c,t,2,0,0,9,9,1"], HEADER, r"not CSV: .*line 3, saw 8 -> clip,track,frame"),
    (["c,t,1,0,0,9,9", "c,t,2,0,0,9,9", "c,t,1,5,5,9,9"], HEADER, r"line 4: clip c track t frame 1 stands in line 2"),
    (["c,t,1,0,0,9,9,1"], HEADER + ",labels", r"column 'labels' is unknown -> the columns are clip,track,"),
    (["c,t,1,0,0,9,9,1"], HEADER + ",x", r"column 'x' occurs twice"),
    (["c;t;1;0;0;9;9"], HEADER.replace(",", ";"), r"no column 'clip' -> the columns are .*with commas between"),
    ([], HEADER, r"holds no box -> give one face per line"), ([], "", r"no column 'clip'"),
    (['"c,t,1,0,0,9,9'], HEADER, r"not CSV: .*inside string starting at row 1")])
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, lines, header, message):
    with pytest.raises(ValueError, match=rf"boxes\.csv: {message}"):
        read_boxes(table(tmp_path / "boxes.csv", *lines, header=header), CLEAN)


def test_a_table_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.csv: no such table of boxes -> clip,track,frame"):
        read_boxes(tmp_path / "gone.csv", CLEAN)
    with pytest.raises(ValueError, match=r"b\.xlsx: a table of boxes must be \.csv or \.parquet"):
        read_boxes(tmp_path / "b.xlsx", CLEAN)
    (tmp_path / "b.csv").write_bytes((HEADER + "\nc,t,1,0,0,9,9\n").encode("utf-16"))
    with pytest.raises(ValueError, match=r"b\.csv: line 1: not UTF-8 text -> save it as UTF-8"):
        read_boxes(tmp_path / "b.csv", CLEAN)


ids = st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True).filter(lambda text: set(text) != {"."}) | st.sampled_from(
    ["001", "NA", "nan", "None", "1e5", "true", "-1", "0x1F"])
tables = st.dictionaries(st.tuples(ids, ids, st.integers(0, 40)), st.tuples(
    *[st.floats(0, 900)] * 2, *[st.floats(0.01, 900)] * 2, st.sampled_from(["", "-1", "0", "1", "1.0"])),
    min_size=1, max_size=12)


@given(faces=tables, data=st.data())
@settings(max_examples=60)
def test_every_face_of_a_table_comes_back_as_it_was_written(faces, data, tmp_path_factory):
    """Whatever the order of lines and columns, the line ends, blank lines and a byte order mark."""
    names = data.draw(st.permutations([*COLUMNS, "label"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
                        quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])))
    writer.writerow(names)
    for key in data.draw(st.permutations(sorted(faces))):
        line: dict[str, Any] = dict(zip([*COLUMNS, "label"], [*key, *faces[key]], strict=True))
        writer.writerow([line[name] for name in names])
        if data.draw(st.booleans()):
            text.write("\n")
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.getvalue().encode())
    rows_of = {(t.clip, t.track, frame): (box, label) for clip in read_boxes(path, CLEAN) for t in clip.tracks
             for frame, box, label in zip(t.frames.tolist(), t.boxes.tolist(), t.labels.tolist(), strict=True)}
    for key, (x, y, width, height, label) in faces.items():
        assert rows_of.pop(key) == ([x, y, x + width, y + height], {"": -1, "-1": -1, "0": 0}.get(label, 1))
    assert {label for _, label in rows_of.values()} <= {-1}             # the rest was filled


@given(place=st.integers(0, 7), value=st.text(max_size=6) | st.sampled_from(["NA", "nan", "inf", "1e400", "١", "0x1"]))
@settings(max_examples=150)
def test_a_value_is_taken_as_it_is_or_refused_with_its_line(place, value, tmp_path_factory):
    line = ["c", "t", "1", "0", "0", "9", "9", "1"]
    line[place] = value
    text = io.StringIO()
    csv.writer(text).writerows([[*COLUMNS, "label"], ["c", "other", 1, 0, 0, 9, 9, 0], line])
    path = tmp_path_factory.getbasetemp() / "value.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    try:
        rows_of = read(path)
    except ValueError as error:
        assert re.match(rf"{re.escape(str(path))}: (line [2-9]|not CSV: .*\\d)", str(error))
        return
    if place < 2:
        assert (value, "t")[place] == value or ("c", value)[place] == value
        assert (value, "t") in rows_of if place == 0 else ("c", value) in rows_of
    elif place == 7:
        assert value in ("", "-1", "0", "1", "-1.0", "0.0", "1.0")
    else:
        assert value.isascii() and np.isfinite(float(value)) and value.strip() == value


def test_parquet_reads_as_csv_does(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns: dict[str, list] = {"clip": ["c", "c"], "track": ["001", "001"], "frame": [1, 2], "x": [0.1, 3.0],
                                "y": [0, 1], "width": [9.5, 9.25], "height": [9, 9], "label": [1.0, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "b.parquet")
    lines = ["c,001,1,0.1,0,9.5,9,1", "c,001,2,3.0,1,9.25,9,"]
    assert read(tmp_path / "b.parquet") == read(table(tmp_path / "b.csv", *lines, header=HEADER + ",label"))
    for name, values, message in [("track", [1, 1], r"row 1: track None is no id -> text"),
                                  ("x", [0.5, None], r"row 2: x '' is not a finite number"),
                                  ("y", [True, True], r"row 1: y None is not a finite number"),
                                  ("label", [0, 7], r"row 2: label '7'")]:
        parquet.write_table(pyarrow.table({**columns, name: values}), tmp_path / "b.parquet")
        with pytest.raises(ValueError, match=rf"b\.parquet: {message}"):
            read_boxes(tmp_path / "b.parquet", CLEAN)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(ValueError, match=r"b\.parquet: not readable Parquet"):
        read_boxes(tmp_path / "b.parquet", CLEAN)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("limit", "most", "message"), [
    ("MAX_ROWS", 40, "boxes, at most 40 are read -> split"), ("MAX_COLUMNS", 6, "7 columns, at most 6 are read"),
    ("MAX_TABLE", 700, "at most ")])
def test_a_table_is_bounded_before_it_is_read(tmp_path, monkeypatch, suffix, limit, most, message):
    lines = [f"c,t,{frame},0,0,5,5" for frame in range(50)]
    path = table(tmp_path / "b.csv", *lines)
    if suffix == ".parquet":
        csv = pytest.importorskip("pyarrow.csv")
        path = tmp_path / "b.parquet"
        pytest.importorskip("pyarrow.parquet").write_table(csv.read_csv(tmp_path / "b.csv"), path)
    assert read(path)
    monkeypatch.setattr(box_table, limit, most)
    with pytest.raises(ValueError, match=rf"b\{suffix}: .*{message}"):
        read_boxes(path, CLEAN)


def test_a_split_list_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "train.list"
    path.write_text("\n".join(f"clip{number}" for number in range(50)))
    assert len(read_split(path)) == 50
    monkeypatch.setattr(annotations, "MAX_CLIPS", 49)
    with pytest.raises(ValueError, match=r"train\.list: 50 entries, at most 49 are read"):
        read_split(path)
    with open(path, "r+b") as file:
        file.truncate(annotations.MAX_LIST + 1)            # takes no room on the disk
    with pytest.raises(ValueError, match=r"train\.list: 16 MiB; a split list of at most 16 MiB is read"):
        read_split(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"b\.parquet: Parquet needs pyarrow -> pip install 'gazepose\[parquet\]'"):
        read_boxes(tmp_path / "b.parquet", CLEAN)


def test_pandas_and_the_renderer_are_imported_only_where_they_are_used(tmp_path):
    program = "import sys; print({'pandas', 'numba', 'gazepose.compat.folders'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import gazepose.source, gazepose.data.challenge; {program}"],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n", done.stdout


# The data set folder

def test_a_folder_of_videos_and_a_table_become_a_split(tmp_path):
    for clip, suffix in (("a", "mp4"), ("b", "mkv"), ("unused", "mp4")):
        write_video(tmp_path / "mine" / f"{clip}.{suffix}", 30)
    boxes = table(tmp_path / "boxes.csv", *whole("b", "t", *range(2, 12)), *whole("a", "001", 5, 7))
    out = tmp_path / "set"
    lay_out(boxes, tmp_path / "mine", out, "train")
    lay_out(boxes, tmp_path / "mine", out, "train")                    # again: nothing changes
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "boxes/train.csv", "boxes/train.json", "videos/a.mp4", "videos/b.mkv"]
    index = prepared_index(out)
    assert index.clips == ["b", "a"] and index.track_name == ["t", "001"] and set(index.label.tolist()) == {-1}
    assert [number_in(index.crop(row)) for row in range(len(index))] == index.frame.tolist() == [*range(2, 12), 5, 6, 7]
    rows = centre_rows(index, 4)
    assert index.frame[rows].tolist() == [2, 6, 10, 5]
    assert index.frame[window_rows(index, WindowRule(), rows)][1].tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_one_video_may_have_any_name(tmp_path):
    video = write_video(tmp_path / "holiday.mp4", 9)
    lay_out(table(tmp_path / "boxes.csv", *whole("c", "t", 3)), video, tmp_path / "set", "val")
    assert number_in(prepared_index(tmp_path / "set", "val").crop(0)) == 3


def test_a_table_that_changed_is_not_taken_for_the_old_one(tmp_path):
    video, out = write_video(tmp_path / "c.mp4", 9), tmp_path / "set"
    lay_out(table(tmp_path / "boxes.csv", *whole("c", "t", 3)), video, out, "val")
    folder = prepare(out, "val")
    assert prepare(out, "val") == folder
    lay_out(table(tmp_path / "boxes.csv", *whole("c", "t", 3, 4)), video, out, "val")
    assert Index.open(prepare(out, "val")).frame.tolist() == [3, 4]


def test_what_does_not_fit_together_is_refused(tmp_path):
    video, out = write_video(tmp_path / "mine" / "c.mp4", 9), tmp_path / "set"
    one = table(tmp_path / "1.csv", *whole("c", "t", 1))
    two = table(tmp_path / "2.csv", *whole("c", "t", 1), *whole("d", "t", 1))
    with pytest.raises(ValueError, match=r"2\.csv: holds 2 clips, .*c\.mp4 is one video -> give the folder"):
        lay_out(two, video, out, "val")
    with pytest.raises(FileNotFoundError, match=r"d\.mp4: no such video, but .*2\.csv has boxes of clip d"):
        lay_out(two, tmp_path / "mine", out, "val")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such video"):
        lay_out(one, tmp_path / "gone.mp4", out, "val")
    (tmp_path / "c.txt").write_text("no video")
    with pytest.raises(ValueError, match=r"c\.txt: only \.mp4, \.mov, \.mkv, \.avi can be read"):
        lay_out(one, tmp_path / "c.txt", out, "val")
    assert not out.exists()                                            # nothing half made
    lay_out(one, video, out, "val")
    with pytest.raises(FileExistsError, match=r"c\.mp4: is another video than .*other\.mp4 -> delete it"):
        lay_out(one, write_video(tmp_path / "other.mp4", 12), out, "val")
    with pytest.raises(FileNotFoundError, match=r"boxes/train\.csv: no such table of boxes, the folder holds val\.csv"):
        prepare(out, "train")
    (out / "split").mkdir()
    (out / "split" / "train.list").write_text("c")
    with pytest.raises(FileExistsError, match=r"train\.list: belongs to this split already -> name another folder"):
        lay_out(one, video, out, "train")


def typed(monkeypatch, *args: str) -> None:
    """python -m gazepose ARGS, in this process."""
    from gazepose.__main__ import main
    monkeypatch.setattr(sys, "argv", ["gazepose", *args])
    main()


def test_a_video_of_ones_own_is_scored_from_end_to_end(tmp_path, monkeypatch, capsys):
    config = parse(TrainConfig, ["--model", "GazeLSTM", "--crop_size", "32", "--output_stride", "32"])
    run = tmp_path / "weights"
    checkpoint.save_best(run, build_model(config.model), {**asdict(config), "quality_fit": None, "root": "else",
                                                          "learnt_from": {"rendered": ["a world"]}}, 7)
    (run / "status.json").write_text('{"state": "finished"}')
    write_video(tmp_path / "clip.mp4", 30)
    table(tmp_path / "boxes.csv", *whole("clip", "001", *range(1, 15), label="1"),
          *whole("clip", "x", 20, 22, label=""), header=HEADER + ",label")
    typed(monkeypatch, "prepare", "--video", str(tmp_path / "clip.mp4"), "--boxes", str(tmp_path / "boxes.csv"),
          "--out", str(tmp_path / "mine"), "--checkpoint", str(run))
    said = capsys.readouterr().out
    assert "17 rows -> " in said and "mine/prepared/clean-32/val" in said and "cuts them again" not in said
    said = ran(str(ROOT / "infer.py"), "--data", "mine", "--checkpoint", "weights", "--report", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "mine" / "prepared").iterdir()] == ["clean-32"]      # cut once
    (folder,) = run.glob("pred*")                                    # not pred/, which is for the run's own data
    assert re.fullmatch("pred-mine-[0-9a-f]{8}", folder.name) and f"not of weights/{folder.name}" in said
    about = json.loads((folder / "val" / "about.json").read_text())
    assert "warning: these weights have learnt from rendered faces only (a world)" in said and about["stride"] == 1
    assert about["warning"] in " ".join(read_records(run).notes)
    with open(folder / "val" / "pred.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["clip"], row["track"], row["frame"], row["label"]) for row in rows] == [
        *(("clip", "001", str(n), "1") for n in range(1, 15)), *(("clip", "x", str(n), "-1") for n in (20, 21, 22))]
    assert all(0 < float(row["score"]) < 1 for row in rows)
    assert json.loads((folder / "val" / "metrics.json").read_text())["unknown"] == 3
    assert "data: 17 faces of val in mine, stride 1: every face, because the checkpoint was not trained on" in said


def test_own_videos_in_the_layout_of_ego4d_are_scored_at_every_face_too(tmp_path):
    run = tmp_path / "weights"
    config = parse(TrainConfig, ["--model", "GazeLSTM", "--crop_size", "32", "--output_stride", "32"])
    checkpoint.save_best(run, build_model(config.model), {**asdict(config), "quality_fit": None, "root": "else"}, 7)
    (run / "status.json").write_text('{"state": "finished"}')
    data_set(tmp_path / "mine", {"c": [("t", [*range(1, 15)])]}, split="val")
    said = ran(str(ROOT / "infer.py"), "--data", "mine", "--checkpoint", "weights", "--flip_average", cwd=tmp_path)
    assert "data: 14 faces of val in mine, stride 1: every face, because the checkpoint was not trained on" in said
    (folder,) = run.glob("pred*")
    assert re.fullmatch("pred-flip-mine-[0-9a-f]{8}", folder.name)
    said = ran(str(ROOT / "infer.py"), "--data", "mine", "--checkpoint", "weights", "--stride", "5", cwd=tmp_path)
    assert "data: 3 faces of val in mine, stride 5: as given" in said and len(list(run.glob("pred*"))) == 2


def test_crops_that_a_checkpoint_may_not_read_are_named(tmp_path, monkeypatch, capsys):
    run = tmp_path / "weights"
    config = parse(TrainConfig, ["--model", "GazeLSTM", "--crop_size", "32", "--output_stride", "32"])
    checkpoint.save_best(run, build_model(config.model), {**asdict(config), "quality_fit": None, "root": "else"}, 7)
    write_video(tmp_path / "clip.mp4", 4)
    table(tmp_path / "boxes.csv", *whole("clip", "001", 1, 2), header=HEADER)
    own = ["prepare", "--video", str(tmp_path / "clip.mp4"), "--boxes", str(tmp_path / "boxes.csv"), "--out",
           str(tmp_path / "mine"), "--crop_size", "48"]
    typed(monkeypatch, *own)
    assert "These crops have 48 pixels a side. Inference cuts them again for a checkpoint" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--crop_size 48: .*weights reads crops of 32 pixels -> leave --crop_size out"):
        typed(monkeypatch, *own, "--checkpoint", str(run))
    typed(monkeypatch, *own[:-2], "--checkpoint", str(run))
    assert sorted(path.name for path in (tmp_path / "mine" / "prepared").iterdir()) == ["clean-32", "clean-48"]


@pytest.mark.parametrize(("flags", "message"), [
    (["--video", "c.mp4", "--out", "other"], "your own videos need more flags -> give --video, --boxes"),
    (["--video", "c.mp4", "--boxes", "b.csv", "--out", "o", "--split", "test"], "your own videos need more flags"),
    ([], "--split is missing -> give train, val, test or stills")])
def test_half_a_command_says_what_is_missing(monkeypatch, flags, message):
    with pytest.raises(SystemExit, match=message):
        typed(monkeypatch, "prepare", *flags)
