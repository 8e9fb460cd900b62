"""Every frame of every window through the backbone, float32, channels first, torch's own layers, plain Adam."""

import copy
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazepose.models import Priors, layer_gradients


def as_windows(frames: Tensor, window: Tensor) -> Tensor:
    """Seven copies of pixels per window, [B, T, 3, H, W], from a normalised pool [F, 3, H, W] and its indices."""
    return frames[window].contiguous()


def plain_model(model: nn.Module) -> nn.Module:
    """A copy with the same weights, channels first."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)                  # type: ignore[call-overload]


def unshared(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Windows [B, T, 3, H, W] as a pool [B * T, 3, H, W] that shares nothing, and the indices [B, T] into it."""
    return windows.flatten(0, 1), torch.arange(windows.shape[0] * windows.shape[1]).view(windows.shape[:2])


@torch.no_grad()
def scores(model: nn.Module, windows: Tensor, priors: Priors) -> Tensor:
    """Probability of looking, [B], of normalised windows [B, T, 3, H, W].

    Under no_grad: what the model leaves out or folds while it scores belongs to torch.inference_mode.
    """
    model.eval()
    return model(*unshared(windows), priors).logits.softmax(1)[:, 1]


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, windows: Tensor, priors: Priors,
               label: Tensor, class_weights: Tensor) -> float:
    """One step of plain Adam on the weighted cross entropy, in float32; the loss."""
    model.train()
    with patch.object(layer_gradients, "usable", return_value=False):
        logits = model(*unshared(windows), priors).logits
    loss = F.cross_entropy(logits, label, weight=class_weights)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
