"""Gradients written by hand: those of torch's own layers, with dropout too, and none where autograd cannot use them."""

import pytest
import torch
from torch import Tensor

from gazepose.models import layer_gradients
from gazepose.models.layer_gradients import AttentionBlock, FeedForwardBlock, drop
from gazepose.models.transformer import Transformer

DIM, HEADS, SAMPLES, CELLS = 8, 2, 2, 6


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("published", [False, True])
def test_answers_and_all_gradients_are_those_of_the_plain_layers(published, monkeypatch):
    model = Transformer(DIM, HEADS, 2, 3, 12, 0.0, published).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    maps = torch.randn(SAMPLES, DIM, 2, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    contents, queries = numbers(8, DIM), numbers(SAMPLES, 8, DIM)
    direction, found = torch.randn(SAMPLES, 8, DIM, dtype=torch.float64), []
    for by_hand in (True, False):
        monkeypatch.setattr(layer_gradients, "usable", lambda maps, by_hand=by_hand: by_hand)
        answers = model(maps, contents, queries)
        found.append([answers, *torch.autograd.grad((answers * direction).sum(),
                                                    [maps, contents, queries, *model.parameters()])])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("queries_of_others", [False, True])
@pytest.mark.parametrize("broadcast", [False, True])
def test_the_gradient_of_attention_with_dropout(queries_of_others, broadcast):
    parts = 1 if queries_of_others else 3
    keys, values = (numbers(SAMPLES * HEADS, 4, DIM // HEADS) if queries_of_others else None for _ in range(2))

    def block(*tensors: Tensor) -> Tensor:
        torch.manual_seed(1)                     # the same numbers are dropped each time
        x, norm_weight, norm_bias, weight, added, out_weight, out_bias, *others = tensors
        return AttentionBlock.apply(x, norm_weight, norm_bias, 1e-5, weight, added, *(others or (None, None)),
                                    out_weight, out_bias, HEADS, 0.3)

    assert torch.autograd.gradcheck(block, (
        numbers(CELLS, SAMPLES, DIM), numbers(DIM), numbers(DIM), numbers(parts * DIM, DIM),
        numbers(CELLS, 1 if broadcast else SAMPLES, parts * DIM), numbers(DIM, DIM), numbers(DIM),
        *([keys, values] if queries_of_others else [])), fast_mode=True)


def test_the_gradient_of_the_feed_forward_layers_with_dropout():
    def block(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, *layers: Tensor) -> Tensor:
        torch.manual_seed(1)
        return FeedForwardBlock.apply(x, norm_weight, norm_bias, 1e-5, *layers, 0.3)

    assert torch.autograd.gradcheck(block, (numbers(CELLS, SAMPLES, DIM), numbers(DIM), numbers(DIM), numbers(12, DIM),
                                            numbers(12), numbers(DIM, 12), numbers(DIM)), fast_mode=True)


def test_dropout_keeps_the_mean():
    out, kept = drop(torch.ones(100_000), 0.1)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert abs(out.mean() - 1) < 0.01 and torch.equal(kept, out > 0)


def test_autocast_inference_and_large_maps_take_the_plain_layers():
    maps = torch.zeros(1, DIM, 16, 16)
    assert layer_gradients.usable(maps)
    assert not layer_gradients.usable(torch.zeros(1, DIM, 16, 17))
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer_gradients.usable(maps)
    with torch.inference_mode():
        assert not layer_gradients.usable(maps)
