"""Published checkpoints on their way through the commands: recognised, named entry by entry, scored as they should."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.rules import filled
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from making import prepared_index
from test_hostile_files import Bomb
from warm import ran

from gazepose import prior_verbs, tensor_files, verbs
from gazepose.compat.checkpoints import KINDS, read_published
from gazepose.compat.start import IMPORTED, import_published, start_from
from gazepose.data.index import Index
from gazepose.data.windows import BEHAVIOURS, WindowRule, make_batch
from gazepose.evaluation.predictions import names
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.source import chosen_rows
from gazepose.tensor_files import in_child
from gazepose.training import checkpoint
from gazepose.training.augment import to_model

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 2
BOTH: dict[str, Any] = {"prior_head": True, "prior_landmark": True}


@pytest.fixture(scope="module")
def golden(parity: Path) -> dict:
    return json.loads((parity / "models.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def forget_weights():
    yield
    filled.cache_clear()


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_world) -> Path:
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(tiny_world, folder / "world")
    return folder


def file_of(golden: dict, name: str, path: Path, prefix: str = "", bare: bool = False) -> Path:
    """A file with the keys, shapes and weights of the published layout (golden vectors, fill rule)."""
    state = {prefix + key: filled(golden["fill"]["salt"], key, tuple(shape), dtype)
             for key, shape, dtype in golden["state"][name]}
    torch.save(state if bare else {"state_dict": state, "epoch": 3, "mAP": np.float64(0.5)}, path)
    return path


def scores(path: Path) -> np.ndarray:
    with open(path) as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


def test_a_published_gazepose_scores_the_same_imported_direct_and_built_by_hand(golden, work, capsys, monkeypatch):
    """The whole road: file -> import -> infer.py, file -> infer.py, and the model on the same windows."""
    file = file_of(golden, "gazepose_head1lm1", work / "best.pth", prefix="module.")
    world = work / "world"
    index = prepared_index(world, "val", policy="baseline", crop_size=224)
    rows = chosen_rows(index, 13, LIMIT)
    fit = index.facts["quality_fit"]
    rule = WindowRule(stride=13, gaussian_drop=True, quality_fit=(fit["mean"], fit["std"]),
                      behaviour=BEHAVIOURS["published"])
    model = build_model(ModelConfig(behaviour="published", **BOTH))
    ours = {}
    for key, shape, dtype in golden["state"]["gazepose_head1lm1"]:
        theirs, own = next((pair for pair in KINDS["GazePose"] if key.startswith(pair[0])), ("", ""))
        ours[own + key[len(theirs):]] = filled(golden["fill"]["salt"], key, tuple(shape), dtype)
    model.load_state_dict(ours)
    batch = to_model(make_batch(index, rule, rows, 0, 224))
    with torch.inference_mode():
        expected = model.eval()(batch["frames"], batch["window"], Priors.of(batch))
    expected = expected.logits.softmax(1)[:, 1].numpy()

    verbs.import_checkpoint(file, work / "imported")
    assert "GazePose: 338 entries used, 0 not used -> " in capsys.readouterr().out
    facts = json.loads((work / "imported" / IMPORTED).read_text())
    assert len(facts["taken"]) == 338 and facts["taken"]["headpos_emeb"] == "contents"
    assert json.loads((work / "imported" / "config.json").read_text())["learnt_from"]["real"] == ["Ego4D"]
    guide = ["--val", "--split", "1", "--Gaussiandrop", "--prior_head", "--prior_landmark", "--limit", str(LIMIT)]
    for start, out in (("imported", "one"), ("best.pth", "two")):
        monkeypatch.setattr(tensor_files, "in_child", in_child)           # the file is read as at a user's
        ran(str(ROOT / "infer.py"), "--checkpoint", start, "--data", "world", *guide, "--exp_path", out, cwd=work)
        got = scores(work / out / "pred" / "val" / "pred.partial.csv")
        assert len(got) == len(rows) == LIMIT and abs(got - expected).max() <= 2e-5
    assert np.ptp(expected) > 1e-3                                         # and they are not all the same
    shutil.rmtree(work / "imported")

    # with the published p of each face instead of a fit
    given = {":".join([*name, str(frame)]): 0.05 + 0.9 * (frame % 2) for name, frame in
             zip(names(index, np.arange(len(index))), index.frame.tolist(), strict=True)}
    monkeypatch.setattr(tensor_files, "in_child", tensor_files.convert)
    (work / "val_p.json").write_text(json.dumps(given))
    prior_verbs.import_priors("quality_p", (work / "val_p.json",), prior_verbs.Where(data=index.folder))
    index, rule = Index.open(index.folder), replace(rule, quality_scale="given", quality_fit=None)
    batch = to_model(make_batch(index, rule, rows, 0, 224))
    with torch.inference_mode():
        dropped = model(batch["frames"], batch["window"], Priors.of(batch)).logits.softmax(1)[:, 1].numpy()
    ran(str(ROOT / "infer.py"), "--checkpoint", "best.pth", "--data", "world", *guide, "--quality_scale", "given",
        "--exp_path", "three", cwd=work)
    assert abs(scores(work / "three" / "pred" / "val" / "pred.partial.csv") - dropped).max() <= 2e-5
    assert abs(dropped - expected).max() > 1e-5
    file.unlink()


def test_gazepose_with_both_priors_starts_with_140_of_338_entries_of_gaze360(golden, work):
    file = file_of(golden, "gazelstm_gaze360", work / "gaze360.pth.tar", prefix="module.")
    model = build_model(ModelConfig(**BOTH))
    start = start_from(model, file)
    assert (len(start.taken), len(start.taken) + len(start.random)) == (140, 338)
    assert start.left == ["last_layer.weight", "last_layer.bias"]         # by the file's own names
    assert {name.split(".")[0] for name in start.taken} == {"frames", "lstm"}
    assert str(start).startswith(f"140 of the model's 338 entries from {file} (Gaze360); not used: "
                                 "last_layer (2); random: combine_layer (2), contents (1), ")


def test_gaze360_alone_cannot_score(golden, work):
    file = file_of(golden, "gazelstm_gaze360", work / "gaze360.pth.tar")
    for read in (checkpoint.read_model, lambda path: verbs.import_checkpoint(path, work / "no")):
        with pytest.raises(ValueError, match="gaze360.pth.tar: Gaze360's network says where a face looks, not whether "
                                             "at the camera -> start a training from it: python -m gazepose train"):
            read(file)
    assert not (work / "no").exists()


@pytest.mark.parametrize("prefix, bare", [("", False), ("module.", False), ("", True), ("module.", True)])
@pytest.mark.parametrize("name, kind, model", [
    ("gazelstm_gazepose", "GazePose's GazeLSTM", "GazeLSTM"),
    ("gazelstm_ego4d", "Ego4D's GazeLSTM or BaselineLSTM", "BaselineLSTM"),
    ("baselinelstm_ego4d", "Ego4D's GazeLSTM or BaselineLSTM", "BaselineLSTM")])
def test_the_baselines_are_recognised_by_content_alone(golden, tmp_path, name, kind, model, prefix, bare):
    file = file_of(golden, name, tmp_path / "gaze360_Pure.pth.tar", prefix, bare)  # a name that says something else
    published = read_published(file)
    assert (published.kind, published.config.model, published.left) == (kind, model, [])
    assert list(published.taken) == [key for key, *_ in golden["state"][name]]


def test_a_word_that_contains_module_is_no_prefix(golden, tmp_path):
    file = file_of(golden, "gazelstm_gazepose", tmp_path / "w.pth", bare=True)
    state = torch.load(file, weights_only=True)
    torch.save({"my_module_version": torch.zeros(1), **state}, file)      # the published code cuts seven letters of all
    assert read_published(file).left == ["my_module_version"]


def test_a_published_gazepose_goes_on_training_with_its_classifier(golden, tmp_path):
    file = file_of(golden, "gazepose_head1lm1", tmp_path / "w.pth")
    start = start_from(build_model(ModelConfig(behaviour="published", **BOTH)), file)
    assert (len(start.taken), start.left, start.random) == (338, [], [])
    start = start_from(build_model(ModelConfig(**BOTH)), file)  # intended: tables with a row for unknown
    assert start.left == start_tables(golden) and "last_layer.weight" in start.taken
    assert len(start.random) == 5


def start_tables(golden: dict) -> list[str]:
    return [key for key, *_ in golden["state"]["gazepose_head1lm1"] if key.endswith("_embed.weight")]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_bomb_does_not_go_off_and_is_named(tmp_path, legacy, capsys):
    fired = tmp_path / "fired"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "optimizer": Bomb(fired)}, tmp_path / "w.pth",
               _use_new_zipfile_serialization=not legacy)
    for read in (read_published, checkpoint.read_model, lambda path: import_published(path, tmp_path / "o")):
        with pytest.raises(ValueError, match=r"w\.pth: not read, it names posix\.mkdir, which could run code") as error:
            read(tmp_path / "w.pth")
        assert "weights_only" not in str(error.value)                      # no advice to switch the guard off
    assert not fired.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)                    # and it was a live one
    assert fired.exists()


def test_import_never_replaces_what_is_no_checkpoint(golden, tmp_path, monkeypatch):
    file = file_of(golden, "gazelstm_gazepose", tmp_path / "w.pth")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("a")
    with pytest.raises(FileExistsError, match="mine: exists and is not a checkpoint -> give --out a new folder"):
        verbs.import_checkpoint(file, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "a"
    for _ in range(2):                                                    # a checkpoint it may replace
        verbs.import_checkpoint(file, tmp_path / "ours")
    checkpoint.read_model(tmp_path / "ours")


NAMES = ["headpos_emeb", "yaw_embed.weight", "joint_embed.weight", "c_embed.weight", "last_layer.weight",
         "transformer.encoder.layers.0.linear1.weight", "transformer.decoder.layers.x", "transformer.encoder.layers.",
         "base_model.conv1.weight", "lstm.weight_ih_l0", "module.last_layer1.bias", "", "x"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.integers(0, 5), max_size=3), min_size=1))
def test_any_tensors_are_read_or_refused_by_name(tmp_path, shapes):
    torch.save({"state_dict": {name: torch.zeros(shape) for name, shape in shapes.items()}}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: fits no published model; closest is .*, but .* -> "):
        read_published(tmp_path / "w.pth")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"\x80\x02J")                                                     # a number that ends inside: struct.error
@given(st.one_of(st.binary(max_size=64), st.tuples(st.integers(0, 2000), st.integers(1, 255))))
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    torch.save({"state_dict": {"last_layer.weight": torch.zeros(2, 3)}}, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    if isinstance(damage, bytes):
        content = bytearray(damage)
    else:
        content[damage[0] % len(content)] ^= damage[1]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth: .* -> "):
        read_published(tmp_path / "w.pth")
