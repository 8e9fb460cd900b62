"""Backbones that give patches instead of a map: made for the crop's size, and a map for every model."""

import pytest
import torch
from test_models import BOTH, batch, small

from gazepose.models import ModelConfig, build_model


@pytest.mark.parametrize(("backbone", "side", "cells"), [
    ("vit_tiny_patch16_224", 64, 4), ("deit_tiny_distilled_patch16_224", 96, 6), ("test_vit3", 64, 4),
    ("test_vit_relpos", 64, 4)])  # one and two class tokens, a register, nothing before the patches
def test_patches_become_the_map_that_timm_itself_makes_of_them(backbone, side, cells):
    frames = small(backbone=backbone, image_size=side).frames
    pictures = batch(size=side)[0]
    with torch.no_grad():
        maps, vectors = frames(pictures)
        expected = frames.backbone.forward_intermediates(pictures, indices=1, norm=True, intermediates_only=True)[0]
    assert maps.shape == (8, frames.width, cells, cells) and vectors.shape == (8, 256)
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("model", ["GazePose", "GazeLSTM", "BaselineLSTM", "FaceGaze"])
def test_a_vit_is_a_backbone_of_every_model_and_all_of_it_is_trained(model):
    network = small(model=model, backbone="test_vit", image_size=64, **BOTH).train()
    prediction = network(*batch())
    (prediction.logits.sum() + (0 if prediction.gaze is None else prediction.gaze.sum())).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("options", "message"), [
    ({"image_size": 72}, r"vit_tiny_patch16_224 cannot be made for crops of 72 pixels \(its patches are 16 pixels\) -> "
                         r"use a --crop_size that is a multiple"),
    ({"image_size": 64, "output_stride": 8},
     "vit_tiny_patch16_224 cannot do output_stride 8: its cells are 16 pixels -> use output_stride 32"),
    ({}, r"vit_tiny_patch16_224 gives \[1, 197, 192\], not a feature map -> .* for a ViT give image_size"),
    ({"image_size": 64, "backbone": "mixer_s32_224"}, r"mixer_s32_224 gives \[1, 4, 512\], not a feature map"),
    ({"image_size": 64, "backbone": "crossvit_tiny_240"}, "crossvit_tiny_240 cannot be made for crops of 64 pixels"),
    ({"image_size": 8}, "image_size: 8 is out of range")])
def test_what_a_vit_cannot_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(**{"backbone": "vit_tiny_patch16_224", **options}))


@pytest.mark.parametrize(("backbone", "stride", "cells"), [
    ("vit_tiny_patch16_224", 16, 4), ("vit_tiny_patch16_224", 32, 4), ("convnext_atto", 32, 2),
    ("convnext_atto", 16, 4), ("test_resnet", 32, 2), ("swin_tiny_patch4_window7_224", 32, 2)])
def test_the_stride_is_the_networks_own_or_what_it_can_do(backbone, stride, cells):
    network = small(backbone=backbone, image_size=64, output_stride=stride)
    with torch.no_grad():
        assert network.frames(batch()[0])[0].shape[2:] == (cells, cells)


def test_the_size_of_an_image_means_nothing_to_a_network_of_any_size():
    first, second = small(backbone="test_resnet"), small(backbone="test_resnet", image_size=64)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
