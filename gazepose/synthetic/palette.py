"""Palettes: the colours that skin, hair, irises and clothes are chosen from, as linear reflectances."""

import numpy as np


def rgb(*v: float) -> np.ndarray:
    """Linear reflectance of a display colour 0..255 (gamma 2, like the square root that shows it)."""
    return (np.array(v, float) / 255.0) ** 2


def palette(colours: str) -> list[np.ndarray]:
    return [rgb(*bytes.fromhex(c)) for c in colours.split()]


SKINS = palette("f7d9c4 f0c8ac e4b896 d6a47e c48e68 aa7452 8f5f43 744d38 5c3d2e")
HAIRS = palette("1c1818 2c211d 422e22 60422c 7e5a3a b08a58 d8ba82 8e4222 969492 ceccc8")
IRISES = palette("3a2416 4e321c 684824 5c6034 486c54 4c7096 6a8aa0 626c74")
CLOTHES = palette(
    "262a36 3c424e 787c82 ceccc6 eceae4 283a5c 4a648a 7a3030 964634 3e5842 606e4a a89270 "
    "705846 c8a860 664c70 1c1c1e a6bccc be8c8c"
)
