"""The benchmarks run end to end, say what they wanted and found, and claim nothing that was not measured."""

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.measure import ROOT, Aim, Timing, main, times_faster, without_places
from benchmarks.run import NAMES, before_and_after, between, checked_out, table
from gazepose.data.random_changes import LOOKS, random_crops, random_looks
from gazepose.watch.dataset import clip_name


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Runs a benchmark with --quick; returns its JSON."""
    def run(name: str, *flags: str) -> dict:
        monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path), "--work", str(tmp_path / "work"),
                                          *flags])
        module = importlib.import_module(f"benchmarks.{name}")
        main(name, module.GOAL, module.measure, getattr(module, "FLAGS", None))
        return json.loads((tmp_path / f"{name}.json").read_text())
    return run


def test_every_goal_has_its_script():
    goals = [importlib.import_module(f"benchmarks.{name}").GOAL for name in NAMES]
    assert [goal.number for goal in goals] == list(range(1, 15))
    for goal in goals:
        names = [aim.what for aim in goal.aims]
        assert len(set(names)) == len(names) and all(aim.wanted for aim in goal.aims)


@pytest.mark.parametrize(("name", "goal"), [("metric", 6), ("index", 5)])
def test_a_quick_run_records_its_aims_values_and_machine(ran, name, goal):
    result = ran(name)
    assert result["goal"] == goal and result["quick"] and f"benchmarks.{name}" in result["command"]
    assert result["wanted"].keys() == result["measured"].keys() == result["met"].keys()
    assert all(value is not None and value >= 0 for value in result["measured"].values())
    assert {"cpu", "cores", "threads", "versions", "commit"} <= result["machine"].keys()
    if name == "metric":
        assert result["met"]["largest difference of mAP, both AP and accuracy"]
    else:
        assert result["rows"] == 10_000 and result["met"]["bytes a row"]


def test_the_benchmark_of_a_gpu_runs_dry(ran, monkeypatch, capsys):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from benchmarks import gpu
    from gazepose.models import gaze_lstm, gazepose
    for module in (gaze_lstm, gazepose):
        monkeypatch.setattr(module, "VECTOR", 32)
    monkeypatch.setattr(gpu, "GRAPHED", {"GazeLSTM": None})
    monkeypatch.setattr(gpu, "WANTED", {"GazeLSTM": 7000})
    monkeypatch.setattr(gpu.os, "sched_setaffinity", lambda *args: None)         # this process goes on

    def fresh(precision: str) -> Accelerator:
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=True, mixed_precision=precision)
    monkeypatch.setattr(gpu, "fresh_accelerator", fresh)
    result = ran("gpu", "--dry", "--no_compile", "--batch_size", "4")
    ways = result["models"]["GazeLSTM"]
    assert [ways[way]["captured"] for way in ("no graphs", "graphs")] == [None, 1]
    assert all(way["windows_per_s"] > 0 and way["profile"]["top"] for way in ways.values())
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| GazeLSTM | ") and line.count("|") == 9 for line in lines) == 2
    assert result["measured"]["GazeLSTM training from CUDA graphs"] == ways["graphs"]["windows_per_s"]
    with gpu.limited(0):
        while True:                                                    # ends when the time is over
            pass
    assert "the minutes are over" in capsys.readouterr().out


def test_a_ratio_is_the_median_over_the_rounds():
    slow, fast = Timing(cpu=[2.0, 90.0, 8.0]), Timing(cpu=[1.0, 1.0, 2.0])
    assert times_faster(slow, fast) == 4.0                             # of 2, 90 and 4


def test_an_aim_is_met_at_its_bound_and_unmeasured_is_neither():
    assert Aim("a", least=3.5).met(3.5) and not Aim("a", least=3.5).met(3.4)
    assert Aim("a", most=2, unit="s").met(2) and not Aim("a", most=2).met(2.1)
    assert Aim("a", most=2).met(None) is None and Aim("a").met(7) is None


def test_the_table_has_a_line_per_goal_and_names_what_was_not_measured(tmp_path):
    (tmp_path / "metric.json").write_text(json.dumps({
        "command": "python -m benchmarks.metric", "measured": {"evaluate against merge and loop, per CPU-second": 19.6},
        "met": {"evaluate against merge and loop, per CPU-second": False}}))
    lines = table(["metric", "index"], tmp_path).splitlines()
    assert [line.split(".")[0] for line in lines[2:4]] == ["| 6", "| 5"] and lines[2].count("|") == 5
    assert "per CPU-second: 19.6 (≥ 30 times) | 0 of 2 | Two tables merged with pandas" in lines[2]
    assert "- 6. evaluate against merge and loop, per CPU-second: 19.6 (≥ 30 times)" in lines
    assert sum("not measured (" in line for line in lines) == 1 + 1 + 5                  # a line of the table, and each


def test_two_versions_stand_beside_each_other_where_both_measured(tmp_path):
    ratio = "evaluate against merge and loop, per CPU-second"
    difference = "largest difference of mAP, both AP and accuracy"
    assert before_and_after(tmp_path) == ""
    (tmp_path / "before.json").write_text(json.dumps({
        "commit": "abc", "command": "python benchmarks/run.py",
        "figures": {"metric": {ratio: 10.0, difference: None}, "index": {"bytes a row": 40.0}}}))
    (tmp_path / "metric.json").write_text(json.dumps({"measured": {ratio: 20.0, difference: 0.0}}))
    lines = before_and_after(tmp_path).splitlines()
    assert lines[0] == "Before is commit abc: `python benchmarks/run.py`"
    assert lines[4:] == [f"| 6 | {ratio} (≥ 30 times) | 10 | 20 |"]            # of the index nothing is known now


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_another_version_is_checked_out_and_leaves_nothing():
    with checked_out("HEAD") as tree:
        assert (tree / "benchmarks" / "run.py").is_file() and tree != ROOT
    assert not tree.exists()
    trees = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(tree) not in trees


def test_a_change_of_the_look_is_left_out_alone_and_comes_back():
    from benchmarks.augment import KINDS, only
    rows, before = np.arange(300), dict(LOOKS)
    for kind, names in KINDS.items():
        with only({other: 1.0 for other in KINDS if other != kind}):
            looks = dict(zip(LOOKS, random_looks(rows, rows, 0, 0).T, strict=False))
            crops = random_crops(rows, 0, 0, 64, zoom_out=True)
        others = {name for other in KINDS if other != kind for name in KINDS[other]}
        assert all((looks[name] == np.float32(LOOKS[name][3])).all() for name in names)
        assert all((looks[name] != np.float32(LOOKS[name][3])).mean() > 0.9 for name in others)
        assert (crops[:, 2:] > 1).any() == (kind != "larger boxes")
    assert before == LOOKS and list(before) == list(LOOKS)
    # what is left belongs to a change: where it lies, and which colours it has
    left = LOOKS.keys() - {name for names in KINDS.values() for name in names}
    assert left == {"cover_x", "cover_y", "cover_level", "scene"}


def test_text_goes_between_its_marks_and_nowhere_else():
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert between(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(ValueError, match="wanted one <!-- y -->"):
        between(page, "y", "new")


def test_without_the_real_faces_their_benchmark_says_so(tmp_path, monkeypatch):
    from benchmarks import real_faces
    monkeypatch.setattr(sys, "argv", ["real_faces", "--real", str(tmp_path), "--out", str(tmp_path)])
    main("real_faces", real_faces.GOAL, real_faces.measure, real_faces.FLAGS)
    result = json.loads((tmp_path / "real_faces.json").read_text())
    assert result["skipped"].endswith("labels.csv is not there") and not any(result["measured"].values())


def test_kappa_of_a_table_that_can_be_checked_by_hand():
    from benchmarks.real_faces import kappa
    # 20 of 50 both, 15 neither: observed .7, by chance .5 * .6 + .5 * .4 = .5
    assert kappa({"tp": 20, "fp": 5, "fn": 10, "tn": 15}) == pytest.approx(0.4)


def test_a_recorded_command_names_no_folder_of_one_machine():
    flags = ["--work", "/a", "--repeats", "3", "--out=/b", "--sheet", "/c", "--quick"]
    assert without_places(flags) == ["--repeats", "3", "--quick"]


def test_a_student_is_scored_on_the_sources_that_its_data_set_lacks(tmp_path):
    from benchmarks.real_faces import lacks
    (tmp_path / "boxes").mkdir()
    student, sources = SimpleNamespace(root=tmp_path), np.array(["a.mp4", "b c.jpg", "d.gif"])
    with pytest.raises(FileNotFoundError, match="train.json: not there, so nobody knows which sources"):
        lacks(student, sources)
    (tmp_path / "boxes" / "train.json").write_text(json.dumps({"watched": ["a", clip_name("b c")]}))
    assert lacks(student, sources).tolist() == [False, False, True]


def test_a_gain_counts_the_faces_that_both_score_and_draws_whole_sources():
    from benchmarks.real_faces import gain
    label, source = np.array([0, 1] * 6), np.repeat(np.arange(6), 2)
    right, wrong = label + 0.0, 1.0 - label
    assert gain(label, right, wrong, source, 20) == [1, 1, 1]
    right[:2] = np.nan
    wrong[2:8] = label[2:8]
    value, low, high = gain(label, right, wrong, source, 200)          # two of five sources gain everything
    assert (value, low) == (0.4, 0) and high > 0.7
    assert gain(label[:6], right[:6], wrong[:6], source[:6], 20) == [0]       # of too few sources no interval
