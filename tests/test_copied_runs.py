"""Runs that were copied or moved here: what a training takes from them, what it refuses, and what to add."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, config_of, resumed
from test_sweep import TINY, A, B, experiment

from gazepose.config import InferConfig, TrainConfig, parse, parse_train
from gazepose.experiments.plan import plan
from gazepose.experiments.sweep import command
from gazepose.io import read_object, write_json
from gazepose.training import runlog
from gazepose.training.provenance import NOT_RESUMED, check_data, is_own_run

PLACES = {"data": {"num_workers": 99}, "prepare": {"data_disk": "local"},
          "run": {"log_with": "wandb", "checkpoint": "/theirs/w.pth", "compile": True}}


def changed(folder: Path, **sections: Any) -> None:
    """Another config.json of a run, section by section."""
    record = config_of(folder)
    for name, values in sections.items():
        record[name] = {**record[name], **values} if isinstance(values, dict) else values
    write_json(folder / "config.json", record)


def resume(folder: Path, *flags: str) -> TrainConfig:
    return parse_train(["--resume", "--exp_path", str(folder), *flags])[0]


def test_of_a_copy_only_model_crop_windows_and_numbers_are_taken(run, copy, tmp_path, capsys):
    changed(copy, **PLACES)
    config = resume(copy)
    defaults = TrainConfig()
    for section, names in NOT_RESUMED.items():
        for name in names:
            assert getattr(getattr(config, section), name) == getattr(getattr(defaults, section), name), name
    assert config.optim.clip == 0.5 and config.model.dmodel == 32 and config.run.epochs == 1
    line = capsys.readouterr().err.strip()
    left_out = line.partition("give those that you want again: ")[2]
    assert line.startswith(f"{copy}/config.json: was copied or moved here") and "\n" not in line
    assert left_out == "--data_disk local --num_workers 99 --checkpoint /theirs/w.pth --log_with wandb --compile yes"
    given = resume(copy, *shlex.split(left_out))                         # the remedy: how one's own run is moved
    assert given.data.num_workers == 99 and given.run.log_with == "wandb"
    with pytest.raises(SystemExit, match="--checkpoint other, but the run has None"):
        resume(copy, "--checkpoint", "other")
    before = (run / "config.json").read_bytes()
    changed(run, data={"num_workers": 3})                                # the run itself is taken whole
    own = resume(run)
    (run / "config.json").write_bytes(before)
    assert own.data.num_workers == 3


def test_a_flag_that_names_a_place_is_never_taken_of_a_copy():
    config = TrainConfig()
    for section in ("model", "prepare", "data", "optim", "run"):
        for name, kind in vars(type(getattr(config, section)))["__annotations__"].items():
            if "Path" in str(kind):
                assert name in (*NOT_RESUMED.get(section, ()), "exp_path", "config"), name


@pytest.mark.parametrize("change", [{"data": {"data": "/theirs"}}, {"root": "/theirs"}], ids=["data", "root"])
def test_the_data_set_of_a_copy_is_named_again(copy, tmp_path, change):
    changed(copy, **change)
    for flags in (["--resume", "--exp_path"], ["--config"]):
        with pytest.raises(SystemExit, match=r"config.json: was copied .*\(/theirs\) is not used -> .* with --data"):
            parse_train([*flags, str(copy)])
        assert parse_train([*flags, str(copy), "--data", str(tmp_path)])[1].root == tmp_path


def test_a_new_run_from_a_copied_configuration_takes_no_places_either(copy, capsys):
    changed(copy, **PLACES)
    for name in (copy, copy / "config.json"):
        config, _ = parse_train(["--config", str(name), "--num_workers", "2"])
        assert (config.data.num_workers, config.run.log_with, config.run.checkpoint) == (2, None, None)
        assert "--log_with wandb" in capsys.readouterr().err


def test_a_copy_without_a_checkpoint_starts_a_new_run_with_its_flags(copy):
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "best")
    with pytest.raises(SystemExit, match="nothing to resume -> .*: --config ") as refused:
        resume(copy)
    assert parse_train(shlex.split(str(refused.value).partition("its flags: ")[2]))[0].optim.clip == 0.5


@pytest.mark.parametrize("name", ["checkpoints", "best", "pred", "report", ".lock", "metrics.jsonl", "status.json",
                                  "config.json", "checkpoints/step-00000002/progress.json", "tensorboard/events"])
def test_a_link_a_pipe_or_a_device_in_a_copy_is_refused_by_name(copy, tmp_path, name):
    place, aside = copy / name, tmp_path / "aside"
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(aside)
    for make in (lambda: place.symlink_to(aside), lambda: place.symlink_to("/dev/zero"), lambda: os.mkfifo(place)):
        make()
        with pytest.raises(SystemExit, match=rf"{re.escape(str(place))}: is a .*copied or moved here -> .*remove it"):
            resume(copy)
        place.unlink()
    if aside.exists():
        aside.rename(place)                                              # the remedy
    resume(copy)


def test_a_record_of_absurd_size_in_a_copy_is_refused(run, copy):
    os.truncate(copy / "status.json", 17 << 20)
    with pytest.raises(SystemExit, match=r"status.json: 17 MiB, .* at most 16 MiB -> copy it again"):
        resume(copy)
    shutil.copy(run / "status.json", copy)                               # the remedy
    resume(copy)


def test_a_lock_is_not_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("text")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="lock: is a link, .* -> remove the link"):
        runlog.lock(tmp_path / ".lock")
    assert (tmp_path / "mine").read_text() == "text"


def test_a_resumed_copy_is_a_run_of_this_machine_and_lines_of_any_kind_do_not_stop_it(rig, copy, tmp_path):
    with open(copy / "metrics.jsonl", "a") as file:
        file.write("[1]\n7\n{}\n" + "[" * 5000 + '\n{"step": "x", "kind": "val"}\n{"kind": 1, "step": [2]}\n')
    assert not is_own_run(copy)
    changed(copy, run={"checkpoint": "/theirs/w.pth"}, data={"num_workers": 1})
    assert "--num_workers 1 --checkpoint /theirs/w.pth\n" in resumed(rig, copy, "--epochs", "2")
    assert is_own_run(copy) and read_object(copy / "status.json")["step"] == 4
    kinds = [json.loads(line)["kind"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train", "train", "val"] * 2
    assert "moved here" not in resumed(rig, copy, "--epochs", "3")
    assert is_own_run(copy.rename(tmp_path / "renamed"))                 # on the same disk
    assert not is_own_run(shutil.copytree(tmp_path / "renamed", tmp_path / "again"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "checkpoints").symlink_to(tmp_path / "renamed" / "checkpoints")
    assert not is_own_run(tmp_path / "theirs")


def test_a_refused_resume_does_not_make_a_copy_a_run_of_this_machine(rig, copy, index_of):
    other = Rig(index_of([range(12)] * 3, noise=True, label=[*[1] * 6, *[0] * 6] * 3).folder, rig.folder)
    assert "data differ" in resumed(other, copy, "--epochs", "2", ends=1)
    assert not is_own_run(copy)


def test_a_configuration_larger_than_the_weights_is_refused_before_a_model_is_built(rig, copy):
    changed(copy, model={"dmodel": 8192, "dim_feedforward": 65536, "num_encoder_layers": 4})          # 22 GB
    assert "does not describe these weights" in resumed(rig, copy, ends=1)


def test_a_run_of_the_pool_is_scored_on_the_data_set_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world = Path("data/embedded/tiny-0")
    assert "--data" not in command(plan(experiment(A, B), TINY, "tiny")[0], "")         # infer.py renders it
    world.mkdir(parents=True)
    copied = {"root": "/elsewhere/ego4d", "data": {}, "written_here": False}
    for extra, flags in (((), []), (("--data", str(tmp_path), "--crops_from", "faces"), ["--crops_from", "faces"])):
        prediction = plan(experiment(A, B), TINY, None if extra else "tiny", extra)[0]
        line = command(prediction, "")
        given = parse(InferConfig, line[line.index("--checkpoint"):])
        with pytest.raises(ValueError, match="name the data set with --data"):
            check_data(None, copied, prediction.run.folder)
        check_data(given.data, copied, prediction.run.folder)
        assert given.data == (tmp_path if extra else world)
        assert given.crops_from == (flags[-1] if flags else None)
        assert not {"--data", "--crops_from"} & {*prediction.infer}      # the folder of the scores stays the same
