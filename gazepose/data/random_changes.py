"""Random changes of training pictures, as functions of their keys: where a picture is cut, and how it looks.

The numbers are drawn here; training/augment.py and training/photometric.py change the pixels.
"""

import numpy as np

from gazepose.keyed_random import uniform

# The purpose of a draw is one of its keys; data/windows.py has 0 to 2.
_CROP, _LOOK, _NOISE, _ZOOM = 3, 4, 5, 6
CROP_SCALE = (0.8, 1.0)          # area of the random crop; published training
CROP_ASPECT = (3 / 4, 4 / 3)     # its width to height
CROP_TRIES = 10
ZOOM_OUT = (0.5, 1.35)           # chance that a crop is made larger, also past the picture, and the most
LOOKS: dict[str, tuple[float, float, float, float]] = {
    "brightness": (0.8, -0.2, 0.2, 0.0),         # added to levels of 0 to 1
    "contrast": (0.8, 0.6, 1.4, 1.0),            # factor around the level of one half
    "colour": (0.6, 0.4, 1.6, 1.0),              # factor of the saturation
    "grey": (0.1, 0.0, 0.0, 1.0),                # another one
    "red": (0.4, 0.85, 1.18, 1.0),               # factors: the colour of the light
    "blue": (0.4, 0.85, 1.18, 1.0),
    "gamma": (0.5, 0.6, 1.6, 1.0),               # exponent
    "blur_x": (0.3, 0.002, 0.025, 0.0),          # sigma, in parts of the picture
    "blur_y": (0.3, 0.002, 0.025, 0.0),
    "pixels": (0.4, 24.0, 64.0, np.inf),         # side that the picture is reduced to, and enlarged again from
    "noise": (0.4, 0.0, 0.05, 0.0),              # standard deviation
    "quality": (0.5, 20.0, 90.0, 100.0),         # of JPEG
    "cover": (0.2, 0.15, 0.4, 0.0),              # side of a square that hides a part of the picture
    "cover_x": (1.0, 0.0, 1.0, 0.0),             # its centre
    "cover_y": (1.0, 0.0, 1.0, 0.0),
    "cover_level": (1.0, 0.0, 1.0, 0.0),         # its grey
    "oval": (0.5, 0.35, 0.6, np.inf),            # half width of an oval; what lies outside becomes random colours
    "scene": (1.0, 0.0, 1.0, 0.0),               # which colours
}
"""amounts of a look, by name: chance that it is drawn, least, most, and its value otherwise"""


def random_crops(keys: np.ndarray, seed: int, epoch: int, size: int, zoom_out: bool = False) -> np.ndarray:
    """One crop for each key: x, y of its corner and width, height, as parts of the picture; float32 [n, 4].

    As torchvision's RandomResizedCrop draws them: area uniform in CROP_SCALE, aspect log-uniform in CROP_ASPECT, sides
    and corner in whole pixels of a square picture of `size`. Where a side is longer than the picture, all is drawn
    again. After CROP_TRIES the whole picture is taken, since its aspect lies within the range.

    Args:
        zoom_out: a part of them grow about their centres, as boxes do that are larger than those of training.
    """
    crops = np.tile(np.array([0, 0, size, size]), (len(keys), 1))
    pending = np.arange(len(keys))                       # have no crop that fits yet
    for attempt in range(CROP_TRIES):
        area, aspect, x, y = (uniform(seed, epoch, _CROP, keys[pending], 4 * attempt + number) for number in range(4))
        area, aspect = np.interp(area, (0, 1), CROP_SCALE), np.exp(np.interp(aspect, (0, 1), np.log(CROP_ASPECT)))
        width, height = np.rint(size * np.sqrt([area * aspect, area / aspect]))
        drawn = np.stack([x * (size - width + 1), y * (size - height + 1), width, height], axis=1)
        fits = np.maximum(width, height) <= size
        crops[pending[fits]] = np.floor(drawn[fits])
        pending = pending[~fits]
    if zoom_out:
        drawn, amount = (uniform(seed, epoch, _ZOOM, keys, number) for number in range(2))
        factor = np.where(drawn < ZOOM_OUT[0], 1 + (ZOOM_OUT[1] - 1) * amount, 1.0)[:, None]
        corner, side = crops[:, :2], crops[:, 2:]
        crops = np.concatenate([corner - side * (factor - 1) / 2, side * factor], axis=1)
    return (crops / size).astype(np.float32)


def random_looks(keys: np.ndarray, rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """How each picture looks: float32 [n, len(LOOKS) + 1], the amounts of LOOKS in their order, and where in the table
    of noise it starts, 0 to 1.

    Args:
        keys: int64 [n]; pictures of equal keys look alike, but for the noise.
        rows: int64 [n]; which picture it is.
    """
    chance, least, most, otherwise = np.array([*LOOKS.values()]).T                        # [L] each
    numbers = 2 * np.arange(len(LOOKS))
    drawn, amount = (uniform(seed, epoch, _LOOK, keys[:, None], numbers + second) for second in (0, 1))
    looks = np.where(drawn < chance, least + (most - least) * amount, otherwise)          # [n, L]
    noise = uniform(seed, epoch, _NOISE, keys, rows)
    return np.concatenate([looks, noise[:, None]], axis=1).astype(np.float32)
