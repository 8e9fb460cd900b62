"""Codings: what is written for other programs is opened by public readers, and codings made by hand are read."""

import csv
import os
import re
from pathlib import Path

import openpyxl
import pympi
import pytest
import webvtt
from watching import NAN, faces, several

from gazepose.watch.bouts import LOOKS, PAIRS, PEOPLE, count_people, find_looks
from gazepose.watch.coding import SUMMARY, write
from gazepose.watch.coding_files import Codes, read_coding
from gazepose.watch.table import Video
from gazepose.watch.tables import write as write_tables

ANNA = {("a.mp4", "Anna"): [(1.5, 3.0), (4.25, 5.0)]}


@pytest.fixture
def watched(tmp_path):
    """Anna looks 0.2..0.5 s, then cannot be coded for 0.3 s; a person with a name like a formula looks 0.1..0.4 s."""
    table = several(faces([.1, .1, .9, .9, .9, .1, NAN, NAN, NAN, .1], person="Anna & <B>"),
                    faces([.1, .9, .9, .9, .1], person="=1+1"))
    (tmp_path / "clips").mkdir()
    path = tmp_path / "clips" / "a.mp4"
    path.write_bytes(b"")
    os.utime(path, (1e9, 1e9))
    videos = [Video("a.mp4", path, 640, 360, 10, 10, 1.0)]
    looks = find_looks(table, videos)
    return tmp_path, videos, table, looks, count_people(table, looks, videos)


def written(watched, *formats) -> list[Path]:
    folder, videos, table, looks, people = watched
    return write(folder / "out", formats, videos, table, looks, people)


def spans(found):
    return [(pytest.approx(start), pytest.approx(end)) for start, end in found]


# ---- written

def test_pympi_opens_the_elan_file_with_a_tier_for_each_person(watched):
    [path] = written(watched, "eaf")
    assert path.name == "a.mp4.eaf"
    document = pympi.Eaf(str(path))
    assert document.adocument["VERSION"] == document.adocument["FORMAT"] == "3.0"
    assert set(document.get_tier_names()) == {"Anna & <B>", "Anna & <B> not codable", "=1+1", "=1+1 not codable"}
    assert document.get_annotation_data_for_tier("Anna & <B>") == [(200, 500, "looking")]
    assert document.get_annotation_data_for_tier("Anna & <B> not codable") == [(600, 900, "too small")]
    assert document.get_annotation_data_for_tier("=1+1 not codable") == [(500, 1000, "no face")]
    slots = re.findall(r'TIME_SLOT_ID="ts(\d+)" TIME_VALUE="(\d+)"', path.read_text())
    assert slots == sorted(slots, key=lambda slot: (int(slot[1]), int(slot[0]))) and slots[0][0] == "1"
    [media] = document.media_descriptors
    assert media["RELATIVE_MEDIA_URL"] == "./../clips/a.mp4" and media["MIME_TYPE"] == "video/mp4"
    assert (path.parent / media["RELATIVE_MEDIA_URL"]).is_file()


def test_webvtt_reads_the_subtitles(watched):
    [path] = written(watched, "vtt")
    captions = webvtt.read(path)
    assert [(caption.start, caption.end) for caption in captions] == [
        ("00:00:00.100", "00:00:00.400"), ("00:00:00.200", "00:00:00.500")]
    assert "&lt;B&gt;" in captions[1].raw_text and captions[0].voice == "=1+1"


def test_boris_takes_the_pasted_events(watched):
    [path] = written(watched, "boris")
    text = path.read_text()
    # as BORIS pastes: every line, also the last, must have as many cells as its events have fields
    lines = [line.split("\t") for line in text.split("\n")]
    assert {len(line) for line in lines} == {6}
    assert lines[0] == ["0.100", "=1+1", "looking", "", "START", "NA"]
    with open(path, newline="") as file:
        events = list(csv.reader(file, delimiter="\t"))
    assert [float(event[0]) for event in events] == sorted(float(event[0]) for event in events)
    assert len({tuple(event) for event in events}) == len(events) == 8


def test_openpyxl_reads_the_workbook(watched):
    [path] = written(watched, "xlsx")
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["faces", "people", "pairs", "looks", "not codable"]
    for sheet, columns in (("faces", SUMMARY), ("people", PEOPLE), ("pairs", PAIRS), ("looks", LOOKS)):
        assert [cell.value for cell in book[sheet][1]] == list(columns)
    assert [cell.value for cell in book["looks"][2]] == ["a.mp4", "=1+1", .1, .4, .3, .9, "score"]
    assert book["looks"]["B2"].data_type == "s"                        # a text, not a formula
    anna = dict(zip(SUMMARY, (cell.value for cell in book["faces"][3]), strict=True))
    assert (anna["faces"], anna["codable"], anna["too small"], anna["mean_height"]) == (10, 7, 3, 50)
    assert book["pairs"]["D2"].value == .5 and book["people"]["H2"].value == 120


def test_the_same_tables_make_the_same_files(watched):
    formats = ("eaf", "vtt", "boris")
    first = [path.read_bytes() for path in written(watched, *formats)]
    assert [path.read_bytes() for path in written(watched, *formats)] == first


def test_nobody_in_a_video_makes_valid_files(tmp_path):
    empty = faces([])
    people = count_people(empty, find_looks(empty, []))
    video = Video("a.mp4", tmp_path / "a.mp4", 9, 9, 5, 10, .5)
    paths = write(tmp_path / "out", ["eaf", "vtt", "boris", "xlsx"], [video], empty, find_looks(empty, []), people)
    assert not pympi.Eaf(str(paths[0])).get_tier_names() and not len(webvtt.read(paths[1]))
    assert paths[2].read_text() == "" and openpyxl.load_workbook(paths[3])["looks"].max_row == 1


@pytest.mark.parametrize("kind", ["eaf", "boris"])
def test_what_was_written_is_read_as_the_folder_is(watched, kind):
    folder, videos, table, looks, people = watched
    [path] = written(watched, kind)
    write_tables(folder / "tables", table, looks, people)
    ours, other = read_coding(folder / "tables"), read_coding(path)
    assert set(ours.looks) == set(other.looks) == {("a.mp4", "Anna & <B>"), ("a.mp4", "=1+1")}
    for person in ours.looks:
        assert other.looks[person] == spans(ours.looks[person])
        assert other.hidden[person] == spans((start, min(end, 1)) for start, end in ours.hidden[person] if start < 1)
    assert ours.fps == {"a.mp4": pytest.approx(10)}


# ---- read

def coded(tmp_path, name, text, codes=None):
    (tmp_path / name).write_text(text)
    return read_coding(tmp_path / name, codes or Codes())


@pytest.mark.parametrize("text", [
    "video,person,start,end\na.mp4,Anna,1.5,3\na.mp4,Anna,4.25,5\n",
    "\ufeffvideo;person;start;end\r\na.mp4;Anna;1,5;3\r\na.mp4;Anna;4,25;5\r\n",
    "clip\tsubject\tonset_ms\toffset_ms\na.mp4\tAnna\t1500\t3000\na.mp4\tAnna\t4250\t5000\n",
    "File,Participant,Onset (ms),Offset (ms),Code\na.mp4,Anna,1500,3000,LOOK\na.mp4,Anna,4250,5000,eye contact\n",
    "video,person,start,end\na.mp4,Anna,00:00:01.500,0:03\na.mp4,Anna,00:00:04.250,00:00:05.000\n",
    "person,onset,offset,code\nAnna,1.5,3,look\nAnna,3,4,away\nAnna,4.25,5,look\n",
    "video,person,start,end,note\nC:\\clips\\a.mp4,Anna,4.25,5,x\nC:\\clips\\a.mp4,Anna,1.5,3,\n"])
def test_tables_are_read_as_people_have_them(tmp_path, text):
    assert coded(tmp_path, "a.mp4.csv", text).looks == ANNA


BORIS = ("Observation id\tOne\n\nTime\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\t"
         "Comment\tStatus\n{}")


@pytest.mark.parametrize("name, text", [
    ("one.tsv", BORIS.format("1.5\t/x/a.mp4\t60.0\t30\tAnna\tlooking\t\t\tSTART\n"
                             "3.0\t/x/a.mp4\t60.0\t30\tAnna\tlooking\t\t\tSTOP\n"
                             "3.5\t/x/a.mp4\t60.0\t30\tAnna\tsmile\t\t\tPOINT\n"
                             "4.25\t/x/a.mp4\t60.0\t30\tAnna\tlooking\t\t\tSTART\n"
                             "5.0\t/x/a.mp4\t60.0\t30\tAnna\tlooking\t\t\tSTOP\n")),
    ("one.csv", "Observation id,Media duration (s),Subject,Behavior,Behavior type,Time,Media file name\n"
                "One,60,Anna,looking,START,1.5,x/a.mp4\nOne,60,Anna,looking,STOP,3,x/a.mp4\n"
                "One,60,Anna,looking,START,4.25,x/a.mp4\nOne,60,Anna,looking,STOP,5,x/a.mp4\n"),
    ("two.csv", "Observation id,Media duration (s),Media file name,Subject,Behavior,Behavior type,Start (s),Stop (s)\n"
                "One,60,a.mp4,Anna,looking,STATE,1.5,3\nOne,60,a.mp4,Anna,looking,STATE,4.25,5\n")])
def test_the_events_that_boris_exports_are_read(tmp_path, name, text):
    coding = coded(tmp_path, name, text)
    assert coding.looks == ANNA and coding.length == {"a.mp4": 60}


def test_pasted_events_need_no_words_for_start_and_stop(tmp_path):
    text = "1.5\tAnna\tlooking\n3\tAnna\tlooking\n4.25\tAnna\tlooking\n5\tAnna\tlooking\n7\tAnna\tnot codable\n" \
           "9\tAnna\tnot codable"
    coding = coded(tmp_path, "a.mp4.boris.tsv", text)
    assert coding.looks == ANNA and coding.hidden == {("a.mp4", "Anna"): [(7, 9)]}


def test_an_elan_file_made_by_hand_is_read(tmp_path):
    document = pympi.Eaf()
    document.add_linked_file("file:///home/coder/a.mp4", mimetype="video/mp4")
    for tier, start, end, text in (("Anna", 1500, 3000, ""), ("Anna", 4250, 5000, "look"), ("Anna", 3200, 3400, "away"),
                                   ("Bea-gaze", 0, 1000, "eye contact"), ("Bea-gaze", 2000, 2500, "Not visible")):
        if tier not in document.tiers:
            document.add_tier(tier, part="Bea" if "Bea" in tier else None)
        document.add_annotation(tier, start, end, text)
    document.to_file(str(tmp_path / "x.eaf"))
    coding = read_coding(tmp_path / "x.eaf")
    assert coding.looks == {**ANNA, ("a.mp4", "Bea"): [(0, 1)]}
    assert coding.hidden["a.mp4", "Bea"] == [(2, 2.5)]


def test_codes_of_ones_own_are_named(tmp_path):
    text = "person,start,end,code\nAnna,1.5,3,Camera\nAnna,3,4,Toy\nAnna,4.25,5,camera\nAnna,6,7,out\n"
    with pytest.raises(ValueError, match="its codes are .*'Camera'.* -> name the one that means looking"):
        coded(tmp_path, "a.mp4.csv", text)
    coding = coded(tmp_path, "a.mp4.csv", text, Codes(("camera",), ("Out",)))
    assert coding.looks == ANNA and coding.hidden == {("a.mp4", "Anna"): [(6, 7)]} and coding.other == {"Toy": 1}


def test_a_person_who_never_looks_is_coded_by_a_line_without_times(tmp_path):
    assert coded(tmp_path, "a.csv", "video,person,start,end\na.mp4,Bea,,\n").looks == {("a.mp4", "Bea"): []}
    assert coded(tmp_path, "a.csv", "video,person,start,end,code\na.mp4,Bea,0,9.5,away\n").looks == {
        ("a.mp4", "Bea"): []}


def test_overlapping_looks_are_one_and_touching_looks_are_two(tmp_path):
    text = "person,start,end\nAnna,1,3\nAnna,2,4\nAnna,4,5\n"
    assert coded(tmp_path, "a.csv", text).looks == {("a", "Anna"): [(1, 4), (4, 5)]}


def test_a_folder_of_codings_is_read_as_one(tmp_path):
    (tmp_path / "a.csv").write_text("person,start,end\nAnna,1,3\n")
    (tmp_path / "b.txt").write_text("1\tAnna\tlooking\n3\tAnna\tlooking")
    (tmp_path / "notes.docx").write_text("")
    assert read_coding(tmp_path).looks == {("a", "Anna"): [(1, 3)], ("b", "Anna"): [(1, 3)]}


@pytest.mark.parametrize("name, text, message", [
    ("a.csv", "", "is empty"), ("a.csv", "person,when\nAnna,1\n", "without columns for person, start and end"),
    ("a.csv", "person,start,end\nAnna,1,2\nAnna,5,4\n", "line 3: ends at 4 s, before its start at 5 s"),
    ("a.csv", "person,start,end\nAnna,one,2\n", "line 2: 'one' is no time"),
    ("a.csv", "person,start,end\nAnna,1,\n", "line 2: '' is no time"),
    ("a.csv", "person,start,end\nAnna,-1,2\n", "line 2: '-1' is no time"),
    ("a.csv", "person,start,end\n,1,2\n", "line 2: names no person"),
    ("a.csv", "person,onset,offset\nAnna,1500,2300\nAnna,3000,4000\n", "may be milliseconds"),
    ("a.tsv", "1\tAnna\tlooking\n2\tAnna\n", "line 2: has fewer than three cells"),
    ("a.tsv", "1\tAnna\tlooking\n", "line 1: 'looking' of 'Anna' never stops"),
    ("a.tsv", "1\tAnna\tlooking\t\tSTOP\n2\tAnna\tlooking\t\tSTART", "line 1: 'looking' of 'Anna' never started"),
    ("a.tsv", "1\tAnna\tlooking\t\tSTART\n2\tAnna\tlooking\t\tSTART", "line 2: 'looking' of 'Anna' starts twice"),
    ("a.eaf", "<xml", "not an ELAN file"), ("a.eaf", "", "not an ELAN file"), ("a.pdf", "", "must end in .eaf")])
def test_a_fault_of_a_coding_is_named_with_its_line(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        coded(tmp_path, name, text)


def test_what_is_no_coding_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv: no such coding"):
        read_coding(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="holds no coding"):
        read_coding(tmp_path)
