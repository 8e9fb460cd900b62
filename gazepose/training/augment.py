"""Changes to a batch on the device: uint8 to normalised floats; flips and crops of pixels, gaze and priors.

Nothing here is random: the batch says which crops are flipped, where they are cut, and how they look (photometric.py).
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gazepose.training.photometric import change_look, constant

# ImageNet statistics, which timm's and Gaze360's weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MIRRORED_LANDMARKS = (0, 2, 1, 4, 3)         # a mirrored face swaps left and right


@functools.cache
def mean_and_scale(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What `normalise` subtracts from a row of pixels of 0..255, and what it multiplies it with; [width * 3] each."""
    with torch.inference_mode(False):
        mean, std = (constant(values, device).repeat(width) * 255 for values in (MEAN, STD))
        return mean, 1 / std


def normalise(frames: Tensor) -> Tensor:
    """uint8 [F, 3, H, W] to float32 of the same shape, channels last, zero mean and unit variance of ImageNet."""
    mean, scale = mean_and_scale(frames.shape[3], frames.device)
    rows = frames.permute(0, 2, 3, 1).flatten(2)         # [F, H, W * 3]; long rows take a third of the time on a CPU
    return (rows - mean).mul_(scale).unflatten(2, (-1, 3)).permute(0, 3, 1, 2)


def warp(frames: Tensor, flip: Tensor, crop: Tensor) -> Tensor:
    """Cut each frame at its crop, stretch it to the old size bilinearly, mirror it where `flip` says.

    Args:
        frames: float [F, 3, H, W].
        flip: bool [F].
        crop: float [F, 4], x, y of the corner and width, height, as parts of the picture.
    """
    corner, size = crop.split(2, dim=1)                                                    # [F, 2] each
    (width, height), (x, y) = size.unbind(1), (2 * corner + size - 1).unbind(1)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.where(flip, -width, width), zero, x, zero, height, y], 1).unflatten(1, (2, 3))
    grid = F.affine_grid(theta, list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)


def move_landmarks(landmarks: Tensor, flip: Tensor, crop: Tensor) -> Tensor:
    """Landmarks [B, 5, 3] (x, y as 0..1 of the crop, confidence; NaN unknown) after `warp` of their frame."""
    corner, size = crop[:, None].split(2, dim=2)                                           # [B, 1, 2] each
    moved = torch.cat([(landmarks[..., :2] - corner) / size, landmarks[..., 2:]], 2)
    swapped = torch.stack([moved[:, place] for place in MIRRORED_LANDMARKS], 1)
    mirrored = swapped * constant((-1.0, 1.0, 1.0), moved.device) + constant((1.0, 0.0, 0.0), moved.device)
    return torch.where(flip[:, None, None], mirrored, moved)


def turn(signs: Sequence[float], values: Tensor, flip: Tensor, crop: Tensor) -> Tensor:
    """Numbers [B, n] after `warp` of their frame: a mirror multiplies them by `signs` [n], a crop changes nothing."""
    return torch.where(flip[:, None], values * constant(signs, values.device), values)


# How what is known of a face moves with its pixels: (values [B, ...], flip [B], crop [B, 4]) -> values. A prior that
# has no entry here looks the same in a mirror.
MOVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "gaze": functools.partial(turn, (-1.0, 1.0)),
    "head_pose": functools.partial(turn, (-1.0, 1.0, -1.0)),
    "landmarks": move_landmarks}


def to_model(batch: dict[str, Tensor], mirror_priors: bool = True) -> dict[str, Tensor]:
    """A loader's batch, on its device, as the model takes it: `frames` float and, if they are pixels, normalised.

    Features of frames (float16) become float and do not change otherwise. If the batch has `flip` and `crop`,
    pixels, gaze and priors move together (MOVES): a row takes the flip and crop of its centre frame. If it has `look`,
    the pixels are changed so.

    Args:
        mirror_priors: False leaves the priors as they are, as the published training did (quirk 34).
    """
    frames = batch["frames"]
    batch = {**batch, "frames": normalise(frames) if frames.dtype == torch.uint8 else frames.float()}
    if "flip" not in batch:
        return batch
    flip, crop = batch.pop("flip"), batch.pop("crop")
    batch["frames"] = warp(batch["frames"], flip, crop)
    if "look" in batch:
        mean, std = (constant(values, flip.device).view(1, 3, 1, 1) for values in (MEAN, STD))
        pixels = change_look(batch["frames"] * std + mean, batch.pop("look"))
        batch["frames"] = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    centre = batch["window"][:, batch["window"].shape[1] // 2]
    flip, crop = flip[centre], crop[centre]
    for name, move in MOVES.items():
        if mirror_priors or name == "gaze":
            batch[name] = move(batch[name], flip, crop)
    return batch


def mirror(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch as `to_model` gives it, seen in a mirror: pixels, gaze and priors of all rows.

    Columns of pixels change places, so the mirror of the mirror is bit-identical. Priors are mirrored even where
    training did not (`mirror_priors`): a mirrored face with mirrored priors is a face like any other.
    """
    every = torch.ones(len(batch["gaze"]), dtype=torch.bool, device=batch["gaze"].device)
    whole = constant((0.0, 0.0, 1.0, 1.0), every.device).expand(len(every), 4)
    moved = {name: move(batch[name], every, whole) for name, move in MOVES.items()}
    return {**batch, "frames": batch["frames"].flip(3), **moved}
