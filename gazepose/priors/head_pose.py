"""Head pose from a crop by Hopenet, or from five landmarks by a common face.

Hopenet (Ruiz et al., Fine-Grained Head Pose Estimation Without Keypoints, 2018) is a ResNet50 whose pooled vector goes
to 66 bins of 3 degrees for each of yaw, pitch and roll. You give its checkpoint. Signs: data/head_angles.py.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from gazepose.data.head_angles import from_hopenet, head_angles
from gazepose.tensor_files import read_torch_file

BINS = 66                    # of 3 degrees, from -99
ANGLES = ("yaw", "pitch", "roll")
FACE = np.array([[0, -37.5, 34], [31.5, 0, 0], [-31.5, 0, 0], [24.6, -69.6, 2], [-24.6, -69.6, 2]], np.float64)
"""A common face's nose tip, left and right eye, left and right mouth corner, in mm [5, 3]: MediaPipe's canonical face,
from the middle of the eyes. Axes of the head: x to the person's left, y up, z forward."""
FOCAL = 5.0                  # heights of the crop: a face of 20 cm seen from one metre


# ---- Hopenet

class Hopenet(nn.Module):
    """crops, uint8 [B, 3, H, W] RGB -> logits of yaw, pitch, roll, float [B, 3, 66]."""

    def __init__(self) -> None:
        from torchvision.models import ResNet50_Weights, resnet50  # a second, which only this needs
        super().__init__()
        self.features = resnet50(weights=None)                            # its names are those of the public files
        self.features.fc = nn.Identity()                                  # type: ignore[assignment]
        self.heads = nn.ModuleDict({name: nn.Linear(2048, BINS) for name in ANGLES})
        # 224 x 224 and ImageNet's statistics, as Hopenet was trained; the enum names a preset, nothing is downloaded
        self.prepare = ResNet50_Weights.IMAGENET1K_V1.transforms(resize_size=224)

    def forward(self, crops: Tensor) -> Tensor:
        vector = self.features(self.prepare(crops))                       # [B, 2048]
        return torch.stack([self.heads[name](vector) for name in ANGLES], dim=1)


def read_hopenet(path: Path) -> tuple[Hopenet, list[str]]:
    """The network of a file (torch.save or safetensors), in evaluation mode, and the file's entries it does not use.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable without running code, or not Hopenet on ResNet50; names the first entries that differ.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint -> give your own Hopenet snapshot; none is downloaded")
    state = read_torch_file(path)
    model = Hopenet()
    own = model.state_dict()
    key_of = {key.removeprefix("features.").replace("heads.", "fc_"): key for key in own}
    optional = {name for name in key_of if name.endswith("num_batches_tracked")}       # older files have none
    differences = {
        "missing": [name for name in key_of if name not in state and name not in optional],
        "of another shape": [name for name, key in key_of.items()
                             if name in state and state[name].shape != own[key].shape]}
    if any(differences.values()):
        listed = "; ".join(f"{fault}: {', '.join(names[:3] + [f'and {len(names) - 3} more'] * (len(names) > 3))}"
                           for fault, names in differences.items() if names)
        raise ValueError(f"{path}: not Hopenet's ResNet50 with heads of {BINS} bins ({listed}) -> give a snapshot of "
                         "Hopenet (conv1 to layer4, fc_yaw, fc_pitch, fc_roll); import the angles of other networks "
                         "with `python -m gazepose priors import head_pose FILE`")
    model.load_state_dict({key: state[name] for name, key in key_of.items() if name in state}, strict=False)
    return model.eval(), [name for name in state if name not in key_of]


@torch.inference_mode()
def estimate_head_pose(model: Hopenet, crops: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll in degrees with the index's signs; uint8 [B, H, W, 3] -> float32 [B, 3]."""
    device = next(model.parameters()).device
    logits = model(torch.from_numpy(crops).permute(0, 3, 1, 2).to(device))
    return from_hopenet(expected_angle(logits.float().cpu().numpy())).astype(np.float32)


def expected_angle(logits: np.ndarray) -> np.ndarray:
    """Hopenet's angle: the mean of its bins under their softmax.

    Args:
        logits: float [..., 66].

    Returns:
        Degrees in -99..96, float64 [...].
    """
    logits = np.asarray(logits, np.float64)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return 3 * (weight @ np.arange(BINS)) / weight.sum(axis=-1) - 99


# ---- from landmarks

def pose_from_landmarks(landmarks: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """Head pose of a common face whose five points fall on the landmarks (OpenCV: SQPnP, then Levenberg-Marquardt).

    The camera looks straight at the crop from afar, so the angles are against the line of sight.

    Args:
        landmarks: nose, left eye, right eye, left and right mouth corner, each x, y in 0..1 of the crop and a
            confidence (not read), float [n, 5, 3]; NaN unknown.
        aspect: width to height of the box of each crop, float [n]; NaN is taken as square.

    Returns:
        Yaw, pitch, roll in degrees, float32 [n, 3]; NaN where a landmark is unknown or no face fits.
    """
    turns = np.full((len(landmarks), 3, 3), np.nan)
    points = np.asarray(landmarks[..., :2], np.float64) - 0.5
    points[..., 0] *= np.where(np.isnan(aspect), 1.0, aspect)[:, None]
    camera = np.diag([FOCAL, FOCAL, 1.0])
    for n in np.flatnonzero(np.isfinite(points).all(axis=(1, 2))).tolist():
        try:
            fits, turn, shift = cv2.solvePnP(FACE, points[n], camera, None, flags=cv2.SOLVEPNP_SQPNP)
        except cv2.error:                                                 # the five points lie in one place
            continue
        if not fits or shift[2, 0] <= 0:
            continue
        turn, shift = cv2.solvePnPRefineLM(FACE, points[n], camera, None, turn, shift)
        if np.isfinite(turn).all() and shift[2, 0] > 0:
            turns[n] = cv2.Rodrigues(turn)[0]
    return head_angles(turns).astype(np.float32)
