"""The golden vectors agree, file by file; and the check that says so notices a mistake, a change and a gap."""

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import check_parity
import pytest
from check_parity import CHECKS, holds, lines, results
from golden import Result, rules
from golden.sensitivity import MISTAKES

from gazepose.models import build_model

GAZEPOSE, LSTM = "gazepose_head1lm1", "gazelstm_gazepose"
# what takes a minute as a whole: check_parity.py compares all of it, and the drill of parity runs that
SOME = {"models.json": ("models", (GAZEPOSE, LSTM)),
        "training.json": ("models", (GAZEPOSE, LSTM)), "sensitivity.json": ("mutations", (
    "landmark x and y bins swapped", "position embedding: x half before y half", "post-norm layers instead of pre-norm",
    "LSTM directions swapped", "LayerNorm eps 1e-6 instead of 1e-5", "queries and target tokens exchanged",
    "landmark queries before head queries", "video frames reversed"))}


@pytest.fixture(scope="module", autouse=True)
def forget_weights():
    """Weights and maps serve all tests here, but those that follow should not carry them."""
    yield
    rules.forget()


@pytest.fixture
def another(parity: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed; its models are two, with one case each, so that a test is fast."""
    folder = tmp_path / "another"
    shutil.copytree(parity, folder, copy_function=shutil.copyfile)        # the folder may be read-only
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    change(folder, "models.json", partial(keep_only, names=(GAZEPOSE, LSTM)))
    return folder


def change(folder: Path, file: str, edit: Callable[[Any], Any]) -> None:
    document = json.loads((folder / file).read_text())
    edit(document)
    (folder / file).write_text(json.dumps(document))


def keep_only(document: dict, names: tuple[str, ...]) -> None:
    document["models"] = {name: document["models"][name] for name in names}
    for entry in document["models"].values():
        entry["cases"] = {"base": entry["cases"]["base"]}


def add(amount: float, *place: str | int) -> Callable[[Any], None]:
    """An edit: the number at this place gets larger."""
    def edit(document: Any) -> None:
        for key in place[:-1]:
            document = document[key]
        document[place[-1]] += amount
    return edit


def verdicts(folder: Path, *files: str) -> dict[str, bool]:
    """Line -> whether it passes."""
    return {line.name: not line.failed for file in files for line in lines(file, results(CHECKS[file], folder))}


def failing(folder: Path, file: str) -> list[str]:
    """The comparisons that fail."""
    return [result.what for result in results(CHECKS[file], folder) if not holds(result)]


@pytest.mark.parametrize("file", CHECKS)
def test_the_golden_file_agrees(parity, tmp_path, file):
    section, entries = SOME.get(file, ("", ()))
    if entries:
        parity = shutil.copytree(parity, tmp_path / "some", copy_function=shutil.copyfile)
        (parity / file).chmod(0o644)
        change(parity, file, lambda document: document.update({
            section: {name: document[section][name] for name in entries}}))
    checked = lines(file, results(CHECKS[file], parity))
    assert checked and not any(line.failed for line in checked), "\n".join(map(str, checked))


@pytest.mark.parametrize("mistake", ["temporal and spatial halves swapped before combine_layer",
                                     "encoder attention values also carry the position code",
                                     "landmark table row = xbin*41+ybin instead of xbin*20+ybin"])
def test_a_mistake_in_the_model_fails(another, monkeypatch, capsys, mistake):
    def mistaken(config):
        model = build_model(config)
        for alteration in MISTAKES[mistake](model):
            alteration.__enter__()
        return model

    change(another, "models.json", partial(keep_only, names=(GAZEPOSE,)))
    monkeypatch.setattr(rules, "build_model", mistaken)
    assert check_parity.main([str(another), "models.json"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("difference")[0].split() for line in printed[:-1]] == [
        ["PASS", "models.json", "fill", "and", "inputs"], ["FAIL", "models.json", GAZEPOSE, "float32"],
        ["FAIL", "models.json", GAZEPOSE, "float64"]]


def test_a_changed_logit_fails_its_model_in_its_precision_alone(another):
    change(another, "models.json", partial(keep_only, names=(LSTM,)))
    before = (another / "models.json").read_text()
    for suffix, precision, amount in (("", "float32", 2e-4), ("_float64", "float64", 1e-8)):
        (another / "models.json").write_text(before)
        change(another, "models.json", add(amount, "models", LSTM, "cases", "base", f"logits{suffix}", 0, 0))
        failed = [name for name, passes in verdicts(another, "models.json").items() if not passes]
        assert failed == [f"models.json {LSTM} {precision}"]


@pytest.mark.parametrize(("file", "changed", "edit"), [
    ("metrics.json", "metrics.json", add(1e-8, "tables", 0, "expected", "mAP")),
    ("tracks.json", "tracks.json", add(1e-5, "tracks", 0, "checked", 0, "x")),
    ("tracks.json", "tracks.json", add(1, "pad", 0, "source", 0)),
    ("priors.json", "priors.json", add(1e-5, "landmarks", 0, "expected", 0)),
    ("priors.json", "priors.json", add(1e-3, "head_pose_expectation", 0, "degrees")),
    ("priors.json", "priors.json", add(1, "landmark_index", "row", 0, 0)),
    ("loader.json", "loader.json", add(1e-4, "eval_transform", "expected", 0, 0, 0)),
    ("crops.json", "crops.json", add(1, "samples", 0, "pixels", 0, "rgb", 0)),
    ("annotations", "annotations/expected/samples.json", add(1e-5, "samples", 0, 3, 0)),
    ("annotations", "annotations/split_counts.json", add(1, "train", "newline_characters")),
    ("submission.json", "submission.json", add(1e-11, "cases", 0, "expected", "results", 0, "score"))])
def test_a_changed_number_fails_its_file(another, file, changed, edit):
    change(another, changed, edit)
    assert verdicts(another, file) == {file: False}


def test_a_changed_training_step_fails(another):
    def one_step(document):
        document["models"] = {LSTM: {**document["models"][LSTM], "train_without_dropout": None}}

    change(another, "training.json", one_step)
    step = json.loads((another / "training.json").read_text())["models"][LSTM]["eval"]
    name, norm = next(iter(step["gradient_norms"].items()))
    change(another, "training.json", add(0.01 * norm, "models", LSTM, "eval", "gradient_norms", name))
    assert failing(another, "training.json") == [f"{LSTM} eval: gradient of {name}"]


def test_a_mistake_that_moves_the_model_otherwise_than_recorded_fails(another):
    def one_mistake(document):
        document["mutations"] = {"zero target tokens": document["mutations"]["zero target tokens"]}

    change(another, "sensitivity.json", one_mistake)
    change(another, "sensitivity.json", add(0.002, "mutations", "zero target tokens"))
    assert failing(another, "sensitivity.json") == ["zero target tokens"]


@pytest.mark.parametrize("missing", ["models.json", "crops.json", "annotations/av_val.json",
                                     "annotations/split_counts.json", "annotations/expected/samples.json"])
def test_a_missing_file_is_named(another, capsys, missing):
    (another / missing).unlink()
    file = missing.split("/")[0]
    assert check_parity.main([str(another), file]) == 1
    line, last = capsys.readouterr().out.splitlines()
    assert line.startswith(f"FAIL  {file}") and str(another / missing) in line and last == "1 line FAIL"


@pytest.mark.parametrize("missing", ["json_original", "result_LAM"])
def test_a_missing_folder_fails(another, missing):
    shutil.rmtree(another / "annotations" / "expected" / missing)
    assert verdicts(another, "annotations") == {"annotations": False}


def test_an_empty_folder_fails_in_every_line(tmp_path, capsys):
    assert check_parity.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out.splitlines()[:-1]
    assert len(printed) == len(CHECKS)
    assert all(line.startswith(f"FAIL  {file}") for line, file in zip(printed, CHECKS, strict=True))


@pytest.mark.parametrize(("file", "section"), [
    *((file, section) for file, sections in {
        "models.json": ["models"], "sensitivity.json": ["mutations"], "training.json": ["models"],
        "metrics.json": ["tables", "corner_cases"], "tracks.json": ["tracks", "pad", "pad_with_black_centre", "labels"],
        "priors.json": ["landmarks", "landmark_table_sizes", "quality", "head_bins", "head_pose_expectation"],
        "crops.json": ["samples"], "submission.json": ["cases"]}.items() for section in sections)])
def test_a_section_that_holds_nothing_fails(another, file, section):
    def emptied(document):
        document[section] = type(document[section])()

    change(another, file, emptied)
    assert not any(verdicts(another, file).values())


def test_the_largest_landmark_row_is_that_of_the_recorded_vectors(another):
    def first_vectors(document):
        index = document["landmark_index"]
        count = 3
        index |= {name: index[name][:count] for name in ("vectors", "row", "confidence_row")}
        index["max_row"] = max(map(max, index["row"]))

    recorded = json.loads((another / "priors.json").read_text())["landmark_index"]["max_row"]
    change(another, "priors.json", first_vectors)
    assert json.loads((another / "priors.json").read_text())["landmark_index"]["max_row"] < recorded
    assert verdicts(another, "priors.json") == {"priors.json": True}
    change(another, "priors.json", add(1, "landmark_index", "max_row"))
    assert failing(another, "priors.json") == ["largest landmark row"]


def test_silence_and_a_difference_that_is_no_number_fail(tmp_path):
    assert lines("a.json", results(lambda folder: [], tmp_path))[0].failed == 1
    (line,) = lines("a.json", [Result("good", 0, 0), Result("bad", math.nan, 1e-6), Result("far", 0.9, 1)])
    assert line.worst.what == "bad" and (line.failed, line.compared) == (1, 3)


def test_the_line_shows_what_comes_nearest_to_its_tolerance():
    (line,) = lines("a.json", [Result("coarse", 1e-3, 1), Result("fine", 5e-7, 1e-6), Result("exact", 0, 0)])
    verdict, _, rest = str(line).partition("difference")
    assert verdict.split() == ["PASS", "a.json"] and rest == " 5.0e-07  tolerance 1.0e-06  (fine; 3 compared)"


def test_another_salt_fails(another):
    def salted(document):
        document["fill"]["salt"] += "x"

    change(another, "models.json", partial(keep_only, names=(LSTM,)))
    change(another, "models.json", salted)
    assert verdicts(another, "models.json", "priors.json") == {
        "models.json fill and inputs": False, f"models.json {LSTM} float32": False,
        f"models.json {LSTM} float64": False, "priors.json": False}
