"""Comparison: runs beside each other, paired where they scored the same faces; else a sentence says why not."""

import json

import numpy as np
import pytest
from test_report import make_run

from gazepose.evaluation.comparison import Entry, compare
from gazepose.evaluation.metrics import evaluate
from gazepose.report import make_comparison
from gazepose.report.page import write_comparison
from gazepose.report.records import read_records
from gazepose.report.tables import compare_runs, differing, reason_not_comparable
from gazepose.verbs import report


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same faces, the second of them better; returns their records."""
    folder = tmp_path_factory.mktemp("runs")
    columns = make_run(folder / "first", rows=3000, steps=40)
    make_run(folder / "second", rows=3000, steps=40)
    better = 1 / (1 + np.exp(-(np.log(columns["score"] / (1 - columns["score"])) + 0.6 * columns["label"])))
    np.savez(folder / "second" / "pred" / "val.npz", **{**columns, "score": better})
    config = json.loads((folder / "second" / "config.json").read_text())
    config["model"]["prior_landmark"] = True
    config["optim"] = {"lr": 1e-3}
    (folder / "second" / "config.json").write_text(json.dumps(config))
    return [read_records(folder / name) for name in ("first", "second")]


def test_a_gain_is_paired_and_of_the_same_faces(runs):
    entries, notes = compare_runs(runs)
    assert [entry.name for entry in entries] == ["first", "second", "head pose alone", "same score for every face"]
    assert notes == [] and entries[0].row.gain == {}
    first, second = (records.scores for records in runs)
    known = [evaluate(each["label"], each["score"])["mAP"] for each in (first, second)]
    gain = entries[1].row.gain["mAP"]
    assert gain.mean == known[1] - known[0] > 0
    pair = [Entry("a", {0: first["score"]}), Entry("b", {0: second["score"]}, "a")]
    row = compare(first["label"], first["clip"], pair)[1]
    assert entries[1].row.interval == row.interval and gain == row.gain["mAP"]
    assert gain.sign == 1 and entries[2].row.gain["mAP"].mean < 0


def test_other_faces_are_not_paired_and_the_page_says_so(runs, tmp_path):
    make_run(tmp_path / "other", rows=3300, steps=8)
    other = read_records(tmp_path / "other")
    entries, notes = compare_runs([runs[0], other])
    assert entries[1].row.gain == {} and entries[1].row.interval["mAP"]
    assert notes == ["other and first cannot be compared: they scored different faces."]
    other.config["fingerprint"] = {"val": "no"}
    assert reason_not_comparable(runs[0], other) == "their validation data differ (fingerprint)"


def test_a_run_without_predictions_stands_with_its_best_validation(runs, tmp_path):
    make_run(tmp_path / "bare", rows=900, steps=8)
    for path in (tmp_path / "bare" / "pred").iterdir():
        path.unlink()
    bare = read_records(tmp_path / "bare")
    entries, notes = compare_runs([runs[0], bare])
    assert entries[1].metrics["mAP"] == max(line["mAP"] for line in bare.val) and entries[1].row is None
    assert "bare: no predictions were saved" in notes[0] and "gazepose infer --checkpoint" in notes[0]


def test_only_settings_that_differ_are_listed(runs):
    assert differing(runs) == [("prior_landmark", ["False", "True"]), ("lr", ["–", "0.001"])]


def test_the_page_compares_and_links_and_needs_nothing_else(runs, tmp_path):
    final = runs[0].run.parent / "side by side"
    write_comparison(runs, [records.run / "report" / "report.html" for records in runs], final, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.html", "learning.svg", "precision-recall.svg"}
    text = (tmp_path / "comparison.html").read_text()
    assert "<script" not in text and "http" not in text and len(text) < 1_000_000
    assert 'href="../first/report/report.html"' in text and 'href="../second/report/report.html"' in text
    for words in ("2 runs compared", "Highest validation mAP", "(second), +", "which excludes 0",
                  "head pose alone", "<th>prior_landmark<td>False<td>True", "1 h 12 min"):
        assert words in text, words


def bare_run(folder):
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "finished"}')
    return folder


def test_the_verb_takes_one_run_or_several(tmp_path, capsys):
    runs = tuple(bare_run(tmp_path / "runs" / name) for name in ("a", "b"))
    report(runs[:1])
    report(runs)
    report(runs, out=tmp_path / "elsewhere" / "deep")
    pages = [tmp_path / "runs" / "a" / "report" / "report.html", tmp_path / "runs" / "comparison" / "comparison.html",
             tmp_path / "elsewhere" / "deep" / "comparison.html"]
    assert capsys.readouterr().out == "".join(f"report -> {page}\n" for page in pages)
    assert all(page.is_file() for page in pages) and (runs[1] / "report" / "report.html").is_file()
    assert 'href="../../runs/b/report/report.html"' in pages[2].read_text()
    for wrong, out in (((), None), (runs[:1], tmp_path / "elsewhere")):
        with pytest.raises(ValueError, match="report needs at least one run folder"):
            report(wrong, out)


def test_a_comparison_replaces_only_a_comparison(tmp_path):
    runs = [bare_run(tmp_path / "runs" / name) for name in ("a", "b")]
    assert make_comparison(runs) == make_comparison(runs)
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="own: it holds other files"):
        make_comparison(runs, own)
    with pytest.raises(ValueError, match="a run is named twice"):
        make_comparison([runs[0], runs[0]])
    assert [path.name for path in own.iterdir()] == ["thesis.tex"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a", "b", "comparison"]


def test_runs_of_one_name_are_named_with_their_parents(tmp_path):
    runs = [read_records(bare_run(tmp_path / parent / "run")) for parent in ("x", "y")]
    assert [entry.name for entry in compare_runs(runs)[0]] == ["x/run", "y/run"]
