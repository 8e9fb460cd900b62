"""The bare head: its surface, with nose, sockets, lips and chin, and the colour of its skin.

Tables over HEAD_Y (rows) and HEAD_PHI (columns), head frame, metres, before a person's size. Hair is hair.py; what is
painted on the surface (eyes, brows, lips) features.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.features import EYE_R, MOUTH_W, MOUTH_Y
from gazepose.synthetic.mesh import bump, curve, ring, step, warp

EYE_Z = 0.0665  # metres from the ears forward to the eyes' centres, before a person's size
HEAD_PHI = warp(128, [(1.0, 0.6), (0.22, 0.9)])
TOP = 0.045


def _head_rows() -> np.ndarray:
    top = TOP + (0.130 - TOP) * np.sin(np.linspace(math.pi / 2, 0.0, 25))
    chin = -0.086 - 0.014 * np.sin(np.linspace(0, math.pi / 2, 13)[1:])
    return np.concatenate([top, np.linspace(TOP, -0.086, 69)[1:], chin])


HEAD_Y = _head_rows()  # 105 rows, odd so that every second one still closes the head


def section(y: np.ndarray, t: dict[str, float]) -> tuple[np.ndarray, ...]:
    """half width, front z, back z, middle z, power of the head's section at height y (no features)."""
    top = np.clip((y - TOP) / (0.130 - TOP), 0, 1)
    cap = np.clip((-0.086 - y) / 0.014, 0, 1)
    close = np.sqrt(np.maximum(1 - top**2.15, 0)) * np.sqrt(np.maximum(1 - cap**2, 0))
    ys = [0.046, 0.020, -0.010, -0.040, -0.060, -0.075, -0.087]
    jaw = t["jaw"]
    half = [0.0765, 0.0748, 0.0715 * t["cheek"], 0.0645 * jaw**0.6, 0.0570 * jaw, 0.0468 * jaw, 0.0375 * t["chin"]]
    half = curve(y, ys, half)
    front = curve(y, ys, [0.0915, 0.0885, 0.0865, 0.0880, 0.0872, 0.0868, 0.0855 + t["chin_out"]])
    back = curve(y, ys, [-0.100, -0.102, -0.095, -0.074, -0.045, -0.012, 0.012])
    middle = curve(y, ys, [-0.010, -0.005, 0.004, 0.014, 0.022, 0.032, 0.042])
    power = curve(y, ys, [2.3, 2.3, 2.3, 2.25, 2.2, 2.1, 2.0])
    middle = middle + (1 - close) * 0.004
    return half * close, middle + (front - middle) * close, middle + (back - middle) * close, middle, power


@dataclass
class Face:
    """The head's tables [rows, cols] while they are made."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray  # bare skin
    ax: np.ndarray  # |x|
    front: np.ndarray  # 1 on the face, 0 behind
    nose_side: np.ndarray  # half width of the nose at each height
    outward: np.ndarray  # [rows, cols, 3]
    p: np.ndarray  # [rows, cols, 3] with hair
    mask: np.ndarray  # 1 where hair covers the skin
    hair: np.ndarray  # [rows, cols, 3] its colour
    albedo: np.ndarray  # [rows, cols, 3] of the skin


def surface(t: dict[str, float], paint: np.ndarray) -> Face:
    """The bare head: lofted sections, then nose, sockets, brows, cheeks, lips and chin raised or sunk along z."""
    row_y = HEAD_Y[:, None]
    x, z = ring(HEAD_PHI[None], *section(row_y, t))
    y = row_y + step(-0.03, -0.09, row_y) * 0.42 * np.maximum(0.062 - z, 0)  # the jaw rises towards the ears
    ax, front = np.abs(x), step(0.015, 0.05, z)
    my, mw, ny, eye_x, eye_y, nw = paint[MOUTH_Y], paint[MOUTH_W], t["nose_y"], t["half_ipd"], t["eye_y"], t["nose_w"]
    at = [0.040, 0.030, 0.018, 0.0, -0.018, -0.0255, -0.031, -0.0355, -0.041]
    profile = [0.0, 0.002 * t["bridge"], 0.0045 * t["bridge"], 0.0125, 0.0225, 0.0245, 0.013, 0.002, 0.0]
    ridge = t["nose"] * curve(y - ny, at, profile)
    at = [0.040, 0.018, 0.0, -0.018, -0.027, -0.036]
    nose_side = nw * curve(y - ny, at, [0.013, 0.0078, 0.0085, 0.0100, 0.0108, 0.012])
    d = ridge * np.exp(-((ax / nose_side) ** 2.2))
    for height, cx, cy, sx, sy in (
        (0.0070 * t["nose"], 0.0135 * nw, -0.0265 + ny, 0.0052, 0.0062),  # wings of the nose
        (-0.0075, eye_x, eye_y, 0.019, 0.014),  # socket
        (-0.0055, 0.0145, eye_y + 0.003, 0.007, 0.012),  # inner corner
        (0.0045 * t["brow"], 0.027, eye_y + 0.019, 0.022, 0.008),
        (0.0045 * t["bone"], 0.046, -0.010, 0.018, 0.016),  # cheekbone
        (-0.0030, 0.045, -0.045, 0.014, 0.020),  # hollow below it
        (0.0050, 0.0, my + 0.003, 0.028, 0.020),  # muzzle
        (0.0035 * t["lips"], 0.0, my + 0.0055, mw * 0.75, 0.0045),
        (0.0045 * t["lips"], 0.0, my - 0.006, mw * 0.65, 0.005),
        (-0.0030, 0.0, my, mw * 0.9, 0.0022),
        (-0.0045, 0.0, -0.071, 0.019, 0.0055),  # below the lip
        (0.0045, 0.0, -0.088, 0.017, 0.010),  # chin
    ):
        d += height * bump(ax, y, cx, cy, sx, sy)
    z = z + d * front
    # lids: the skin may not sink below the eyeball's cover
    r2 = (ax - eye_x) ** 2 + (y - eye_y) ** 2
    cover = EYE_Z + np.sqrt(np.maximum((paint[EYE_R] + 0.0012) ** 2 - r2, 0))
    z = np.where((r2 < (paint[EYE_R] + 0.0005) ** 2) & (z > 0), np.maximum(z, cover), z)
    p = np.stack([x, y, z], -1)
    outward = p - np.array([0.0, 0.02, -0.005])
    outward /= np.sqrt(np.einsum("ijk,ijk->ij", outward, outward))[..., None]
    none = np.zeros_like(p)
    return Face(x, y, z, ax, front, nose_side, outward, p, np.zeros_like(x), none, none)


def add_complexion(face: Face, t: dict[str, float], skin: np.ndarray, rng: np.random.Generator) -> None:
    """Colour of the bare skin, with the shade that hollows keep whatever the light."""
    u = rng.uniform
    ax, y, front, ny, age = face.ax, face.y, face.front, t["nose_y"], t["age"]
    eye_x, eye_y = t["half_ipd"], t["eye_y"]
    red = u(0.02, 0.16) * front * (bump(ax, y, 0.042, -0.022, 0.018, 0.016) + bump(ax, y, 0, -0.02, 0.012, 0.012))
    dark = 0.34 * bump(ax, y, eye_x - 0.008, eye_y + 0.004, 0.014, 0.009)
    dark += 0.22 * bump(ax, y, eye_x, eye_y - 0.002, 0.02, 0.016)
    dark += 0.30 * bump(ax, y, 0.006, -0.0340 + ny, 0.010, 0.0035) + 0.22 * bump(ax, y, 0, -0.070, 0.018, 0.005)
    beside = np.exp(-(((ax - face.nose_side * 1.6) / 0.005) ** 2))
    dark += 0.10 * beside * step(0.02, 0.0, y) * step(-0.036, -0.028, y)
    fold = np.exp(-(((ax - 0.017 + 0.55 * (0.030 + y)) / 0.0035) ** 2))  # from the nose to beside the mouth
    dark += (0.04 + 0.22 * age * u(0.3, 1.0)) * fold * step(-0.058, -0.048, y) * step(-0.022, -0.032, y)
    dark += 0.15 * age * bump(ax, y, eye_x - 0.004, eye_y - 0.016, 0.011, 0.0035)
    below = step(-0.085, -0.100, HEAD_Y)[:, None] * step(0.075, 0.04, face.z)
    grain = rng.standard_normal(ax.shape)
    shade = (1 - front * dark) * (1 - 0.45 * below) * (1 + 0.02 * grain)
    if u() < 0.2:
        shade *= 1 - 0.12 * np.clip(grain - 1, 0, 1) * front * step(0.035, 0.0, y)  # freckles
    face.albedo = skin * shade[..., None] * (1 - red[..., None] * np.array([0.0, 1.6, 1.3]))
