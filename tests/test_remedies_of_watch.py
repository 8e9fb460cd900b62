"""Remedies of the wing that watches videos: what a message says is done, and then the state is accepted."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from making import refused_until_mended
from squares import film, moving, picture, still, tools
from test_live import watcher
from test_remedies import command_in, remedy_of, typed
from test_remedies_of_inputs import State, given
from test_watch_command import lines_of, one_video, use_squares
from test_watch_dataset import ORIGIN, a_video, faces_of

from gazepose import project_verbs
from gazepose.io import read_arrays
from gazepose.machine import needed
from gazepose.synthetic.presets import VERSION
from gazepose.watch import many, readout
from gazepose.watch.bouts import LookRules
from gazepose.watch.config import WatchConfig
from gazepose.watch.dataset import write_dataset
from gazepose.watch.faces import read_pass
from gazepose.watch.readout import SHIPPED, Readout
from gazepose.watch.results import ABOUT, PARTS, Results
from gazepose.watch.sources import name_scorers, name_sources, read_own_boxes
from gazepose.watch.video_pass import finished_parts, is_finished, watch_video

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def without_model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    use_squares(monkeypatch.setattr)


# Settings

def setting(flag: str, bad: Any, words: str, *good: Any, kind: type = WatchConfig, **others: Any
            ) -> list[Callable[[Path], State]]:
    """A flag of watch, refused with one value and taken with each of some others."""
    return [given(lambda value: kind(**{flag: value}, **others), words, (bad,), (value,)) for value in good]


SETTINGS: list[Callable[[Path], State]] = [
    *setting("scorer", (), "give landmarks, a run, or both", ("landmarks",), ("run",), ("landmarks", "run")),
    *setting("dataset", None, "give --dataset FOLDER", Path("set"), small=True),
    *setting("detector_size", 63, "give 64 to 8192 pixels", 64, 8192), *setting("jobs", -1, "give 1 or more", 1),
    *setting("smooth", 11.0, "give 0 to 10 seconds", 0.0, 10.0),
    *setting("off", 0.6, "give probabilities from 0 to 1, --off not above --on", 0.5, 0.0, kind=LookRules, on=0.5),
    *setting("on", 1.1, "give probabilities from 0 to 1", 1.0, kind=LookRules),
    *[each for name in ("shortest", "join", "bridge")
      for each in setting(name, -1, "give seconds, 0 or more", 0, 0.5, kind=LookRules)]]


# Sources and scorers

def empty_folder(tmp: Path) -> State:
    return lambda: name_sources([tmp], print), "a folder that holds some (.mp4, ", (tmp / "a.mp4").touch


def clips_of_other_names(tmp: Path) -> State:
    table = tmp / "boxes.csv"
    table.write_text("clip,track,frame,x,y,width,height\na,t,0,0,0,9,9\nz,t,0,0,0,9,9\n")
    videos = {"a": tmp / "a.mp4", "b": tmp / "b.mp4"}
    return (lambda: read_own_boxes(table, videos), "name the videos as the clips are named, without the ending",
            lambda: videos.update(z=videos.pop("b")))


def run_that_is_not_there(tmp: Path) -> State:
    return (lambda: name_scorers([str(tmp / "run")], "landmarks"), "or the folder of a run or a checkpoint",
            (tmp / "run").mkdir)


def runs_of_one_name(tmp: Path) -> State:
    runs = [tmp / "a" / "run", tmp / "b" / "run"]
    for run in runs:
        run.mkdir(parents=True)
    return (lambda: name_scorers(map(str, runs), "landmarks"), "or rename a folder",
            lambda: runs.__setitem__(1, runs[1].rename(tmp / "b" / "other")))


SOURCES: list[Callable[[Path], State]] = [
    lambda tmp: (lambda: name_sources([tmp / "a.mp4"], print), "check the path", (tmp / "a.mp4").touch),
    empty_folder, clips_of_other_names, run_that_is_not_there, runs_of_one_name,
    lambda tmp: given(lambda *sources: name_sources(sources, print), "name one or more files, or a folder", (),
                      ((tmp / "a.mp4").touch() or tmp / "a.mp4", (tmp / "a.mp4").parent))(tmp),
    lambda tmp: given(lambda scorer: name_scorers([scorer], "landmarks"), "give landmarks", (str(tmp / "no"),),
                      ("landmarks",))(tmp),
    given(lambda *scorers: name_scorers(scorers, "landmarks"), "name each once", ("landmarks", "landmarks"),
          ("landmarks",))]


# The folder of results

def results(tmp: Path, **changes: Any) -> Callable[[], Results]:
    """Starts in `folder` with a plan, as watch does."""
    return lambda: Results(changes.get("folder", tmp / "out"), {"videos": ["b"]}, changes.get("replace", False))


def begun(folder: Path, **about: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).write_text(json.dumps({"kind": "gazepose watch", "videos": ["b"], "files": {}, **about}))
    return folder


def in_folder(words: str, about: dict[str, Any], change: dict[str, Any] | None) -> Callable[[Path], State]:
    """A folder in which watch does not start, until other values are given or (None) its looks.csv is moved away."""
    def state(tmp: Path) -> State:
        out, now = begun(tmp / "out", **about), {"folder": tmp / "out"}
        (out / "looks.csv").write_text("mine")

        def attempt() -> None:
            results(tmp, **now)().begin(["looks.csv"])

        def mend() -> None:
            if change is None:
                (out / "looks.csv").rename(tmp / "mine.csv")
            else:
                now.update({name: value or tmp / "new" for name, value in change.items()})
        return attempt, words, mend
    return state


RESULTS: list[Callable[[Path], State]] = [
    in_folder("name another folder", {"kind": "of others"}, {"folder": None}),
    in_folder("name another folder", {"videos": ["a"], "begun": ["looks.csv"]}, {"folder": None}),
    in_folder("or give --replace", {"videos": ["a"], "begun": ["looks.csv"]}, {"replace": True}),
    in_folder("move it away to keep it", {"files": {"looks.csv": "0" * 64}}, None),
    in_folder("or give --replace", {"files": {"looks.csv": "0" * 64}}, {"replace": True}),
    in_folder("name another folder", {}, {"folder": None}),
    in_folder("or give --replace", {}, {"replace": True})]


# A camera

def frame_of_floats(tmp: Path) -> State:
    frames = [picture([(50, 60, 80)]) / 255]
    return (lambda: watcher().step(frames[0], 0.0), "convert it",
            lambda: frames.__setitem__(0, (frames[0] * 255).astype(np.uint8)))


def frame_of_an_earlier_time(tmp: Path) -> State:
    camera, seconds = watcher(), [0.5]
    camera.step(picture([]), 1.0)
    return (lambda: camera.step(picture([]), seconds[0]), "give seconds that ascend",
            lambda: seconds.__setitem__(0, 1.5))


# Passes, videos and data sets

def passed(tmp: Path) -> tuple[Path, Callable[[], None]]:
    """The parts of a video, and the command that makes what is missing of them."""
    video, folder = film(tmp / "a.mp4", moving(9, still(20, 60))), tmp / "parts"
    folder.mkdir()
    return folder, lambda: watch_video(video, folder, tools(part_seconds=0.1))


def last_part_missing(tmp: Path) -> State:
    folder, command = passed(tmp)
    command()
    finished_parts(folder)[-1].unlink()
    return lambda: read_pass(folder), "run the command again", command


def damaged_part(which: int, attempt: Callable[[Path], Any]) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        folder, command = passed(tmp)
        command()
        whole = [read_arrays(path)["frame"].tolist() for path in finished_parts(folder)]
        part = finished_parts(folder)[which]
        os.truncate(part, 99)

        def mend() -> None:
            part.unlink()
            command()
            assert [read_arrays(path)["frame"].tolist() for path in finished_parts(folder)] == whole
        return lambda: attempt(folder), "delete this file and run the command again", mend
    return state


def no_video_of_several(tmp: Path) -> State:
    videos = [tmp / "a.mp4", tmp / "b.mp4"]
    for path in videos:
        path.write_bytes(b"no video")
    return (lambda: lines_of(videos, tmp / "out"), "give others",
            lambda: videos.append(one_video(tmp / "c.mp4", 3)))


def unsure_faces(tmp: Path) -> State:
    videos = [a_video(tmp / "in", "a.mp4")]
    tables = [faces_of(videos[0], [0.5] * 12)]

    def mend() -> None:
        videos.append(a_video(tmp / "in", "b.mp4"))
        tables.append(faces_of(videos[1], [0.95] * 12))
    return lambda: write_dataset(tmp / "set", videos, pd.concat(tables, ignore_index=True), origin=ORIGIN), \
        "watch more videos", mend


def data_set_of_other_videos(tmp: Path) -> State:
    video, out = a_video(tmp / "in", "a.mp4"), [tmp / "set"]
    (tmp / "set" / "boxes").mkdir(parents=True)
    (tmp / "set" / "boxes" / "val.csv").write_text("mine")
    return (lambda: write_dataset(out[0], [video], faces_of(video, [0.95] * 12), origin=ORIGIN), "name another folder",
            lambda: out.__setitem__(0, tmp / "new"))


PASSES: list[Callable[[Path], State]] = [
    last_part_missing, damaged_part(-1, read_pass), damaged_part(0, read_pass), damaged_part(-1, is_finished),
    no_video_of_several, unsure_faces, data_set_of_other_videos,
    frame_of_floats, frame_of_an_earlier_time]


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*SETTINGS, *SOURCES, *RESULTS, *PASSES)


def test_parts_of_other_videos_are_not_replaced_unasked_and_an_empty_folder_is_used(tmp_path):
    begun(tmp_path / "out", videos=["a"], begun=["looks.csv"])
    results(tmp_path)()
    part = tmp_path / "out" / PARTS / "a-0" / "00000.npz"
    part.parent.mkdir(parents=True)
    results(tmp_path)()
    part.touch()
    assert "or give --replace" in remedy_of(results(tmp_path))
    results(tmp_path, replace=True)()


# Lines that no error ends with

def test_a_video_that_was_renamed_has_boxes(tmp_path):
    video = one_video(tmp_path / "my clip.mp4", 5)
    [line] = [line for line in lines_of([video], tmp_path / "out") if "is no id" in line]
    assert "rename the video to letters, digits, _ . -" in line
    lines_of([video.rename(tmp_path / "my_clip-1.0.mp4")], tmp_path / "new")
    assert "\nmy_clip-1.0," in (tmp_path / "new" / "boxes" / "val.csv").read_text()


class Dies:
    """A job whose decoder ends its process until the video is H.264."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem

    def run(self, report: many.Report) -> str:
        if self.path.read_text() != "H.264":
            os._exit(3)
        return "watched"


def test_a_video_at_which_a_process_dies_is_watched_once_it_is_converted(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "WORKERS", get_context("fork"))            # a process of its own within milliseconds
    monkeypatch.setattr(many, "_start", lambda reports: None)
    jobs = [Dies(tmp_path / "a.mp4")]
    for codec, value in (("odd", None), ("H.264", "watched")):
        jobs[0].path.write_text(codec)
        outcome = many.run_all("watching", jobs, {"a": 1.0}, 1, lambda line: None)["a"]
        assert outcome.value == value
        assert bool(outcome.problem) == ("convert the video to H.264, or free memory" in outcome.problem)


def test_packages_that_a_message_names_are_in_its_extra(monkeypatch):
    extra = re.search(r"\nwatch = (\[[^]]*\])", (ROOT / "pyproject.toml").read_text())
    assert extra
    for module, package in (("pympi", "pympi-ling"), ("webvtt", "webvtt-py"), ("openpyxl", "openpyxl")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            patch.setitem(sys.modules, f"{module}.styles", None)
            assert remedy_of(lambda module=module, package=package: needed(module, "watch", package)) == \
                "pip install 'gazepose[watch]'"
        assert f'"{package}>=' in extra[1] and needed(module, "watch", package)


def rendered(root: Path) -> Path:
    """A folder that says it holds a whole embedded world."""
    root.mkdir(parents=True)
    (root / "world.json").write_text(json.dumps({"preset": "tiny", "seed": 0, "version": VERSION}))
    return root


def test_a_readout_that_is_damaged_is_made_by_the_command_that_is_named(tmp_path, monkeypatch):
    path, world = tmp_path / "my readout.json", rendered(tmp_path / "my world")
    path.write_text("{}")
    command = command_in(remedy_of(lambda: Readout.shipped(path)))
    monkeypatch.setattr(readout, "fit_on_world", lambda root, out, command: shutil.copy(SHIPPED, out))
    typed(monkeypatch, f"{command} --data {shlex.quote(str(world))}")
    assert np.isfinite(Readout.shipped(path).intercept)


def test_a_readout_is_fitted_on_the_world_that_is_named_or_on_the_embedded_one(tmp_path, monkeypatch):
    roots: list[Path] = []
    monkeypatch.setattr(readout, "fit_on_world", lambda root, *_: roots.append(root))
    monkeypatch.setattr(project_verbs, "EMBEDDED", tmp_path / "embedded")
    (tmp_path / "videos").mkdir()
    assert remedy_of(lambda: project_verbs.fit_readout(tmp_path)) == "name one, or leave --data out"
    worlds = [rendered(tmp_path / "world"), rendered(tmp_path / "embedded" / "tiny-0")]
    project_verbs.fit_readout(worlds[0])
    project_verbs.fit_readout(preset="tiny")
    assert roots == worlds
