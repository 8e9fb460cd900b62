"""sensitivity.json: our model, altered by each recorded mistake, moves as far as the original did.

Run in float64, where the smallest mistake (another LayerNorm epsilon) shows too. Not compared: `noise`, how far the
original's float32 moves by itself; and `errors`, the inputs on which the original fails. Ours are not to fail there:
one sample, other sizes and lengths and other backbones work, and what lies past a table takes its last row.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazepose.models import transformer
from gazepose.models.transformer import sine_positions
from golden import Result, read, rules, same, some
from golden.models import FLOAT32, FLOAT64

MODEL, CASE = "gazepose_head1lm1", "base"                                 # as the file's note says
Changes = list[AbstractContextManager]


def before(model: Any, path: str, change: Callable[..., tuple]) -> AbstractContextManager:
    """`change` gets what a module is given and returns what it gets instead."""
    return model.get_submodule(path).register_forward_pre_hook(lambda module, inputs: change(*inputs))


def after(model: Any, path: str, change: Callable[[Any], Any]) -> AbstractContextManager:
    """`change` gets what a module returns and returns what comes out instead."""
    return model.get_submodule(path).register_forward_hook(lambda module, inputs, out: change(out))


def halves_swapped(x: Tensor) -> Tensor:
    return x.roll(x.shape[-1] // 2, dims=-1)


def positions(change: Callable[[Tensor], Tensor]) -> Changes:
    return [patch.object(transformer, "sine_positions", lambda *size, **kind: change(sine_positions(*size, **kind)))]


def unnormalised(height: int, width: int, dim: int, like: Tensor, longest: float) -> Tensor:
    """sine_positions by the plain counts 1, 2, 3, ..."""
    index = torch.arange(dim // 2, dtype=like.dtype)
    wavelength = longest ** (2 * (index // 2) / (dim // 2))

    def axis(cells: int) -> Tensor:
        angle = torch.arange(1, cells + 1, dtype=like.dtype)[:, None] / wavelength
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    rows, columns = axis(height)[:, None].expand(-1, width, -1), axis(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def epsilon(model: Any, kind: type, eps: float) -> Changes:
    return [patch.object(module, "eps", eps) for module in model.modules() if isinstance(module, kind)]


def looked_at(change: Callable[[Tensor], Tensor]) -> Callable[[Any], Changes]:
    """Other frames; the maps that are remembered are those of the pool itself."""
    return lambda model: [before(model, "frames", lambda frames: (change(frames),))]


def slot(place: int) -> Callable[[Any], Changes]:
    """The LSTM read at another slot than the centre, which is 3 of 7."""
    return lambda model: [after(model, "lstm", lambda out: (out[0].roll(3 - place, dims=1), out[1]))]


def post_norm(model: Any) -> Changes:
    """DETR's layers that normalise after each sum; the last norms of encoder and decoder stay."""
    def encode(self: Any, x: Tensor, positions: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x + positions, x + positions, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))

    def decode(self: Any, x: Tensor, query_positions: Tensor, memory: Tensor, memory_keys: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x + query_positions, x + query_positions, x))
        x = self.norm2(x + self.multihead_attn(x + query_positions, memory_keys, memory))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))

    return [patch.object(transformer.EncoderLayer, "forward", encode),
            patch.object(transformer.DecoderLayer, "forward", decode)]


def gelu(model: Any) -> Changes:
    functions = SimpleNamespace(relu=F.gelu, linear=F.linear,
                                scaled_dot_product_attention=F.scaled_dot_product_attention)
    return [patch.object(transformer, "F", functions)]


MISTAKES: dict[str, Callable[[Any], Changes]] = {
    "landmark table row = xbin*41+ybin instead of xbin*20+ybin": lambda model: [
        patch.object(model.landmark_queries, "stride", model.landmark_queries.top + 1)],
    "landmark x and y bins swapped": lambda model: [
        before(model, "landmark_queries", lambda landmarks: (landmarks[..., [1, 0, 2]],))],
    "position embedding: x half before y half": lambda model: positions(halves_swapped),
    "position embedding not normalised": lambda model: [patch.object(transformer, "sine_positions", unnormalised)],
    "position embedding dropped": lambda model: positions(torch.zeros_like),
    "no final encoder norm": lambda model: [patch.object(model.transformer.encoder.norm, "forward", lambda x: x)],
    "GELU instead of ReLU in the feed-forward": gelu,
    "post-norm layers instead of pre-norm": post_norm,
    "no ReLU between fc1 and fc2": lambda model: [patch.object(model.frames.to_vector[1], "forward", lambda x: x)],
    "centre frame of the map = slot 4": lambda model: [  # by a clip that starts a frame later, for the LSTM too
        before(model, "", lambda frames, window, *priors: (frames, window.roll(-1, dims=1), *priors))],
    "LSTM read at slot 4": slot(4),
    "LSTM read at last slot": slot(6),
    "LSTM directions swapped": lambda model: [after(model, "lstm", lambda out: (halves_swapped(out[0]), out[1]))],
    "temporal and spatial halves swapped before combine_layer": lambda model: [
        before(model, "combine_layer", lambda both: (halves_swapped(both),))],
    "BatchNorm eps 1e-3 instead of 1e-5": lambda model: [
        *epsilon(model, nn.BatchNorm2d, 1e-3), *looked_at(torch.clone)(model)],
    "LayerNorm eps 1e-6 instead of 1e-5": lambda model: epsilon(model, nn.LayerNorm, 1e-6),
    "queries and target tokens exchanged": lambda model: [
        before(model, "transformer", lambda maps, contents, queries: (maps, queries, contents.expand_as(queries)))],
    "zero target tokens": lambda model: [
        before(model, "transformer", lambda maps, contents, queries: (maps, 0 * contents, queries))],
    "landmark queries before head queries": lambda model: [
        before(model, "transformer", lambda maps, contents, queries: (maps, contents, queries.roll(-3, dims=1)))],
    "queries ignored": lambda model: [
        before(model, "transformer", lambda maps, contents, queries: (maps, contents, 0 * queries))],
    "hs flattened query-last (channel-major)": lambda model: [
        before(model, "fusion_layer", lambda hs: (hs.unflatten(1, (8, -1)).transpose(1, 2).flatten(1),))],
    "landmark token: confidence half first": lambda model: [after(model, "landmark_queries", halves_swapped)],
    "video frames reversed": lambda model: [
        before(model, "", lambda frames, window, *priors: (frames, window.flip(1), *priors))],
    "BGR instead of RGB": looked_at(lambda frames: frames.flip(1)),
    "image flipped left-right": looked_at(lambda frames: frames.flip(3)),
    "encoder attention values also carry the position code": lambda model: [
        before(model, f"transformer.encoder.layers.{layer}.self_attn", lambda query, key, value: (query, key, key))
        for layer in range(len(model.transformer.encoder.layers))],
}


def check(folder: Path) -> Iterator[Result]:
    recorded, sensitivity = read(folder / "models.json"), read(folder / "sensitivity.json")
    case = recorded["models"][MODEL]["cases"][CASE]
    model, config = rules.build(recorded, MODEL)
    model.double()
    with torch.inference_mode(), rules.published_landmarks():
        pool = rules.pool_of(recorded, model, [case["clip"]])
        inputs = (pool, rules.windows(recorded), rules.priors(recorded, case, config.split))
        logits = model(*inputs).logits
        for name, amount in some("mutations", sensitivity["mutations"]).items():
            if name not in MISTAKES:
                yield Result(f"{name}: how our model would make this mistake is not known", math.inf, 0)
                continue
            with ExitStack() as stack:
                for change in MISTAKES[name](model):
                    stack.enter_context(change)
                moved = (model(*inputs).logits - logits).abs().max().item()
            rounding = 0.5 * 10.0 ** (math.floor(math.log10(amount)) - 2)  # of an amount of three digits
            yield Result(name, max(0.0, abs(moved - amount) - rounding), FLOAT32)
            yield Result(f"{name}: would be seen in float64", same(moved > FLOAT64, True), 0)
