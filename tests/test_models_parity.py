"""The models against numbers recorded from the published code (shared/parity/README.md gives the rules)."""

import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gazepose.models import ModelConfig, build_model
from gazepose.models.published import KINDS, read_published
from gazepose.models.queries import HeadPoseQueries, LandmarkQueries, eye_centred
from gazepose.models.transformer import sine_positions

GAZEPOSE = ["gazepose_head0lm0", "gazepose_head1lm0", "gazepose_head0lm1", "gazepose_head1lm1", "gazepose_split3"]
LSTMS = ["gazelstm_gazepose", "gazelstm_ego4d", "baselinelstm_ego4d", "gazelstm_gaze360"]


def z(label: str, n: int) -> np.ndarray:
    raw = np.random.PCG64(zlib.crc32(label.encode())).random_raw(n)
    return (2.0 * ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1.0) * math.sqrt(3.0)


@pytest.fixture(scope="module")
def golden(parity: Path) -> dict:
    return json.loads((parity / "models.json").read_text())


@pytest.fixture(scope="module")
def training(parity: Path) -> dict:
    return json.loads((parity / "training.json").read_text())


@pytest.fixture(scope="module")
def priors(parity: Path) -> dict:
    return json.loads((parity / "priors.json").read_text())


@cache
def filled(salt: str, key: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """One weight by the fill rule; the same key and shape has the same weight in every model."""
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    v, last = z(salt + key, math.prod(shape)), key.rsplit(".", 1)[-1]
    if last == "running_mean" or (last != "running_var" and "bias" in last):
        v = 0.1 * v
    elif last == "running_var":
        v = 1 + 0.1 * abs(v)
    elif len(shape) == 1:
        v = 1 + 0.1 * v
    elif not (key.endswith("_embed.weight") or key in ("head_query", "landmark_query", "headpos_emeb")):
        gain = 3 if key.startswith("lstm.") else 1.5 if key.startswith("base_model.fc") else 1
        v = gain / math.sqrt(math.prod(shape[1:])) * v
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


@pytest.fixture(scope="module", autouse=True)
def forget_weights():
    """What is cached here is 300 MB; the tests that follow should not carry it."""
    yield
    filled.cache_clear()
    clip.cache_clear()
    looked.clear()


@cache
def clip(label: str) -> torch.Tensor:
    """The two samples of seven frames, float32 [14, 3, 224, 224]."""
    o, a = z(label + "/offset", 42).reshape(2, 7, 3, 1, 1), z(label + "/amplitude", 14).reshape(2, 7, 1, 1, 1)
    c = z(label + "/coarse", 42 * 49).reshape(2, 7, 3, 7, 7).repeat(32, axis=-1).repeat(32, axis=-2)
    f = z(label + "/fine", 42 * 224 * 224).reshape(2, 7, 3, 224, 224)
    return torch.from_numpy((o + (1 + 0.5 * a) * (c + 0.5 * f)).astype(np.float32)).flatten(0, 1)


def published_state(golden: dict, name: str) -> dict[str, torch.Tensor]:
    return {key: filled(golden["fill"]["salt"], key, tuple(shape), dtype)
            for key, shape, dtype in golden["state"][name]}


def load(golden: dict, name: str, tmp_path: Path, **options) -> tuple[Any, ModelConfig]:
    """The model as it comes out of a published file; options change the inferred config."""
    torch.save({"state_dict": published_state(golden, name), "epoch": 3, "mAP": np.float64(0.5)}, tmp_path / "file")
    published = read_published(tmp_path / "file")
    (tmp_path / "file").unlink()
    assert published.left == [] and len(published.taken) == golden["models"][name]["state_entries"]
    config = ModelConfig(**{**vars(published.config), **options})
    with torch.device("meta"):
        model: Any = build_model(config)
    last = {} if not name.endswith("gaze360") else {  # the two-class head that file does not have
        "last_layer.weight": torch.zeros(2, 512), "last_layer.bias": torch.zeros(2)}
    model.load_state_dict(published.state | last, assign=True)
    return model.eval(), config


def prior_tensors(golden: dict, case: dict, split: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles in the middle of their bins [2, 3], landmarks in the published form [2, 5, 3]."""
    if "head_bins" not in case:
        return torch.full((2, 3), math.nan), torch.full((2, 5, 3), math.nan)
    bins = torch.tensor(golden["inputs"][f"head_bins_split{split:g}"][case["head_bins"]])
    layout = torch.tensor(golden["inputs"]["landmarks"][case["landmarks"]]).view(2, 3, 5)  # five x, five y, five c
    return (bins + 0.5) * split, layout.transpose(1, 2)


@pytest.fixture
def published_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden landmark vectors are in the published form already: they enter after eye_centred."""
    monkeypatch.setattr("gazepose.models.queries.eye_centred", lambda landmarks: landmarks)


looked: dict[str, Any] = {}


def look_once(model: Any, pool: torch.Tensor) -> None:
    """All nine have the same weights up to the vectors of the frames, so only the first computes these."""
    state = model.frames.state_dict()
    if not looked:
        looked.update(state=state, seen=model.frames(pool))
    assert all(torch.equal(value, looked["state"][name]) for name, value in state.items())
    model.frames.forward = lambda frames: looked["seen"]


def windows_of(cases: list[dict]) -> torch.Tensor:
    """Both clips are one pool of 28 frames; every case is two windows of it."""
    two = torch.arange(14).view(2, 7)
    return torch.cat([two + 14 * (case["clip"] == "clip1") for case in cases])


def test_the_fill_rule_gives_the_recorded_bytes(golden):
    checks = golden["fill"]["checks"]
    for key, shape, dtype in golden["state"]["gazepose_head1lm0"][:40]:
        name = f"{key}|{'x'.join(map(str, shape)) or 'scalar'}"
        assert zlib.crc32(filled(golden["fill"]["salt"], key, tuple(shape), dtype).numpy().tobytes()) == checks[name]
    for name, label in golden["inputs"]["clip_labels"].items():
        assert zlib.crc32(clip(label).numpy().tobytes()) == golden["inputs"]["clip_checks"][name]["crc32_float32_le"]


@pytest.mark.parametrize("name", GAZEPOSE + LSTMS)
def test_published_weights_give_the_published_numbers(golden, name, tmp_path, published_landmarks):
    model, config = load(golden, name, tmp_path)
    assert sum(p.numel() for p in model.parameters()) == golden["models"][name]["parameters"] + (
        1026 if name.endswith("gaze360") else 0)
    cases = list(golden["models"][name]["cases"].values())
    poses, landmarks = zip(*(prior_tensors(golden, case, config.split) for case in cases), strict=True)
    pool = torch.cat([clip(label) for label in golden["inputs"]["clip_labels"].values()])
    with torch.inference_mode():
        look_once(model, pool)
        prediction = model(pool, windows_of(cases), torch.cat(poses), torch.cat(landmarks))
    if name.endswith("gaze360"):
        expected = torch.cat([torch.cat([torch.tensor(c["angular"]), torch.tensor(c["var"])[:, :1]], 1) for c in cases])
        difference = (prediction.gaze - expected).abs().max().item()
    else:
        expected = torch.cat([torch.tensor(case["logits"]) for case in cases])
        scores = torch.cat([torch.tensor(case["scores"]) for case in cases])
        difference = (prediction.logits - expected).abs().max().item()
        assert (prediction.logits.softmax(1) - scores).abs().max() <= 2e-5
    assert difference <= 2e-5


@pytest.mark.parametrize("name", ["gazepose_head1lm1", "gazelstm_ego4d"])
def test_float64_agrees_to_a_billionth(golden, name, tmp_path, published_landmarks):
    model, config = load(golden, name, tmp_path)
    case = golden["models"][name]["cases"]["base"]
    head_pose, landmarks = prior_tensors(golden, case, config.split)
    with torch.inference_mode():
        logits = model.double()(clip(golden["inputs"]["clip_labels"]["clip0"]).double(), windows_of([case]),
                                head_pose, landmarks).logits
    difference = (logits - torch.tensor(case["logits_float64"], dtype=torch.float64)).abs().max().item()
    assert difference <= 1e-9


def agrees(value: torch.Tensor, check: dict) -> None:
    """Within 5e-5 of the tensor's largest value, everywhere a check looks."""
    flat = value.double().flatten()
    ramp = (flat * torch.arange(len(flat)) / (len(flat) - 1)).mean()
    got = {"mean": flat.mean(), "std": flat.std(correction=0), "ramp": ramp, "min": flat.min(), "max": flat.max(),
           "first8": flat[:8], "last8": flat[-8:]}
    for name, expected in check.items():
        if name == "shape":
            assert list(value.shape) == expected
        else:
            expected = torch.tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(got[name], expected, rtol=0, atol=5e-5 * flat.abs().max().item())


def test_what_lies_between_agrees_too(golden, tmp_path, published_landmarks):
    model, config = load(golden, "gazepose_head1lm1", tmp_path)
    case = golden["models"]["gazepose_head1lm1"]["cases"]["base"]
    seen: dict[str, torch.Tensor] = {}
    for name, module in {"frames": model.frames, "fc1_before_relu": model.frames.to_vector[0],
                         "frame_features": model.frames.to_vector, "lstm": model.lstm, "input_proj": model.input_proj,
                         "encoder_memory": model.transformer.encoder, "hs": model.transformer,
                         "fusion": model.fusion_layer, "combine": model.combine_layer}.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(
            name, out[0] if isinstance(out, tuple) else out))
    with torch.inference_mode():
        model(clip(golden["inputs"]["clip_labels"]["clip0"]), windows_of([case]), *prior_tensors(golden, case, 1))
    centre = slice(3, None, 7)
    values = {"frame_features": seen["frame_features"].view(2, 7, 256), "layer4_centre": seen["frames"][centre],
              "pooled_centre": seen["frames"][centre].mean((2, 3)), "lstm_centre": seen["lstm"][:, 3],
              "fc1_before_relu_centre": seen["fc1_before_relu"][centre]} | {
                  name: seen[name] for name in ("input_proj", "encoder_memory", "hs", "fusion", "combine")}
    for name, value in values.items():
        for sample, check in zip(value, case["checks"][name], strict=True):
            for one, part in zip(sample, check, strict=True) if isinstance(check, list) else [(sample, check)]:
                agrees(one, part)
    agrees(sine_positions(7, 7, 512, torch.zeros(1)).T.reshape(512, 7, 7), case["checks"]["pos_embedding"])
    torch.testing.assert_close(seen["hs"].mean(-1), torch.tensor(case["checks"]["hs_query_means"]), rtol=0, atol=5e-5)


@pytest.mark.parametrize(("name", "mode"), [("gazepose_head1lm1", "train_without_dropout"),
                                            ("gazelstm_gazepose", "train_without_dropout"),
                                            ("gazelstm_gazepose", "eval")])
def test_a_training_step_has_the_published_loss_and_gradients(golden, training, name, mode, tmp_path,
                                                              published_landmarks):
    model, config = load(golden, name, tmp_path, dropout=0.0)
    expected, record = training["models"][name][mode], published_names(golden, name)
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
    model.train(mode != "eval")
    head_pose, landmarks = prior_tensors(golden, training if name.startswith("gazepose") else {}, config.split)
    pool = clip(golden["inputs"]["clip_labels"][training["clip"]])  # unshared: fourteen frames for two windows
    logits = model(pool, torch.arange(14).view(2, 7), head_pose, landmarks).logits
    loss = nn.functional.cross_entropy(logits, torch.tensor(training["labels"]),
                                       weight=torch.tensor(training["class_weights"]))
    loss.backward()
    assert (logits - torch.tensor(expected["logits"])).abs().max() <= 2e-5
    assert loss.item() == pytest.approx(expected["loss"], abs=2e-5)
    norms = {record[key]: None if p.grad is None else p.grad.norm().item() for key, p in model.named_parameters()}
    assert [key for key, norm in norms.items() if norm is None] == expected["no_gradient"]
    assert [key for key, norm in norms.items() if norm == 0] == expected["zero_gradient"]
    for key, norm in expected["gradient_norms"].items():
        assert norms[key] == pytest.approx(norm, rel=1e-3), key
    total = math.sqrt(sum(norm**2 for norm in norms.values() if norm))
    assert total == pytest.approx(expected["total_gradient_norm"], rel=1e-3)
    statistics = {record[key]: value for key, value in model.named_buffers()}
    for key, first in expected.get("running_stats_after_one_step", {}).items():
        torch.testing.assert_close(statistics[key][:4], torch.tensor(first["first4"]), rtol=1e-4, atol=1e-6)


def published_names(golden: dict, name: str) -> dict[str, str]:
    """Our name -> the published one."""
    renames = KINDS["GazePose" if name.startswith("gazepose") else "GazePose's GazeLSTM"]
    ours = {}
    for key, *_ in golden["state"][name]:
        theirs, own = next((pair for pair in renames if key.startswith(pair[0])), ("", ""))
        ours[own + key[len(theirs):]] = key
    return ours


def test_landmarks_come_to_the_published_form(priors):
    for record in priors["landmarks"]:
        points = torch.tensor(record["points"])[None, :, [0, 1, 3]]  # x, y, visibility
        layout = eye_centred(points)[0].T.flatten()
        torch.testing.assert_close(layout, torch.tensor(record["expected"]), rtol=0, atol=1e-6)


def test_landmark_rows_are_the_published_ones_at_every_edge(priors):
    record = priors["landmark_index"]
    queries = LandmarkQueries(8, dsplit=0.1, csplit=0.1, published=True)
    assert (len(queries.cell.weight), len(queries.confidence.weight)) == (1681, 11)
    cell, confidence = queries.rows(torch.tensor(record["vectors"]).view(-1, 3, 5).transpose(1, 2))
    assert cell.tolist() == record["row"] and confidence.tolist() == record["confidence_row"]


def test_landmark_tables_have_the_published_sizes(priors):
    for dsplit, facts in priors["landmark_table_sizes"].items():
        queries = LandmarkQueries(8, dsplit=float(dsplit), csplit=0.1, published=True)
        assert (len(queries.cell.weight), queries.stride, queries.top + 1) == (
            facts["table"], facts["row_factor"], facts["bins_per_axis"])
        corner = torch.tensor([2.0, 2.0, 1.0]).expand(1, 5, 3)
        assert queries.rows(corner)[0].max() == facts["largest_row_used"]


def test_head_pose_bins_are_the_published_ones(priors):
    for record in priors["head_bins"]:
        queries = HeadPoseQueries(8, split=record["split"], published=True)
        assert len(queries.yaw.weight) == record["table"]
        rows = queries.rows(torch.tensor(record["angles"])[:, None].expand(-1, 3))[:, 0].tolist()
        for row, bin_, fits in zip(rows, record["bins"], record["fits"], strict=True):
            assert row == (bin_ if fits else record["table"] - 1)  # past the table the published code crashes


def test_unknown_priors_are_what_the_published_code_took_them_for(golden):
    unknown = golden["models"]["gazepose_head1lm1"]["cases"]["missing_priors"]
    cell, confidence = LandmarkQueries(8, dsplit=0.1, csplit=0.1, published=True).rows(torch.full((2, 5, 3), math.nan))
    assert cell.tolist() == unknown["joint_index"] and confidence.tolist() == unknown["confidence_index"]
    poses = HeadPoseQueries(8, split=1.0, published=True).rows(torch.full((2, 3), math.nan))
    assert poses.tolist() == golden["inputs"]["head_bins_split1"][unknown["head_bins"]]
