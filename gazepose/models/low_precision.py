"""bf16 without autocast's casts: all weights are cast together, once a forward, and nothing between the layers.

Autocast casts each weight where it is used, and each gradient where it comes back: 500 small operations a step. Here
a few multi-tensor copies do the same. The parameters, which the optimiser and the checkpoints see, stay float32.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

TOGETHER = 8_000_000             # numbers cast at once; several groups, so that the first gradients are sent early
ALIGNED = 64                     # numbers; each tensor of a group begins at such a place
T = TypeVar("T")


def cast_together(like: Sequence[Tensor], source: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies of `source` in another type, with the memory layout of `like`: one allocation, one operation."""
    starts, total = [], 0
    for tensor in like:
        starts.append(total)
        total += -(-tensor.numel() // ALIGNED) * ALIGNED
    flat = torch.empty(total, dtype=dtype, device=source[0].device)
    copies = [flat.as_strided(tensor.shape, tensor.stride(), start) for tensor, start in zip(like, starts, strict=True)]
    torch._foreach_copy_(copies, list(source))           # type: ignore[reportPrivateImportUsage]
    return copies


class CastTogether(torch.autograd.Function):
    """Weights to bf16, and their gradients back to float32."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.weights = weights
        ctx.set_materialize_grads(False)         # a weight that the loss does not read gets none
        return tuple(cast_together(weights, weights, torch.bfloat16))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        places = [place for place, gradient in enumerate(gradients) if gradient is not None]
        wide = cast_together([ctx.weights[place] for place in places],
                             [gradient for gradient in gradients if gradient is not None], torch.float32)
        cast = dict(zip(places, wide, strict=True))
        return tuple(cast.get(place) for place in range(len(gradients)))


def low_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters in bf16, by name. Those of BatchNorm are left out: its kernels take float32 beside bf16 maps."""
    groups: list[dict[str, Tensor]] = []
    size, trained = TOGETHER, None
    for owner, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        for name, parameter in module.named_parameters(owner, recurse=False):
            if size >= TOGETHER or parameter.requires_grad != trained:
                groups.append({})
                size, trained = 0, parameter.requires_grad
            groups[-1][name] = parameter
            size += parameter.numel()
    return {name: low for group in groups
            for name, low in zip(group, CastTogether.apply(*group.values()), strict=True)}    # type: ignore[arg-type]


def weights_of(model: Any) -> dict[str, Tensor]:
    """`low_weights` of a model; a model that scores (folded.py) casts them once for all its batches."""
    stored = vars(model).get("bf16_weights")
    if stored is None or not torch.is_inference_mode_enabled():
        return low_weights(model)
    if not stored:
        stored.update(low_weights(model))
    return stored


def weights_cast_once(forward: Callable[..., T]) -> Callable[..., T]:
    """For a model's `forward(frames, window, priors)`: under autocast to bf16, run it with all weights in bf16.

    Other precisions, and a compiled model, whose compiler fuses the casts, keep to autocast.
    """
    @functools.wraps(forward)
    def in_precision(model: Any, frames: Tensor, *others: Any) -> T:
        device = frames.device.type
        if not (torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
                and not torch.compiler.is_compiling()):
            return forward(model, frames, *others)
        if not vars(model).get("_in_bf16"):
            model._in_bf16 = True
            try:                                 # calls this function again, with other weights
                return torch.func.functional_call(model, weights_of(model), (frames, *others))
            finally:
                model._in_bf16 = False
        with torch.autocast(device, enabled=False):
            return forward(model, frames.bfloat16(), *others)
    return in_precision
