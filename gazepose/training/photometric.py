"""How a face looks to a camera, on the device: light, colour, blur, small size, noise, JPEG, and something before it.

Nothing here is random: data/random_changes.py draws the amounts. All pictures of a batch are changed together, each by
its own amounts; blur, size and JPEG's cosines are linear along rows and columns, so they are two matrices.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gazepose.data.random_changes import LOOKS

LUMA = (0.299, 0.587, 0.114)
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
SHARP = 0.2                      # sigma in pixels of a blur that does nothing
NOISE_STARTS = 1 << 16           # places in the table of noise
SPOTS = 6                        # colours along a side of what surrounds a face
TALLER = 1.25                    # height to width of the oval that is kept
# JPEG's tables of quality 50 (ITU T.81, annex K), as the libraries use them.
BRIGHTNESS_STEPS = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
                    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
                    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)
COLOUR_STEPS = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
                47, 66, *(99,) * 38)


@functools.cache
def constant(values: Sequence[Any], device: torch.device) -> Tensor:
    """Numbers as float32 on a device. They are copied once, since a copy waits for all earlier work."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)


@torch.no_grad()
def change_look(pixels: Tensor, look: Tensor) -> Tensor:
    """Change how pictures look.

    Args:
        pixels: float [F, 3, H, W], levels 0 to 1.
        look: float [F, len(LOOKS) + 1] as of `random_looks`.

    Returns:
        [F, 3, H, W], levels 0 to 1.
    """
    amounts = dict(zip(LOOKS, look.unbind(1), strict=False))              # [F] each
    pixels = surround(pixels, amounts["oval"], amounts["scene"])
    pixels = cover(pixels, *(amounts[name] for name in ("cover", "cover_x", "cover_y", "cover_level")))
    pixels = change_colour(pixels, amounts).clamp(0, 1) ** amounts["gamma"][:, None, None, None]
    height, width = pixels.shape[-2:]
    rows, rows_back = reduction(height, amounts["pixels"], amounts["blur_y"])             # [F, h, H], [F, H, h]
    columns, columns_back = reduction(width, amounts["pixels"], amounts["blur_x"])        # [F, w, W], [F, W, w]
    # as in JPEG, a middle grey is zero
    ycc = torch.einsum("dc,fchw->fdhw", constant(TO_YCC, pixels.device), pixels - 0.5)
    waves = rows[:, None] @ ycc @ columns[:, None].transpose(-1, -2) * 255                # [F, 3, h, w]
    waves = waves + 255 * amounts["noise"][:, None, None, None] * noise(waves, look[:, -1])
    waves = quantised(waves, amounts["quality"])
    ycc = rows_back[:, None] @ waves @ columns_back[:, None].transpose(-1, -2) / 255
    return (torch.einsum("dc,fchw->fdhw", constant(FROM_YCC, pixels.device), ycc) + 0.5).clamp(0, 1)


def surround(pixels: Tensor, radius: Tensor, scene: Tensor) -> Tensor:
    """Put soft random colours outside an upright oval in the middle, so that only the face itself can be learnt from.

    Args:
        pixels: [F, 3, H, W]. radius: half the oval's width [F], parts of the picture; inf: nothing is changed.
        scene: which colours [F], 0 to 1.
    """
    colours = 0.5 + 0.3 * noise(pixels.new_empty(len(pixels), 3, SPOTS, SPOTS), scene)
    colours = F.interpolate(colours, pixels.shape[-2:], mode="bilinear", align_corners=False).clamp(0, 1)
    across, down = ((torch.arange(count, device=pixels.device) + 0.5) / count - 0.5 for count in pixels.shape[:1:-1])
    distance = across ** 2 + ((down / TALLER) ** 2)[:, None]             # [H, W]
    return torch.where((distance > radius[:, None, None] ** 2)[:, None], colours, pixels)


def cover(pixels: Tensor, side: Tensor, x: Tensor, y: Tensor, level: Tensor) -> Tensor:
    """Hide a square of each picture behind a grey; side, x and y [F] in parts of the picture, 0: nothing is hidden."""
    across, down = ((torch.arange(count, device=pixels.device) + 0.5) / count for count in pixels.shape[:1:-1])
    hidden_x = (across - x[:, None]).abs() < side[:, None] / 2            # [F, W]
    hidden_y = (down - y[:, None]).abs() < side[:, None] / 2              # [F, H]
    return torch.where((hidden_y[:, :, None] & hidden_x[:, None])[:, None], level[:, None, None, None], pixels)


def change_colour(pixels: Tensor, amounts: dict[str, Tensor]) -> Tensor:
    """Saturation, colour of the light, contrast and brightness: one 3 x 3 matrix and one offset for each picture."""
    luma, one = constant(LUMA, pixels.device), torch.ones_like(amounts["red"])
    colour = (amounts["colour"] * amounts["grey"])[:, None, None]         # [F, 1, 1]
    mixed = colour * torch.eye(3, device=pixels.device) + (1 - colour) * luma             # [F, 3, 3]
    light = torch.stack([amounts["red"], one, amounts["blue"]], 1)        # [F, 3]
    contrast = amounts["contrast"][:, None]                               # [F, 1]
    offset = 0.5 - 0.5 * contrast + amounts["brightness"][:, None]        # [F, 1]
    matrix = (contrast * light)[:, :, None] * mixed                       # [F, 3, 3]
    return torch.baddbmm(offset[:, :, None], matrix, pixels.flatten(2)).view(pixels.shape)


def reduction(size: int, side: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices: one blurs an axis, reduces it to `side` cells and takes JPEG's cosines; the other goes back.

    Args:
        size: pixels of the axis. side: cells [F], more than `size` means `size`. blur: sigma [F], parts of the axis.

    Returns:
        [F, n, size] and [F, size, n]; n is `size`, made a multiple of 8. Cells from `side` on repeat the last.
    """
    count = -(-size // 8) * 8
    cells = side.clamp(max=size).round()[:, None, None]                   # [F, 1, 1]
    cell = torch.arange(count, device=side.device)[:, None].minimum(cells - 1)            # [F, n, 1]
    pixel = torch.arange(size, device=side.device) + 0.0                  # [size]
    variance = SHARP ** 2 + (blur[:, None, None] * size) ** 2 + ((size / cells - 1) / 2) ** 2
    distance = (cell + 0.5) * size / cells - 0.5 - pixel                  # [F, n, size]
    # a CPU takes much longer for numbers too small to be normal
    down = torch.exp((-distance ** 2 / (2 * variance)).clamp(min=-60))    # [F, n, size]
    down = down / down.sum(2, keepdim=True)
    place = ((pixel[:, None] + 0.5) * cells / size - 0.5).clamp(min=0).minimum(cells - 1) # [F, size, 1]
    column = torch.arange(count, device=side.device)
    up = (1 - (place - column).abs()).clamp(min=0) * (column < cells)                     # [F, size, n]
    cosines = block_cosines(count, side.device)
    return cosines @ down, up @ cosines.T


@functools.cache
def block_cosines(count: int, device: torch.device) -> Tensor:
    """The orthonormal cosine transform of each eight cells of an axis: [count, count]."""
    wave, cell = torch.arange(8.0)[:, None], torch.arange(8.0)
    cosines = torch.cos((2 * cell + 1) * wave * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    return torch.block_diag(*[cosines] * (count // 8)).to(device)


def noise(like: Tensor, start: Tensor) -> Tensor:
    """Normal noise of the shape of `like` [F, ...], from place `start` [F] (0 to 1) of a table."""
    each = like[0].numel()
    first = (start * NOISE_STARTS).long()[:, None]
    places = first + torch.arange(each, device=like.device)               # [F, each]
    return _noise_table(each, like.device)[places].view(like.shape)


@functools.cache
def _noise_table(each: int, device: torch.device) -> Tensor:
    return torch.randn(NOISE_STARTS + each, generator=torch.Generator().manual_seed(0)).to(device)


def quantised(waves: Tensor, quality: Tensor) -> Tensor:
    """Round cosines as JPEG does; waves [F, 3, h, w] of levels 0 to 255, quality [F] of 1 to 100."""
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)     # [F]
    steps = (_steps(waves.shape[-2], waves.shape[-1], waves.device) * scale[:, None, None, None]).round().clamp(min=1)
    return (waves / steps).round() * steps


@functools.cache
def _steps(height: int, width: int, device: torch.device) -> Tensor:
    """The step of each cosine at quality 50: [3, height, width]."""
    tables = torch.tensor([BRIGHTNESS_STEPS, COLOUR_STEPS, COLOUR_STEPS]).view(3, 8, 8)
    return tables.repeat(1, height // 8, width // 8).float().to(device)
