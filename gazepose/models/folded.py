"""A backbone for scoring on a CPU: BatchNorm is part of the convolutions' weights, ReLU and additions of their kernels.

Made once for many batches (`ready_to_score`). Training and other devices use the network itself, whose numbers differ
by 1e-6 of the largest.
"""

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from gazepose.models.gazepose import FrameEncoder

ADDITIONS = (operator.add, operator.iadd, torch.add)
PARTS = {BasicBlock, Bottleneck, nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d,
         nn.Identity}
"""of a network that is folded; others (attention over channels, blurred pooling) stay as they are"""
HEAD = ("global_pool", "fc")                     # not part of the features
PART = 24 << 20
"""bytes of the largest map of the frames that are computed together, at least one for each thread: the C library gives
larger memory back to the system each time, which has to clear it again"""


class Features(nn.Module):
    """A network's `forward_features` as a forward, which torch.fx can trace."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.forward_features(x)


class ConvolutionReLU(nn.Module):
    """relu(convolution(x) + other) in one kernel of oneDNN, channels last; it lacks others for bf16."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.place = convolution.padding, convolution.stride, convolution.dilation, convolution.groups

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        fused: Any = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            return fused(x, self.weight, self.bias, *self.place, "relu", [], None)
        return fused.binary(x, other, self.weight, self.bias, *self.place, "add", 1.0, "relu", [], None)


def fuse_relu(network: fx.GraphModule) -> None:
    """Replace each ReLU of a convolution, or of its sum with another map of that shape, by a ConvolutionReLU."""
    graph = network.graph
    modules: dict[str, Any] = dict(network.named_modules())

    def is_module(node: Any, kind: type[nn.Module]) -> bool:
        return isinstance(node, fx.Node) and node.op == "call_module" and type(modules.get(str(node.target))) is kind

    for node in graph.nodes:
        if is_module(node, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in graph.nodes:
        if not is_module(node, nn.ReLU):
            continue
        added = node.args[0]
        terms = list(added.args) if added.op == "call_function" and added.target in ADDITIONS else [added]
        convolution = next((term for term in terms if is_module(term, nn.Conv2d) and len(term.users) == 1), None)
        if convolution is None or len(added.users) > 1:
            continue
        others = [term for term in terms if term is not convolution]
        name = f"fused_{node.name}"
        network.add_module(name, ConvolutionReLU(modules[convolution.target]))
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_module(name, (convolution.args[0], *others)))
        graph.erase_node(node)
    graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


class FoldedBackbone:
    """The features of a ResNet in evaluation, from float32 or bf16 frames on a CPU; a copy of its present weights."""

    def __init__(self, network: nn.Module):
        self.network = fuse(Features(network), inplace=True)     # a fused convolution is a copy, the network stays
        fuse_relu(self.network)                                  # type: ignore[arg-type]
        self.network.to(memory_format=torch.channels_last)       # type: ignore[call-overload]
        self.weights: dict[torch.dtype, dict[str, Tensor]] = {}

    def __call__(self, frames: Tensor) -> Tensor:
        """frames [F, 3, H, W] normalised -> what `forward_features` of the network gives."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        largest = 16 * frames.shape[2] * frames.shape[3] * frames.itemsize        # 64 channels at half the size
        parts = frames.split(max(PART // max(largest, 1), torch.get_num_threads()))
        return torch.cat([self._features(part) for part in parts]) if len(parts) > 1 else self._features(frames)

    def _features(self, frames: Tensor) -> Tensor:
        dtype = frames.dtype
        if dtype == torch.float32:
            return self.network(frames)
        if dtype not in self.weights:
            self.weights[dtype] = {name: weight.to(dtype) for name, weight in self.network.named_parameters()}
        return torch.func.functional_call(self.network, self.weights[dtype], (frames,))


def foldable(network: nn.Module) -> bool:
    """A plain ResNet on a CPU with oneDNN."""
    parts = [part for name, child in network.named_children() if name not in HEAD for part in child.modules()]
    return (isinstance(network, ResNet) and {type(part) for part in parts} <= PARTS
            and torch.backends.mkldnn.is_available() and next(network.parameters()).device.type == "cpu")


@torch.no_grad()
def fold(model: nn.Module) -> None:
    """Let a model in evaluation score faster under torch.inference_mode. Its weights must not change from here on."""
    model.bf16_weights = {}                                              # type: ignore[assignment]
    for encoder in model.modules():
        if isinstance(encoder, FrameEncoder) and foldable(encoder.backbone):
            encoder.folded = FoldedBackbone(encoder.backbone)


@contextmanager
def ready_to_score(model: nn.Module) -> Iterator[None]:
    """`fold` a model in evaluation for the block, in which its weights must not change."""
    fold(model)
    try:
        yield
    finally:
        model.bf16_weights = None                                        # type: ignore[assignment]
        for encoder in model.modules():
            if isinstance(encoder, FrameEncoder):
                encoder.folded = None
