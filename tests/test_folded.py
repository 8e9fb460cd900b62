"""Scoring on a CPU: the same numbers from fewer passes over the maps, and nothing left behind in the model."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from gazepose.models import ModelConfig, Priors, build_model, folded, low_precision
from gazepose.models.folded import ConvolutionReLU, fold, ready_to_score
from gazepose.models.transformer import Attention, linear
from gazepose.training.engine import predict

BATCH = {"frames": torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
         "window": torch.tensor([[0, 0, 1, 2, 3, 3, 3]]), "head_pose": torch.zeros(1, 3),
         "landmarks": torch.full((1, 5, 3), 0.5), "row": torch.arange(1)}


def model_of(**settings) -> nn.Module:
    """With statistics of BatchNorm as after training."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**settings)).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.1)
    return model


@pytest.mark.parametrize("backbone", ["resnet18", "resnet26d"])
def test_maps_of_a_folded_resnet_are_the_same_and_no_norm_or_relu_is_left(backbone):
    model = model_of(model="FaceGaze", backbone=backbone)
    with torch.inference_mode():
        plain = model.frames.maps_of(BATCH["frames"])
        fold(model)
        found = model.frames.maps_of(BATCH["frames"])
        assert torch.equal(model.frames.backbone.forward_features(BATCH["frames"]), plain)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    kinds = [type(module) for module in model.frames.folded.network.modules()]
    assert kinds.count(ConvolutionReLU) > 16 and not {nn.BatchNorm2d, nn.ReLU} & set(kinds)


@pytest.mark.parametrize(("frames", "parts"), [(0, [0]), (1, [1]), (2, [2]), (7, [2, 2, 2, 1])])
def test_many_frames_are_computed_in_parts_whose_largest_map_is_not_too_large(frames, parts, monkeypatch):
    model, seen = model_of(model="FaceGaze"), []
    pictures = torch.randn(frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(folded, "PART", 2 * 64 * 32 * 32 * 4)            # the first convolution's map of two frames
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with torch.inference_mode():
        fold(model)
        backbone = model.frames.folded
        whole = backbone.network(pictures.contiguous(memory_format=torch.channels_last)) if frames else None
        backbone.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        found = backbone(pictures)
    assert seen == parts and found.shape == (frames, 512, 2, 2)
    if frames:
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize(("side", "layout"), [(32, torch.channels_last), (64, torch.contiguous_format)])
def test_a_folded_network_takes_bf16_in_both_layouts_and_maps_of_one_cell(side, layout):
    model = model_of(model="FaceGaze").to(memory_format=layout)
    frames = BATCH["frames"][:, :, :side, :side].bfloat16().contiguous(memory_format=layout)
    with torch.inference_mode():
        fold(model)
        assert model.frames.maps_of(frames).shape == (4, 512, side // 32, side // 32)


@pytest.mark.parametrize("backbone", ["seresnet18", "mobilenetv3_small_050"])
def test_other_networks_stay_as_they_are(backbone):
    model = model_of(model="FaceGaze", backbone=backbone)
    fold(model)
    assert model.frames.folded is None


def test_a_folded_map_in_bf16_is_as_near_as_the_plain_one():
    model = model_of(model="FaceGaze")
    apart = {}
    with torch.inference_mode():
        exact = model.frames.maps_of(BATCH["frames"])
        fold(model)
        apart["folded"] = model.frames.maps_of(BATCH["frames"].bfloat16()) - exact
        plain = copy.deepcopy(model.frames.backbone).bfloat16()
        apart["plain"] = plain.forward_features(BATCH["frames"].bfloat16()) - exact
    assert 0 < apart["folded"].abs().mean() < 1.5 * apart["plain"].abs().mean()


def test_scores_are_the_same_and_the_model_is_as_before():
    model = model_of(prior_head=True, prior_landmark=True)
    names = list(model.state_dict())
    with torch.no_grad():                        # the plain layers
        plain = model(BATCH["frames"], BATCH["window"], Priors.of(BATCH)).logits.softmax(1)[:, 1]
    accelerator = Accelerator(cpu=True)
    score = predict(accelerator, model, [BATCH], np.arange(1)).score       # type: ignore[arg-type]
    np.testing.assert_allclose(score, plain, rtol=0, atol=1e-6)
    assert model.frames.folded is None and model.bf16_weights is None and list(model.state_dict()) == names


@pytest.mark.parametrize("cells", [49, 5])
def test_few_queries_give_what_all_keys_and_values_give(cells, monkeypatch):
    torch.manual_seed(0)
    attention = Attention(64, 2, 0.1).eval().double()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    query, key, value = (torch.randn(3, count, 64, dtype=torch.float64) for count in (5, cells, cells))
    calls = []
    monkeypatch.setattr(Attention, "few_queries",
                        lambda *some, real=Attention.few_queries: calls.append(1) or real(*some))
    with torch.no_grad():
        plain = attention(query, key, value)
    assert not calls
    with torch.inference_mode():
        torch.testing.assert_close(attention(query, key, value), plain, rtol=1e-12, atol=1e-12)
    assert len(calls) == (cells == 49)           # with five cells they would cost more


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
def test_a_linear_layer_of_scoring_gives_what_torchs_own_gives(dtype, relu):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((2, 5, 8), (12, 8), (12,)))
    with torch.inference_mode():
        scored = linear(x, weight.split(4)[1], bias.split(4)[1], relu)
    plain = F.linear(x, weight[4:8], bias[4:8])
    torch.testing.assert_close(scored, plain.relu() if relu else plain)


def test_new_weights_are_used_after_the_block():
    model = model_of(model="FaceGaze")
    for scale in (1.0, 0.0):
        with torch.inference_mode(False), torch.no_grad():
            model.frames.backbone.conv1.weight.mul_(scale)
        with torch.inference_mode(), ready_to_score(model):
            spread = model.frames.maps_of(BATCH["frames"]).std(dim=0).max()
        assert (spread > 1e-3) == (scale > 0)


def test_weights_are_cast_once_for_all_batches_of_a_scoring(monkeypatch):
    model, casts = model_of(model="FaceGaze"), []
    monkeypatch.setattr(low_precision, "low_weights",
                        lambda model, real=low_precision.low_weights: casts.append(1) or real(model))

    def scored() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return model(BATCH["frames"], BATCH["window"], Priors.of(BATCH)).logits

    with ready_to_score(model):
        once = [scored(), scored()]
    assert len(casts) == 1 and torch.equal(*once)
    scored(), scored()
    assert len(casts) == 3
