"""Tables of the wing: what is written is read back, what is wrong is named, and corrections do what they say."""

import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import NAN, faces, several, spans, video_of

from gazepose.watch.bouts import LOOKS, PEOPLE, count_people, find_looks
from gazepose.watch.corrections import CORRECTIONS, apply_corrections
from gazepose.watch.table import FACES
from gazepose.watch.tables import (
    read_corrections,
    read_faces,
    read_looks,
    read_people,
    rounded,
    with_formula,
    without_formula,
    write,
    write_table,
)


@pytest.fixture
def made():
    table = several(faces([.1, .9, .9, NAN]), faces([1 / 3] * 2, person="P2", frames=[1, 2]))
    looks = find_looks(table, [video_of(table)])
    return table, looks, count_people(table, looks, [video_of(table)])


# ---- writing and reading

def test_tables_are_read_back_as_they_were_rounded(tmp_path, made):
    write(tmp_path, *made)
    for name, read, columns, original in (("faces.csv", read_faces, FACES, made[0]),
                                          ("looks.csv", read_looks, LOOKS, made[1]),
                                          ("people.csv", read_people, PEOPLE, made[2])):
        table = read(tmp_path / name)
        assert (tmp_path / name).read_text().splitlines()[0] == ",".join(columns)
        assert len(table) == len(original)
        write_table(tmp_path / f"again {name}", table, columns)
        assert (tmp_path / name).read_bytes() == (tmp_path / f"again {name}").read_bytes()
    faces_again = read_faces(tmp_path / "faces.csv")
    pd.testing.assert_frame_equal(
        faces_again.drop(columns="line"),
        rounded(made[0]).sort_values(["frame", "person"], ignore_index=True), check_dtype=False)


def test_numbers_have_few_digits(tmp_path, made):
    write(tmp_path, *made)
    cells = (tmp_path / "faces.csv").read_text().replace("\n", ",").split(",")
    assert "0.3333" in cells and max(map(len, cells)) < 12
    assert not list(tmp_path.glob(".*"))


@settings(max_examples=200)
@given(st.text(alphabet="=+-@'\t\raA1. é", max_size=6))
def test_no_name_is_a_formula_in_a_spreadsheet_and_every_name_comes_back(name):
    cell = without_formula(name)
    assert with_formula(cell) == name
    assert cell == name or cell == f"'{name}"
    assert not cell.startswith(("=", "+", "@", "\t", "\r"))


def test_formulas_in_names_survive_the_files(tmp_path):
    table = several(faces([.9] * 3, video="=1+1.mp4", person="@a"), faces([.9] * 3, video="'=x", person='a,"b'))
    looks = find_looks(table, [])
    write(tmp_path, table, looks, count_people(table, looks))
    assert set(read_faces(tmp_path / "faces.csv")["video"]) == {"=1+1.mp4", "'=x"}
    assert set(read_looks(tmp_path / "looks.csv")["person"]) == {"@a", 'a,"b'}
    with open(tmp_path / "people.csv", newline="") as file:
        assert {row["video"] for row in csv.DictReader(file)} == {"'=1+1.mp4", "''=x"}


FACE = "a.mp4,P1,0,0,1,1,5,5,,,,,,0.5,1,"


@pytest.mark.parametrize("line, message", [
    ("a.mp4,P1,0,0,1,1,5,5,,,,,,1.5,1,", "line 3: looking: '1.5' -> a number from 0 to 1"),
    ("a.mp4,P1,-1,0,1,1,5,5,,,,,,0.5,1,", "line 3: frame: '-1' -> a whole number"),
    ("a.mp4,P1,1.5,0,1,1,5,5,,,,,,0.5,1,", "line 3: frame: '1.5'"),
    (",P1,0,0,1,1,5,5,,,,,,0.5,1,", "line 3: video: '' -> a name is wanted"),
    ("a.mp4,P1,0,zero,1,1,5,5,,,,,,0.5,1,", "line 3: seconds: 'zero'"),
    ("a.mp4,P1,0,1e999,1,1,5,5,,,,,,0.5,1,", "line 3: seconds: '1e999'"),
    ("a.mp4,P1,0,,1,1,5,5,,,,,,0.5,1,", "line 3: seconds: ''"),
    ("a.mp4,P1,0,0,1,1,5,5,,,,,,0.5,yes,", "line 3: codable: 'yes' -> 0 or 1"),
    ("a.mp4,P1,0,0,1,1,5,5,,,,,,,0,too ugly", "line 3: reason: 'too ugly' -> one of too small"),
    ("a.mp4,P1,0,0,1,1,5,5,,,,,,0.5,1,,,", "not CSV: .*line 3")])
def test_a_wrong_cell_is_named_by_line_and_column(tmp_path, line, message):
    (tmp_path / "faces.csv").write_text("\n".join([",".join(FACES), FACE, line, FACE.replace("0.5", "bad")]))
    with pytest.raises(ValueError, match=f"faces.csv: {message}"):
        read_faces(tmp_path / "faces.csv")


@pytest.mark.parametrize("content, message", [
    (b"", "is empty"), (b"video,person\n", "line 1: there is no column 'frame'"),
    (f"{','.join(FACES)},mood\n".encode(), "line 1: the column 'mood' is unknown"),
    (f"{','.join(FACES)}\n{FACE}\n\xe9".encode("latin-1"), "line 3: not UTF-8"),
    (f"{','.join(FACES)}\n{FACE}\0".encode(), "line 2: not UTF-8 text")])
def test_a_file_that_is_no_such_table_is_named(tmp_path, content, message):
    (tmp_path / "faces.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"faces.csv: {message}"):
        read_faces(tmp_path / "faces.csv")
    with pytest.raises(FileNotFoundError, match="no.csv"):
        read_faces(tmp_path / "no.csv")


def test_a_table_saved_by_excel_is_read(tmp_path):
    (tmp_path / "faces.csv").write_bytes(f"\ufeff{','.join(FACES)}\r\n{FACE}\r\n\r\n".encode())
    assert read_faces(tmp_path / "faces.csv")["looking"].tolist() == [.5]


# ---- corrections

def corrections(tmp_path, *lines):
    path = tmp_path / "corrections.csv"
    path.write_text("\n".join([",".join(CORRECTIONS), *lines, ""]))
    return read_corrections(path)


def corrected(tmp_path, table, *lines):
    videos = [video_of(table, name) for name in table["video"].unique()]
    return apply_corrections(table, find_looks(table, videos), corrections(tmp_path, *lines), videos)


@pytest.mark.parametrize("line, message", [
    ("look,a.mp4,P1,1,,", "line 2: end: is empty, but look needs it"),
    ("no_look,a.mp4,P1,,2,", "line 2: start: is empty"),
    ("rename,a.mp4,P1,,,", "line 2: value: is empty, but rename needs it -> give a name"),
    ("look,a.mp4,P1,3,2,", "line 2: end: 2 is before the start 3"),
    ("delete,a.mp4,P1,1,2,", "line 2: action: 'delete' -> one of rename, merge, look, no_look, not_codable"),
    ("look,a.mp4,P1,one,2,", "line 2: start: 'one'")])
def test_a_wrong_correction_is_named_by_line_and_column(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        corrections(tmp_path, line)


def test_a_look_set_by_hand_changes_faces_and_looks(tmp_path):
    result = corrected(tmp_path, faces([.1] * 10), "look,a.mp4,P1,0.2,0.5,")
    assert spans(result.looks) == [(.2, .5)] and result.looks["source"].tolist() == ["correction"]
    assert result.table["looking"].tolist() == [.1, .1, 1, 1, 1, .1, .1, .1, .1, .1] and not result.remarks
    assert result.looks["probability"].tolist() == [1] and result.looks["duration"].tolist() == [pytest.approx(.3)]


def test_a_look_set_by_hand_joins_the_looks_that_it_touches(tmp_path):
    result = corrected(tmp_path, faces([.9, .9, .1, .1, .1, .9, .9, .1, .1]), "look,a.mp4,P1,0.2,0.5,")
    assert spans(result.looks) == [(0, .7)] and result.looks["source"].tolist() == ["correction"]


def test_a_look_set_by_hand_ends_with_the_faces(tmp_path):
    table = faces([.1] * 4)
    assert spans(corrected(tmp_path, table, "look,a.mp4,P1,0.2,9,").looks) == [(.2, .4)]
    result = corrected(tmp_path, table, "look,a.mp4,P1,7,9,")
    assert not len(result.looks)
    assert result.remarks == ["1 of 1 corrections not used: no face of 'P1' at that time (line 2)"]


def test_no_look_cuts_a_look_in_two(tmp_path):
    result = corrected(tmp_path, faces([.9] * 10), "no_look,a.mp4,P1,0.3,0.5,")
    assert spans(result.looks) == [(0, .3), (.5, 1)] and set(result.looks["source"]) == {"correction"}
    assert result.table["looking"].tolist() == [.9] * 3 + [0] * 2 + [.9] * 5


def test_not_codable_by_hand_leaves_no_probability(tmp_path):
    result = corrected(tmp_path, faces([.9] * 4), "not_codable,a.mp4,P1,0.2,0.4,")
    assert spans(result.looks) == [(0, .2)] and result.table["codable"].tolist() == [1, 1, 0, 0]
    assert result.table["looking"].isna().tolist() == [False, False, True, True]
    assert set(result.table["reason"]) == {"", "marked by hand"}
    write(tmp_path / "out", result.table, result.looks, count_people(result.table, result.looks))
    assert len(read_faces(tmp_path / "out" / "faces.csv")) == 4


def test_a_look_by_hand_makes_a_face_codable(tmp_path):
    result = corrected(tmp_path, faces([NAN] * 4), "look,a.mp4,P1,0,0.4,")
    assert result.table["codable"].tolist() == [1] * 4 and set(result.table["reason"]) == {""}


def test_people_are_renamed_under_their_old_and_new_names(tmp_path):
    result = corrected(tmp_path, faces([.9] * 10), "rename,a.mp4,P1,,,Anna", "no_look,a.mp4,Anna,0,0.2,",
                       "no_look,a.mp4,P1,0.8,1,")
    assert set(result.table["person"]) == {"Anna"} and spans(result.looks, "Anna") == [(.2, .8)]
    assert not result.remarks


def test_people_are_merged_and_their_looks_found_again(tmp_path):
    table = several(faces([.1, .9, .9]), faces([.9, .9, .1], person="P2", frames=[4, 5, 6]))
    result = corrected(tmp_path, table, "merge,a.mp4,P2,,,P1")
    assert set(result.table["person"]) == {"P1"} and spans(result.looks) == [(.1, .6)]
    assert not result.remarks


def test_of_two_faces_of_merged_people_in_one_frame_one_is_left(tmp_path):
    result = corrected(tmp_path, several(faces([.9] * 3), faces([.1] * 3, person="P2", frames=[2, 3, 4])),
                       "merge,a.mp4,P1,,,P2")
    assert sorted(zip(result.table["frame"], result.table["looking"], strict=True)) == [
        (0, .9), (1, .9), (2, .1), (3, .1), (4, .1)]
    assert "1 face of merged people" in result.remarks[0]


def test_the_later_of_two_contrary_corrections_is_used_and_named(tmp_path):
    result = corrected(tmp_path, faces([.1] * 10), "look,a.mp4,P1,0,0.6,", "no_look,a.mp4,P1,0.3,1,")
    assert spans(result.looks) == [(0, .3)]
    assert result.remarks == ["line 3 (no_look of P1, 0.3 to 1 s) overrules line 2 (look, 0 to 0.6 s) where both apply"]
    result = corrected(tmp_path, faces([.1]), "rename,a.mp4,P1,,,Anna", "rename,a.mp4,P1,,,Bea")
    assert set(result.table["person"]) == {"Bea"} and "line 3 renames 'P1' again" in result.remarks[0]


def test_corrections_of_unknown_people_and_videos_are_counted_and_named(tmp_path):
    result = corrected(tmp_path, faces([.1] * 3), "look,b.mp4,P1,0,1,", "look,a.mp4,P9,0,1,", "look,a.mp4,P9,1,2,",
                       "rename,a.mp4,P8,,,Anna", "merge,a.mp4,P1,,,P7")
    assert result.remarks == [
        "1 of 5 corrections not used: unknown video 'b.mp4' -> write a.mp4 (line 2)",
        "2 of 5 corrections not used: unknown person 'P9' of 'a.mp4' -> write P1 (line 3, line 4)",
        "1 of 5 corrections not used: unknown person 'P8' of 'a.mp4' -> write P1 (line 5)",
        "1 of 5 corrections not used: unknown person 'P7' of 'a.mp4' -> write P1 (line 6)"]
    result = corrected(tmp_path, faces([.1] * 3), "look,a.mp4,P1,0,1,", "rename,a.mp4,P1,,,Anna")
    assert not result.remarks and set(result.table["person"]) == {"Anna"}


def test_a_video_may_be_called_by_its_file_in_corrections(tmp_path):
    result = corrected(tmp_path, faces([.1] * 3, video="IMG_1.b"), "look,IMG_1.b.MOV,P1,0,0.2,",
                       "look,IMG_1.MOV,P1,0,1,")
    assert spans(result.looks) == [(0, .2)]
    assert result.remarks == ["1 of 2 corrections not used: unknown video 'IMG_1.MOV' -> write IMG_1.b (line 3)"]


def test_a_name_that_another_person_has_is_not_taken(tmp_path):
    result = corrected(tmp_path, several(faces([.1]), faces([.1], person="P2")), "rename,a.mp4,P1,,,P2")
    assert set(result.table["person"]) == {"P1", "P2"} and "merge them" in result.remarks[0]
    for line in ("merge,a.mp4,P1,,,P2", "rename,a.mp4,P1,,,P3"):
        assert not corrected(tmp_path, several(faces([.1]), faces([.1], person="P2", frames=[5])), line).remarks


def test_two_people_exchange_names_over_a_third_name(tmp_path):
    result = corrected(tmp_path, several(faces([.1] * 3), faces([.9] * 3, person="P2")), "rename,a.mp4,P1,,,x",
                       "rename,a.mp4,P2,,,P1", "rename,a.mp4,x,,,P2")
    assert spans(result.looks, "P1") == [(0, .3)] and spans(result.looks, "P2") == [] and not result.remarks


def test_corrections_applied_again_change_nothing(tmp_path):
    table = several(faces([.1] * 10), faces([.9] * 10, person="P2"))
    lines = ("rename,a.mp4,P1,,,Anna", "look,a.mp4,Anna,0.2,0.5,", "no_look,a.mp4,P2,0.3,0.6,",
             "not_codable,a.mp4,P1,0.8,1,")
    once = corrected(tmp_path, table, *lines)
    again = apply_corrections(once.table, once.looks, corrections(tmp_path, *lines), [video_of(table)])
    pd.testing.assert_frame_equal(again.table, once.table)
    pd.testing.assert_frame_equal(again.looks, once.looks)
    assert not again.remarks
    np.testing.assert_array_equal(table["looking"], [.1] * 10 + [.9] * 10)            # the arguments stay as they were


def test_a_picture_is_corrected_too(tmp_path):
    table = faces([.1])
    result = apply_corrections(table, find_looks(table, []), corrections(tmp_path, "look,a.mp4,P1,0,0,"), [])
    assert result.table["looking"].tolist() == [1] and not len(result.looks)
