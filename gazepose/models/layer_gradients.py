"""The layers of transformer.py in a training step: the same numbers from a third of the operations.

A sublayer is one autograd function with its gradient written by hand, so nothing is copied between layouts. What all
layers of a stack compute from the same input is one product: the positions' part of the queries and keys, and the keys
and values of the encoded map. transformer.py is the definition, and tests compare the two.

Tensors are [N, B, d] here, tokens first: then the heads of all samples are a view that bmm takes as it is.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_CELLS = 256
"""of a map; with more, attention that never stores its weights (transformer.py) needs less memory"""
aten: Any = torch.ops.aten


def usable(maps: Tensor) -> bool:
    """Whether a step on maps [B, d, h, w] can use this file. Under autocast and in a graph torch's own layers run."""
    return (torch.is_grad_enabled() and maps.shape[-2] * maps.shape[-1] <= MOST_CELLS
            and not torch.is_autocast_enabled(maps.device.type) and not torch.compiler.is_compiling())


def drop(x: Tensor, p: float) -> tuple[Tensor, Tensor | None]:
    """x after dropout, and which numbers were kept; in one operation, where nn.Dropout takes four on a CPU."""
    return torch.native_dropout(x, p, True) if p else (x, None)


def drop_backward(gradient: Tensor, kept: Tensor | None, p: float) -> Tensor:
    return gradient if kept is None else aten.native_dropout_backward(gradient, kept, 1 / (1 - p) if p < 1 else 0.0)


def by_head(x: Tensor, heads: int, parts: int = 1) -> list[Tensor]:
    """[N, B, heads * parts * d'] -> `parts` views [B * heads, N, d'], one for each of queries, keys, values."""
    split = x.view(x.shape[0], x.shape[1] * heads, parts, -1)
    return [part.transpose(0, 1) for part in split.unbind(2)]


class AttentionBlock(torch.autograd.Function):
    """x + dropout(out_proj(attention(norm(x)))), with dropout of the attention weights.

    Args of forward:
        x: [N, B, d]; norm: weight and bias [d] of the LayerNorm, and its eps.
        weight, added: the norm's output times `weight`, plus `added` [N, 1 or B, ...] (bias and positions), gives
            queries, keys and values head by head [N, B, heads * 3 * d / heads]. With `keys` and `values`
            [B * heads, M, d / heads], of other tokens, it gives the queries alone.
        out_weight, out_bias: of out_proj; p: of dropout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight: Tensor,
                added: Tensor, keys: Tensor | None, values: Tensor | None, out_weight: Tensor, out_bias: Tensor,
                heads: int, p: float) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
        rows, broadcast = normed.flatten(0, 1), added.shape[1] != x.shape[1]
        projected = torch.mm(rows, weight.t()) if broadcast else torch.addmm(added.flatten(0, 1), rows, weight.t())
        projected = projected.unflatten(0, x.shape[:2])
        if broadcast:
            projected += added
        if keys is None or values is None:
            q, k, v = by_head(projected, heads, 3)
        else:
            (q,), k, v = by_head(projected, heads), keys, values
        scores = torch.baddbmm(x.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)
        share = scores.softmax(-1)                                         # [B * heads, N, M]
        used, kept = drop(share, p)
        mixed = torch.empty_like(x)
        torch.bmm(used, v, out=by_head(mixed, heads)[0])
        out, out_kept = drop(torch.addmm(out_bias, mixed.flatten(0, 1), out_weight.t()).view_as(x), p)
        ctx.save_for_backward(x, norm_weight, norm_bias, mean, rstd, normed, weight, projected, keys, values, share,
                              used, kept, mixed, out_weight, out_kept)
        ctx.heads, ctx.p, ctx.broadcast = heads, p, broadcast
        return x + out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, norm_weight, norm_bias, mean, rstd, normed, weight, projected, keys, values, share, used, kept, mixed,
         out_weight, out_kept) = ctx.saved_tensors
        gradient = gradient.contiguous()
        into_out = drop_backward(gradient, out_kept, ctx.p).flatten(0, 1)
        into_mixed, = by_head((into_out @ out_weight).view_as(x), ctx.heads)
        into_projected, into_keys, into_values = torch.empty_like(projected), None, None
        if keys is None:
            (q, k, v), (to_q, to_k, to_v) = (by_head(whole, ctx.heads, 3) for whole in (projected, into_projected))
        else:
            into_keys, into_values = to_k, to_v = torch.empty_like(keys), torch.empty_like(values)
            (q,), (to_q,), k, v = by_head(projected, ctx.heads), by_head(into_projected, ctx.heads), keys, values
        torch.bmm(used.transpose(1, 2), into_mixed, out=to_v)
        into_share = drop_backward(torch.bmm(into_mixed, v.transpose(1, 2)), kept, ctx.p)
        into_scores = aten._softmax_backward_data(into_share, share, -1, share.dtype)
        scale, nothing = q.shape[-1] ** -0.5, q.new_empty(())
        torch.baddbmm(nothing, into_scores, k, beta=0, alpha=scale, out=to_q)
        torch.baddbmm(nothing, into_scores.transpose(1, 2), q, beta=0, alpha=scale, out=to_k)
        rows = into_projected.flatten(0, 1)
        into_x, into_norm_weight, into_norm_bias = aten.native_layer_norm_backward(
            (rows @ weight).view_as(x), x, x.shape[-1:], mean, rstd, norm_weight, norm_bias, [True] * 3)
        into_added = into_projected.sum(1, keepdim=True) if ctx.broadcast else into_projected
        return (into_x.add_(gradient), into_norm_weight, into_norm_bias, None, rows.t() @ normed.flatten(0, 1),
                into_added, into_keys, into_values, into_out.t() @ mixed.flatten(0, 1), into_out.sum(0), None, None)


class FeedForwardBlock(torch.autograd.Function):
    """x + dropout(linear2(dropout(relu(linear1(norm(x)))))), x [N, B, d]; weights and biases as torch has them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight1: Tensor,
                bias1: Tensor, weight2: Tensor, bias2: Tensor, p: float) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
        hidden = aten._addmm_activation(bias1, normed.flatten(0, 1), weight1.t())
        hidden, _ = drop(hidden, p)
        out, kept = drop(torch.addmm(bias2, hidden, weight2.t()).view_as(x), p)
        ctx.save_for_backward(x, norm_weight, norm_bias, mean, rstd, normed, weight1, hidden, weight2, kept)
        ctx.p = p
        return x + out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, mean, rstd, normed, weight1, hidden, weight2, kept = ctx.saved_tensors
        gradient = gradient.contiguous()
        into_out = drop_backward(gradient, kept, ctx.p).flatten(0, 1)
        # a hidden number is above zero where relu passed it and dropout kept it; dropout's factor is in the product
        factor = 1 / (1 - ctx.p) if ctx.p < 1 else 0.0
        into_hidden = torch.addmm(hidden.new_empty(()), into_out, weight2, beta=0, alpha=factor)
        into_hidden = aten.threshold_backward(into_hidden, hidden, 0)
        into_x, into_norm_weight, into_norm_bias = aten.native_layer_norm_backward(
            (into_hidden @ weight1).view_as(x), x, x.shape[-1:], mean, rstd, norm_weight, norm_bias, [True] * 3)
        return (into_x.add_(gradient), into_norm_weight, into_norm_bias, None, into_hidden.t() @ normed.flatten(0, 1),
                into_hidden.sum(0), into_out.t() @ hidden, into_out.sum(0), None)


def attend(attention: nn.MultiheadAttention, norm: nn.LayerNorm, x: Tensor, weight: Tensor, added: Tensor,
           keys: Tensor | None = None, values: Tensor | None = None) -> Tensor:
    """`AttentionBlock` with the weights of a layer."""
    return AttentionBlock.apply(x, norm.weight, norm.bias, norm.eps, weight, added, keys, values,
                                attention.out_proj.weight, attention.out_proj.bias, attention.num_heads,
                                attention.dropout if attention.training else 0.0)


def feed_forward(layer: Any, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """`FeedForwardBlock` with the weights of a layer."""
    return FeedForwardBlock.apply(x, norm.weight, norm.bias, norm.eps, layer.linear1.weight, layer.linear1.bias,
                                  layer.linear2.weight, layer.linear2.bias, layer.dropout.p if layer.training else 0.0)


@functools.lru_cache(maxsize=8)
def with_positions(parts: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 for queries and keys, 0 for the values, which are the last part: [parts, 1]."""
    with torch.inference_mode(False):
        return torch.tensor([1.0] * (parts - 1) + [0.0], dtype=dtype, device=device)[:, None]


def positions_part(weight: Tensor, bias: Tensor, positions: Tensor) -> Tensor:
    """What the positions [N, B, d] and the bias add to queries, keys and values of all layers.

    Args:
        weight: [..., parts, d / heads, d], the last part the values; bias: [..., parts, d / heads].

    Returns:
        [N, B, all numbers of bias].
    """
    product = F.linear(positions, weight.flatten(0, -2)).unflatten(-1, bias.shape)         # [N, B, ..., parts, .]
    only = with_positions(bias.shape[-2], bias.dtype, bias.device)
    return torch.addcmul(bias, product, only).flatten(2)


def self_attention(layers: Sequence[Any], positions: Tensor) -> list[tuple[Tensor, Tensor]]:
    """`weight` [3d, d] and `added` [N, B, 3d] of each layer's AttentionBlock over its own tokens."""
    heads = layers[0].self_attn.num_heads
    weight, bias = (torch.stack([getattr(layer.self_attn, name) for layer in layers]).unflatten(1, (3, heads, -1))
                    .transpose(1, 2).contiguous() for name in ("in_proj_weight", "in_proj_bias"))
    added = positions_part(weight, bias, positions).unflatten(-1, (len(layers), -1))        # [N, B, layers, 3d]
    return list(zip(weight.flatten(1, 3).unbind(), added.unbind(2), strict=True))


def cross_attention(layers: Sequence[Any], query_positions: Tensor, memory: Tensor, positions: Tensor
                    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """`weight` [d, d], `added` [Q, B, d], `keys` and `values` [B * heads, K, d / heads] of each decoder layer."""
    count, dim, heads = len(layers), memory.shape[-1], layers[0].multihead_attn.num_heads
    parts = [torch.stack([getattr(layer.multihead_attn, name) for layer in layers]).split([dim, 2 * dim], dim=1)
             for name in ("in_proj_weight", "in_proj_bias")]
    (weight, weight_kv), (bias, bias_kv) = parts                           # [layers, d or 2d, ...]
    added = F.linear(query_positions, weight.flatten(0, 1), bias.flatten()).unflatten(-1, (count, dim))
    # by head, then by layer: with the heads outermost those of all samples are one axis
    weight_kv = weight_kv.unflatten(1, (2, heads, -1)).permute(2, 0, 1, 3, 4).contiguous()  # [heads, layers, 2, ., d]
    bias_kv = bias_kv.unflatten(1, (2, heads, -1)).permute(2, 0, 1, 3).contiguous()
    kv = F.linear(memory, weight_kv.flatten(0, 3)) + positions_part(weight_kv, bias_kv, positions)
    kv = by_head(kv, heads, 2 * count)                                     # keys and values in turn
    return list(zip(weight.unbind(), added.unbind(2), kv[0::2], kv[1::2], strict=True))


def transform(encoder: Any, decoder: Any, cells: Tensor, contents: Tensor, query_positions: Tensor, positions: Tensor
              ) -> Tensor:
    """The answer to each query, as Transformer.forward gives it.

    Args:
        encoder, decoder: stacks of layers, each with a last norm.
        cells: the encoder's input [B, K, d]; contents: the decoder's [Q, d].
        query_positions: [B, Q, d]; positions: of the cells, [K, d].
    """
    x, positions = cells.transpose(0, 1).contiguous(), positions[:, None]                  # [K, B, d], [K, 1, d]
    query_positions = query_positions.transpose(0, 1).contiguous()                         # [Q, B, d]
    for layer, own in zip(encoder.layers, self_attention(encoder.layers, positions), strict=True):
        x = feed_forward(layer, layer.norm2, attend(layer.self_attn, layer.norm1, x, *own))
    memory = encoder.norm(x)                                                               # [K, B, d]
    x = contents[:, None].expand_as(query_positions).contiguous()
    for layer, own, cross in zip(decoder.layers, self_attention(decoder.layers, query_positions),
                                 cross_attention(decoder.layers, query_positions, memory, positions), strict=True):
        x = attend(layer.self_attn, layer.norm1, x, *own)
        x = attend(layer.multihead_attn, layer.norm2, x, *cross)
        x = feed_forward(layer, layer.norm3, x)
    return decoder.norm(x).transpose(0, 1)                                                 # [B, Q, d]
