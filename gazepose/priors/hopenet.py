"""Hopenet: head pose from a crop, by a checkpoint file of one's own (Ruiz et al. 2018).

ResNet50 whose pooled vector goes to 66 bins of 3 degrees for each of yaw, pitch and roll. What the bins mean, and
the signs, are head_pose.py. The network is torchvision's: its names are those of the public files.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from gazepose.io import read_tensors
from gazepose.priors.head_pose import BINS, expected_angle, from_hopenet

ANGLES = ("yaw", "pitch", "roll")


class Hopenet(nn.Module):
    """crops, uint8 [B, 3, H, W] RGB -> logits of yaw, pitch, roll, float [B, 3, 66]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = resnet50(weights=None)
        self.features.fc = nn.Identity()                                  # type: ignore[assignment]
        self.heads = nn.ModuleDict({name: nn.Linear(2048, BINS) for name in ANGLES})
        # 224 x 224 and ImageNet's statistics, as Hopenet was trained; the enum names a preset, nothing is fetched
        self.prepare = ResNet50_Weights.IMAGENET1K_V1.transforms(resize_size=224)

    def forward(self, crops: Tensor) -> Tensor:
        vector = self.features(self.prepare(crops))                       # [B, 2048]
        return torch.stack([self.heads[name](vector) for name in ANGLES], dim=1)


def read_hopenet(path: Path) -> tuple[Hopenet, list[str]]:
    """The network of a file (torch.save or safetensors), ready to be asked, and what was left of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable without running code, or not Hopenet on ResNet50; names the first keys that differ.
    """
    state = _read(path)
    model = Hopenet()
    wanted = {key.removeprefix("features.").replace("heads.", "fc_"): key for key in model.state_dict()}
    own = model.state_dict()
    counted = {name for name in wanted if name.endswith("num_batches_tracked")}        # older files have none
    differences = {
        "missing": [name for name in wanted if name not in state and name not in counted],
        "of another shape": [name for name, key in wanted.items()
                             if name in state and state[name].shape != own[key].shape],
        "not finite": [name for name, value in state.items() if name in wanted and not value.isfinite().all()]}
    if any(differences.values()):
        named = "; ".join(f"{what}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                          for what, names in differences.items() if names)
        raise ValueError(f"{path}: not Hopenet's ResNet50 with heads of {BINS} bins ({named}) -> give a snapshot of "
                         "Hopenet (conv1 to layer4, fc_yaw, fc_pitch, fc_roll); angles of other networks come in by "
                         "`python -m gazepose priors import head_pose FILE`")
    model.load_state_dict({key: state[name] for name, key in wanted.items() if name in state}, strict=False)
    return model.eval(), [name for name in state if name not in wanted]


@torch.inference_mode()
def estimate_head_pose(model: Hopenet, crops: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll in degrees with the index's signs; uint8 [B, H, W, 3] -> float32 [B, 3]."""
    device = next(model.parameters()).device
    logits = model(torch.from_numpy(crops).permute(0, 3, 1, 2).to(device))
    return from_hopenet(expected_angle(logits.float().cpu().numpy())).astype(np.float32)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without the prefix of DataParallel."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint -> give a Hopenet snapshot of your own; none is fetched")
    try:
        with open(path, "rb") as file:
            safe = file.read(9)[8:] == b"{"                               # a safetensors file begins with its header
        content = read_tensors(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:                                            # what damaged bytes do to a reader is open
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint of tensors ({detail}) -> save its state_dict alone") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: no state_dict of tensors inside -> save one with torch.save")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
