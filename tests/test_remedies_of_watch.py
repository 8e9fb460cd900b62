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
from squares import film, moving, still, tools
from test_remedies import command_in, remedy_of, typed
from test_remedies_of_inputs import State, given, written
from test_watch_command import lines_of, one_video, use_squares
from test_watch_dataset import ORIGIN, a_video, faces_of
from test_watch_tables import FACE, corrected
from watching import faces

from gazepose import verbs
from gazepose.io import read_arrays
from gazepose.synthetic.presets import VERSION
from gazepose.watch import many, readout
from gazepose.watch.agree import agree
from gazepose.watch.bouts import LookRules
from gazepose.watch.coding import needed
from gazepose.watch.coding_files import Codes, read_coding
from gazepose.watch.config import WatchConfig
from gazepose.watch.corrections import CORRECTIONS
from gazepose.watch.dataset import write_dataset
from gazepose.watch.faces import read_pass
from gazepose.watch.readout import SHIPPED, Readout
from gazepose.watch.results import ABOUT, PARTS, Results
from gazepose.watch.sources import name_scorers, name_sources, read_own_boxes
from gazepose.watch.table import FACES
from gazepose.watch.tables import read_corrections, read_faces
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
    empty_folder, clips_of_other_names, run_that_is_not_there, runs_of_one_name,
    lambda tmp: given(lambda *sources: name_sources(sources, print), "name one or more files, or a folder", (),
                      ((tmp / "a.mp4").touch() or tmp / "a.mp4", (tmp / "a.mp4").parent))(tmp),
    lambda tmp: given(lambda scorer: name_scorers([scorer], "landmarks"), "give landmarks", (str(tmp / "no"),),
                      ("landmarks",))(tmp),
    given(lambda *scorers: name_scorers(scorers, "landmarks"), "name each once", ("landmarks", "landmarks"),
          ("landmarks",))]


# Codings

LINE, HEAD = "Anna,1.5,3\n", "person,start,end\n"


def coding(name: str, bad: str, words: str, good: str, **codes: tuple[str, ...]) -> Callable[[Path], State]:
    return lambda tmp: written(tmp / name, bad, good, lambda path: read_coding(path, Codes(**codes)), words)


def folder_without_coding(tmp: Path) -> State:
    return lambda: read_coding(tmp), "or one with files that end in .eaf, .csv", lambda: (tmp / "a.csv").write_text(
        HEAD + LINE)


def coding_that_is_not_there(tmp: Path) -> State:
    return lambda: read_coding(tmp / "a.csv"), "or a file that ends in .eaf, .csv", lambda: (tmp / "a.csv").write_text(
        HEAD + LINE)


def other_ending(tmp: Path) -> State:
    path = [tmp / "a.coded"]
    path[0].write_text(HEAD + LINE)
    return (lambda: read_coding(path[0]), "rename or convert it",
            lambda: path.__setitem__(0, path[0].rename(tmp / "a.csv")))


def elan(path: Path) -> None:
    import pympi
    document = pympi.Eaf()
    document.add_tier("Anna")
    document.add_annotation("Anna", 1000, 3000, "look")
    document.to_file(str(path))


def not_elan(tmp: Path) -> State:
    (tmp / "a.eaf").write_text("<xml")
    return lambda: read_coding(tmp / "a.eaf"), "open it in ELAN and save it again", lambda: elan(tmp / "a.eaf")


def annotation_without_time(tmp: Path) -> State:
    elan(tmp / "a.eaf")
    whole = (tmp / "a.eaf").read_text()
    (tmp / "a.eaf").write_text(whole.replace(' TIME_VALUE="3000"', ""))
    return lambda: read_coding(tmp / "a.eaf"), "give it one in ELAN", lambda: (tmp / "a.eaf").write_text(whole)


def person_who_is_not_in_the_faces(tmp: Path) -> State:
    """As a table that was edited by hand; watch refuses to replace it, unless it is told to."""
    out, video = tmp / "out", one_video(tmp / "a.mp4", 10)
    lines_of([video], out)
    lines = (out / "faces.csv").read_text().splitlines(keepends=True)
    (out / "faces.csv").write_text("".join(line for line in lines if ",P1," not in line))
    return (lambda: read_coding(out), "run watch again with --replace",
            lambda: lines_of([video], out, replace=True))


PASTED = "1\tAnna\tlooking{}\n2\tAnna\tlooking{}\n"
MILLISECONDS = "{0},start{1},end{1}\n{0},15000,23000\n{0},30000,40000\n"
CODINGS: list[Callable[[Path], State]] = [
    folder_without_coding, coding_that_is_not_there, other_ending, not_elan, annotation_without_time,
    person_who_is_not_in_the_faces,
    coding("a.csv", HEAD.strip() + ",code\nAnna,1,2,toy\n", "name the one that means looking with --looking",
           HEAD.strip() + ",code\nAnna,1,2,camera\n", looking=("camera",)),
    coding("a.csv", HEAD + '"Anna,1,2\n', "save it as CSV", HEAD + '"Anna",1,2\n'),
    coding("a.csv", "", "a first line with the names of the columns", HEAD),
    coding("a.csv", "who,when\nAnna,1\n", "name them person,start,end", HEAD + LINE),
    coding("a.csv", "who,when\nAnna,1\n", "or export the tabular events of BORIS",
           "Subject,Behavior,Time,Behavior type\nAnna,looking,1.5,START\nAnna,looking,3,STOP\n"),
    coding("a.csv", MILLISECONDS.format("person", ""), "name the columns start_ms and end_ms",
           MILLISECONDS.format("person", "_ms")),
    coding("a.csv", MILLISECONDS.format("person", ""), "or write 12.0 for seconds", HEAD + "Anna,100.0,200.0\n"),
    *[coding("a.csv", HEAD + bad, "correct the line", HEAD + LINE)
      for bad in ("Anna,3,1.5\n", "Anna,one,3\n", ",1.5,3\n")],
    *[coding("a.tsv", bad, "correct the line", PASTED.format("", "")) for bad in (
        "1\tAnna\tlooking\n2\tAnna\n", "1\tAnna\tlooking\n", PASTED.format("\t\tSTOP", "\t\tSTART"),
        PASTED.format("\t\tSTART", "\t\tSTART"))]]


# Agreement

def compared(words: str, mine: str, theirs: str, bad: dict[str, Any], good: dict[str, Any]) -> Callable[[Path], State]:
    """Two codings that are compared with other options, or (`mine` and `theirs` in them) when they are others."""
    def state(tmp: Path) -> State:
        now = dict(bad)

        def attempt() -> Any:
            options = {"mine": mine, "theirs": theirs, **now}
            for name in ("mine", "theirs"):
                (tmp / f"{name}.csv").write_text("video," + HEAD + options.pop(name))
            assert agree(tmp / "mine.csv", tmp / "theirs.csv", **options).units
        return attempt, words, lambda: (now.clear(), now.update(good))
    return state


ONE, OTHER = "a,P1,1.0,2\n", "a,Anna,1.0,2\n"
AGREEMENT: list[Callable[[Path], State]] = [
    compared("give more than 0 and at most 1000 frames", ONE, ONE, {"fps": 0}, {"fps": 1000}),
    compared("it has P1", ONE, OTHER, {"match": [("P7", "Anna")]}, {"match": [("P1", "Anna")]}),
    compared("--match NAME_IN_MINE=NAME_IN_THEIRS", ONE, OTHER, {}, {"match": [("P1", "Anna")]}),
    compared("or give the videos the same name", ONE + "b,P1,1.0,2\n", "x,P1,1.0,2\ny,P1,1.0,2\n", {},
             {"theirs": ONE + "b,P1,1.0,2\n"}),
    compared("they are in seconds", "a,P1,9000000.0,9000001\n", ONE, {}, {"mine": ONE})]


# Tables and corrections

def cells(bad: str, words: str, good: str = FACE) -> Callable[[Path], State]:
    head = ",".join(FACES) + "\n"
    return lambda tmp: written(tmp / "faces.csv", head + bad, head + good, read_faces, words)


def correction(bad: str, words: str, good: str) -> Callable[[Path], State]:
    head = ",".join(CORRECTIONS) + "\n"
    return lambda tmp: written(tmp / "c.csv", head + bad, head + good, read_corrections, words)


TABLES: list[Callable[[Path], State]] = [
    lambda tmp: written(tmp / "faces.csv", "video,person\n", ",".join(FACES) + "\n", read_faces,
                        f"the columns are {','.join(FACES)}"),
    lambda tmp: written(tmp / "faces.csv", f"{','.join(FACES)},mood\n", ",".join(FACES), read_faces, "the columns are"),
    lambda tmp: written(tmp / "faces.csv", "", ",".join(FACES), read_faces, "a first line with the names of"),
    lambda tmp: written(tmp / "faces.csv", f"{','.join(FACES)}\né".encode("latin-1"), f"{','.join(FACES)}\n",
                        read_faces, "save it as UTF-8"),
    cells(FACE + ",,,", "give every line as many cells as the first"),
    cells(FACE.replace("0.5", "0,5"), "give every line as many cells as the first"),
    cells(FACE.replace("0.5", "1.5"), "a number from 0 to 1 with a point is wanted, as 0.5"),
    cells(FACE.replace("a.mp4", ""), "a name is wanted"), cells(FACE[:-2] + "2,", "0 or 1 is wanted"),
    cells(FACE.replace("P1,0", "P1,-1"), "a whole number of 0 or more is wanted"),
    cells(FACE + "ugly", "one of too small, ", FACE + "too small"),
    correction("delete,a.mp4,P1,1,2,", "one of rename, merge, look, no_look", "no_look,a.mp4,P1,1,2,"),
    correction("rename,a.mp4,P1,,,", "give a name", "rename,a.mp4,P1,,,Ann"),
    correction("look,a.mp4,P1,1,,", "give seconds, as 12.5", "look,a.mp4,P1,1,12.5,"),
    correction("look,a.mp4,P1,3,2,", "exchange them", "look,a.mp4,P1,2,3,")]


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
    no_video_of_several, unsure_faces, data_set_of_other_videos]


@pytest.mark.parametrize("state", [*SETTINGS, *SOURCES, *CODINGS, *AGREEMENT, *TABLES, *RESULTS, *PASSES])
def test_what_was_refused_is_taken_once_the_remedy_is_done(tmp_path, state):
    attempt, words, mend = state(tmp_path)
    assert words in remedy_of(attempt)
    mend()
    attempt()


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

def test_a_name_that_another_person_has_is_merged_or_another_is_chosen(tmp_path):
    table = pd.concat([faces([.9] * 5), faces([.9] * 5, person="P2", frames=range(5, 10))], ignore_index=True)
    [remark] = corrected(tmp_path, table, "rename,a.mp4,P1,,,P2").remarks
    assert "-> merge them, or choose another name" in remark
    for line, people in (("merge,a.mp4,P1,,,P2", {"P2"}), ("rename,a.mp4,P1,,,P3", {"P2", "P3"})):
        result = corrected(tmp_path, table, line)
        assert not result.remarks and set(result.table["person"]) == people


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
            assert remedy_of(lambda module=module, package=package: needed(module, package)) == \
                "pip install 'gazepose[watch]'"
        assert f'"{package}>=' in extra[1] and needed(module, package)


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
    monkeypatch.setattr(verbs, "EMBEDDED", tmp_path / "embedded")
    (tmp_path / "videos").mkdir()
    assert remedy_of(lambda: verbs.fit_readout(tmp_path)) == "name one, or leave --data out"
    worlds = [rendered(tmp_path / "world"), rendered(tmp_path / "embedded" / "tiny-0")]
    verbs.fit_readout(worlds[0])
    verbs.fit_readout(preset="tiny")
    assert roots == worlds


def test_people_are_matched_as_the_message_says(tmp_path):
    (tmp_path / "mine.csv").write_text("video," + HEAD + ONE)
    (tmp_path / "theirs.csv").write_text("video," + HEAD + OTHER)

    def compare(pair: str) -> None:
        verbs.agree(tmp_path / "mine.csv", tmp_path / "theirs.csv", (pair,), out=tmp_path / "out")
    form = remedy_of(lambda: compare("P1")).removeprefix("give ")
    compare(form.replace("NAME_IN_MINE", "P1").replace("NAME_IN_THEIRS", "Anna"))
    assert (tmp_path / "out" / "agreement.html").is_file()
