"""The optimiser's parameter groups, and the learning rate as a function of the step."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

PERIOD = 10                      # epochs of the published cosine, after which it rises again


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move."""

    lr: float = 1e-4
    """highest learning rate"""
    min_lr: float = 5e-6
    """learning rate at the end of the cosine"""
    schedule: Literal["step", "epoch"] = "step"
    """step: one cosine over the run; epoch: as published, a cosine of ten epochs that moves once per epoch"""
    warmup: float = 0.0
    """part of all steps over which the learning rate rises from zero"""
    weight_decay: float = 0.0
    """decoupled weight decay of matrices and kernels; biases, norms and queries have none"""
    clip: float = 0.0
    """clip the gradient to this norm; 0: no clipping"""
    backbone_lr: float = 1.0
    """the backbone's learning rate as a multiple of the others'"""
    freeze_backbone: bool = False
    """do not train the backbone, and keep its BatchNorm statistics; a step then takes a third of the time"""

    def __post_init__(self) -> None:
        if not 0 < self.lr < 10:
            raise ValueError(f"--lr {self.lr} -> give a learning rate above 0 and below 10")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup {self.warmup} -> give a part of the steps, 0 to below 1")
        if self.warmup and self.schedule == "epoch":
            raise ValueError(f"warmup {self.warmup}: the schedule epoch has none -> use warmup 0")
        if not all(0 <= value < math.inf for value in (self.min_lr, self.weight_decay, self.clip, self.backbone_lr)):
            raise ValueError("--min_lr, --clip, weight_decay or backbone_lr is out of range -> give 0 or more")


def learning_rate(step: int, total: int, config: OptimConfig, epoch: int = 0) -> float:
    """Learning rate of a step (0 to total - 1) of an epoch (from 0): linear warm-up, then half a cosine from lr down to
    min_lr. Under schedule epoch the cosine is one of the epoch alone."""
    floor = min(config.min_lr, config.lr)
    warm = round(config.warmup * total)
    if config.schedule == "epoch":
        done = epoch / PERIOD
    elif step < warm:
        return config.lr * (step + 1) / (warm + 1)
    else:
        done = min(1.0, (step - warm) / max(1, total - warm))
    return floor + (config.lr - floor) * (1 + math.cos(math.pi * done)) / 2


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW over the parameters that need a gradient; without weight decay it is Adam.

    Each group has `scale`: its learning rate is that multiple of `learning_rate`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            table = "queries" in name or name == "contents"
            decay = config.weight_decay if parameter.ndim >= 2 and not table else 0.0
            scale = config.backbone_lr if ".backbone." in name else 1.0
            groups.setdefault((decay, scale), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "weight_decay": decay, "scale": scale}
         for (decay, scale), parameters in groups.items()],
        lr=config.lr, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its multiple of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def skip_unless_finite(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
    """Make the next step of `make_optimizer`'s change nothing if the gradient's norm is not finite.

    The fused kernels read `found_inf` on the device, as they do for the scaler of fp16; the host does not wait.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)             # under Accelerate's wrapper
    optimizer.found_inf = (~norm.isfinite()).float()                   # type: ignore[attr-defined]
