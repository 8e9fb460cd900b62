"""A small encoder-decoder: a feature map and a few queries in, one vector per query out.

Pre-norm layers after DETR. It knows nothing of gaze; queries.py has the meaning of the queries.
Parameter names are those of the published checkpoints, so they load without renaming.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazepose.models import layer_gradients


def sine_positions(height: int, width: int, dim: int, like: Tensor, longest: float = 10000) -> Tensor:
    """DETR's sine code of every cell of a map, normalised to the map's size.

    Args:
        height, width: size of the map in cells, any.
        dim: numbers per cell, a multiple of 4; the first half encodes the row, the second the column.
        like: gives device and dtype; half precision is rounded at the end only.
        longest: ratio of the longest wavelength to the shortest. DETR's 10000 leaves three numbers in four nearly
            the same in all cells of a small map.

    Returns:
        [height * width, dim], cells in row-major order.
    """
    place = height, width, dim, like.dtype, like.device, longest
    # a graph that is being traced may not hold tensors of another one
    return _sines(*place) if torch.compiler.is_compiling() else _remembered_sines(*place)


def _sines(height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device, longest: float) -> Tensor:
    exact = torch.promote_types(dtype, torch.float32)
    index = torch.arange(dim // 2, dtype=exact, device=device)
    wavelength = longest ** (2 * (index // 2) / (dim // 2))                 # [dim/2], equal in pairs

    def axis(cells: int) -> Tensor:
        count = torch.arange(1, cells + 1, dtype=exact, device=device)
        angle = (count / (cells + 1e-6) * (2 * math.pi))[:, None] / wavelength
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)  # [cells, dim/2]

    rows = axis(height)[:, None].expand(-1, width, -1)                    # [h, w, dim/2]
    columns = axis(width)[None].expand(height, -1, -1)                    # [h, w, dim/2]
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).to(dtype)


@functools.lru_cache(maxsize=8)
def _remembered_sines(*place: Any) -> Tensor:
    with torch.inference_mode(False):            # a tensor of inference could not be used in training later
        return _sines(*place)


def linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """F.linear, and its ReLU. To score in float32 on a CPU it is a kernel of oneDNN, on AMD faster than torch's own."""
    if (torch.is_inference_mode_enabled() and x.device.type == "cpu" and x.dtype == torch.float32
            and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()):
        fused: Any = torch.ops.mkldnn._linear_pointwise
        return fused(x, weight, bias, "relu" if relu else "none", [], "")
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


class Attention(nn.MultiheadAttention):
    """torch's multi-head attention, for its parameters; queries and keys may carry positions that the values do not."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__(dim, heads, dropout, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:                # type: ignore[override]
        """query [B, Q, d], key and value [B, K, d] -> [B, Q, d]. Same tensors as query and key share their product."""
        dim, parts = self.embed_dim, (2, 1) if query is key else (1, 1, 1)
        count, cells = query.shape[1], key.shape[1]
        if torch.is_inference_mode_enabled() and count * (dim + self.num_heads * cells) < cells * dim:
            return self.few_queries(query, key, value)
        sizes = [dim * part for part in parts]
        weights = self.in_proj_weight.split(sizes), self.in_proj_bias.split(sizes)
        inputs = (key, value) if query is key else (query, key, value)
        q, k, v = (self.heads_of(piece) for x, weight, bias in zip(inputs, *weights, strict=True)
                   for piece in linear(x, weight, bias).split(dim, dim=-1))                # [B, heads, ., d / heads]
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)

    def few_queries(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As forward without dropout, in less time where queries are few.

        The queries go through the matrix of the keys, and what they mix through that of the values, instead of all keys
        and values. The bias of the keys is left out: it adds the same to all scores of a query.
        """
        (samples, count, dim), heads = query.shape, self.num_heads
        weight_q, weight_k, weight_v = self.in_proj_weight.split(dim)
        bias_q, _, bias_v = self.in_proj_bias.split(dim)
        q = linear(query, weight_q, bias_q).view(-1, heads, self.head_dim).transpose(0, 1)  # [heads, B * Q, .]
        q = torch.bmm(q, weight_k.unflatten(0, (heads, -1))).unflatten(1, (samples, count))   # [heads, B, Q, d]
        mixed = F.scaled_dot_product_attention(q.transpose(0, 1).reshape(samples, 1, -1, dim), key[:, None],
                                               value[:, None], scale=self.head_dim ** -0.5)   # [B, 1, heads * Q, d]
        mixed = mixed.view(samples, heads, count, dim).transpose(0, 1).reshape(heads, -1, dim)
        mixed = torch.bmm(mixed, weight_v.unflatten(0, (heads, -1)).transpose(1, 2))          # [heads, B * Q, .]
        return linear(mixed.transpose(0, 1).reshape(query.shape) + bias_v, self.out_proj.weight, self.out_proj.bias)

    def heads_of(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Cells attend to each other; positions are in queries and keys only."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = Attention(dim, heads, dropout)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [B, K, d], positions [K, d] -> [B, K, d]."""
        values = self.norm1(x)
        keys = values + positions
        x = x + self.dropout(self.self_attn(keys, keys, values))
        hidden = self.dropout(linear(self.norm2(x), self.linear1.weight, self.linear1.bias, relu=True))  # [B, K, .]
        return x + self.dropout(linear(hidden, self.linear2.weight, self.linear2.bias))


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the map; the values hold neither kind of position."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = Attention(dim, heads, dropout)
        self.multihead_attn = Attention(dim, heads, dropout)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query_positions: Tensor, memory: Tensor, memory_keys: Tensor) -> Tensor:
        """x and query_positions [B, Q, d]; memory, and memory with its positions, [B, K, d] -> [B, Q, d]."""
        values = self.norm1(x)
        keys = values + query_positions
        x = x + self.dropout(self.self_attn(keys, keys, values))
        x = x + self.dropout(self.multihead_attn(self.norm2(x) + query_positions, memory_keys, memory))
        hidden = self.dropout(linear(self.norm3(x), self.linear1.weight, self.linear1.bias, relu=True))  # [B, Q, .]
        return x + self.dropout(linear(hidden, self.linear2.weight, self.linear2.bias))


class Stack(nn.Module):
    """Layers one after another and a last norm; x [B, ..., d] keeps its shape."""

    def __init__(self, layers: Iterable[nn.Module], dim: int):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """`others` go to every layer, after x."""
        for layer in self.layers:
            x = layer(x, *others)
        return self.norm(x)


class Transformer(nn.Module):
    """The encoder reads the map, the decoder answers the queries from it. All matrices start from Xavier uniform."""

    def __init__(self, dim: int, heads: int, encoder_layers: int, decoder_layers: int, feedforward: int,
                 dropout: float, published: bool = False):
        super().__init__()
        self.published = published
        size = dim, heads, feedforward, dropout
        self.encoder = Stack((EncoderLayer(*size) for _ in range(encoder_layers)), dim)
        self.decoder = Stack((DecoderLayer(*size) for _ in range(decoder_layers)), dim)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, maps: Tensor, contents: Tensor, query_positions: Tensor) -> Tensor:
        """The answer to each query.

        Args:
            maps: [B, d, h, w], any h and w.
            contents: the decoder's input, the same for every sample, [Q, d].
            query_positions: added to queries and keys, never to values, [B, Q, d].

        Returns:
            [B, Q, d].
        """
        positions = sine_positions(maps.shape[-2], maps.shape[-1], maps.shape[1], like=contents,
                                   longest=10000 if self.published else 20)  # [h*w, d]
        cells = maps.flatten(2).transpose(1, 2)                            # [B, h*w, d]
        if not self.published:                   # values know their position too, which learns faster
            cells = cells + positions
        if layer_gradients.usable(maps):
            return layer_gradients.transform(self.encoder, self.decoder, cells, contents, query_positions, positions)
        memory = self.encoder(cells, positions)                            # [B, h*w, d]
        contents = contents.expand(maps.shape[0], -1, -1)                  # [B, Q, d]
        return self.decoder(contents, query_positions, memory, memory + positions)
