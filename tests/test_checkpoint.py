"""Checkpoints: whole or absent, verified, and of the right model."""

import copy
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from rig import save_once

from gazepose.models import build_model
from gazepose.models.gazepose import ModelConfig
from gazepose.training import checkpoint, runlog
from gazepose.training.checkpoint import Progress

SMALL = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32, "nheads": 2}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(ModelConfig(**SMALL))


def saved(folder, model):
    checkpoint.save_weights(folder, model, {"model": {**SMALL, "model": "GazePose"}, "data": {}})
    return folder


def test_weights_and_configuration_come_back(tmp_path, model):
    back, config = checkpoint.read_model(saved(tmp_path / "best", model))
    assert config["model"]["dmodel"] == 32
    for key, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_checkpoint_is_read_by_whom_the_umask_lets_read(tmp_path, model, umask, mode):
    before = os.umask(umask)
    try:
        folder = saved(tmp_path / "best", model)
        save_once(tmp_path / "run", 1)
    finally:
        os.umask(before)
    files = [file for root in (folder, tmp_path / "run") for file in root.rglob("*.*") if file.is_file()]
    assert {"model.safetensors", "optimizer.safetensors"} <= {file.name for file in files}
    assert {file.stat().st_mode & 0o777 for file in files} == {mode}


@pytest.mark.parametrize("name", ["run", "run/best", "run/best/step-00000012"])
def test_a_run_means_its_newest_best_checkpoint(tmp_path, model, name):
    run = tmp_path / "run"
    for step in (9, 12):
        folder = checkpoint.save_best(run, model, {}, step)
    assert [path.name for path in (run / "best").iterdir()] == ["step-00000012"]      # older ones go
    assert checkpoint.weights_folder(tmp_path / name) == folder
    (run / "status.json").write_text("{}")
    assert runlog.run_folder(tmp_path / name) == run


def test_a_plain_folder_with_weights_is_a_checkpoint(tmp_path, model):
    assert checkpoint.weights_folder(saved(tmp_path / "mine", model)) == tmp_path / "mine"
    assert runlog.run_folder(tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="neither a checkpoint.*name a run"):
        checkpoint.weights_folder(tmp_path)


def test_a_best_state_that_dies_leaves_the_one_before(tmp_path, model, monkeypatch):
    folder = checkpoint.save_best(tmp_path, model, {}, 9)
    monkeypatch.setattr(checkpoint, "_remove_others", lambda *_: 1 / 0)          # killed between the two
    with pytest.raises(ZeroDivisionError):
        checkpoint.save_best(tmp_path, model, {}, 9)
    again = folder.with_name("step-00000009-2")
    assert checkpoint.steps_in(tmp_path / "best") == [folder, again]
    assert checkpoint.weights_folder(tmp_path) == checkpoint.verify(again)
    monkeypatch.undo()
    checkpoint.save_best(tmp_path, model, {}, 12)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step-00000012"]


def test_only_checkpoints_are_removed_from_their_folder(tmp_path):
    save_once(tmp_path, 1)
    for name in ("mine", "step-1", ".step-00000001.part-1"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("keep")
    for step in (2, 3):
        save_once(tmp_path, step)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "mine", "step-1", "notes.txt", "step-00000002", "step-00000003"}


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.CONFIG])
def test_an_altered_and_a_missing_file_are_named(tmp_path, model, name):
    file = saved(tmp_path / "best", model) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: its SHA-256 differs from the manifest.*use another checkpoint"):
        checkpoint.read_model(tmp_path / "best")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: missing, though the manifest names it"):
        checkpoint.verify(tmp_path / "best")


def test_a_checkpoint_of_another_model_names_the_difference(tmp_path, model):
    saved(tmp_path / "best", model)
    other = build_model(ModelConfig(**{**SMALL, "prior_head": True}))
    with pytest.raises(ValueError, match="checkpoint of another model.*head_queries.*--model and priors"):
        checkpoint.load_weights(tmp_path / "best", other)


def test_a_model_that_is_not_finite_is_never_saved(tmp_path, model):
    saved(tmp_path / "best", model)
    broken = build_model(ModelConfig(**SMALL))
    broken.last_layer.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="last_layer.bias is not finite"):
        checkpoint.save_weights(tmp_path / "best", broken, {})
    checkpoint.read_model(tmp_path / "best")                                # the old one is still whole


def test_a_save_that_dies_leaves_the_old_one(tmp_path, model, monkeypatch):
    saved(tmp_path / "best", model)
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(OSError, match="best: cannot be written .*No space.* -> make room"):
        saved(tmp_path / "best", model)
    checkpoint.read_model(tmp_path / "best")
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


def stepped(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_training_comes_back_to_the_bit(tmp_path, model):
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)      # as it is trained: the moments lie likewise
    optimizer = stepped(model)
    progress = Progress(step=7, epoch=1, samples=99, best_mAP=0.5, world_size=1)
    folder = checkpoint.save_training(tmp_path, model, optimizer, None, progress, {})
    fresh = build_model(ModelConfig(**SMALL)).to(memory_format=torch.channels_last)
    other = torch.optim.AdamW(fresh.parameters(), lr=1e-3)
    assert checkpoint.resume(folder, fresh, other, None, 1) == progress
    mine, theirs = (made.state_dict()["state"] for made in (other, optimizer))
    assert mine.keys() == theirs.keys()
    for number, entry in mine.items():
        for key in entry:
            torch.testing.assert_close(entry[key], theirs[number][key], rtol=0, atol=0)
            assert entry[key].stride() == theirs[number][key].stride()


def test_the_optimiser_of_other_parameters_is_refused(tmp_path, model):
    folder = checkpoint.save_training(tmp_path, model, stepped(model), None, Progress(), {})
    fewer = torch.optim.AdamW(list(model.parameters())[1:], lr=1e-3)
    with pytest.raises(ValueError, match="fits no parameter -> copy .*config.json into the run's folder"):
        checkpoint.resume(folder, model, fewer, None, 1)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with checkpoints of steps 1 and 2."""
    for step in (1, 2):
        save_once(tmp_path, step)
    return tmp_path


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.PROGRESS, checkpoint.CONFIG,
                                  checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "cut short", "deleted"])
def test_a_damaged_checkpoint_is_passed_over_with_its_reason(run, name, damage):
    file = run / "checkpoints" / "step-00000002" / name
    content = file.read_bytes()
    middle = len(content) // 2
    changed = {"flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:],
               "cut short": content[:middle]}
    file.write_bytes(changed[damage]) if damage in changed else file.unlink()
    newest, (reason,) = checkpoint.newest_whole(run)
    assert newest == run / "checkpoints" / "step-00000001" and "step-00000002" in reason
    save_once(run, 3)
    assert [folder.name for folder in checkpoint.steps_in(run / "checkpoints")] == ["step-00000001", "step-00000003"]


def test_a_run_without_a_whole_checkpoint_is_not_started_anew(run):
    for folder in checkpoint.steps_in(run / "checkpoints"):
        (folder / checkpoint.WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"every checkpoint is damaged -> start a new run with another --exp_path\n"):
        checkpoint.newest_whole(run)
    checkpoint.save_best(run, torch.nn.Linear(1, 1), {}, 1)
    with pytest.raises(ValueError, match=r"from the best weights so far: --checkpoint \S*best\n"):
        checkpoint.newest_whole(run)
    assert checkpoint.newest_whole(run / "elsewhere") == (None, [])


def test_the_last_two_are_kept_and_none_of_a_time_that_was_given_up(run):
    save_once(run, 9)
    save_once(run, 5)                                    # resumed from step 2, since 9 was damaged
    assert [folder.name for folder in checkpoint.steps_in(run / "checkpoints")] == ["step-00000002", "step-00000005"]


@pytest.mark.parametrize("room", [0, 100, 400, 600, 900])
def test_a_full_disk_is_named_and_the_old_checkpoints_stay(run, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="step-00000003: cannot be written .*too large.* -> make room on that disk"):
            save_once(run, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.newest_whole(run) == (run / "checkpoints" / "step-00000002", [])
    assert len(list((run / "checkpoints").iterdir())) == 2


def test_a_training_whose_weights_are_not_finite_is_never_saved(run):
    with pytest.raises(ValueError, match="weight is not finite -> start a new run with a lower --lr"):
        save_once(run, 3, float("nan"))
    assert len(checkpoint.steps_in(run / "checkpoints")) == 2


def test_the_newest_finished_run_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run -> train one first: python -m gazepose train"):
        runlog.newest_finished(tmp_path)
    def run(name, age, **status):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": "finished", **status}))
        os.utime(tmp_path / name / "status.json", (age, age))

    run("older", 1), run("old", 5), run("broken", 9, state="failed", time="2026-03-01T00:00:00+00:00")
    assert runlog.newest_finished(tmp_path) == tmp_path / "old"       # of a version that wrote no time
    run("new", 0, time="2026-02-01T00:00:00+00:00"), run("copied today", 7, time="2026-01-01T00:00:00+00:00")
    assert runlog.newest_finished(tmp_path) == tmp_path / "new"
