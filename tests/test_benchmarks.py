"""The benchmarks run end to end, say what they wanted and found, and claim nothing that was not measured."""

import importlib
import json
import sys

import pytest

from benchmarks import ego4d
from benchmarks.measure import Aim, Timing, main, times_faster
from benchmarks.run import NAMES, between, table


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Runs a benchmark with --quick; returns its JSON."""
    def run(name: str) -> dict:
        monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path), "--work", str(tmp_path / "work")])
        module = importlib.import_module(f"benchmarks.{name}")
        main(name, module.GOAL, module.measure, getattr(module, "FLAGS", None))
        return json.loads((tmp_path / f"{name}.json").read_text())
    return run


def test_every_goal_has_its_script():
    goals = [importlib.import_module(f"benchmarks.{name}").GOAL for name in NAMES]
    assert [goal.number for goal in goals] == list(range(1, 11))
    for goal in goals:
        names = [aim.what for aim in goal.aims]
        assert len(set(names)) == len(names) and all(aim.wanted for aim in goal.aims)


@pytest.mark.parametrize(("name", "goal"), [("metric", 6), ("index", 5)])
def test_a_quick_run_says_what_was_wanted_and_measured_where(ran, name, goal):
    result = ran(name)
    assert result["goal"] == goal and result["quick"] and f"benchmarks.{name}" in result["command"]
    assert result["wanted"].keys() == result["measured"].keys() == result["met"].keys()
    assert all(value is not None and value >= 0 for value in result["measured"].values())
    assert {"cpu", "cores", "threads", "versions", "commit"} <= result["machine"].keys()
    if name == "metric":
        assert result["met"]["largest difference of mAP, both AP and accuracy"]
    else:
        assert result["rows"] == 10_000 and result["met"]["bytes a row"]


def test_a_ratio_is_the_median_over_the_rounds():
    slow, fast = Timing(cpu=[2.0, 90.0, 8.0]), Timing(cpu=[1.0, 1.0, 2.0])
    assert times_faster(slow, fast) == 4.0                             # of 2, 90 and 4


def test_an_aim_is_met_at_its_bound_and_unmeasured_is_neither():
    assert Aim("a", least=3.5).met(3.5) and not Aim("a", least=3.5).met(3.4)
    assert Aim("a", most=2, unit="s").met(2) and not Aim("a", most=2).met(2.1)
    assert Aim("a", most=2).met(None) is None and Aim("a").met(7) is None


def test_the_table_names_every_aim_and_what_was_not_measured(tmp_path):
    lines = table(["metric", "index"], tmp_path).splitlines()
    assert len(lines) == 2 + 2 + 5 and all("not measured" in line for line in lines[2:])


def test_text_goes_between_its_marks_and_nowhere_else():
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert between(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(ValueError, match="wanted one <!-- y -->"):
        between(page, "y", "new")


def test_ego4d_is_worked_out_from_results_and_says_what_is_assumed(tmp_path):
    assumed = ego4d.facts(tmp_path)
    assert not any(fact.measured for fact in assumed.values())
    # 10 epochs of 3.6 million / 3 windows at 5,000 a second: 2,400 s; 4 cores feed it and 1 drives it
    one = ego4d.estimate(assumed, 1, crops=3_600_000)
    assert one["training"] == pytest.approx(2400 / 3600) and one["cores"] == 5 and one["preparing"] is None
    assert ego4d.estimate(assumed, 8)["training"] == pytest.approx(ego4d.estimate(assumed, 1)["training"] / 8)
    said = {"quick": False, "measured": {"GazePose training in bf16 from shards": 10_000.0},
            "machine": {"gpu": "some GPU", "cpu": "some CPU"}}
    (tmp_path / "gpu.json").write_text(json.dumps(said))
    measured = ego4d.facts(tmp_path)
    assert ego4d.estimate(measured, 1, crops=3_600_000)["training"] == pytest.approx(1200 / 3600)
    assert "10,000 (measured: gpu.json, some GPU)" in ego4d.section(tmp_path)
    (tmp_path / "gpu.json").write_text(json.dumps({**said, "quick": True}))
    assert not ego4d.facts(tmp_path)["rate"].measured                  # a quick run is no figure
