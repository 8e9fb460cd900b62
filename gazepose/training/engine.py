"""The two loops: `train_steps` trains a model for one epoch, `predict` scores every row once.

Both take objects that Accelerate has prepared, and neither reads or writes files.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gazepose import heartbeat, processes
from gazepose.keyed_random import keyed
from gazepose.models import Priors
from gazepose.models.folded import ready_to_score
from gazepose.processes import Preempted, waiting
from gazepose.progress import Progress
from gazepose.text import counted
from gazepose.training.augment import constant, mirror, to_model
from gazepose.training.config import LossRule, OptimConfig
from gazepose.training.graphs import StepGraphs
from gazepose.training.losses import global_loss, loss_parts
from gazepose.training.optim import gradient_norm, learning_rate, set_learning_rate, skip_unless_finite

READ_EVERY = 10                  # steps or batches of a GPU between two reads, which wait for its work


@dataclass(frozen=True)
class Step:
    """What one optimiser step did; equal on all processes, but for the times."""

    step: int
    lr: float
    seconds: float
    """mean of the steps that were read together"""
    waited: float
    """seconds of it in which the device had no data"""
    batches: int
    """batches that each process has had since the loader's start"""
    loss: float
    grad_norm: float
    samples: int
    """windows that the model learnt from, over all processes"""
    stopping: bool
    """some process was asked to stop"""

    @property
    def skipped(self) -> bool:
        """the gradient was not finite, so the weights did not move"""
        return not math.isfinite(self.grad_norm)


def read_interval(accelerator: Accelerator) -> int:
    """How many steps or batches pass between two reads: a CPU has computed its numbers anyway."""
    return 1 if accelerator.device.type == "cpu" else READ_EVERY


def train_steps(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, *,
                step: int, total: int, seed: int, loss: LossRule, optim: OptimConfig, epoch: int = 0,
                mirror_priors: bool = True, ahead: int = 0, save_every: int | None = None,
                stop: Callable[[], bool] = lambda: False, moved: Callable[[int], None] | None = None,
                graphs: StepGraphs | None = None) -> Iterator[list[Step]]:
    """Run the loader once, yielding the optimiser steps: each by itself on a CPU, up to READ_EVERY together on a GPU.

    Args:
        step: number of the first step.
        total: steps of the whole run, for the learning rate.
        epoch: for a learning rate that moves once per epoch.
        mirror_priors: as `to_model` takes it.
        ahead: how much further than its number a step is on the way to `total`, for the learning rate.
        save_every: also yield after every such step, so that the caller can save the weights of that step.
        stop: whether this process was asked to stop; each Step says whether any was.
        moved: called with the number of each step, when its weights have moved.
        graphs: what runs the batches on a GPU, from graphs.

    A step whose global gradient norm is not finite is skipped on all processes alike and says so.
    """
    interval, unread = read_interval(accelerator), []
    batches, count, micro, rate = batches_of(loader), 0, 0, 0.0
    learn = partial(learn_from, accelerator, model, optimizer, loss, optim.clip, mirror_priors, graphs is not None)
    began, waited, sums = time.perf_counter(), 0.0, None
    while True:
        ready = time.perf_counter()
        try:
            batch = next(batches, None)
        except Preempted:                        # the weights are those of the last step
            if unread:
                yield read_steps(unread, began)
            raise
        if batch is None:
            break
        waited, count = waited + time.perf_counter() - ready, count + 1
        with accelerator.accumulate(model):
            if micro == 0:
                rate = learning_rate(step + ahead, total, optim, epoch)
                set_learning_rate(optimizer, rate)
            # model dropout is a function of (seed, step, process)
            torch.manual_seed(int(keyed(seed, step, micro, accelerator.process_index)) >> 1)
            batch["stop"] = constant((float(stop()),), accelerator.device)[0]
            micro, ended = micro + 1, accelerator.sync_gradients
            # a step of fewer batches than the others, at the end of an epoch, has no graph of its own
            graph = graphs if not ended or micro == accelerator.gradient_accumulation_steps else None
            ends = micro if ended else 0
            figures, *norm = learn(batch, ends) if graph is None else graph.run(learn, batch, ends)
            sums = figures if sums is None else sums + figures
            if not ended:
                continue
            if moved is not None:
                moved(step)
        value, samples, stopping = sums
        unread.append((partial(Step, step=step, lr=rate, waited=waited, batches=count),
                       torch.stack([value / micro, *norm, samples, stopping])))
        step += 1
        if step % interval == 0 or step % (save_every or interval) == 0:
            yield read_steps(unread, began)
            began, unread = time.perf_counter(), []
        waited, micro, sums = 0.0, 0, None
    if unread:
        yield read_steps(unread, began)


def learn_from(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, loss: LossRule,
               clip: float, mirror_priors: bool, same_gradients: bool, batch: dict[str, Tensor], ends: int
               ) -> tuple[Tensor, ...]:
    """Add a batch's gradient; with the last batch of a step, move the weights. A CUDA graph captures this function.

    Args:
        same_gradients: set gradients to zero after the step, instead of removing their tensors.
        batch: of the loader; `stop` is for `global_loss`.
        ends: how many batches the step has, with its last one; 0 with the others.

    Returns:
        the figures of `global_loss` [3]; with the last batch also the gradient's norm [].
    """
    model.train()                                # the caller may have scored between two steps
    batch = to_model(batch, mirror_priors)
    with accelerator.autocast():
        logits, gaze = model(batch["frames"], batch["window"], Priors.of(batch))
    share, figures = global_loss(loss_parts(logits, gaze, batch, loss), loss, accelerator, batch["stop"])
    accelerator.backward(share)
    if not ends:
        return (figures,)
    if ends < accelerator.gradient_accumulation_steps:                # the last batches of an epoch, if they are fewer
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= accelerator.gradient_accumulation_steps / ends
    norm = gradient_norm(accelerator, model, clip)
    if accelerator.scaler is None:               # fp16's scaler skips the step by itself
        skip_unless_finite(optimizer, norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=not same_gradients)
    return figures, norm


def batches_of(loader: DataLoader) -> Iterator[Any]:
    """The batches of a loader.

    Raises:
        RuntimeError: a worker hangs, so the Watchdog of `command` has killed it. Overdue: the stop of a signal waits
            too long for a batch.
    """
    batches = None
    while True:
        try:
            with waiting():
                batches = batches or iter(loader)
                batch = next(batches, None)
        except (RuntimeError, OSError, EOFError):        # of torch, or from a queue whose worker is gone
            if not processes.killed:
                raise
            raise RuntimeError("no batch came: a loader worker hangs, or was stopped, and was killed -> look at the "
                               "disk and the memory of this machine, then start the same command again (a training: "
                               "with --resume --exp_path RUN)") from None
        if batch is None:
            return
        heartbeat.batches += 1
        yield batch


def read_steps(unread: list[tuple[Callable[..., Step], Tensor]], began: float) -> list[Step]:
    """Wait until the device has done some steps, and read all their figures at once.

    Args:
        unread: a Step that lacks its figures, and these: loss, gradient norm, samples, processes asked to stop; [4].
        began: when the first of them began.
    """
    figures = torch.stack([values for _, values in unread]).tolist()
    seconds = (time.perf_counter() - began) / len(unread)
    return [step(seconds=seconds, loss=loss, grad_norm=norm, samples=round(samples), stopping=stopping > 0)
            for (step, _), (loss, norm, samples, stopping) in zip(unread, figures, strict=True)]


class Scores(NamedTuple):
    """A model's outputs for some rows, in their order."""

    score: np.ndarray
    """probability of looking, float32 [N]"""
    gaze: np.ndarray | None
    """yaw, pitch and spread in radians, float32 [N, 3], where the model has that head"""
    plain: np.ndarray | None = None
    """of flip averaging: the score without the mirror, float32 [N]"""


def _columns(accelerator: Accelerator, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Probability of looking and, of a model with that head, yaw, pitch and spread of the gaze: [B, 1] or [B, 4]."""
    with accelerator.autocast():
        logits, gaze = model(batch["frames"], batch["window"], Priors.of(batch))
    score = logits.float().softmax(1)[:, 1:]                          # [B, 1]
    return score if gaze is None else torch.cat([score, gaze.float()], 1)


@torch.inference_mode()
def predict(accelerator: Accelerator, model: nn.Module, loader: DataLoader, rows: np.ndarray,
            stop: Callable[[], bool] | None = None, flip_average: bool = False) -> Scores:
    """Score every row once; the result is whole on all processes.

    Args:
        rows: the rows the loader covers, int64 [N] ascending.
        stop: whether this process was asked to stop; all processes give one, or none does.
        flip_average: score and gaze are the mean over the picture and its mirror.

    Raises:
        Preempted: some process was asked to stop; between two batches, on all alike.
        RuntimeError: a row is missing, was met twice, or has a score that is not finite.
    """
    model.eval()
    met, outputs = [], []
    with (ready_to_score(accelerator.unwrap_model(model)),
          Progress("scoring", len(loader), "batches", accelerator.print, rank=accelerator.process_index) as progress):
        for number, batch in enumerate(batches_of(loader)):
            if stop is not None and number % read_interval(accelerator) == 0:
                request = torch.full((), float(stop()), device=accelerator.device)
                if accelerator.reduce(request, reduction="sum") > 0:      # type: ignore[operator]
                    raise Preempted("in validation")
            met.append(batch["row"])
            batch = to_model(batch)
            columns = _columns(accelerator, model, batch)
            if flip_average:
                yaw_back = constant((1.0, -1.0, 1.0, 1.0), columns.device)[:columns.shape[1]]
                mirrored = _columns(accelerator, model, mirror(batch)) * yaw_back
                columns = torch.cat([(columns + mirrored) / 2, columns[:, :1]], 1)
            outputs.append(columns)
            progress.add(1)
    padded = [accelerator.pad_across_processes(torch.cat(part), pad_index=-1) for part in (met, outputs)]
    gathered: list[np.ndarray] = [accelerator.gather(part).cpu().numpy() for part in padded]  # type: ignore[union-attr]
    met, outputs = (part[gathered[0] >= 0] for part in gathered)      # not the fillers of the last batches
    order = np.argsort(met, kind="stable")
    if not np.array_equal(met[order], rows):
        raise RuntimeError(f"predicted {counted(len(met), 'row')}, {len(np.unique(met))} of them distinct, for "
                           f"{counted(len(rows), 'window')}. This is a fault of gazepose: please report it with this "
                           "line")
    if not np.isfinite(outputs).all():
        raise RuntimeError(f"{np.count_nonzero(~np.isfinite(outputs).all(1))} of {len(rows)} scores are not finite -> "
                           "the checkpoint's weights are damaged, or the precision is too low (try --mixed_precision "
                           "no)")
    columns = outputs[order]
    gaze = columns[:, 1:4] if columns.shape[1] >= 4 else None
    return Scores(columns[:, 0], gaze, columns[:, -1] if flip_average else None)
