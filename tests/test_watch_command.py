"""python -m gazepose watch: the folder that comes out, what may be replaced in it, videos that cannot be watched."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from squares import film, moving, picture, still, tools

from gazepose.data.box_table import read_table
from gazepose.data.own_videos import lay_out
from gazepose.training.checkpoint import save_weights
from gazepose.watch import command, faces, jobs
from gazepose.watch.command import WatchConfig, watch
from gazepose.watch.tables import read_faces

HERE = Path(__file__).parent
IN_PLACE: dict[str, Any] = {"jobs": 0, "video": False}


@pytest.fixture(autouse=True)
def without_model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    use_squares(monkeypatch.setattr)


def use_squares(setattr: Any) -> None:
    """Faces are white squares; no model file is needed."""
    setattr(command, "find_models", lambda: {})
    setattr(jobs, "make_tools", lambda job: tools(
        part_seconds=1.0, detect_seconds=job.detect_seconds, boxes=dict(job.boxes or {}),
        **({} if job.boxes is None else {"detector": None})))
    setattr(faces, "_landmark_score", lambda known: 1 - known["yaw"] / 10)


def one_video(path: Path, frames: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return film(path, moving(frames, still(20, 60), lambda number: (200 - number / 2, 90, 50)))


def lines_of(sources: list[Path], out: Path, **how: Any) -> list[str]:
    """What the command says."""
    said: list[str] = []
    watch(sources, out, WatchConfig(**IN_PLACE | how), said.append)
    return said


# ---- what comes out

def test_a_video_a_picture_and_a_gif_become_one_folder(tmp_path):
    cv2.imwrite(str(tmp_path / "b.png"), picture([(50, 60, 80)]))
    sources = [one_video(tmp_path / "a.mp4"), tmp_path / "b.png",
               film(tmp_path / "c.gif", moving(9, still(30, 40)), rate=10, codec="gif", pixels="rgb8")]
    said = lines_of(sources, tmp_path / "out", video=True)
    table = read_faces(tmp_path / "out" / "faces.csv")
    assert table.groupby("video")["person"].nunique().to_dict() == {"a": 2, "b": 1, "c": 1}
    assert table[table["video"] == "a"]["frame"].nunique() == 40 and (table["codable"] == 1).all()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"about.json", "faces.csv", "looks.csv", "people.csv", "watch.html", "boxes", "parts",
                     "a.watched.mp4", "b.watched.jpg", "c.watched.mp4"}
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["state"] == "finished" and about["watched"]["a"]["frames"] == 40 and "numpy" in about["versions"]
    assert set(about["files"]) == names - {"about.json", "boxes", "parts"} | {"boxes/val.csv"}
    assert said[-1].startswith("3 videos, 4 people, 90 faces")


def test_the_boxes_are_a_table_that_prepare_takes(tmp_path):
    video = one_video(tmp_path / "a.mp4")
    lines_of([video], tmp_path / "out")
    boxes = tmp_path / "out" / "boxes" / "val.csv"
    tracks = read_table(boxes)["a"]
    assert {track.track: len(track.frames) for track in tracks} == {"P1": 40, "P2": 40}
    # lying on faces as training crops do: x + .038 w, y + .132 h, .92 w, .828 h
    assert tracks[0].boxes[0].tolist() == pytest.approx([22.3, 67.9, 55.2, 49.7], abs=0.05)
    assert lay_out(boxes, video, tmp_path / "data", "val") == []


def test_a_data_set_has_the_sure_scores_as_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "_landmark_score", lambda known: 1 - known["yaw"] / 5)
    sources = [one_video(tmp_path / f"{name}.mp4") for name in "ab"]
    said = lines_of(sources, tmp_path / "out", dataset=tmp_path / "data")
    tracks = read_table(tmp_path / "data" / "boxes" / "val.csv")["b"]
    assert [set(track.labels.tolist()) for track in tracks] == [{1}, {-1}]                 # scores .90 and .56
    assert any("with a label" in line for line in said)
    with pytest.raises(ValueError, match="--small is for a data set -> give --dataset FOLDER"):
        WatchConfig(small=True)


def test_boxes_of_videos_whose_names_are_no_ids_are_left_out_and_said(tmp_path):
    said = lines_of([one_video(tmp_path / "my clip.mp4", 10)], tmp_path / "out")
    assert (tmp_path / "out" / "boxes" / "val.csv").read_text().count("\n") == 1
    assert any("has no boxes of my clip, since this is no id -> rename the video" in line for line in said)
    said = lines_of([(tmp_path / "my clip.mp4").rename(tmp_path / "my_clip-1.mp4")], tmp_path / "renamed")
    assert (tmp_path / "renamed" / "boxes" / "val.csv").read_text().count("\nmy_clip-1,") > 1
    assert not any("has no boxes" in line for line in said)


def test_files_that_an_earlier_run_made_are_brought_up_to_date_by_their_flags(tmp_path):
    video = one_video(tmp_path / "a.mp4", 10)
    lines_of([video], tmp_path / "out", to=("vtt",))
    made = {name for name in contents(tmp_path / "out") if name.endswith(".vtt")}
    line, = [line for line in lines_of([video], tmp_path / "out") if "of an earlier run, not written again: " in line]
    assert made and all(name in line for name in made) and "-> to bring them up to date, give the flags" in line
    assert not any("earlier run" in line for line in lines_of([video], tmp_path / "out", to=("vtt",)))


def test_the_users_boxes_are_used_and_keep_their_names(tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("clip,track,frame,x,y,width,height\nany,ann,0,20,60,60,60\nany,ann,1,20,60,60,60\n"
                     "any,bob,1,200,90,50,50\n")
    lines_of([one_video(tmp_path / "a.mp4")], tmp_path / "out", boxes=table)
    rows = read_faces(tmp_path / "out" / "faces.csv")
    assert rows[["frame", "person", "x"]].to_numpy().tolist() == [[0, "ann", 20], [1, "ann", 20], [1, "bob", 200]]


def test_boxes_of_a_clip_that_is_no_video_are_an_error(tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("clip,track,frame,x,y,width,height\na,t,0,0,0,9,9\nz,t,0,0,0,9,9\n")
    with pytest.raises(ValueError, match=r"boxes\.csv: clip z is none of the videos \(a\) -> name the videos as"):
        lines_of([one_video(tmp_path / "a.mp4")], tmp_path / "out", boxes=table)


def test_a_damaged_scorer_is_an_error_before_a_video_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "run_all", lambda *given: pytest.fail("it has begun"))
    folder = tmp_path / "run" / "best" / "step-00000001"
    save_weights(folder, torch.nn.Linear(1, 1), {})
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"model\.safetensors: its SHA-256 differs .* -> the file was changed; use an"):
        lines_of([one_video(tmp_path / "a.mp4")], tmp_path / "out", scorer=("landmarks", str(tmp_path / "run")))


def test_a_second_scorer_gets_a_column_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "my run").mkdir()
    monkeypatch.setattr(command, "digests", lambda files: {})

    class Half:
        def __init__(self) -> None:
            self.rows: list[int] = []

        def add(self, row: int, *how: Any) -> None:
            self.rows.append(row)

        def take(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
            rows, self.rows = self.rows, []
            return np.array(rows, np.int64), np.full(len(rows), 0.25)

        def end_all(self) -> None: ...
        def state(self) -> dict: return {}
        def restore(self, state: dict) -> None: ...

    monkeypatch.setattr(jobs, "digests", lambda files: {})
    monkeypatch.setattr(jobs, "make_tools", lambda job: tools(scorers={name: Half() for name in job.runs}))
    lines_of([one_video(tmp_path / "a.mp4")], tmp_path / "out", scorer=("landmarks", str(tmp_path / "my run")))
    table = pd.read_csv(tmp_path / "out" / "faces.csv")
    assert table.columns[-2:].tolist() == ["reason", "looking_my_run"] and set(table["looking_my_run"]) == {0.25}
    assert table["looking"].max() > 0.5
    assert len(read_faces(tmp_path / "out" / "faces.csv")) == 80
    lines_of([tmp_path / "a.mp4"], tmp_path / "alone", scorer=(str(tmp_path / "my run"),))
    assert set(pd.read_csv(tmp_path / "alone" / "faces.csv")["looking"]) == {0.25}


# ---- names

def test_files_of_one_name_get_numbers(tmp_path):
    sources = [one_video(tmp_path / folder / "a.mp4", frames) for folder, frames in (("x", 10), ("y", 12))]
    sources += [one_video(tmp_path / "x" / "a-2.mp4", 14), sources[0]]
    said = lines_of(sources, tmp_path / "out")
    frames = read_faces(tmp_path / "out" / "faces.csv").groupby("video")["frame"].nunique().to_dict()
    assert frames == {"a": 10, "a-3": 12, "a-2": 14}
    assert f"{sources[1]}: is called a-3 here, since another file has its name" in said


def test_a_folder_means_the_videos_and_pictures_in_it(tmp_path):
    one_video(tmp_path / "in" / "a.mp4", 10)
    (tmp_path / "in" / "notes.txt").touch()
    lines_of([tmp_path / "in"], tmp_path / "out")
    assert set(read_faces(tmp_path / "out" / "faces.csv")["video"]) == {"a"}
    (tmp_path / "empty").mkdir()
    for source, error in ((tmp_path / "empty", "holds no video and no picture"),
                          (tmp_path / "no.mp4", "no such video")):
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            lines_of([source], tmp_path / "other")


# ---- videos that cannot be watched

def test_a_video_that_cannot_be_watched_stops_no_other_and_is_named(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    said: list[str] = []
    problems = watch([tmp_path / "bad.mp4", one_video(tmp_path / "a.mp4", 10)], tmp_path / "out",
                     WatchConfig(**IN_PLACE), said.append)
    assert list(problems) == ["bad"] and any(line.startswith("left out: ") and "bad.mp4" in line for line in said)
    assert set(read_faces(tmp_path / "out" / "faces.csv")["video"]) == {"a"}
    with pytest.raises(ValueError, match=r"bad\.mp4: not an mp4"):
        lines_of([tmp_path / "bad.mp4"], tmp_path / "other")


def test_a_video_without_a_face_gives_empty_tables(tmp_path):
    said = lines_of([film(tmp_path / "a.mp4", moving(10))], tmp_path / "out", video=True)
    assert len(read_faces(tmp_path / "out" / "faces.csv")) == 0 and f"{tmp_path / 'a.mp4'}: no face in it" in said
    assert (tmp_path / "out" / "a.watched.mp4").exists()


# ---- running again

def test_the_same_command_again_watches_and_draws_nothing_and_writes_the_same(tmp_path, monkeypatch):
    sources = [one_video(tmp_path / "a.mp4")]
    lines_of(sources, tmp_path / "out", video=True)
    before = contents(tmp_path / "out")
    drawn = (tmp_path / "out" / "a.watched.mp4").stat().st_mtime_ns
    monkeypatch.setattr(jobs, "make_tools", None)
    lines_of(sources, tmp_path / "out", video=True)
    assert contents(tmp_path / "out") == before and (tmp_path / "out" / "a.watched.mp4").stat().st_mtime_ns == drawn


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def test_corrections_need_no_new_pass(tmp_path, monkeypatch):
    lines_of([one_video(tmp_path / "a.mp4")], tmp_path / "out")
    monkeypatch.setattr(jobs, "make_tools", None)
    saved = tmp_path / "corrections.csv"
    saved.write_text("action,video,person,start,end,value\nrename,a,P1,,,Ann\n")
    lines_of([tmp_path / "a.mp4"], tmp_path / "out", corrections=saved)
    assert set(read_faces(tmp_path / "out" / "faces.csv")["person"]) == {"Ann", "P2"}


def test_results_of_other_videos_or_settings_are_not_replaced_unasked(tmp_path):
    lines_of([one_video(tmp_path / "a.mp4", 10)], tmp_path / "out")
    before = contents(tmp_path / "out")
    other = one_video(tmp_path / "b.mp4", 12)
    with pytest.raises(ValueError, match="holds results with other videos: a, now b -> name another folder"):
        lines_of([other], tmp_path / "out")
    with pytest.raises(ValueError, match="holds results with other causal: False, now True"):
        lines_of([tmp_path / "a.mp4"], tmp_path / "out", causal=True)
    assert contents(tmp_path / "out") == before
    said = lines_of([other], tmp_path / "out", replace=True)
    assert set(read_faces(tmp_path / "out" / "faces.csv")["video"]) == {"b"} and len(said) == 1
    assert len(list((tmp_path / "out" / "parts").glob("*-*"))) == 1


def test_a_file_that_is_not_ours_or_was_changed_is_not_replaced(tmp_path):
    video = one_video(tmp_path / "a.mp4", 10)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "looks.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"looks\.csv: is there already, and not by this command -> name another"):
        lines_of([video], tmp_path / "out")
    (tmp_path / "out" / "looks.csv").unlink()
    lines_of([video], tmp_path / "out")
    with open(tmp_path / "out" / "looks.csv", "a") as file:
        file.write("mine")
    with pytest.raises(ValueError, match=r"looks\.csv: was changed since it was written -> move it away to keep it"):
        lines_of([video], tmp_path / "out")
    lines_of([video], tmp_path / "out", replace=True)


def test_a_video_that_has_changed_is_watched_again(tmp_path):
    lines_of([one_video(tmp_path / "a.mp4", 10)], tmp_path / "out")
    lines_of([one_video(tmp_path / "a.mp4", 20)], tmp_path / "out")
    assert read_faces(tmp_path / "out" / "faces.csv")["frame"].max() == 19
    assert len(list((tmp_path / "out" / "parts").glob("a-*"))) == 1


def test_one_command_works_in_a_folder_at_a_time(tmp_path):
    from gazepose.io import lock
    held = lock(tmp_path / "out" / "parts" / ".lock")
    try:
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()}"):
            lines_of([one_video(tmp_path / "a.mp4", 10)], tmp_path / "out")
    finally:
        held.release()


@pytest.mark.parametrize(("flag", "value"), [("scorer", ()), ("detector_size", 9), ("jobs", -1), ("smooth", -1.0)])
def test_settings_without_sense_are_refused(flag, value):
    with pytest.raises(ValueError, match=f"--{flag} .*-> give"):
        WatchConfig(**{flag: value})


# ---- stops

COMMAND = """
import sys
sys.path[:0] = [{here!r}]
from test_watch_command import use_squares
use_squares(setattr)
from pathlib import Path
from gazepose.processes import command
from gazepose.watch.command import WatchConfig, watch
with command("watch"):
    watch([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]), WatchConfig(jobs=0))
"""


def start(out: Path, *sources: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", COMMAND.format(here=str(HERE)), str(out), *map(str, sources)],
                            stderr=subprocess.PIPE, text=True, cwd=HERE.parent)


@pytest.mark.parametrize("number", [signal.SIGKILL])    # test_signals.py has the others
def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, number):
    video = film(tmp_path / "a.mp4", moving(300, still(20, 60), lambda number: (200 - number / 4, 90, 50)))
    process, parts = start(tmp_path / "out", video), tmp_path / "out" / "parts"
    ends = time.monotonic() + 100
    while len(list(parts.glob("a-*/0*.npz"))) < 3:
        assert process.poll() is None and time.monotonic() < ends
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 75), errors
    done = {path: path.stat().st_mtime_ns for path in parts.glob("a-*/0*.npz")}
    assert not (tmp_path / "out" / "faces.csv").exists() and 3 <= len(done) < 10
    lines_of([video], tmp_path / "out", video=True)
    lines_of([video], tmp_path / "whole", video=True)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    one, other = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []


def test_boxes_without_tracks_are_followed_and_the_format_is_said(tmp_path):
    table = tmp_path / "boxes.csv"
    rows = [f"{frame};{x};60;{x + 60};120" for frame in range(1, 11) for x in (20 + frame, 200 - frame)]
    table.write_text("frame;x1;y1;x2;y2\n" + "\n".join(rows) + "\n", encoding="utf-8-sig")
    said = lines_of([one_video(tmp_path / "a.mp4")], tmp_path / "out", boxes=table, first_number=1)
    assert any("read as corners" in line for line in said) and any("its boxes are followed" in line for line in said)
    faces = read_faces(tmp_path / "out" / "faces.csv")
    assert faces.groupby("person")["frame"].apply(list).to_dict() == {"P1": [*range(10)], "P2": [*range(10)]}
    assert faces.groupby("person")["x"].first().to_dict() == {"P1": 21, "P2": 199}
