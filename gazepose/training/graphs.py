"""CUDA graphs: the kernels of a training step are recorded once, and then launched together.

A GPU computes a small step faster than Python can ask for it. Graphs hold what the loop computes for one batch of a
step: one graph for the batches that add to the gradient, and one for the step's last batch, which also clips the
gradient and moves the weights. The loop (engine.py) sets the seed and the learning rate before each of them.

What a graph replays reads and writes the memory that it was captured with. So batches are copied into fixed tensors,
gradients are set to zero instead of removed, and the learning rate is a tensor (optim.py). All batches of an epoch have
one shape (data/order.py: full_pools). Every batch is full, also the last of an epoch, which has fillers. If the last
step of an epoch has fewer batches than the others, its last batch runs without a graph.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from gazepose.data.order import BatchOrder

WARM_UP, WARM_UP_OF_DDP = 3, 11  # steps before the first capture; the second as torch's notes on CUDA graphs say
FEW_STEPS = 3                    # steps of one shape, for which a capture does not pay
MOST_CHANGES = 3                 # of shape, each after FEW_STEPS steps or less, before graphs are given up
Outcome = tuple[Tensor, ...]
Learn = Callable[[dict[str, Tensor], int], Outcome]


class Graph(Protocol):
    """Work that is done once and can be repeated without its Python."""

    def record(self, work: Callable[[], Outcome]) -> Outcome:
        """Do the work, and remember its operations."""
        ...

    def replay(self) -> None:
        """Do it again: on the memory that it had, with the numbers that are there now."""
        ...


class CudaGraph:
    """torch.cuda.CUDAGraph. shared: a graph that never runs at the same time; both use the same memory."""

    def __init__(self, shared: "CudaGraph | None" = None) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.pool = None if shared is None else shared.graph.pool()

    def record(self, work: Callable[[], Outcome]) -> Outcome:
        # other threads may use the device meanwhile: one of the loader pins memory
        with torch.cuda.graph(self.graph, pool=self.pool, stream=torch.cuda.current_stream(),
                              capture_error_mode="thread_local"):
            outcome = work()
        self.graph.replay()                              # a capture computes nothing
        return outcome

    def replay(self) -> None:
        self.graph.replay()


class StepGraphs:
    """Runs the batches of a training: first without graphs, then from graphs. One object for a whole training.

    Args:
        new_graph: makes an empty graph; takes another one, where there is one, to share its memory.
        warm_up: steps without a graph, in which libraries choose their kernels and constants are made.
        notify: prints a line.
    """

    def __init__(self, new_graph: Callable[..., Graph] = CudaGraph, warm_up: int = WARM_UP,
                 notify: Callable[[str], None] = print) -> None:
        self.new_graph, self.warm_up, self.notify = new_graph, warm_up, notify
        self.batch: dict[str, Tensor] = {}               # the fixed tensors
        self.captured: dict[int, tuple[Graph, Outcome]] = {}
        self.steps = 0                                   # of this shape
        self.changes = 0
        self.given_up = False

    def run(self, learn: Learn, batch: dict[str, Tensor], ends: int) -> Outcome:
        """What learn(batch, ends) returns, in tensors of the caller's own.

        Args:
            learn: the computation of one batch; the same in every call.
            batch: the same names and types in every call, on the device.
            ends: how many batches the step has, with its last one; 0 with the others.
        """
        if self.given_up:
            return learn(batch, ends)
        if shapes_of(batch) != shapes_of(self.batch):
            self._begin(batch)
            if self.given_up:
                return learn(batch, ends)
        warm = self.steps >= self.warm_up
        self.steps += ends > 0
        if not warm:
            return learn(batch, ends)
        torch._foreach_copy_(list(self.batch.values()), [batch[name] for name in self.batch])  # type: ignore[reportPrivateImportUsage]
        if ends in self.captured:
            graph, outcome = self.captured[ends]
            graph.replay()
        else:
            graph = self.new_graph(*[graph for graph, _ in self.captured.values()][:1])
            try:
                outcome = graph.record(lambda: learn(dict(self.batch), ends))
            except RuntimeError as error:                # nothing was computed, so the batch can run again
                self._give_up(f"the step cannot be captured ({str(error).splitlines()[0]:.200})")
                return learn(batch, ends)
            self.captured[ends] = graph, outcome
        return tuple(value.clone() for value in outcome)              # the next replay overwrites them

    def _begin(self, batch: dict[str, Tensor]) -> None:
        """Leave the graphs of another shape; those of this one come after one step, or the warm-up."""
        if self.batch:
            self.changes = self.changes + 1 if self.steps <= self.warm_up + FEW_STEPS else 0
        if self.captured:
            self.warm_up = 1
        self.batch, self.captured, self.steps = {name: value.clone() for name, value in batch.items()}, {}, 0
        if self.changes >= MOST_CHANGES:
            self._give_up("the batches change their shape every few steps")

    def _give_up(self, reason: str) -> None:
        self.notify(f"graphs: off, because {reason}")
        self.given_up, self.batch, self.captured = True, {}, {}


def shapes_of(batch: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in batch.items()}


def hindrance(accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> str | None:
    """Why the steps of a training cannot be captured; None: they can."""
    if accelerator.device.type != "cuda":
        return f"this device is a {accelerator.device.type}, and only CUDA has them"
    if accelerator.scaler is not None:
        return "the gradient scaler of fp16 decides on the host whether a step counts (bf16 has none)"
    if not isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.AdamW):
        return "only the steps of AdamW are captured"
    if accelerator.num_processes > 1 and "nccl" not in dist.get_backend_config():
        return f"gradients are exchanged by {dist.get_backend_config()}, and only nccl does that on the device"
    return None


def prepare_launches(accelerator: Accelerator, model: nn.Module, compile: str) -> None:
    """What --compile asks for before `accelerator.prepare`."""
    if compile == "yes":
        model.compile()
    elif compile != "no" and accelerator.device.type == "cuda":
        # the default stream cannot be captured, and DistributedDataParallel keeps to the stream in which it was made
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        torch.cuda.set_stream(stream)


def step_graphs(accelerator: Accelerator, optimizer: torch.optim.Optimizer, order: BatchOrder, compile: str
                ) -> StepGraphs | None:
    """The graphs of a training, if --compile asks for them, its optimizer and its batches made ready; None without.

    A line says whether there are graphs, or why not. Under `auto` nothing is said on a machine without CUDA.
    """
    if compile not in ("graphs", "auto") or (compile == "auto" and accelerator.device.type != "cuda"):
        return None
    if reason := hindrance(accelerator, optimizer):
        accelerator.print(f"graphs: off, because {reason}")
        return None
    ready_for_graphs(optimizer)
    order.full_pools = True
    accelerator.print("graphs: on; the pool of frames is filled up to one size, which BatchNorm sees")
    return StepGraphs(warm_up=WARM_UP if accelerator.num_processes == 1 else WARM_UP_OF_DDP,
                      notify=accelerator.print)


def ready_for_graphs(optimizer: torch.optim.Optimizer) -> None:
    """Make each group's learning rate a tensor on the device of its weights, which `set_learning_rate` then fills."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
        group["capturable"] = True
