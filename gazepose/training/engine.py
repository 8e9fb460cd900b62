"""Two verbs: `train_steps` moves a model along one epoch, `predict` scores every row once.

Both take what Accelerate has prepared and know nothing of files.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gazepose.keyed_random import keyed
from gazepose.models import Priors
from gazepose.processes import Preempted
from gazepose.training.augment import constant, mirror, to_model
from gazepose.training.optim import OptimConfig, learning_rate, set_learning_rate, skip_unless_finite

GAZE_QUANTILES = (0.1, 0.9)      # of Gaze360's pinball loss


@dataclass(frozen=True)
class LossRule:
    """What a step minimises: `label` times the weighted cross entropy plus `gaze` times the pinball loss."""

    class_weights: tuple[float, float] = (1.0, 1.0)
    """of not looking (0) and looking (1)"""
    label: float = 1.0
    gaze: float = 0.0


@dataclass(frozen=True)
class Step:
    """What one optimiser step did; equal on all processes. What the device says of it is read when it is asked for,
    which waits until the step is done; `train_steps` itself is never more than one step ahead."""

    step: int
    lr: float
    seconds: float
    waited: float
    """seconds of it in which the device had no data"""
    batches: int
    """batches that each process has had since the loader's start"""
    read: Callable[[], list[float]]
    """loss, gradient norm, windows, processes that were asked to stop"""

    @cached_property
    def _said(self) -> list[float]:
        return self.read()

    @property
    def loss(self) -> float:
        return self._said[0]

    @property
    def grad_norm(self) -> float:
        return self._said[1]

    @property
    def skipped(self) -> bool:
        """the gradient was not finite, so the weights did not move"""
        return not math.isfinite(self.grad_norm)

    @property
    def samples(self) -> int:
        """windows that were learnt from, over all processes"""
        return round(self._said[2])

    @property
    def stopping(self) -> bool:
        """some process was asked to stop"""
        return self._said[3] > 0


def leaving(values: Tensor) -> Callable[[], list]:
    """Send a tensor to the host without waiting for it; the result does that, and not for anything that comes later."""
    if not values.is_cuda:
        return values.tolist
    host, there = values.to("cpu", non_blocking=True), torch.cuda.Event()
    there.record()

    def read() -> list:
        there.synchronize()
        return host.tolist()
    return read


def pinball(gaze: Tensor, target: Tensor) -> Tensor:
    """Gaze360's loss of each row, [B]: the 10 % and 90 % quantiles lie `spread` below and above the angle.

    Args:
        gaze: [B, 3] yaw, pitch, spread in radians.
        target: [B, 2] yaw, pitch in radians, finite.

    Source: Kellnhofer et al., Gaze360, ICCV 2019, section 4.
    """
    error = target - gaze[:, :2]
    spread = gaze[:, 2:]
    low, high = GAZE_QUANTILES
    below, above = error + spread, error - spread
    return (torch.maximum(low * below, (low - 1) * below) + torch.maximum(high * above, (high - 1) * above)).mean(1)


def loss_parts(logits: Tensor, gaze: Tensor | None, batch: dict[str, Tensor], rule: LossRule) -> Tensor:
    """Sums over this process's rows: weighted label loss, its weights, gaze loss, its rows, rows learnt from; [5].

    Rows whose label is -1 or whose gaze is NaN add nothing.
    """
    known = batch["label"] >= 0
    label = batch["label"].clamp(min=0)
    weights = constant(rule.class_weights, logits.device)[label] * known
    entropy = F.cross_entropy(logits.float(), label, reduction="none")
    parts = [(entropy * weights).sum(), weights.sum()]
    used = known
    if gaze is None:
        parts += [entropy.new_zeros(()), entropy.new_zeros(())]
    else:
        seen = torch.isfinite(batch["gaze"]).all(1) & (batch["row"] >= 0)
        target = torch.where(seen[:, None], batch["gaze"], 0.0)
        parts += [(pinball(gaze.float(), target) * seen).sum(), seen.sum().float()]
        used = (known & (rule.label > 0)) | (seen & (rule.gaze > 0))
    return torch.stack([*parts, used.sum().float()])


def global_loss(parts: Tensor, rule: LossRule, accelerator: Accelerator, stop: bool = False) -> tuple[Tensor, Tensor]:
    """Loss to differentiate, and over all processes its value, the windows it came from, and how many ask to stop, [3].

    DistributedDataParallel averages gradients over the processes, so each one's sum is divided by the mean of all
    weights: the step is that of one process with the whole batch.
    """
    parts_and_stop = F.pad(parts.detach(), (0, 1), value=float(stop))
    total: Tensor = accelerator.reduce(parts_and_stop, reduction="sum")  # type: ignore[assignment]
    share = 0.0 * parts.sum()       # every output takes part in every step, which DistributedDataParallel relies on
    value = total.new_zeros(())
    for factor, part in ((rule.label, 0), (rule.gaze, 2)):
        if factor:
            known = total[part + 1] > 0                               # nothing here waits for the device to say
            weight = torch.where(known, total[part + 1], 1.0)
            share = share + torch.where(known, factor * parts[part] * accelerator.num_processes / weight, 0.0)
            value = value + torch.where(known, factor * total[part] / weight, 0.0)
    return share, torch.stack([value, total[4], total[5]])


def train_steps(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, *,
                step: int, total: int, seed: int, loss: LossRule, optim: OptimConfig, epoch: int = 0,
                mirror_priors: bool = True, ahead: int = 0,
                stop: Callable[[], bool] = lambda: False) -> Iterator[Step]:
    """Run the loader once, yielding after each optimiser step.

    Args:
        step: number of the first step.
        total: steps of the whole run, for the learning rate.
        epoch: for a learning rate that moves once per epoch.
        mirror_priors: as `to_model` takes it.
        ahead: how much further than its number a step is on the way to `total`, for the learning rate.
        stop: whether this process was asked to stop; each Step says whether any was.

    A step whose global gradient norm is not finite is skipped on all processes alike and says so.
    """
    began, waited, micro, said = time.perf_counter(), 0.0, 0, torch.zeros(3, device=accelerator.device)
    batches, done, rate, before = iter(loader), 0, 0.0, None
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        waited, done = waited + time.perf_counter() - asked, done + 1
        model.train()                            # the caller may have scored between two steps
        with accelerator.accumulate(model):
            if micro == 0:
                rate = learning_rate(step + ahead, total, optim, epoch)
                set_learning_rate(optimizer, rate)
            # model dropout is a function of (seed, step, process)
            torch.manual_seed(int(keyed(seed, step, micro, accelerator.process_index)) >> 1)
            batch = to_model(batch, mirror_priors)
            with accelerator.autocast():
                logits, gaze = model(batch["frames"], batch["window"], Priors.of(batch))
            share, figures = global_loss(loss_parts(logits, gaze, batch, loss), loss, accelerator, stop())
            accelerator.backward(share)
            said, micro = said + figures, micro + 1
            if not accelerator.sync_gradients:
                continue
            norm = accelerator.clip_grad_norm_(model.parameters(), optim.clip or math.inf)
            norm = said.new_zeros(()) if norm is None else norm.float()
            if accelerator.scaler is None:       # fp16's scaler skips the step by itself
                skip_unless_finite(optimizer, norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        read = leaving(torch.stack([said[0] / micro, norm, said[1], said[2]]))
        if before is not None:
            before()
        now, before = time.perf_counter(), read
        yield Step(step, rate, now - began, waited, done, read)
        step += 1
        began, waited, micro, said = time.perf_counter(), 0.0, 0, torch.zeros_like(said)


class Scores(NamedTuple):
    """What a model says of some rows, aligned with them."""

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
        stop: whether this process was asked to stop; the same for all, or None.
        flip_average: score and gaze are the mean of what is said of the picture and of its mirror.

    Raises:
        Preempted: some process was asked to stop; between two batches, on all alike.
        RuntimeError: a row missing, met twice, or with a score that is not finite.
    """
    model.eval()
    seen, said, stopping = [], [], None
    for batch in loader:
        if stop is not None:
            # what was said one batch ago, so that nobody waits for the device
            if stopping is not None and stopping():
                raise Preempted("in validation")
            asked = torch.full((), float(stop()), device=accelerator.device)
            stopping = leaving(accelerator.reduce(asked, reduction="sum"))  # type: ignore[arg-type]
        seen.append(batch["row"])
        batch = to_model(batch)
        columns = _columns(accelerator, model, batch)
        if flip_average:
            yaw_back = constant((1.0, -1.0, 1.0, 1.0), columns.device)[:columns.shape[1]]
            mirrored = _columns(accelerator, model, mirror(batch)) * yaw_back
            columns = torch.cat([(columns + mirrored) / 2, columns[:, :1]], 1)
        said.append(columns)
    padded = [accelerator.pad_across_processes(torch.cat(part), pad_index=-1) for part in (seen, said)]
    gathered: list[np.ndarray] = [accelerator.gather(part).cpu().numpy() for part in padded]  # type: ignore[union-attr]
    seen, said = (part[gathered[0] >= 0] for part in gathered)        # not the fillers of the last batches
    order = np.argsort(seen, kind="stable")
    if not np.array_equal(seen[order], rows):
        raise RuntimeError(f"predicted {len(seen)} rows, {len(np.unique(seen))} of them distinct, for {len(rows)} "
                           "windows: every row must be met exactly once -> this is a fault of the loader")
    if not np.isfinite(said).all():
        raise RuntimeError(f"{np.count_nonzero(~np.isfinite(said).all(1))} of {len(rows)} scores are not finite -> the "
                           "checkpoint's weights are damaged, or the precision is too low (try --mixed_precision no)")
    said = said[order]
    return Scores(said[:, 0], said[:, 1:4] if said.shape[1] >= 4 else None, said[:, -1] if flip_average else None)
