"""Checkpoints: whole or absent, verified, and of the right model."""

import json
import os

import pytest
import torch

from gazepose import checkpoint
from gazepose.checkpoint import Progress
from gazepose.models import build_model
from gazepose.models.gazepose import ModelConfig

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


def test_a_run_means_its_best_checkpoint(tmp_path, model):
    saved(tmp_path / "run" / "best", model)
    assert checkpoint.weights_folder(tmp_path / "run") == tmp_path / "run" / "best"
    with pytest.raises(FileNotFoundError, match="neither a checkpoint.*name a run"):
        checkpoint.weights_folder(tmp_path)


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.CONFIG])
def test_an_altered_file_is_named(tmp_path, model, name):
    file = saved(tmp_path / "best", model) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: its SHA-256 is not the manifest's.*use another checkpoint"):
        checkpoint.read_model(tmp_path / "best")


def test_a_missing_file_is_named(tmp_path, model):
    (saved(tmp_path / "best", model) / checkpoint.CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match="config.json: missing, though the manifest names it"):
        checkpoint.verified(tmp_path / "best")


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
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        saved(tmp_path / "best", model)
    checkpoint.read_model(tmp_path / "best")
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


def test_death_between_the_two_renames_is_mended(tmp_path, model):
    saved(tmp_path / "best", model).rename(tmp_path / ".best.old")
    checkpoint.verified(tmp_path / "best")


def stepped(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_training_comes_back_to_the_bit(tmp_path, model):
    optimizer = stepped(model)
    progress = Progress(step=7, epoch=1, samples=99, best_mAP=0.5, world_size=1)
    checkpoint.save_training(tmp_path / "last", model, optimizer, None, progress, {})
    fresh = build_model(ModelConfig(**SMALL))
    other = torch.optim.AdamW(fresh.parameters(), lr=1e-3)
    assert checkpoint.resume(tmp_path / "last", fresh, other, None, 1) == progress
    mine, theirs = (made.state_dict()["state"] for made in (other, optimizer))
    assert mine.keys() == theirs.keys()
    for number, entry in mine.items():
        for key in entry:
            torch.testing.assert_close(entry[key], theirs[number][key], rtol=0, atol=0)


def test_another_number_of_processes_is_refused(tmp_path, model):
    checkpoint.save_training(tmp_path / "last", model, stepped(model), None, Progress(world_size=2), {})
    with pytest.raises(ValueError, match="saved by 2 processes, this run has 1 -> start 2"):
        checkpoint.resume(tmp_path / "last", model, stepped(model), None, 1)


def test_the_newest_finished_run_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run -> train one first: accelerate launch train.py"):
        checkpoint.newest_finished(tmp_path)
    for age, (name, state) in enumerate([("old", "finished"), ("new", "finished"), ("broken", "failed")]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": state}))
        os.utime(tmp_path / name / "status.json", (age, age))
    assert checkpoint.newest_finished(tmp_path) == tmp_path / "new"
