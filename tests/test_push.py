"""gazepose push: what is sent to a hub, what the card says, and that the same scores come back."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub import Hub, running_hub
from huggingface_hub import constants
from huggingface_hub.utils import _http
from test_models import published_file
from test_remedies import command_in, remedy_of, typed

import gazepose
from gazepose.__main__ import run as run_verb
from gazepose.evaluation.predictions import write_about
from gazepose.io import read_object, write_arrays, write_json
from gazepose.model_card import without_path
from gazepose.models import ModelConfig, build_model
from gazepose.publish import files_of
from gazepose.training.checkpoint import save_best
from gazepose.training.hub import local_folder, send

NETWORK = ModelConfig(model="GazeLSTM", backbone="test_resnet")
LAB = Path("hf:lab/looks")
IMAGENET = "ImageNet (timm/resnet18, licence x)"
SECRETS = ("zoe", "secret", "host7", str(Path.home()))
FILES = {"README.md", "config.json", "manifest.json", "model.safetensors"}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    with running_hub(tmp_path, monkeypatch) as hub:
        Path(constants.HF_TOKEN_PATH).write_text("hf_token")                 # as `hf auth login` does
        yield hub


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of twelve clips, trained on rendered faces and a folder of the user's, and scored on val."""
    run = tmp_path_factory.mktemp("runs of zoe") / "secret-run"
    home = "/home/zoe/secret"
    config = {"model": asdict(NETWORK), "prepare": {"crop_size": 32}, "data": {"data": f"{home}/faces"},
              "run": {"checkpoint": f"{home}/older", "exp_path": str(run), "epochs": 3, "config": f"{home}/c.json"},
              "root": f"{home}/faces", "command": f"{home}/train.py --data {home}/faces", "device_name": "host7",
              "changes": [{"data": [f"{home}/a", f"{home}/b"]}], "fingerprint": {"val": "00ff"},
              "learnt_from": {"rendered": ["embedded world tiny, seed 0"], "real": [f"{home}/faces"],
                              "labels": ["landmark score of gazepose watch 0.2"],
                              "start": [f"{home}/runs/older/best/step-00000009", IMAGENET]}}
    weights = save_best(run, build_model(NETWORK), config, 7)
    (weights / "notes of zoe.txt").write_text("secret")
    write_json(run / "status.json", {"state": "finished"})
    (run / "metrics.jsonl").write_text(json.dumps({
        "kind": "val", "step": 7, "epoch": 1, "n": 120, "mAP": 0.7654, "accuracy": 0.5, "auroc": 0.25,
        "baselines": {"prevalence": {"mAP": 0.5}, "head_pose": None}}) + "\n")
    draw, label = np.random.default_rng(0), np.arange(120) % 2
    score = np.clip(0.5 * label + draw.uniform(0, 0.7, 120), 0, 1)
    write_arrays(run / "pred" / "val.npz", {"row": np.arange(120), "score": score, "label": label,
                                            "clip": np.arange(120) // 10})
    write_about(run / "pred" / "val" / "about.json", {"checkpoint": str(weights), "data": f"{home}/faces",
                                                      "warning": None})
    return run


def push(run: Path, *flags: str) -> None:
    run_verb("push", [str(run), "lab/looks", *flags])


def card_of(hub: Hub) -> tuple[dict, str]:
    """Front matter and text of the card that was sent."""
    _, front, text = hub.sent["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(front), text


def test_what_was_pushed_is_loaded_with_the_same_scores(hub, made, capsys):
    push(made)
    commit = hub.repositories["lab/looks"][1]
    printed = capsys.readouterr()
    assert f"pushed as hf:lab/looks@{commit}" in printed.out and printed.err == ""      # no bar without a terminal
    crops = np.random.default_rng(0).integers(0, 256, (2, 7, 3, 32, 32), np.uint8)
    theirs = gazepose.load("hf:lab/looks")
    np.testing.assert_array_equal(theirs.crops(crops), gazepose.load(made).crops(crops))
    assert {path.name for path in local_folder(LAB).iterdir()} == FILES - {"README.md"}


def test_only_weights_json_and_a_card_without_paths_leave_the_machine(hub, made):
    push(made)
    assert hub.sent.keys() == FILES
    for name in FILES - {"model.safetensors"}:
        assert not [word for word in SECRETS if word in hub.sent[name].decode().replace(":lab/", "")], name
    header = hub.sent["model.safetensors"][:1 << 16]
    assert not [word for word in SECRETS if word.encode() in header]
    config = json.loads(hub.sent["config.json"])
    assert config["learnt_from"]["start"] == ["older", IMAGENET] and config["learnt_from"]["real"] == ["faces"]
    assert config["run"]["epochs"] == 3 and config["fingerprint"] == {"val": "00ff"}


def test_the_card_has_figures_with_intervals_and_what_was_learnt_from(hub, made):
    push(made)
    front, text = card_of(hub)
    assert re.search(r"\| val of faces \| 120 +\| 12 +\| this model +\| \d+\.\d \[\d+\.\d, \d+\.\d\]", text)
    for words in ("embedded world tiny, seed 0", "landmark score of gazepose watch 0.2", "licence x", "**not known**",
                  'gazepose.load("hf:lab/looks")', "gazepose infer --checkpoint hf:lab/looks --data DATA",
                  "gazepose train --checkpoint hf:lab/looks --data DATA", "Cut the box at whole"):
        assert words in text, words
    assert ".py" not in text                            # a reader of the card has the package, and not the repository
    assert front["library_name"] == "gazepose" and front["license"] == "other"
    [result] = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "val" and {metric["type"] for metric in result["metrics"]} == {
        "mAP", "accuracy", "auroc"}


def test_a_run_without_scores_shows_its_validation_and_one_without_any_says_so(hub, made, tmp_path):
    run = tmp_path / "plain"
    shutil.copytree(made, run, ignore=shutil.ignore_patterns("pred"))
    push(run)
    front, text = card_of(hub)
    assert "| 76.5 " in text and "without intervals" in text
    assert front["model-index"][0]["results"][0]["metrics"][0] == {"type": "mAP", "name": "mAP", "value": 0.7654}
    (run / "metrics.jsonl").unlink()
    push(run)
    front, text = card_of(hub)
    assert "**This model has not been validated**" in text and "model-index" not in front


def test_figures_of_other_weights_are_left_out(hub, made, tmp_path):
    run = shutil.copytree(made, tmp_path / "other")
    about = run / "pred" / "val" / "about.json"
    write_json(about, {**read_object(about), "checkpoint": "runs/mine/best/step-00000006"})
    push(run)
    assert "120 " in card_of(hub)[1] and "without intervals" in card_of(hub)[1]          # those of the validation


def test_weights_of_rendered_faces_alone_are_free_and_their_card_warns(hub, tmp_path):
    own = "start.safetensors (sha256 00ff, licence MIT)"
    learnt = {"learnt_from": {"rendered": ["embedded world tiny, seed 0"], "start": [own],
                              "boxes": ["annotated", "detector"]}}
    config = {"model": asdict(NETWORK), **learnt, "face_heights": [31.0, 99.0]}
    save_best(tmp_path / "run", build_model(NETWORK), config, 1)
    push(tmp_path / "run")
    front, text = card_of(hub)
    assert front["license"] == "mit" and "real faces are not tested" in text and "lower than 31 pixels" in text
    assert own in text and "as annotated ones lie and as those of a face detector lie" in text
    push(tmp_path / "run", "--license", "cc-by-4.0")
    assert card_of(hub)[0]["license"] == "cc-by-4.0"


def test_a_dry_run_prints_what_would_be_sent_and_asks_nobody(hub, made, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    Path(constants.HF_TOKEN_PATH).unlink()
    push(made, "--dry_run")
    printed = capsys.readouterr().out
    size = next(made.glob("best/*/model.safetensors")).stat().st_size
    assert f"model.safetensors {size:12,} bytes".split() == re.search(r"model.saf.*", printed)[0].split()
    assert "## What it has learnt from" in printed and "nothing was sent to lab/looks" in printed
    assert hub.asked == [] and hub.sent == {}
    with pytest.raises(SystemExit, match="not a name on the hub -> give OWNER/NAME"):
        run_verb("push", [str(made), "looks", "--dry_run"])


def test_a_push_that_cannot_be_is_refused_before_the_model_is_read(hub, tmp_path):
    Path(constants.HF_TOKEN_PATH).unlink()
    with pytest.raises(SystemExit, match="no token of the hub"):
        push(tmp_path / "no run")


def test_a_branch_and_a_private_repository_are_made(hub, made):
    push(made, "--revision", "v2", "--private")
    assert hub.branches == {"lab/looks": {"v2"}} and hub.private == {"lab/looks"}
    assert "hf:lab/looks@v2" in card_of(hub)[1] and local_folder(Path("hf:lab/looks@v2")).is_dir()
    assert any("/commit/v2" in line for line in hub.asked)


def test_an_interrupted_upload_leaves_the_repository_as_it_was(hub, made, monkeypatch, capsys):
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    push(made)
    before = hub.repositories["lab/looks"]
    hub.break_upload = True
    with pytest.raises(SystemExit, match="lab/looks: the transfer failed .* -> give the same command again"):
        push(made, "--license", "mit")
    assert hub.repositories["lab/looks"] == before and "license: other" in hub.sent["README.md"].decode()
    hub.break_upload = False
    push(made, "--license", "mit")
    assert "license: mit" in hub.sent["README.md"].decode()


# What was refused is taken once the remedy of the message is done

def no_token(hub: Hub) -> Callable[[], Any]:
    Path(constants.HF_TOKEN_PATH).unlink()
    return lambda: Path(constants.HF_TOKEN_PATH).write_text("hf_token")


def token_of_the_environment(hub: Hub) -> Callable[[], Any]:
    Path(constants.HF_TOKEN_PATH).unlink()
    return lambda: os.environ.__setitem__("HF_TOKEN", "hf_token")


def no_right(hub: Hub) -> Callable[[], Any]:
    hub.refused["lab/looks"] = 403
    return hub.refused.clear


def offline(hub: Hub) -> Callable[[], Any]:
    constants.HF_HUB_OFFLINE = True
    return lambda: setattr(constants, "HF_HUB_OFFLINE", False)


def public_already(hub: Hub) -> Callable[[], Any]:
    send("lab/looks", {"a.json": b"{}"}, "first")
    return lambda: hub.private.add("lab/looks")


@pytest.mark.parametrize(("state", "words"), [
    (no_token, "run `hf auth login` with one that may write"), (token_of_the_environment, "or set HF_TOKEN to one"),
    (no_right, "run `hf auth login` with one that may, or give a repository of your own"),
    (offline, "unset it, or add --dry_run"), (public_already, "make it private on its page")])
def test_a_push_that_is_refused_is_taken_once_the_remedy_is_done(hub, state, words, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    mend = state(hub)
    sent = dict(hub.sent)
    assert words in remedy_of(lambda: send("lab/looks", {"b.json": b"{}"}, "second", private=True))
    assert hub.sent == sent
    mend()
    send("lab/looks", {"b.json": b"{}"}, "second", private=True)
    assert hub.sent["b.json"] == b"{}"


def test_another_repository_is_taken_where_one_is_refused(hub):
    hub.refused["their/looks"] = 403
    assert "give a repository of your own" in remedy_of(lambda: send("their/looks", {"b.json": b"{}"}, "m"))
    send("lab/looks", {"b.json": b"{}"}, "m")
    assert "leave --private out" in remedy_of(lambda: send("lab/looks", {"b.json": b"{}"}, "m", private=True))
    send("lab/looks", {"b.json": b"{}"}, "m")
    send("lab/other", {"b.json": b"{}"}, "m", private=True)


@pytest.mark.parametrize("wrong", [("looks", None), ("lab/looks", "../x y"), ("lab/looks/x", None)])
def test_a_name_that_no_repository_has_is_refused(hub, wrong):
    assert "give OWNER/NAME" in remedy_of(lambda: send(wrong[0], {}, "m", wrong[1]))
    send("lab/looks", {"b.json": b"{}"}, "m", "v2")


def test_a_published_file_is_pushed_once_it_is_imported(hub, tmp_path, monkeypatch):
    model = build_model(ModelConfig(model="BaselineLSTM", behaviour="published"))
    file = published_file(tmp_path / "w.pth", "Ego4D's GazeLSTM or BaselineLSTM", model)
    for wrong in (LAB, file):
        remedy = remedy_of(lambda wrong=wrong: files_of(wrong, "lab/looks"))
    typed(monkeypatch, command_in(remedy), FILE=file, FOLDER=tmp_path / "imported")
    files = files_of(tmp_path / "imported", "lab/looks")
    assert files.keys() == FILES and str(tmp_path) not in bytes(files["config.json"]).decode()
    assert "| Ego4D | its own, which each user accepts |" in re.sub(" +", " ", bytes(files["README.md"]).decode())


def test_the_licence_that_is_not_known_is_given_with_the_flag_of_the_line(hub, made, capsys):
    push(made)
    line = re.search(r"not known -> give it with (--\w+)", capsys.readouterr().out)
    assert line
    push(made, line[1], "CC0")
    assert "not known" not in capsys.readouterr().out and "CC0" in card_of(hub)[1]


def test_names_lose_their_folders():
    for name, plain in (("/home/zoe l/set", "set"), ("runs/mine/best/step-00000100", "mine"), ("hf:lab/looks@v1",) * 2,
                        ("C:\\Users\\zoe\\set", "set"), ("w.pth (Gaze360; of x/y)",) * 2, ("data", "data"),
                        ("/home/zoe/w (1)/best", "w (1)"), ("/", "a folder without a name")):
        assert without_path(name) == plain
