"""Submission: what is handed in is whole, exact, and refused while it is not."""

import json

import numpy as np
import pytest

from gazepose.evaluation.submission import check, csv_to_json, write_test_csv, write_val_csv
from gazepose.infer import write_submission

FACES = [("v1", "00001", "007"), ("v1", "00002", "007"), ("v2", "u3", "k1")]
ROWS = [(*face, score) for face, score in zip(FACES, (0.1, 1 / 3, 1.0), strict=True)]


def test_a_score_survives_csv_and_json_to_the_last_digit(tmp_path):
    scores = [float(s) for s in np.random.default_rng(0).random(50).astype(np.float32)] + [5e-324, 1e-9]
    write_test_csv(tmp_path / "p.csv", [("v", str(i), "t", np.float64(s)) for i, s in enumerate(scores)])
    csv_to_json(tmp_path / "p.csv", tmp_path / "s.json")
    assert [entry["score"] for entry in json.loads((tmp_path / "s.json").read_text())["results"]] == scores


def test_the_val_table_has_a_header_and_every_digit(tmp_path):
    rows = [("c", "007", np.int32(f), np.float32(0.1), 0, 1, 1, np.int8(y), np.float32(s))
            for f, y, s in [(0, 1, 0.9), (1, 0, 0.8), (2, 1, 0.4), (3, 0, 0.3)]]
    write_val_csv(tmp_path / "pred.csv", rows)
    header, first = (tmp_path / "pred.csv").read_text().splitlines()[:2]
    assert header == "clip,track,frame,x1,y1,x2,y2,label,score"
    assert first == "c,007,0,0.10000000149011612,0.0,1.0,1.0,1,0.8999999761581421"


def test_ids_with_commas_and_umlauts_survive(tmp_path):
    write_test_csv(tmp_path / "p.csv", [('a,"b"', "ü", "t", 0.5)])
    csv_to_json(tmp_path / "p.csv", tmp_path / "s.json")
    assert check(tmp_path / "s.json", [('a,"b"', "ü", "t")]) == 1


def test_a_half_written_file_never_has_its_name(tmp_path):
    def stops():
        yield ROWS[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_test_csv(tmp_path / "pred.csv", stops())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_whole_submission_passes(tmp_path, kind):
    write_test_csv(tmp_path / "s.csv", ROWS)
    csv_to_json(tmp_path / "s.csv", tmp_path / "s.json")
    assert check(tmp_path / f"s.{kind}", FACES) == 3


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize(("rows", "message"), [
    (ROWS[:2], r"2 rows for 3 faces: 1 face missing: v2:k1:u3 -> do not hand this in"),
    ([*ROWS, ROWS[0]], "1 face more than once: v1:007:00001"),
    ([*ROWS, ("v9", "u", "t", 0.5)], "1 face that the test set does not have: v9:t:u"),
    ([*ROWS[:2], (*FACES[2], 1.5)], "1 score outside 0..1: v2:k1:u3=1.5"),
    ([("v1", "1", "7", 0.5), *ROWS[1:]], "missing: v1:007:00001; 1 face that the test set does not have: v1:7:1"),
    ([], "3 faces missing: .*no rows at all"),
])
def test_a_submission_with_a_fault_is_refused_with_the_reason(tmp_path, rows, message, kind):
    write_test_csv(tmp_path / "s.csv", rows)
    csv_to_json(tmp_path / "s.csv", tmp_path / "s.json")
    with pytest.raises(ValueError, match=message):
        check(tmp_path / f"s.{kind}", FACES)


def test_a_score_that_is_not_finite_is_refused(tmp_path):
    write_test_csv(tmp_path / "s.csv", [*ROWS[:2], (*FACES[2], float("nan"))])
    with pytest.raises(ValueError, match="1 score not finite: v2:k1:u3=nan"):
        check(tmp_path / "s.csv", FACES)
    with pytest.raises(ValueError, match=r"s.csv: row 3 \(v2:k1:u3\): score is nan -> predict again"):
        csv_to_json(tmp_path / "s.csv", tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


def test_many_faults_are_counted_and_the_first_three_named(tmp_path):
    write_test_csv(tmp_path / "s.csv", ROWS)
    with pytest.raises(ValueError, match=r"5 faces missing: v:t:0, v:t:1, v:t:2, \.\.\. ->"):
        check(tmp_path / "s.csv", [*FACES, *(("v", str(i), "t") for i in range(5))])


def test_json_of_another_form_is_refused(tmp_path):
    path = tmp_path / "s.json"
    entry = {"video_id": "v2", "unique_id": "u3", "track_id": "k1", "label": 1, "score": 0.5}
    whole = {"version": "1.0", "challenge": "ego4d_looking_at_me", "results": [entry]}
    for change, message in [({"version": "2"}, "version is '2', not '1.0'"),
                            ({"results": [entry | {"track_id": 7}]}, "1 id that is not text .*entry 1: .*7"),
                            ({"results": [entry | {"label": 0}]}, "1 label other than 1: entry 1: 0"),
                            ({"results": [entry | {"score": "0.5"}]}, "1 score not finite"),
                            ({"results": None}, 'no list of entries under "results"')]:
        path.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match=message):
            check(path, FACES[2:])
    path.write_text('{"version": ')
    with pytest.raises(ValueError, match="s.json: not readable JSON: .*line 1 .* -> build it again"):
        check(path, FACES)


@pytest.mark.parametrize(("text", "message"), [
    ("clip,track,frame,x1,y1,x2,y2,label,score\n", "line 1: .* not 9 columns -> give the pred.csv of the test split"),
    ("v,u,t,1,0.5\nv,u,t,1,high\n", "line 2: label '1' or score 'high' is not a number"),
    ("v,u,t,0,0.5\n", "line 1: label is 0 -> it must be 1"),
])
def test_a_csv_of_another_form_is_refused(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        csv_to_json(tmp_path / "p.csv", tmp_path / "s.json")


def test_a_submission_has_every_crop_on_the_disk_and_not_only_those_of_an_index(tmp_path):
    for number in range(2):
        crop = tmp_path / "videos_challenge" / "v1" / "007" / f"{number:05d}_u{number}.jpg"
        crop.parent.mkdir(parents=True, exist_ok=True)
        crop.write_bytes(b"")
    table = tmp_path / "pred.csv"
    write_test_csv(table, [("v1", "u0", "007", 0.5)])              # of an index from before the second crop came
    with pytest.raises(ValueError, match="1 row for 2 faces: 1 face missing: v1:007:u1"):
        write_submission(table, tmp_path, None)
    write_test_csv(table, [("v1", "u0", "007", 0.5), ("v1", "u1", "007", 0.5)])
    write_submission(table, tmp_path, None)
