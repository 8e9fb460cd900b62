"""The head: its surface, with nose, sockets, lips and chin; the colour of its skin; hair, beard, cap and scarf.

Tables over HEAD_Y (rows) and HEAD_PHI (columns), head frame, metres, before a person's size. What is painted on the
surface (eyes, brows, lips) is paint.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.mesh import HAIR, TWO_SIDED, WRAPS, Grid, bump, curve, ramp, ring, warp
from gazepose.synthetic.paint import MOUTH_W, MOUTH_Y

EYE_Z = 0.0665  # metres from the ears forward to the eyes' centres, before a person's size
HEAD_PHI = warp(128, [(1.0, 0.6), (0.22, 0.9)])
TOP = 0.045
_C, _S = math.cos(math.radians(10)), math.sin(math.radians(10))
LEVEL = np.array([[1.0, 0.0, 0.0], [0.0, _C, _S], [0.0, -_S, _C]])
"""face frame -> head frame: a level head has the face built here tilted up, as estimators of head pose define level"""
BALD, CROPPED, SHORT, FULL, WAVY, CAP = range(6)  # kinds of hair


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
    return half * close * t["wide"], middle + (front - middle) * close, middle + (back - middle) * close, middle, power


@dataclass
class Surface:
    """Tables of a head's surface, [rows, cols]; filled one after another."""

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


def surface(t: dict[str, float], paint: np.ndarray, eye_r: float) -> Surface:
    """The bare head: sections from top to chin, then nose, sockets, brows, cheeks, lips and chin along z."""
    row_y = HEAD_Y[:, None]
    x, z = ring(HEAD_PHI[None], *section(row_y, t))
    y = row_y + ramp(-0.03, -0.09, row_y) * 0.42 * np.maximum(0.062 - z, 0)  # the jaw rises towards the ears
    ax, front = np.abs(x), ramp(0.015, 0.05, z)
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
        (0.0050 * t["smile"], 0.036, -0.022, 0.014, 0.012),  # cheek, raised by a smile
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
    cover = EYE_Z + np.sqrt(np.maximum((eye_r + 0.0012) ** 2 - r2, 0))
    z = np.where((r2 < (eye_r + 0.0005) ** 2) & (z > 0), np.maximum(z, cover), z)
    p = np.stack([x, y, z], -1)
    outward = p - np.array([0.0, 0.02, -0.005])
    outward /= np.sqrt(np.einsum("ijk,ijk->ij", outward, outward))[..., None]
    none = np.zeros_like(p)
    return Surface(x, y, z, ax, front, nose_side, outward, p, np.zeros_like(x), none, none)


def add_complexion(face: Surface, t: dict[str, float], skin: np.ndarray, rng: np.random.Generator) -> None:
    """Colour of the bare skin, with the shade of hollows, which does not depend on the light."""
    u = rng.uniform
    ax, y, front, ny, age = face.ax, face.y, face.front, t["nose_y"], t["age"]
    eye_x, eye_y = t["half_ipd"], t["eye_y"]
    red = u(0.02, 0.16) * front * (bump(ax, y, 0.042, -0.022, 0.018, 0.016) + bump(ax, y, 0, -0.02, 0.012, 0.012))
    dark = 0.34 * bump(ax, y, eye_x - 0.008, eye_y + 0.004, 0.014, 0.009)
    dark += 0.22 * bump(ax, y, eye_x, eye_y - 0.002, 0.02, 0.016)
    dark += 0.30 * bump(ax, y, 0.006, -0.0340 + ny, 0.010, 0.0035) + 0.22 * bump(ax, y, 0, -0.070, 0.018, 0.005)
    beside = np.exp(-(((ax - face.nose_side * 1.6) / 0.005) ** 2))
    dark += 0.20 * beside * ramp(0.02, 0.0, y) * ramp(-0.036, -0.028, y)
    fold = np.exp(-(((ax - 0.017 + 0.55 * (0.030 + y)) / 0.0035) ** 2))  # from the nose to beside the mouth
    dark += (0.04 + 0.22 * age * u(0.3, 1.0)) * fold * ramp(-0.058, -0.048, y) * ramp(-0.022, -0.032, y)
    dark += 0.15 * age * bump(ax, y, eye_x - 0.004, eye_y - 0.016, 0.011, 0.0035)
    below = ramp(-0.085, -0.100, HEAD_Y)[:, None] * ramp(0.075, 0.04, face.z)
    grain = rng.standard_normal(ax.shape)
    shade = (1 - front * dark) * (1 - 0.45 * below) * (1 + 0.02 * grain)
    if u() < 0.2:
        shade *= 1 - 0.12 * np.clip(grain - 1, 0, 1) * front * ramp(0.035, 0.0, y)  # freckles
    shade *= 1 + 0.10 * front * bump(ax, y, 0.0, 0.056, 0.045, 0.022)  # the forehead is lighter
    face.albedo = skin * shade[..., None] * (1 - red[..., None] * np.array([0.0, 1.6, 1.3]))


# ---- hair, beards, caps and scarves

@dataclass
class HairStyle:
    """Which hair, cap or scarf a person has."""

    cap: int
    scarf: bool
    big: bool  # stands off on all sides
    long: bool
    fringe: bool
    recede: float


def hair_style(t: dict[str, float], rng: np.random.Generator) -> HairStyle:
    u = rng.uniform
    male = t["male"] > 0
    cap = int(rng.choice(6, p=[0.06, 0.16, 0.34, 0.24, 0.14, 0.06] if male else [0.0, 0.02, 0.2, 0.3, 0.42, 0.06]))
    scarf = cap == CAP and not male and u() < 0.6
    big = cap == WAVY and u() < 0.2 + 0.3 * (t["tone"] > 0.6)
    long = cap in (SHORT, FULL, WAVY) and not big and u() < (0.10 if male else 0.8)
    fringe = cap in (SHORT, FULL, WAVY) and u() < (0.16 if male else 0.28)
    return HairStyle(cap, scarf, big, long, fringe, u() * (t["age"] > 0.5) * male)


def add_hair(face: Surface, style: HairStyle, t: dict[str, float], colour: np.ndarray, rng: np.random.Generator
             ) -> float:
    """Raise and colour the head where hair, a knitted cap or a scarf covers it; returns the thickness in metres."""
    u = rng.uniform
    cap, phi = style.cap, HEAD_PHI[None]
    deg = np.degrees(np.minimum(phi, 2 * math.pi - phi))
    side = np.where(phi < math.pi, 1.0, -1.0)
    at = [0, 22, 42, 56, 66, 74, 84, 93, 104, 122, 180]  # forehead, temple, ear, nape
    line = curve(deg, at, [0.0, 0.0, -0.006, -0.03, -0.065, -0.09, -0.096, -0.082, -0.108, -0.134, -0.138])
    line = line + u(0.073, 0.085) - u(-0.006, 0.006) * np.exp(-((deg / 9) ** 2))
    line = line + 0.025 * style.recede * (1 + 0.5 * np.cos(np.radians(deg * 4)))
    if style.fringe:
        line = line - ramp(62, 40, deg) * u(0.024, 0.034) * (1 + 0.25 * np.cos(np.radians(deg * 2) * side + u(0, 6)))
    if cap == CAP:
        line = 0.052 - (0.17 * ramp(35, 75, deg) if style.scarf else 0.045 * ramp(40, 110, deg))
    if cap == BALD:
        line = line + 0.05 * ramp(75, 50, deg) + 0.03
    noise = rng.standard_normal(phi.shape)
    streak = (noise + np.roll(noise, 1)) * 0.7
    arc = 0.085 * ((np.roll(phi, -1) - np.roll(phi, 1)) % (2 * math.pi))
    slope = (np.roll(line, -1) - np.roll(line, 1)) / arc
    edge = (np.minimum(face.y, HEAD_Y[:, None] + 0.012) - line) / np.sqrt(1 + slope**2)  # metres across the hairline
    if cap != CAP:
        edge = edge + 0.0007 * streak
    mask = ramp(-0.001, 0.0035, edge) * (cap != BALD or u() < 0.5)
    thick = (0.002, 0.003, u(0.009, 0.015), u(0.014, 0.024), u(0.014, 0.026), 0.007 if style.scarf else 0.009)[cap]
    thick += u(0.015, 0.03) * style.big
    grow = ramp(0.0, 0.008 if cap == CAP else 0.03, edge) * (0.55 + 0.45 * ramp(-0.06, 0.06, face.y))
    f1, f2, f3 = rng.integers(5, 11, 3)
    if cap == WAVY:
        waves = np.sin(f1 * phi + 60 * face.y + u(0, 6)) * np.sin(90 * face.y + f2 * phi)
    else:
        waves = 0.5 * np.sin(f3 * phi + 25 * face.y) + 0.25 * streak
    lift = mask * thick * (0.25 + 0.75 * grow) * (1 + (0.0, 0.0, 0.22, 0.22, 0.30, 0.0)[cap] * waves)
    face.p = face.p + lift[..., None] * face.outward
    if cap in (SHORT, FULL) and not style.fringe:
        parting = np.exp(-(((face.x - u(-0.04, 0.04)) / 0.006) ** 2)) * ramp(0.05, 0.1, face.y)
        face.p[..., 1] -= 0.004 * mask * parting
    knitted = 1 + 0.1 * np.sin(40 * phi) + 0 * waves
    shade = knitted if cap == CAP else np.clip(1 + 0.16 * streak + 0.10 * waves, 0.45, 1.7)
    face.hair = colour * (shade * (0.55 + 0.45 * ramp(0.0, 0.012, edge)))[..., None]
    face.mask = mask
    return thick


def add_beard(face: Surface, t: dict[str, float], paint: np.ndarray, hair: np.ndarray, rng: np.random.Generator
              ) -> int:
    """Colour the skin where a beard grows; a full beard also raises it.

    Returns: 0 none, 1 stubble, 2 full, 3 moustache, 4 goatee.
    """
    kind = int(rng.choice(5, p=[0.45, 0.2, 0.15, 0.12, 0.08]))
    if kind == 0:
        return kind
    ax, y, my, mw = face.ax, face.y, paint[MOUTH_Y], paint[MOUTH_W]
    lower = ramp(-0.045 - 0.35 * (ax - 0.03), -0.055 - 0.35 * (ax - 0.03), y)
    lip = 1.5 * np.exp(-(((y - my - 0.0115 + 9.6 * ax**2) / 0.0048) ** 2)) * ramp(mw + 0.006, mw - 0.004, ax)
    beside = bump(ax, y, mw + 0.004, my - 0.008, 0.007, 0.02)
    full = lower * ramp(0.0, 0.02, face.z) + lip + beside
    goatee = 1.6 * bump(ax, y, 0, -0.085, 0.022, 0.02) + lip + beside
    cover = (0.45 * full, 0.92 * full, 1.2 * lip, 0.9 * goatee)[kind - 1]
    bare_lip = np.exp(-((ax / (0.95 * mw)) ** 4) - ((y - my + 0.0005) / (0.0078 * t["lips"] ** 0.5)) ** 4)
    most = (0.45, 0.92, 0.95, 0.9)[kind - 1]
    cover = np.minimum(cover, most) * (1 + 0.06 * rng.standard_normal(ax.shape)) * (1 - 0.95 * bare_lip)
    cover = np.clip(cover, 0, 1)[..., None]
    face.albedo = face.albedo * (1 - cover) + 0.9 * hair * cover
    if kind == 2:
        grown = rng.uniform(0.003, 0.012) * lower * ramp(0.0, 0.03, face.z)
        face.p = face.p + grown[..., None] * face.outward * np.array([0.6, 1.0, 1.0])
    return kind


def head_grid(face: Surface, paint: np.ndarray, style: HairStyle, oily: float) -> Grid:
    """The finished head, hair included."""
    mask = face.mask[..., None]
    my, beyond = paint[MOUTH_Y], 0.02 * ramp(paint[MOUTH_W] * 0.7, paint[MOUTH_W] * 1.7, face.ax)
    jaw = ramp(my + 0.003 + beyond, my - 0.004 - beyond, face.y) * ramp(-0.03, 0.05, face.z)
    shiny = bump(face.ax, face.y, 0.0, 0.055, 0.035, 0.02) + bump(face.ax, face.y, 0.0, -0.002, 0.009, 0.035)
    shiny = 0.4 + 0.6 * shiny + 0.6 * bump(face.ax, face.y, 0.043, -0.004, 0.014, 0.012)
    gloss = 0.13 * oily * shiny * (1 - face.mask) + (0.0 if style.cap == CAP else 0.12) * face.mask
    albedo = face.albedo * (1 - mask) + face.hair * mask
    kind = np.where(face.mask < 0.4, 1, 0 if style.cap == CAP else HAIR).astype(np.uint8)
    return Grid(face.p, albedo, WRAPS, jaw=jaw, gloss=gloss, kind=kind)


def curtain(
    t: dict[str, float], colour: np.ndarray, thick: float, rng: np.random.Generator, wavy: bool, scarf: bool
) -> Grid:
    """Long hair or a scarf: a sheet around the sides and the back of the head, open at the face."""
    u = rng.uniform
    length = -0.17 if scarf else u(-0.24, -0.08)
    y = np.linspace(0.095, length, 29)[:, None]
    # where it starts beside the face
    start = 1.0 - 0.12 * ramp(0.0, -0.08, y) if scarf else 1.24 - u(0.05, 0.50) * ramp(0.03, -0.08, y)
    phi = math.pi + (math.pi - start) * np.linspace(-1, 1, 49)[None]
    half, front, back, middle, power = section(np.maximum(y, 0.012), t)
    low = ramp(0.02, -0.12, y)
    strand = rng.standard_normal(49)[None]
    strand = 0.7 * (strand + np.roll(strand, 1)) * (not scarf)
    wave = np.sin(70 * y + strand) if wavy else 0.3 * strand
    th = (thick * (0.85 + 0.2 * low) + 0.003) * ramp(0.096, 0.075, y) - 0.002
    th = th * (0.3 + 0.7 * ramp(0.0, 0.45, math.pi - start - np.abs(phi - math.pi)))
    x, z = ring(phi, half + th, front + th * 0.5, back - th, middle, power)
    spread = 1 + low * ((-0.12 if scarf else u(-0.06, 0.12)) + (0.06 if wavy else 0.03) * wave)
    z = middle + (z - middle) * spread - 0.008 * low
    if scarf:  # drawn together under the chin
        z = z + 0.035 * low * np.maximum(np.cos(phi), 0)
    q = np.stack([x * spread, y + 0.015 * low * np.abs(strand), z], -1)
    shade = np.clip(1 + 0.2 * strand + 0.12 * wave, 0.5, 1.6) * (1 - 0.25 * low)
    upright = -0.8 * ramp(0.0, -0.16, y) + 0 * x
    return Grid(q, colour * shade[..., None] + 0 * q, TWO_SIDED, hang=upright, gloss=0.0 if scarf else 0.12,
                kind=0 if scarf else HAIR)


def ball(centre: tuple[float, float, float], radius: float, colour: np.ndarray, rng: np.random.Generator) -> Grid:
    """A bun of hair."""
    phi = np.linspace(0, 2 * math.pi, 20, endpoint=False)[None]
    up = np.linspace(math.pi / 2, -math.pi / 2, 13)[:, None]
    r = radius * (1 + 0.06 * np.sin(5 * phi + 6 * up))
    q = np.stack([r * np.cos(up) * np.sin(phi), r * 0.9 * np.sin(up), r * np.cos(up) * np.cos(phi)], -1)
    q = q + np.array(centre)
    shade = np.clip(1 + 0.15 * rng.standard_normal(phi.shape), 0.6, 1.5)
    return Grid(q, colour * shade[..., None] + 0 * q, WRAPS, gloss=0.1, kind=HAIR)
