"""Remedies of codings and tables: what a message says is done, and then the file is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from making import refused_until_mended
from test_remedies import remedy_of
from test_remedies_of_inputs import State, written
from test_watch_command import lines_of, one_video, use_squares
from test_watch_tables import FACE, corrected
from watching import faces

from gazepose import verbs
from gazepose.watch.agree import agree
from gazepose.watch.coding_files import Codes, read_coding
from gazepose.watch.corrections import CORRECTIONS
from gazepose.watch.table import FACES
from gazepose.watch.tables import read_corrections, read_faces


@pytest.fixture(autouse=True)
def without_model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    use_squares(monkeypatch.setattr)


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


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*CODINGS, *AGREEMENT, *TABLES)


def test_a_name_that_another_person_has_is_merged_or_another_is_chosen(tmp_path):
    table = pd.concat([faces([.9] * 5), faces([.9] * 5, person="P2", frames=range(5, 10))], ignore_index=True)
    [remark] = corrected(tmp_path, table, "rename,a.mp4,P1,,,P2").remarks
    assert "-> merge them, or choose another name" in remark
    for line, people in (("merge,a.mp4,P1,,,P2", {"P2"}), ("rename,a.mp4,P1,,,P3", {"P2", "P3"})):
        result = corrected(tmp_path, table, line)
        assert not result.remarks and set(result.table["person"]) == people


def test_people_are_matched_as_the_message_says(tmp_path):
    (tmp_path / "mine.csv").write_text("video," + HEAD + ONE)
    (tmp_path / "theirs.csv").write_text("video," + HEAD + OTHER)

    def compare(pair: str) -> None:
        verbs.agree(tmp_path / "mine.csv", tmp_path / "theirs.csv", (pair,), out=tmp_path / "out")
    form = remedy_of(lambda: compare("P1")).removeprefix("give ")
    compare(form.replace("NAME_IN_MINE", "P1").replace("NAME_IN_THEIRS", "Anna"))
    assert (tmp_path / "out" / "agreement.html").is_file()
