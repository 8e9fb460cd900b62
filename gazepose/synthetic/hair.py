"""Hair, beards, caps and scarves: the head's surface raised and coloured, and what hangs or sits beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.face import HEAD_PHI, HEAD_Y, Face, section
from gazepose.synthetic.features import MOUTH_W, MOUTH_Y
from gazepose.synthetic.mesh import TWO_SIDED, WRAPS, Grid, bump, curve, ring, step

BALD, CROPPED, SHORT, FULL, WAVY, CAP = range(6)


@dataclass
class Style:
    cap: int
    scarf: bool
    big: bool  # stands off on all sides
    long: bool
    fringe: bool
    recede: float


def hair_style(t: dict[str, float], rng: np.random.Generator) -> Style:
    u = rng.uniform
    male = t["male"] > 0
    cap = int(rng.choice(6, p=[0.06, 0.16, 0.34, 0.24, 0.14, 0.06] if male else [0.0, 0.02, 0.2, 0.3, 0.42, 0.06]))
    scarf = cap == CAP and not male and u() < 0.6
    big = cap == WAVY and u() < 0.2 + 0.3 * (t["tone"] > 0.6)
    long = cap in (SHORT, FULL, WAVY) and not big and u() < (0.08 if male else 0.7)
    fringe = cap in (SHORT, FULL, WAVY) and u() < (0.25 if male else 0.4)
    return Style(cap, scarf, big, long, fringe, u() * (t["age"] > 0.5) * male)


def add_hair(face: Face, style: Style, t: dict[str, float], colour: np.ndarray, rng: np.random.Generator) -> float:
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
        line = line - step(62, 40, deg) * u(0.024, 0.034) * (1 + 0.25 * np.cos(np.radians(deg * 2) * side + u(0, 6)))
    if cap == CAP:
        line = 0.052 - (0.17 * step(35, 75, deg) if style.scarf else 0.045 * step(40, 110, deg))
    if cap == BALD:
        line = line + 0.05 * step(75, 50, deg) + 0.03
    noise = rng.standard_normal(phi.shape)
    streak = (noise + np.roll(noise, 1)) * 0.7
    arc = 0.085 * ((np.roll(phi, -1) - np.roll(phi, 1)) % (2 * math.pi))
    slope = (np.roll(line, -1) - np.roll(line, 1)) / arc
    edge = (np.minimum(face.y, HEAD_Y[:, None] + 0.012) - line) / np.sqrt(1 + slope**2)  # metres across the hairline
    if cap != CAP:
        edge = edge + 0.0007 * streak
    mask = step(-0.001, 0.0035, edge) * (cap != BALD or u() < 0.5)
    thick = (0.002, 0.003, u(0.009, 0.015), u(0.014, 0.024), u(0.014, 0.026), 0.007 if style.scarf else 0.009)[cap]
    thick += u(0.015, 0.03) * style.big
    grow = step(0.0, 0.008 if cap == CAP else 0.03, edge) * (0.55 + 0.45 * step(-0.06, 0.06, face.y))
    f1, f2, f3 = rng.integers(5, 11, 3)
    if cap == WAVY:
        waves = np.sin(f1 * phi + 60 * face.y + u(0, 6)) * np.sin(90 * face.y + f2 * phi)
    else:
        waves = 0.5 * np.sin(f3 * phi + 25 * face.y) + 0.25 * streak
    lift = mask * thick * (0.25 + 0.75 * grow) * (1 + (0.0, 0.0, 0.22, 0.22, 0.30, 0.0)[cap] * waves)
    face.p = face.p + lift[..., None] * face.outward
    if cap in (SHORT, FULL) and not style.fringe:
        parting = np.exp(-(((face.x - u(-0.04, 0.04)) / 0.006) ** 2)) * step(0.05, 0.1, face.y)
        face.p[..., 1] -= 0.004 * mask * parting
    knitted = 1 + 0.1 * np.sin(40 * phi) + 0 * waves
    shade = knitted if cap == CAP else np.clip(1 + 0.16 * streak + 0.10 * waves, 0.45, 1.7)
    face.hair = colour * (shade * (0.55 + 0.45 * step(0.0, 0.012, edge)))[..., None]
    face.mask = mask
    return thick


def add_beard(face: Face, t: dict[str, float], paint: np.ndarray, hair: np.ndarray, rng: np.random.Generator) -> None:
    kind = int(rng.choice(5, p=[0.45, 0.2, 0.15, 0.12, 0.08]))  # none, stubble, full, moustache, goatee
    if kind == 0:
        return
    ax, y, my, mw = face.ax, face.y, paint[MOUTH_Y], paint[MOUTH_W]
    lower = step(-0.045 - 0.35 * (ax - 0.03), -0.055 - 0.35 * (ax - 0.03), y)
    lip = 1.5 * np.exp(-(((y - my - 0.0115 + 9.6 * ax**2) / 0.0048) ** 2)) * step(mw + 0.006, mw - 0.004, ax)
    beside = bump(ax, y, mw + 0.004, my - 0.008, 0.007, 0.02)
    full = lower * step(0.0, 0.02, face.z) + lip + beside
    goatee = 1.6 * bump(ax, y, 0, -0.085, 0.022, 0.02) + lip + beside
    cover = (0.45 * full, 0.92 * full, 1.2 * lip, 0.9 * goatee)[kind - 1]
    bare_lip = np.exp(-((ax / (0.95 * mw)) ** 4) - ((y - my + 0.0005) / (0.0078 * t["lips"] ** 0.5)) ** 4)
    most = (0.45, 0.92, 0.95, 0.9)[kind - 1]
    cover = np.minimum(cover, most) * (1 + 0.12 * rng.standard_normal(ax.shape)) * (1 - 0.95 * bare_lip)
    cover = np.clip(cover, 0, 1)[..., None]
    face.albedo = face.albedo * (1 - cover) + 0.9 * hair * cover
    if kind == 2:
        grown = rng.uniform(0.003, 0.012) * lower * step(0.0, 0.03, face.z)
        face.p = face.p + grown[..., None] * face.outward * np.array([0.6, 1.0, 1.0])


def head_grid(face: Face, paint: np.ndarray, style: Style, oily: float) -> Grid:
    mask = face.mask[..., None]
    my, beyond = paint[MOUTH_Y], 0.02 * step(paint[MOUTH_W] * 0.7, paint[MOUTH_W] * 1.7, face.ax)
    jaw = step(my + 0.003 + beyond, my - 0.004 - beyond, face.y) * step(-0.03, 0.05, face.z)
    gloss = 0.05 * oily * (1 - face.mask) + (0.0 if style.cap == CAP else 0.12) * face.mask
    albedo = face.albedo * (1 - mask) + face.hair * mask
    return Grid(face.p, albedo, WRAPS, jaw=jaw, gloss=gloss, kind=(face.mask < 0.4).astype(np.uint8))


def curtain(
    t: dict[str, float], colour: np.ndarray, thick: float, rng: np.random.Generator, wavy: bool, scarf: bool
) -> Grid:
    """Long hair or a scarf: a sheet around the sides and the back of the head, open at the face."""
    u = rng.uniform
    length = -0.17 if scarf else u(-0.24, -0.08)
    y = np.linspace(0.095, length, 29)[:, None]
    # where it starts beside the face
    start = 1.0 - 0.12 * step(0.0, -0.08, y) if scarf else 1.28 - u(0.05, 0.40) * step(0.03, -0.08, y)
    phi = math.pi + (math.pi - start) * np.linspace(-1, 1, 49)[None]
    half, front, back, middle, power = section(np.maximum(y, 0.012), t)
    low = step(0.02, -0.12, y)
    strand = rng.standard_normal(49)[None]
    strand = 0.7 * (strand + np.roll(strand, 1)) * (not scarf)
    wave = np.sin(70 * y + strand) if wavy else 0.3 * strand
    th = (thick * (0.85 + 0.2 * low) + 0.003) * step(0.096, 0.075, y) - 0.002
    th = th * (0.3 + 0.7 * step(0.0, 0.45, math.pi - start - np.abs(phi - math.pi)))
    x, z = ring(phi, half + th, front + th * 0.5, back - th, middle, power)
    spread = 1 + low * ((-0.12 if scarf else u(-0.06, 0.12)) + (0.06 if wavy else 0.03) * wave)
    z = middle + (z - middle) * spread - 0.008 * low
    if scarf:  # drawn together under the chin
        z = z + 0.035 * low * np.maximum(np.cos(phi), 0)
    q = np.stack([x * spread, y + 0.015 * low * np.abs(strand), z], -1)
    shade = np.clip(1 + 0.2 * strand + 0.12 * wave, 0.5, 1.6) * (1 - 0.25 * low)
    upright = -0.8 * step(0.0, -0.16, y) + 0 * x
    return Grid(q, colour * shade[..., None] + 0 * q, TWO_SIDED, hang=upright, gloss=0.0 if scarf else 0.12)


def ball(centre: tuple[float, float, float], radius: float, colour: np.ndarray, rng: np.random.Generator) -> Grid:
    """A bun of hair."""
    phi = np.linspace(0, 2 * math.pi, 20, endpoint=False)[None]
    up = np.linspace(math.pi / 2, -math.pi / 2, 13)[:, None]
    r = radius * (1 + 0.06 * np.sin(5 * phi + 6 * up))
    q = np.stack([r * np.cos(up) * np.sin(phi), r * 0.9 * np.sin(up), r * np.cos(up) * np.cos(phi)], -1)
    q = q + np.array(centre)
    shade = np.clip(1 + 0.15 * rng.standard_normal(phi.shape), 0.6, 1.5)
    return Grid(q, colour * shade[..., None] + 0 * q, WRAPS, gloss=0.1)
