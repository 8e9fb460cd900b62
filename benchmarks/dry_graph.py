"""A graph for the CPU: what torch.cuda.CUDAGraph does on a GPU, to see without one whether a step can be captured.

It records the operations that a step asks for, with the tensors they read and wrote. A replay asks for the same
operations on the same tensors, and runs no Python of the step. So all that Python decided stays as it was: a number
such as a learning rate, a branch, a new tensor. Memory and streams of a GPU are not imitated.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2", "equal"}
"""operations after which the host waits for the device, or whose shape depends on its numbers: a capture fails"""
UNWRITTEN = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
"""operations whose result holds nothing yet"""


class DryGraph(TorchDispatchMode):
    """As training.graphs.CudaGraph. In `record` the operations also take place."""

    def __init__(self, shared: "DryGraph | None" = None) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []
        """each with its arguments, whether gradients were on, and the tensors it made"""

    def record(self, work: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        with self:
            return work()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in WAITING:
            raise RuntimeError(f"operation {name} makes the host wait for the device")
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if name not in UNWRITTEN and not name.startswith("profiler::"):
            lists = tuple(list(arg) if isinstance(arg, list) else arg for arg in args)
            self.operations.append((func, lists, kwargs, torch.is_grad_enabled(), fresh(func, result)))
        return result

    def replay(self) -> None:
        # the operations of a model's gradient are in the list, so autograd has nothing to do
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, gradient, places in self.operations:
                with torch.set_grad_enabled(gradient):   # an LSTM keeps what its backward needs if this is on
                    result = func(*args, **kwargs)
                for place, value in zip(places, tensors(result), strict=True):
                    if place is not None:
                        place.copy_(value)


def tensors(result: Any) -> list[Any]:
    """What an operation returned, as a list."""
    if result is None:
        return []
    return list(result) if isinstance(result, (tuple, list)) else [result]


def fresh(func: Any, result: Any) -> list[Tensor | None]:
    """The tensors that an operation made; None for a view of its arguments, and for what it wrote in place."""
    results, returns = tensors(result), func._schema.returns
    returns = returns * len(results) if len(returns) == 1 else returns                     # one list of tensors
    return [value if isinstance(value, Tensor) and form.alias_info is None else None
            for value, form in zip(results, returns, strict=True)]
