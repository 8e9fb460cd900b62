"""Any timm network as a backbone: crops in, a feature map [F, C, h, w] out, whatever form the network itself gives.

It ends at the map. What a model does with it is in gazepose.py.
"""

import copy
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

UNSUPPORTED = (TypeError, AssertionError, NotImplementedError)            # what timm raises for an option it lacks
_TRACES: dict[tuple[Any, ...], tuple[Any, list[str]]] = {}


def create_backbone(name: str, output_stride: int = 32, image_size: int | None = None
                    ) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """A timm network with random weights, and a function from its features to a map.

    Layers that `forward_features` never uses (a classifier's own) are removed, so that every parameter gets a
    gradient. The width of the map is the network's `num_features`.

    Args:
        name: of the network in timm.
        output_stride: pixels per cell of the map: 8, 16 or 32. 32 leaves every network as it is.
        image_size: pixels per side of the crops; only networks that timm makes for one size (a ViT) read it.

    Raises:
        ValueError: timm does not know the name, or the network lacks that stride, that size, or a feature map.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"backbone: timm has no {name!r} -> use "
                         f"{' or '.join(near) or 'a name from timm.list_models()'}")
    if "." in name and name not in timm.list_pretrained(name):
        raise ValueError(f"backbone: timm has no weights {name!r:.140} -> leave out what follows the first dot, or use "
                         "a name from timm.list_pretrained()")
    fixed = image_size if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False) else None
    network, features, unused = _any_size(name, output_stride) if fixed is None else _fixed_size(name, fixed)
    layout = map_layout(network, features)
    # without its image size a ViT would be made for another number of patches than the crops have
    if layout is None or (fixed is None and isinstance(layout[0], PatchMap)):
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"backbone: {name} gives {shape}, not a feature map -> use a network such as resnet18"
                         + ("; for a ViT give image_size, as train.py does" if image_size is None else ""))
    to_map, grid = layout
    if fixed is not None and output_stride not in (32, fixed // grid[0]):
        raise ValueError(f"backbone: {name} cannot do output_stride {output_stride}: its cells are "
                         f"{fixed // grid[0]} pixels -> use output_stride 32, which changes nothing")
    for child in unused:
        setattr(network, child, nn.Identity())
    return network, to_map


@torch.enable_grad()
def trace(network: Any, size: Sequence[int]) -> tuple[Any, list[str]]:
    """What `forward_features` returns for one image [3, H, W], and the names of the children that it does not use.

    It runs a copy on the meta device, which has shapes but no numbers.
    """
    sketch = copy.deepcopy(network).to("meta").eval()
    features = sketch.forward_features(torch.zeros(1, *size, device="meta"))
    if not isinstance(features, Tensor):
        return features, []
    names, parameters = zip(*sketch.named_parameters(), strict=True)
    gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    used = {name.split(".")[0] for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    return features, [child for child in dict.fromkeys(name.split(".")[0] for name in names) if child not in used]


def _remembered(network: Any, key: tuple[Any, ...], size: Sequence[int]) -> tuple[Any, list[str]]:
    """`trace` of a network with that key; it takes longer than making the network, so the answer is kept."""
    if key not in _TRACES:
        features, unused = trace(network, size)
        _TRACES[key] = features.detach() if isinstance(features, Tensor) else features, unused
    return _TRACES[key]


def smoothed(frames: Tensor, sigma: float) -> Tensor:
    """Pictures [F, C, H, W] after a Gaussian of `sigma` parts of a side; at borders, over the pixels that there are."""
    with torch.autocast(frames.device.type, enabled=False):
        rows, columns = (_gaussian(side, sigma * side, frames.device) for side in frames.shape[-2:])
        smooth = rows @ frames.float() @ columns.T
    return smooth.to(frames.dtype).contiguous(memory_format=torch.channels_last)


def _gaussian(side: int, sigma: float, device: torch.device) -> Tensor:
    """The matrix [side, side] that smooths an axis; each row adds up to 1. Graphs cannot take it from a cache."""
    place = torch.arange(side, device=device)
    # a CPU takes much longer for numbers too small to be normal
    weight = torch.exp((-((place[:, None] - place) / sigma) ** 2 / 2).clamp(min=-60))
    return weight / weight.sum(1, keepdim=True)


@contextmanager
def counted_together(network: nn.Module) -> Iterator[None]:
    """In the block, a forward in training: BatchNorm layers do not count it one by one; all are counted at its end."""
    layers = [module for module in network.modules()               # one without a momentum reads its own count
              if isinstance(module, nn.BatchNorm2d) and module.training and module.momentum is not None
              and module.num_batches_tracked is not None]
    counts = [layer.num_batches_tracked for layer in layers]
    if not layers or torch.compiler.is_compiling():
        yield
        return
    for layer in layers:
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, count in zip(layers, counts, strict=True):
            layer.num_batches_tracked = count
    torch._foreach_add_(counts, 1)                       # type: ignore[reportPrivateImportUsage]


def channels_first(maps: Tensor) -> Tensor:
    """[F, h, w, C] -> [F, C, h, w]"""
    return maps.permute(0, 3, 1, 2)


class PatchMap(nn.Module):
    """The patch tokens of a ViT, [F, prefix + h * w, C] in reading order -> [F, C, h, w].

    Class tokens and registers come before the patches and are left out.
    """

    def __init__(self, prefix: int, grid: tuple[int, int]):
        super().__init__()
        self.prefix, self.grid = prefix, grid

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.prefix:].transpose(1, 2).unflatten(2, self.grid)


def map_layout(network: Any, features: Any) -> tuple[Callable[[Tensor], Tensor], Sequence[int]] | None:
    """How `features` of one image become a map [F, C, h, w], and (h, w); None if they are neither a map nor patches."""
    shape, width = features.shape if isinstance(features, Tensor) else (), network.num_features
    if len(shape) == 4 and shape[1] == width:
        return nn.Identity(), shape[2:]
    if len(shape) == 4 and shape[3] == width:
        return channels_first, shape[1:3]
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    prefix = getattr(network, "num_prefix_tokens", 0)
    if grid and tuple(shape[1:]) == (prefix + math.prod(grid), width):
        return PatchMap(prefix, tuple(grid)), grid
    return None


def _any_size(name: str, output_stride: int) -> tuple[Any, Any, list[str]]:
    """A network that takes crops of any size, or is made for its own one; and its `trace`."""
    # many networks do not take the option at all, so it is not passed where it changes nothing
    stride: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        network: Any = timm.create_model(name, pretrained=False, num_classes=0, **stride)
    except UNSUPPORTED as error:
        raise ValueError(f"backbone: {name} cannot do output_stride {output_stride} ({error}) "
                         "-> use output_stride 32 or a network such as resnet18") from error
    size = tuple(network.pretrained_cfg.get("input_size", (3, 224, 224)))
    return network, *_remembered(network, (name, output_stride, size), size)


def _fixed_size(name: str, side: int) -> tuple[Any, Any, list[str]]:
    """A network made for crops of `side` pixels, and its `trace`."""
    try:
        network: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=side)
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
        patch = patch if isinstance(patch, int) else patch[0]
        if side % patch:
            raise ValueError(f"its patches are {patch} pixels")
        return network, *_remembered(network, (name, side), (3, side, side))
    except (*UNSUPPORTED, RuntimeError, ValueError) as error:
        raise ValueError(f"backbone: {name} cannot be made for crops of {side} pixels ({error}) -> use a --crop_size "
                         "that is a multiple of its patches, or a network such as resnet18") from error
