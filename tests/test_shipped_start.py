"""The start weights of the package: written from a run, taken where no flag names another start, and recorded."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gazepose import train
from gazepose.compat import start
from gazepose.compat.checkpoints import load_into
from gazepose.compat.start import find_start, start_from_package
from gazepose.config import TrainConfig, asdict, parse, train_defaults
from gazepose.experiments.plan import package_start
from gazepose.io import write_json
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.source import Source
from gazepose.training import shipped_start
from gazepose.training.checkpoint import save_weights
from gazepose.training.learnt_from import LearntFrom
from gazepose.training.shipped_start import CARD, WEIGHTS, default_card, start_card, start_weights, write_start

NETWORK = {"model": "FaceGaze", "backbone": "test_resnet", "output_stride": 32}
SIZES = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32, "nheads": 2}
WORLD = {"rendered": ["embedded world default, seed 1000"], "boxes": ["annotated", "detector"]}


def a_run(folder: Path, root: Path, seed: int = 1, **changes: Any) -> Path:
    """A run's best weights, its configuration and its figures, without a training."""
    torch.manual_seed(seed)
    model = build_model(ModelConfig(**NETWORK))
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.mul_(1e6)                             # beyond float16, as variances may be
    config = {"model": NETWORK, "prepare": {"crop_size": 32}, "data": {}, "root": str(root),
              "versions": {"commit": "abc"}, "learnt_from": WORLD, **changes}
    save_weights(folder / "best" / "step-00000009", model, config)
    lines = [{"kind": "val", "epoch": 1, "step": 3, "mAP": 0.7, "seconds": 4.0, "gaze_degrees": 9.0},
             {"kind": "train", "loss": 0.5},
             {"kind": "val", "epoch": 2, "step": 6, "mAP": 0.8, "seconds": 8.0, "gaze_degrees": 7.0},
             {"kind": "val", "epoch": 3, "step": 9, "mAP": None, "seconds": 9.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def shipped(tmp_path, monkeypatch, index_of):
    """Start weights of a small backbone in the place of the package's."""
    (tmp_path / "world" / "stills").mkdir(parents=True)
    (tmp_path / "world" / "stills" / "32").symlink_to(index_of([range(9)]).folder)
    monkeypatch.setattr(shipped_start, "FOLDER", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    return write_start(a_run(tmp_path / "run", tmp_path / "world"), "bash launch/pretrain.sh")


def no_priors(windows: int) -> Priors:
    return Priors(torch.zeros(windows, 3), torch.full((windows, 5, 3), torch.nan))


def given(*flags: str, embedded: bool = True) -> TrainConfig:
    flags = *flags, "--backbone", "test_resnet"
    return parse(TrainConfig, flags, train_defaults(parse(TrainConfig, flags, TrainConfig()), embedded, False))


def started(tmp_path: Path, *flags: str, preset: str | None = "tiny") -> tuple[torch.nn.Module, list[str], LearntFrom]:
    """A GazeLSTM at the start that these flags mean, what was printed, and what it has learnt from."""
    lines: list[str] = []
    accelerator: Any = SimpleNamespace(print=lines.append, is_main_process=True)
    config = given(*flags, embedded=preset is not None)
    model = build_model(ModelConfig(model="GazeLSTM", backbone="test_resnet"))
    learnt = train.initial_weights(model, config, Source(tmp_path, preset), tmp_path, accelerator)
    assert config.data.augment == ("standard" if "the package's" in lines[0] and preset else "off")
    return model, lines, learnt


def test_the_card_says_what_the_weights_are(shipped, tmp_path):
    assert start_card("test_resnet") == shipped and start_card("resnet18") is None
    assert shipped.figures == {"mAP": 0.8, "gaze_degrees": 7.0} and shipped.states == 9
    assert (shipped.licence, shipped.commit, shipped.crop_size) == ("MIT", "abc", 32)
    file = tmp_path / "weights" / WEIGHTS
    weights, run = load_file(file), load_file(tmp_path / "run/best/step-00000009/model.safetensors")
    assert weights.keys() == run.keys()
    for name, value in weights.items():
        assert value.dtype == (torch.float16 if run[name].ndim > 1 else run[name].dtype)
        torch.testing.assert_close(value.to(run[name].dtype), run[name], rtol=1e-3, atol=1e-6)


def test_a_training_without_another_start_takes_them_and_says_so(shipped, tmp_path):
    model, lines, learnt = started(tmp_path)
    weights = load_file(tmp_path / "weights" / WEIGHTS)
    for name, value in model.frames.state_dict().items():                                # type: ignore[union-attr]
        assert torch.equal(value, weights[f"frames.{name}"].to(value.dtype))
    assert lines[0].startswith("start: ") and f"the package's {shipped.name}" in lines[0] and len(lines) == 1
    assert learnt == LearntFrom(start=(f"start.safetensors (sha256 {shipped.sha256[:16]}, licence MIT)",),
                                rendered=("embedded world default, seed 1000",), boxes=("annotated", "detector"))
    assert "the package's" in started(tmp_path, preset=None)[1][0]                       # no ImageNet weights of it


def test_crops_are_smoothed_as_the_start_weights_want_it(shipped, tmp_path):
    def smoothing(*flags: str, embedded: bool = True) -> float:
        config = given(*flags, embedded=embedded)
        return find_start(config.run, config.model, embedded)

    assert smoothing() == shipped.low_pass == 0
    smooth = a_run(tmp_path / "smooth", tmp_path / "world", model={**NETWORK, "low_pass": 0.05})
    assert write_start(smooth, "bash launch/pretrain.sh", low_pass=0.03).low_pass == 0.03
    by_name, published = ("--pretrained", "package"), ("--behaviour", "published")
    assert {smoothing(), smoothing(*by_name), smoothing(*by_name, *published)} == {0.03}
    assert {smoothing("--from_scratch"), smoothing(*published), smoothing("--task", "gaze"),
            smoothing(embedded=False), smoothing(*by_name, embedded=False)} == {0.0}
    run = ("--checkpoint", str(smooth))
    assert {smoothing(*run), smoothing(*run, "--task", "gaze"), smoothing(*run, embedded=False)} == {0.05}
    config = asdict(given())
    before = package_start(config)
    write_start(smooth, "bash launch/pretrain.sh", low_pass=0.04)
    assert package_start(config) != before                               # a sweep trains again
    with pytest.raises(ValueError, match="low_pass: 2 is out of range -> give 0 to 0.2"):
        write_start(smooth, "bash launch/pretrain.sh", low_pass=2)


def test_gazepose_scores_from_the_first_step_as_facegaze_does_on_average(shipped, tmp_path):
    face = build_model(ModelConfig(**NETWORK))
    load_into(face, load_file(tmp_path / "weights" / WEIGHTS))
    frames, window = torch.randn(9, 3, 32, 32), torch.tensor([[0, 1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7, 8]])
    of_frames = face.eval()(frames, torch.arange(9)[:, None], no_priors(9)).logits                   # [9, 2]
    centre = build_model(ModelConfig(backbone="test_resnet", reader=True, **SIZES))             # of older runs
    model = build_model(ModelConfig(backbone="test_resnet", reader=True, window_reader=True, **SIZES))
    for network, expected in ((centre, of_frames[[3, 5]]), (model, of_frames[window].mean(1))):
        start_from_package(network, shipped)
        logits, gaze = network.eval()(frames, window, no_priors(2))
        torch.testing.assert_close(logits, expected)
        assert gaze is None and logits.std() > 0
        logits[:, 1].sum().backward()
        assert network.label_layer.weight.grad.any() and network.last_layer.weight.grad.any()   # both heads learn
    assert all(parameter.grad.any() for parameter in (model.frame_weights.shown.weight, model.frame_weights.place))
    with torch.no_grad():
        model.frame_weights.place[1] = 9                                                        # this frame alone
        torch.testing.assert_close(model(frames, window, no_priors(2)).logits, of_frames[[1, 3]])
    alone = ModelConfig(backbone="test_resnet", reader=True, window_reader=True, behaviour="published", **SIZES)
    assert not any("reader" in name or "frame_weights" in name for name in build_model(alone).state_dict())


@pytest.mark.parametrize(("flags", "rate", "epochs"), [
    ((), 3e-5, 1), (("--freeze_backbone",), 1e-4, 2), (("--freeze_backbone", "--cache_features"), 5e-4, 2),
    (("--pretrained", "no"), 5e-4, 2), (("--model", "GazeLSTM"), 5e-5, 1),
    (("--model", "GazeLSTM", "--freeze_backbone"), 1e-3, 2)])
def test_a_backbone_that_has_learnt_is_trained_gently(shipped, flags, rate, epochs):
    first = parse(TrainConfig, ["--backbone", "test_resnet", *flags])
    config = train_defaults(first, embedded=True, gpu=False)
    assert (config.optim.lr, config.run.epochs) == (rate, epochs)


@pytest.mark.parametrize(("flags", "rate", "shared"), [
    (("GazeLSTM", "--cache_features"), 1e-3, 1), (("BaselineLSTM", "--cache_features"), 1e-3, 1),
    (("GazeLSTM",), 1e-3, 8), (("GazePose", "--cache_features"), 5e-4, 8)])
def test_an_lstm_on_cached_features_learns_from_windows_that_share_nothing(flags, rate, shared):
    flags = ["--freeze_backbone", "--model", *flags]
    for embedded, learning in ((True, rate), (False, 5e-5 if "GazeLSTM" in flags else None)):
        config = train_defaults(parse(TrainConfig, flags), embedded=embedded, gpu=False)
        assert config.data.windows_per_segment == shared
        assert learning is None or config.optim.lr == learning


@pytest.mark.parametrize("flags", [("--from_scratch",), ("--pretrained", "no"), ("--behaviour", "published")])
def test_no_flag_that_says_otherwise_gets_them(shipped, tmp_path, flags):
    _, lines, learnt = started(tmp_path, *flags)
    assert "start: random weights" in lines[0] and learnt == LearntFrom()


@pytest.mark.parametrize(("flags", "preset"), [(("--behaviour", "published"), "tiny"), ((), None)])
def test_they_are_taken_by_name_where_they_are_not_the_default(shipped, tmp_path, monkeypatch, flags, preset):
    monkeypatch.setattr(start, "cached_imagenet", lambda backbone: pytest.fail("looked for ImageNet's"))
    assert "the package's" in started(tmp_path, "--pretrained", "package", *flags, preset=preset)[1][0]
    find_start(given("--pretrained", "package").run, given().model, preset is not None)
    with pytest.raises(ValueError, match="the package has no weights of resnet18 -> give --checkpoint"):
        default_card(given("--pretrained", "package").run, ModelConfig(backbone="resnet18"))


def test_a_package_without_weights_starts_at_random(tmp_path):
    assert "random weights" in started(tmp_path)[1][0]


def test_damaged_weights_are_refused_with_a_remedy_before_data_are_prepared(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "start_accelerator", lambda **given: pytest.fail("it has begun"))
    file, card = tmp_path / "weights" / WEIGHTS, tmp_path / "weights" / CARD
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    with pytest.raises(ValueError, match="its SHA-256 differs from start.json -> install the package again, or give"):
        start_weights(shipped)
    with pytest.raises(SystemExit, match="error: .*its SHA-256 differs"):
        train.main((given(), Source(tmp_path, "tiny")))
    for flags, embedded in ((("--pretrained", "no"), True), (("--behaviour", "published"), True)):
        find_start(given(*flags).run, given(*flags).model, embedded)                     # they have another start
    file.unlink()
    with pytest.raises(FileNotFoundError, match="missing, though start.json names it -> install"):
        started(tmp_path)
    assert "random" in started(tmp_path, "--pretrained", "no")[1][0]                     # the remedy
    monkeypatch.setattr(start, "cached_imagenet", lambda backbone: ({}, "of this machine"))
    find_start(given().run, given().model, embedded=False)                               # takes those of ImageNet
    write_json(card, {"file": 3})
    with pytest.raises(ValueError, match="start.json: StartCard: file: int is not an instance of str -> install"):
        start_card("test_resnet")


def test_only_weights_of_rendered_faces_alone_become_the_start(shipped, tmp_path, monkeypatch):
    for number, learnt in enumerate(({"real": ["data"]}, {**WORLD, "start": ["w.pth"]})):
        run = a_run(tmp_path / f"{number}", tmp_path / "world", learnt_from=learnt)
        with pytest.raises(ValueError, match="-> give a run of FaceGaze that has learnt from rendered faces alone"):
            write_start(run, "x")
    run = a_run(tmp_path / "again", tmp_path / "world", 2, learnt_from={**WORLD, "start": [shipped.name]})
    again = write_start(run, "x", tmp_path / "weights")
    assert again.states == 2 * shipped.states and again.learnt_from["start"] == [shipped.name]
    starts = [*again.record().start]                                                     # of a third training
    run = a_run(tmp_path / "third", tmp_path / "world", learnt_from={**WORLD, "start": starts})
    assert len(starts) == 2 and write_start(run, "x", tmp_path / "out").learnt_from["start"] == starts
    monkeypatch.setattr(shipped_start, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 -> train a smaller --backbone"):
        write_start(tmp_path / "run", "x")
    assert start_weights(again)                                                          # the old ones stay
