"""hf:OWNER/NAME as a checkpoint: what is fetched, what is recorded, and what a fault says."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from hub import Hub, running_hub, settings
from huggingface_hub import constants, file_download
from rig import SHORT, config_of

import gazepose.api
from gazepose import __main__ as program
from gazepose import deploy
from gazepose.__main__ import run as run_verb
from gazepose.compat.start import start_from
from gazepose.config import InferConfig, TrainConfig, parse
from gazepose.infer import infer
from gazepose.io import read_object
from gazepose.live import live
from gazepose.models import ModelConfig, build_model
from gazepose.source import Source
from gazepose.training.checkpoint import read_model, save_weights
from gazepose.training.hub import local_folder, pinned
from gazepose.training.scoring import RunModel
from gazepose.watch import jobs
from gazepose.watch.config import LiveConfig
from gazepose.watch.jobs import Pass, make_tools
from gazepose.watch.sources import name_scorers

NARROW = True
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NETWORK = ModelConfig(model="GazeLSTM", backbone="test_resnet")
LAB = Path("hf:lab/looks")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub with the repository lab/looks, and an empty cache."""
    config = {"model": asdict(NETWORK), "prepare": {"crop_size": 32}, "data": {},
              "learnt_from": {"rendered": ["embedded world tiny, seed 0"]}}
    save_weights(tmp_path / "looks", build_model(NETWORK), config)
    (tmp_path / "looks" / "pytorch_model.bin").write_bytes(b"code")
    (tmp_path / "looks" / "run.py").write_text("print('code')")
    with running_hub(tmp_path, monkeypatch) as hub:
        hub.repositories["lab/looks"] = tmp_path / "looks", COMMIT
        yield hub


def test_a_model_of_the_hub_is_read_as_a_copied_run_and_no_code_is_fetched(hub):
    model, config = read_model(LAB)
    theirs, _ = read_model(hub.repositories["lab/looks"][0])
    assert all((ours == other).all() for ours, other in
               zip(model.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert config["written_here"] is False
    assert {path.name for path in local_folder(LAB).iterdir()} == {
        "config.json", "manifest.json", "folder.json", "model.safetensors"}
    assert not any("pytorch_model.bin" in line or "run.py" in line for line in hub.asked)


def test_the_commit_is_recorded_where_a_run_is_named(hub):
    whole = f"hf:lab/looks@{COMMIT}"
    assert pinned(LAB) == pinned(Path("hf:lab/looks@main")) == Path(whole)
    assert start_from(build_model(NETWORK), pinned(LAB)).learnt_from.start == (whole,)
    assert name_scorers(["landmarks", str(LAB)], "landmarks") == {"landmarks": None, "looks": Path(whole)}
    assert parse(TrainConfig, ["--checkpoint", str(LAB)]).run.checkpoint == LAB
    assert pinned(Path("runs/mine")) == Path("runs/mine")


def test_a_commit_in_the_cache_is_not_asked_for_again(hub, monkeypatch):
    path = pinned(LAB)
    hub.asked.clear()
    assert RunModel.read(path).network == NETWORK and hub.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pinned(LAB) == path and hub.asked == []


def test_an_interrupted_transfer_goes_on_where_it_was(hub, monkeypatch):
    size = (hub.repositories["lab/looks"][0] / "model.safetensors").stat().st_size
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 20)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    hub.break_after = 0
    with pytest.raises(OSError, match="the transfer failed .* -> give the same command again; files that are complete"):
        local_folder(LAB)
    hub.break_after, hub.starts[:], hub.asked[:] = size // 2, [], []
    read_model(LAB)
    assert hub.starts[0] == 0 and 0 < hub.starts[1] <= size // 2
    assert not any(line.startswith("GET") and line.endswith("config.json") for line in hub.asked)


@pytest.mark.parametrize(("wrong", "remedy", "cures"), [
    ("hf:lab/none", "check the name", ["hf:lab/looks"]),
    ("hf:lab/looks@v9", "leave out what follows the @, or give a branch, a tag or a commit",
     ["hf:lab/looks", "hf:lab/looks@main", f"hf:lab/looks@{COMMIT}"]),
    ("hf:looks", "give hf:OWNER/NAME or hf:OWNER/NAME@REVISION", ["hf:lab/looks", "hf:lab/looks@main"]),
    ("hf:lab/looks@../..", "give hf:OWNER/NAME or hf:OWNER/NAME@REVISION", ["hf:lab/looks", "hf:lab/looks@main"])])
def test_a_name_that_is_refused_is_taken_as_the_message_says(hub, wrong, remedy, cures):
    with pytest.raises((OSError, ValueError), match=f"^{wrong.split('@')[0]}.* -> {remedy}"):
        local_folder(Path(wrong))
    for cure in cures:
        assert local_folder(Path(cure)).name == COMMIT


@pytest.mark.parametrize(("code", "remedy"), [("GatedRepo", "accept them on its page, then run `hf auth login`"),
                                              ("RepoNotFound", "for a private one run `hf auth login`")])
def test_a_closed_repository_is_fetched_after_the_login(hub, monkeypatch, code, remedy):
    hub.closed["lab/looks"] = code
    with pytest.raises(OSError, match=f" -> .*{remedy}$"):
        local_folder(LAB)
    Path(constants.HF_TOKEN_PATH).write_text("hf_token")                 # as `hf auth login` does
    assert local_folder(LAB).name == COMMIT


def test_without_the_hub_the_cache_is_filled_as_the_messages_say(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set -> run once without it, or copy the cache from"):
        local_folder(LAB)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
        with pytest.raises(OSError, match="cannot be reached, .* -> try again when http://127.0.0.1:1 can be reached"):
            local_folder(LAB)
        patch.setattr(constants, "ENDPOINT", hub.address)
        local_folder(LAB)                                                # once without it
    assert local_folder(LAB).name == COMMIT
    shutil.copytree(constants.HF_HUB_CACHE, tmp_path / "another machine", symlinks=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another machine"))
    assert "another machine" in str(local_folder(LAB))


def test_a_repository_without_safe_weights_is_no_checkpoint(hub, tmp_path):
    folder = tmp_path / "unsafe"
    folder.mkdir()
    shutil.copy(hub.repositories["lab/looks"][0] / "config.json", folder)
    (folder / "model.pth").write_bytes(b"code")
    hub.repositories["lab/unsafe"] = folder, COMMIT
    with pytest.raises(FileNotFoundError, match="has no manifest.json.* -> download a published file by hand"):
        read_model(Path("hf:lab/unsafe"))
    assert not any("model.pth" in line for line in hub.asked)
    assert local_folder(folder / "model.pth") == folder / "model.pth"    # downloaded by hand; test_api.py reads one


def test_weights_that_config_json_does_not_describe_are_refused(hub):
    folder = hub.repositories["lab/looks"][0]
    config = json.loads((folder / "config.json").read_text())
    save_weights(folder, build_model(NETWORK), {**config, "model": {**config["model"], "gaze_head": True}})
    with pytest.raises(ValueError, match="does not describe these weights"):
        read_model(LAB)


def test_predictions_of_a_model_of_the_hub_need_a_folder(hub, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"{COMMIT}: its predictions have no folder yet -> add --exp_path FOLDER"):
        infer(InferConfig(checkpoint=LAB))
    monkeypatch.setattr("gazepose.infer.refuse_links", lambda folder, split: 1 / 0)      # it got past the folder
    with pytest.raises(ZeroDivisionError):
        infer(InferConfig(checkpoint=LAB, exp_path=tmp_path / "run"))


def test_an_export_of_a_model_of_the_hub_needs_a_folder(hub, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=f"{COMMIT}: its export has no folder yet -> add --out FOLDER"):
        run_verb("export", [str(LAB)])
    monkeypatch.setattr(deploy, "export", lambda run, to, out: deploy.Exported(out, 0.0))
    run_verb("export", [str(LAB), "--out", str(tmp_path / "made")])
    assert f"export -> {tmp_path / 'made'}" in capsys.readouterr().out


# The whole road: each command that takes a checkpoint takes one of the hub

def test_ranks_that_fetch_at_once_train_from_the_commit(hub, rig, tmp_path):
    run = rig.run("of the hub", *SHORT, "--checkpoint", str(LAB), world=2,
                  fault=("with_hub", settings(hub.address, tmp_path)))
    config = config_of(run.folder)
    assert config["run"]["checkpoint"] == f"hf:lab/looks@{COMMIT}" in config["learnt_from"]["start"]
    assert "start: " in run.log() and f"entries from hf:lab/looks@{COMMIT} (one of ours)" in run.log()
    assert 1 <= len(hub.starts) <= 2 and run.status()["step"] == 1


def test_inference_of_the_hub_gives_the_scores_of_the_folder(hub, small_index, tmp_path, monkeypatch):
    monkeypatch.setattr(Source, "ready", lambda self, processes: self)
    monkeypatch.setattr(Source, "split", lambda self, name, config, processes: small_index)
    for name, weights in (("hub", LAB), ("folder", hub.repositories["lab/looks"][0])):
        infer(InferConfig(checkpoint=weights, exp_path=tmp_path / name, split="val", stride=1))
    one, other = ((tmp_path / name / "pred" / "val" / "pred.csv").read_text() for name in ("hub", "folder"))
    assert one == other and len(one.splitlines()) == 37
    assert read_object(tmp_path / "hub" / "pred" / "val" / "about.json")["checkpoint"] == f"hf:lab/looks@{COMMIT}"


@pytest.mark.parametrize(("run", "flag", "allowed"), [({"allow_unknown_priors": True}, None, True), ({}, True, True),
                                                      ({"allow_unknown_priors": True}, False, False),
                                                      ({}, None, False), (["damaged"], None, False)])
def test_inference_allows_unknown_priors_where_the_training_did(hub, small_index, tmp_path, monkeypatch, run, flag,
                                                                allowed):
    folder = hub.repositories["lab/looks"][0]
    save_weights(folder, build_model(NETWORK), {**read_object(folder / "config.json"), "run": run})
    monkeypatch.setattr(Source, "ready", lambda self, processes: self)
    monkeypatch.setattr(Source, "split", lambda self, name, config, processes: small_index)
    seen: list[bool] = []
    monkeypatch.setattr("gazepose.infer.check_priors", lambda *how: seen.append(how[-1]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        infer(InferConfig(checkpoint=LAB, exp_path=tmp_path / "run", allow_unknown_priors=flag))
    assert seen == [allowed]


@pytest.mark.parametrize(("given", "then"), [(None, "1"), ("0", "0")])
def test_commands_send_no_telemetry_unless_the_user_wants_it(given, then, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", given or "")
    if given is None:
        monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    monkeypatch.setattr(sys, "argv", ["gazepose", "train", "--no_such_flag"])
    with pytest.raises(SystemExit):
        program.main()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == then


def test_watch_live_and_python_say_which_commit_scores(hub, monkeypatch, tmp_path, capsys):
    whole = f"hf:lab/looks@{COMMIT}"
    monkeypatch.setattr(jobs, "load_networks", lambda *how: (None, None))
    runs = {name: path for name, path in name_scorers([str(LAB)], "landmarks").items() if path is not None}
    assert make_tools(Pass("v", tmp_path, tmp_path, {}, runs)).scorers["looks"].run.source == whole
    assert gazepose.load(LAB).source == whole and gazepose.load().source == "landmarks"
    monkeypatch.setattr(gazepose.api.Scorer, "stream", lambda *how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        live("0", LiveConfig(scorer=str(LAB)))
    assert f"live: scored by {whole}" in capsys.readouterr().err
