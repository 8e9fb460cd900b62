"""The optimiser's parameter groups, and the learning rate as a function of the step."""

import math

import torch
from accelerate import Accelerator
from torch import nn

from gazepose.training.config import OptimConfig

PERIOD = 10                      # epochs of the published cosine, after which it rises again


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
    """Give every group its multiple of `lr`. A tensor, which a CUDA graph reads (graphs.py), stays the same tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr * group["scale"])
        else:
            group["lr"] = lr * group["scale"]


def gradient_norm(accelerator: Accelerator, model: nn.Module, clip: float) -> torch.Tensor:
    """The norm of all gradients, [], float32; they are scaled down to `clip` if it is above 0 and below the norm."""
    if clip:
        norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    else:
        accelerator.unscale_gradients()
        norm = torch.nn.utils.get_total_norm(weight.grad for weight in model.parameters() if weight.grad is not None)
    return torch.zeros((), device=accelerator.device) if norm is None else norm.float()


def skip_unless_finite(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
    """Make the next step of `make_optimizer`'s change nothing if the gradient's norm is not finite.

    The fused kernels read `found_inf` on the device, as they do for the scaler of fp16; the host does not wait.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)             # under Accelerate's wrapper
    optimizer.found_inf = (~(norm < math.inf)).float()                   # type: ignore[attr-defined]
