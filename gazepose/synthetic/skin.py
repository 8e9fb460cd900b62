"""Maps of a person's skin: pores, moles, freckles, wrinkles, bags under the eyes; and of strands of hair.

A map of the skin lies on the face as seen from the front. paint.py reads it per sample.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from gazepose.synthetic.paint import HIGH, LEFT, MOUTH_W, MOUTH_Y, NOSTRIL_X, TEXEL, TOP, WIDE

LEVELS = 3  # each has half the resolution of the one before


@lru_cache(maxsize=8)
def _field(sigma: float) -> np.ndarray:
    """Noise with details of sigma metres and a spread of 1, float32 [768, 768]; the same in every process."""
    noise = np.random.default_rng(77).standard_normal((768, 768), np.float32)
    if sigma > 0:
        noise = cv2.GaussianBlur(noise, (0, 0), sigma / TEXEL, borderType=cv2.BORDER_REFLECT)
    return noise / noise.std()


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """A part of a field of noise, [HIGH, WIDE]."""
    y, x = rng.integers(0, 768 - HIGH), rng.integers(0, 768 - WIDE)
    return _field(sigma)[y:y + HIGH, x:x + WIDE]


def _cells(points: np.ndarray) -> np.ndarray:
    """Points x, y [n, 2] in metres -> places in the map, int32 in 1/16 cells."""
    return np.round((np.asarray(points) - [LEFT, TOP]) / [TEXEL, -TEXEL] * 16).astype(np.int32)


def _line(canvas: np.ndarray, points: np.ndarray, width: float, value: float) -> None:
    """A line through points (metres), fainter at both ends."""
    at, end = _cells(points)[:, None], max(1, len(points) // 4)
    for part, share in ((at, 0.4), (at[end:-end], 1.0)):
        cv2.polylines(canvas, [part], False, value * share, max(1, round(width / TEXEL)), cv2.LINE_8, 4)


def _dots(canvas: np.ndarray, rng: np.random.Generator, count: int, middle, spread, radius, value: float) -> None:
    """Dots around a place; the lower face and the forehead have them too."""
    for point in _cells(rng.normal(middle, spread, (count, 2))):
        size = int(16 * rng.uniform(*radius) / TEXEL)
        cv2.circle(canvas, point.tolist(), max(size, 6), value * rng.uniform(0.5, 1.0), -1, cv2.LINE_8, 4)


def make_skin(t: dict[str, float], paint: np.ndarray, beard: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Maps uint8 [h, w, 4], fine to coarse: brightness and redness (128: none), slope to the own left and up.

    Args:
        t: traits of the person; age, smile and the places of eyes and nose count.
        beard: 0 none, 1 stubble, 2 and more hair.
    """
    u, age, smile = rng.uniform, t["age"], t["smile"]
    eye_x, eye_y, my, mw = t["half_ipd"], t["eye_y"], paint[MOUTH_Y], paint[MOUTH_W]
    bright = u(0.006, 0.016) * _noise(rng, 0.0008) + u(0.008, 0.022) * _noise(rng, 0.006)
    red = u(0.010, 0.03) * _noise(rng, 0.009) + u(0.003, 0.012) * _noise(rng, 0.002)
    height = u(0.1, 0.4) * _noise(rng, 0.001)
    _dots(bright, rng, rng.poisson(3), (0, -0.01), (0.045, 0.045), (0.0004, 0.0012), -0.4)  # moles
    _dots(red, rng, rng.poisson(4 * (u() < 0.4)), (0, -0.01), (0.04, 0.05), (0.0007, 0.0018), 0.3)
    if u() < 0.16:
        _dots(bright, rng, int(u(60, 300)), (0, 0.0), (0.032, 0.018), (0.0003, 0.0008), -0.16)  # freckles
    lines = np.zeros_like(bright)
    old = max(0.0, age - 0.25) / 0.75
    along = np.linspace(-1, 1, 15)
    for k in range(int(rng.integers(2, 5)) if u() < 0.25 + old else 0):  # forehead
        bend = 0.003 * np.sin(3 * along + u(0, 6)) + 0.004 * (1 - along**2)
        across = u(0.022, 0.036) * along + u(-0.006, 0.006)
        _line(lines, np.stack([across, eye_y + 0.034 + 0.008 * k + bend], 1), 0.0012, -u(0.2, 1.0) * (0.3 + old))
    frown = u() * (u() < 0.3 + 0.4 * old)
    for side in (-1, 1):
        for k in range(3):  # crow's feet
            turn = -0.5 + 0.5 * k + u(-0.15, 0.15)
            far = 0.016 + np.linspace(0, u(0.008, 0.016), 6)
            _line(lines, np.stack([side * (eye_x + far * np.cos(turn)), eye_y + far * np.sin(turn)], 1), 0.0009,
                  -(0.8 * old * u(0.2, 1.0) + 0.6 * smile))
        _line(lines, np.stack([side * (0.006 + 0.001 * along), eye_y + 0.016 + 0.007 * along], 1), 0.0014, -frown)
        low = np.linspace(0, 1, 10)  # from the wing of the nose to beside the mouth
        x = 1.9 * paint[NOSTRIL_X] + (mw + 0.007 + 0.003 * smile - 1.9 * paint[NOSTRIL_X]) * low**0.7
        y = -0.024 + t["nose_y"] + (my + 0.002 + 0.024 - t["nose_y"]) * low
        _line(lines, np.stack([side * x, y], 1), 0.002, -(0.25 + 0.9 * old * u(0.4, 1.0) + 1.1 * smile))
        bag = np.linspace(-1, 1, 12)  # below the eye
        deep = 0.15 + 0.75 * old * u(0.2, 1.0) + 0.4 * smile + 0.3 * (u() < 0.2)
        _line(lines, np.stack([side * (eye_x - 0.003 + 0.011 * bag), eye_y - 0.0125 - 0.004 * (1 - bag**2)], 1), 0.0016,
              -deep)
        if u() < old:  # beside the chin
            _line(lines, np.stack([side * (mw + 0.003 + 0.003 * low), my - 0.006 - 0.02 * low], 1), 0.0016, -0.6 * old)
    lines = cv2.GaussianBlur(lines, (5, 5), 1.2)
    wide = cv2.GaussianBlur(cv2.resize(lines, (WIDE // 4, HIGH // 4), interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    wide = cv2.resize(wide, (WIDE, HIGH), interpolation=cv2.INTER_LINEAR)
    bright = bright + 0.14 * lines + 0.26 * wide
    height = height + 4.0 * lines + 5.0 * wide
    if beard:
        x, y = LEFT + TEXEL * (np.arange(WIDE) + 0.5), TOP - TEXEL * (np.arange(HIGH)[:, None] + 0.5)
        grown = np.clip((-0.036 - 0.2 * (np.abs(x) - 0.03) - y) / 0.01, 0, 1).astype(np.float32)
        bright = bright + grown * (0.03, 0.07)[beard > 1] * np.minimum(_noise(rng, 0.0008), 1.0)
    right, down = np.diff(height, axis=1, append=height[:, -1:]), np.diff(height, axis=0, append=height[-1:])
    channels = ((bright, 128), (red, 300), (right, -40), (down, 40))
    levels = [cv2.merge([cv2.convertScaleAbs(np.maximum(c, -128 / abs(k)), alpha=k, beta=128) for c, k in channels])]
    for _ in range(LEVELS - 1):
        half = levels[-1]
        levels.append(cv2.resize(half, (half.shape[1] // 2, half.shape[0] // 2), interpolation=cv2.INTER_AREA))
    return levels


@lru_cache(maxsize=1)
def hair_strands() -> list[np.ndarray]:
    """Maps of strands of hair that run down, uint8 [n, n], fine to coarse; the same for everybody."""
    noise = cv2.copyMakeBorder(_field(0.0)[:256, :256], 64, 64, 64, 64, cv2.BORDER_WRAP)
    long = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.6, sigmaY=24)
    lock = cv2.GaussianBlur(noise, (0, 0), sigmaX=4, sigmaY=30)
    both = (long / long.std() + 0.8 * lock / lock.std())[64:-64, 64:-64]
    fine = np.clip(128 * (1 + 0.14 * both), 40, 230).astype(np.uint8)
    return [fine, *(cv2.resize(fine, (n, n), interpolation=cv2.INTER_AREA) for n in (128, 64))]
