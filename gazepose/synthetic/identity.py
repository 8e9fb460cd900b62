"""People: one per seed, as meshes, numbers and colours that hold in every frame. Also what is not the head: ears, neck,
clothes, glasses.

The order in which random numbers are drawn is part of what a seed means: a draw that moves makes other people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic import features as at
from gazepose.synthetic.face import (
    CAP,
    EYE_Z,
    FULL,
    HEAD_Y,
    SHORT,
    WAVY,
    add_beard,
    add_complexion,
    add_hair,
    ball,
    curtain,
    hair_style,
    head_grid,
    surface,
)
from gazepose.synthetic.mesh import TWO_SIDED, WRAPS, Grid, Mesh, curve, gather, ring, step, warp


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


@dataclass(frozen=True)
class Identity:
    """One person, in the head frame; made by make_identity, used in every frame."""

    seed: int
    eyes: np.ndarray  # [2,3] eye centres, own left then own right
    landmarks: np.ndarray  # [5,3] nose tip, own left and right eye, own left and right mouth corner, on the surface
    outline: np.ndarray  # [K,3] points whose projection spans the face box
    meshes: tuple[Mesh, ...]  # fine to coarse
    paint: np.ndarray  # [at.N_PAINT]
    colours: np.ndarray  # [at.N_COLOUR,3]
    frame: np.ndarray  # [S,2,3] segments of the glasses' frame; [0,2,3] without
    frame_width: float  # metres
    frame_colour: np.ndarray  # [3]


def make_identity(seed: int) -> Identity:
    """The person of a seed; the same seed gives the same person in any process."""
    rng = np.random.default_rng([seed, 7])
    u = rng.uniform
    t = _traits(rng)
    male, tone = t["male"] > 0, t["tone"]
    k = tone * (len(SKINS) - 1)
    skin = SKINS[int(k)] * (1 - k % 1) + SKINS[min(int(k) + 1, len(SKINS) - 1)] * (k % 1)
    skin = skin * np.array([1.0, u(0.95, 1.05), u(0.9, 1.08)])
    common = int(rng.choice(8, p=[0.2, 0.2, 0.17, 0.13, 0.1, 0.08, 0.06, 0.06]))
    hair = HAIRS[common if u() > 0.6 * tone else common % 3]
    if t["age"] > 0.78:
        grey = u(0.4, 1.0)
        hair = hair * (1 - grey) + HAIRS[8 + int(u() < 0.5)] * grey
    paint = _paint_numbers(t, rng)
    colours = _paint_colours(paint, skin, hair, t, rng)

    face = surface(t, paint)
    style = hair_style(t, rng)
    cloth = CLOTHES[int(rng.integers(0, len(CLOTHES)))]
    thick = add_hair(face, style, t, cloth if style.cap == CAP else hair, rng)
    add_complexion(face, t, skin, rng)
    if male:
        add_beard(face, t, paint, hair, rng)
    neck_w = u(0.050, 0.056) + 0.006 * male
    grids = [head_grid(face, paint, style, u(0.5, 1.8)), neck(neck_w, skin)]
    if not (style.scarf or style.long and u() < 0.7):  # else they are under the hair
        grids += ears(t, skin, rng)
    grids += clothes(neck_w, u(0.9, 1.06) + 0.1 * male, skin, rng)
    if style.long or style.scarf:
        grids.append(curtain(t, cloth if style.scarf else hair, thick, rng, style.cap == WAVY, style.scarf))
    elif not male and style.cap in (SHORT, FULL) and u() < 0.6:
        grids.append(ball(((0, 0.135, -0.055), (0, 0.075, -0.115))[int(u() < 0.4)], u(0.026, 0.036), hair, rng))
    frame, frame_width, frame_colour = np.zeros((0, 2, 3)), 0.001, np.zeros(3)
    if u() < 0.28:
        frame, frame_width, frame_colour = glasses(t["half_ipd"], t["eye_y"], rng)

    mouth_row = int(np.argmin(np.abs(HEAD_Y - paint[at.MOUTH_Y])))
    mouth_z = float(np.interp(paint[at.MOUTH_W], face.x[mouth_row, :30], face.z[mouth_row, :30]))
    tip = np.argmax(np.where((face.ax < 0.004) & (np.abs(face.y + 0.022 - t["nose_y"]) < 0.012), face.z, -1.0))
    eyes = np.array([[t["half_ipd"], t["eye_y"], EYE_Z], [-t["half_ipd"], t["eye_y"], EYE_Z]])
    corners = [[paint[at.MOUTH_W] * c, paint[at.MOUTH_Y] + paint[at.MOUTH_SMILE], mouth_z] for c in (1, -1)]
    landmarks = np.array([[0.0, face.y.flat[tip], face.z.flat[tip]], *(eyes + [0, 0, paint[at.EYE_R]]), *corners])
    cheek, jaw = 0.066 * t["cheek"], 0.05 * t["jaw"]
    half_outline = [[0.04, 0.064, 0.072], [0.068, 0.03, 0.03], [cheek, -0.005, 0.03], [jaw, -0.065, 0.045]]
    middle = [[0, 0.068, 0.088], [0, -0.099, 0.075], landmarks[0]]
    outline = np.array([*middle, *half_outline, *([-a, b, c] for a, b, c in half_outline)])
    size = t["size"]
    for g in grids:
        g.p = g.p * size
    paint[at.LENGTHS] *= size
    points = eyes * size, landmarks * size, outline * size
    return Identity(seed, *points, gather(grids), paint, colours, frame * size, frame_width * size, frame_colour)


def _traits(rng: np.random.Generator) -> dict[str, float]:
    u = rng.uniform
    male = float(u() < 0.5)
    return {
        "male": male, "age": u(), "tone": u(), "size": u(0.96, 1.04) + 0.01 * male,
        "half_ipd": u(0.0315, 0.0345), "eye_y": 0.018 + u(-0.002, 0.002),
        "cheek": u(0.96, 1.06), "jaw": u(0.93, 1.04) + 0.05 * male,
        "chin": u(0.85, 1.1) + 0.08 * male, "chin_out": u(-0.004, 0.005),
        "nose": u(0.75, 1.2) + 0.08 * male, "nose_w": u(0.85, 1.3), "nose_y": u(-0.003, 0.003), "bridge": u(0.6, 1.3),
        "brow": u(0.2, 0.8) + 0.6 * male, "bone": u(0.3, 1.5), "lips": u(0.7, 1.5),
    }


def _paint_numbers(t: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Sizes of what is painted per sample: metres, radians for the opening of the lids, [at.N_PAINT]."""
    u = rng.uniform
    male = t["male"] > 0
    p = np.zeros(at.N_PAINT)
    p[at.EYE_R], p[at.IRIS_R] = u(0.0137, 0.0145), u(0.0059, 0.0064)  # large: gaze must be visible at 64 px
    p[at.PUPIL_R] = p[at.IRIS_R] * u(0.36, 0.5)
    p[at.OPEN_IN], p[at.OPEN_OUT] = u(0.98, 1.06), u(1.06, 1.17)
    p[at.LID_UP], p[at.LID_LOW], p[at.LID_TILT] = u(0.36, 0.45), u(0.38, 0.44), u(-0.02, 0.09)
    p[at.LASH], p[at.CREASE] = u(0.0008, 0.0013) + 0.0005 * (not male), u(0.1, 0.5)
    p[at.BROW_Y], p[at.BROW_ARCH] = u(0.0185, 0.0225) - 0.001 * male, u(0.0, 0.005)
    p[at.BROW_THICK], p[at.BROW_DENSE] = u(0.0028, 0.0045) + 0.0012 * male, u(0.6, 0.95)
    p[at.BROW_IN], p[at.BROW_OUT] = u(0.010, 0.015), u(0.047, 0.054)
    p[at.MOUTH_Y], p[at.MOUTH_W], p[at.MOUTH_SMILE] = -0.053 + u(-0.003, 0.003), u(0.0225, 0.0285), u(-0.002, 0.004)
    p[at.LIP_UP], p[at.LIP_LOW] = 0.0068 * t["lips"], 0.0085 * t["lips"]
    p[at.NOSTRIL_X], p[at.NOSTRIL_Y] = 0.0072 * t["nose_w"], -0.0315 + t["nose_y"]
    p[at.TEXTURE] = u(0, 100)
    if not male:
        p[at.LINER], p[at.SHADOW] = u() * (u() < 0.5), u(0.0, 0.6) * (u() < 0.4)
    return p


def _paint_colours(
    paint: np.ndarray, skin: np.ndarray, hair: np.ndarray, t: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    u = rng.uniform
    iris = IRISES[int(rng.integers(0, len(IRISES) if u() > t["tone"] else 3))]
    c = np.zeros((at.N_COLOUR, 3))
    c[at.C_IRIS], c[at.C_LIMBUS] = iris, iris * 0.25
    c[at.C_SCLERA] = rgb(240, 236, 230) * np.array([1, u(0.96, 1), u(0.93, 1)])
    c[at.C_INNER] = rgb(70, 24, 24)
    c[at.C_BROW] = np.minimum(hair, skin * 0.5) * u(0.7, 1.0) / skin
    c[at.C_LIP] = (u(0.80, 0.98), u(0.5, 0.66), u(0.5, 0.68))
    if t["male"] == 0 and u() < 0.45:
        c[at.C_LIP] = (u(0.65, 0.85), u(0.22, 0.4), u(0.25, 0.45))
    c[at.C_LASH] = np.minimum(rgb(38, 28, 26), skin * 0.15)
    c[at.C_LID] = (0.9, 0.75, 0.75) if paint[at.SHADOW] == 0 else (u(0.4, 0.8), u(0.35, 0.7), u(0.4, 0.9))
    c[[at.C_BROW, at.C_LIP, at.C_LASH, at.C_LID]] **= 0.5
    return c


# ---- what is not the head

def ears(t: dict[str, float], skin: np.ndarray, rng: np.random.Generator) -> list[Grid]:
    """Two discs with a raised rim, own left and own right."""
    rad = np.array([0.0, 0.3, 0.55, 0.75, 0.9, 1.0, 1.0, 0.9, 0.6])[:, None]
    high = np.array([-0.002, -0.001, 0.002, 0.001, 0.006, 0.004, -0.003, -0.006, -0.010])[:, None]
    angle = np.linspace(0, 2 * math.pi, 16, endpoint=False)[None]
    size, flare = rng.uniform(0.9, 1.12), rng.uniform(0.15, 0.5)
    up = 0.029 * size * rad * np.cos(angle)
    rear = 0.0175 * size * rad * np.sin(angle) * (1 + 0.25 * np.cos(angle))
    off = high + 0.006 + 0 * angle
    ears = []
    for sign in (1.0, -1.0):
        x = 0.0710 * t["cheek"] + off * math.cos(flare) + (rear + 0.008) * math.sin(flare)
        z = -0.012 - rear * math.cos(flare) + off * math.sin(flare) * 0.3
        q = np.stack([sign * x, -0.003 + up, z], -1)
        q = q if sign < 0 else q[:, ::-1]  # columns run so that the outer face is the front
        tint = np.array([1.0, 0.88, 0.86]) * (0.66 + 0.34 * np.clip(rad * 1.25 - 0.2, 0, 1))[..., None]
        ears.append(Grid(q, skin * tint + 0 * q, WRAPS | TWO_SIDED, gloss=0.03))
    return ears


def neck(width: float, skin: np.ndarray) -> Grid:
    y = np.linspace(-0.03, -0.19, 15)[:, None]
    phi = np.linspace(0, 2 * math.pi, 32, endpoint=False)[None]
    x, z = ring(phi, width + 0 * y, 0.030 - 0.03 * step(-0.05, -0.16, y), -0.072, -0.03, 2.0)
    q = np.stack([x, y + 0 * x, z], -1)
    shadow = 1 - 0.5 * step(-0.14, -0.085, y) * (0.4 + 0.6 * step(-0.06, 0.02, z))  # under the chin
    return Grid(q, skin * shadow[..., None], WRAPS, hang=0.35 + 0.65 * step(-0.03, -0.15, y) + 0 * x)


def clothes(neck_w: float, build: float, skin: np.ndarray, rng: np.random.Generator) -> list[Grid]:
    """Torso, arms, legs, and a collar or a hood where the garment has one."""
    u = rng.uniform
    stout = u(0.9, 1.2)
    wear = CLOTHES[int(rng.integers(0, len(CLOTHES)))] * u(0.8, 1.1)
    second = CLOTHES[int(rng.integers(0, len(CLOTHES)))]
    shirt = CLOTHES[int(rng.choice([3, 4, 16, 15]))]
    style = int(rng.integers(0, 6))  # crew, V, scoop, shirt with collar, jacket over shirt, hood
    pattern = int(rng.choice(3, p=[0.68, 0.22, 0.10]))  # plain, stripes, checks

    phi = warp(80, [(1.2, 0.5)])
    off = np.minimum(phi, 2 * math.pi - phi)
    deep = u(0.04, 0.10) * np.maximum(0, 1 - off / u(0.5, 0.8)), u(0.02, 0.06) * np.exp(-((off / 0.75) ** 2))
    slit, wedge = 0.04 * np.maximum(0, 1 - off / 0.3), u(0.20, 0.27) * np.maximum(0, 1 - off / 0.55)
    drop = (0.006 * np.cos(off), *deep, slit, wedge, 0.006 * np.cos(off))[style]
    neckline = (-0.124 - (0.010 if style == 2 else 0.0) - drop)[None]
    upper = np.linspace(0, 1, 11)[:, None]
    lower = (np.linspace(0, 1, 46) ** 1.35)[:, None]
    # a row of vertices follows the neckline, so that its edge is sharp
    y = np.concatenate([-0.108 + (neckline + 0.0015 + 0.108) * upper, neckline + (-0.92 - neckline) * lower])
    at = [-0.106, -0.130, -0.150, -0.168, -0.186, -0.210, -0.25, -0.33, -0.45, -0.62, -0.92]
    half = [build * w for w in (0.066, 0.098, 0.138, 0.168, 0.181, 0.183, 0.170, 0.155, 0.160, 0.165)]
    half = curve(y, at, [neck_w, *half])
    belly = [0.090 * stout, 0.095 * stout, 0.090 * stout]
    front = curve(y, at, [0.013, 0.022, 0.036, 0.047, 0.056, 0.067, 0.082, 0.095, *belly])
    back = curve(y, at, [-0.073, -0.088, -0.105, -0.118, -0.126, -0.132, -0.138, -0.140, -0.130, -0.130, -0.130])
    power = curve(y, at, [2.0, 2.0, 2.0, 2.1, 2.25, 2.4, 2.5, 2.6, 2.5, 2.4, 2.4])
    x, z = ring(phi[None], half, front, back, -0.035, power)
    folds = 0.0025 * np.sin(90 * x + 22 * y + u(0, 6)) * step(-0.2, -0.4, y)
    garment = np.broadcast_to(wear, (*x.shape, 3)).copy()
    if pattern == 1:
        garment += (second - wear) * step(-0.4, 0.4, np.sin(2 * math.pi * y / u(0.06, 0.11)))[..., None]
    elif pattern == 2:
        crossing = step(-0.4, 0.4, np.sin(2 * math.pi * y / 0.08)) + step(-0.4, 0.4, np.sin(2 * math.pi * x / 0.08))
        garment += (second - wear) * 0.35 * crossing[..., None]
    trousers = CLOTHES[int(rng.choice([0, 1, 5, 6, 11, 15]))] * 0.8
    garment += (trousers - garment) * step(-0.70, -0.73, y)[..., None]
    garment[11:13] *= 0.72  # the seam
    garment[:11] = shirt if style == 4 else skin * 0.92
    if style == 4 and u() < 0.5:
        tie = (np.abs(x[:11]) < 0.017 - 0.04 * np.maximum(y[:11] + 0.16, 0)) & (z[:11] > 0)
        garment[:11][tie] = second
    grids = [Grid(np.stack([x, y, z + folds], -1), garment, WRAPS, hang=1.0, gloss=0.01)]

    along = np.linspace(0, 1, 25)[:, None]
    phi = np.linspace(0, 2 * math.pi, 16, endpoint=False)[None]
    sleeve = 0.80 if u() < 0.65 else 0.34
    bare = step(sleeve, sleeve + 0.03, along)[..., None]
    arm = curve(along, [0, 0.05, 0.2, 0.45, 0.76, 0.86, 0.96, 1], [0, 0.042, 0.056, 0.046, 0.030, 0.038, 0.026, 0])
    leg = curve(along, [0, 0.1, 0.5, 0.9, 1], [0.092, 0.095, 0.070, 0.052, 0.060])
    for sign in (1.0, -1.0):
        x = sign * (0.152 + 0.055 * along) * build + arm * build * np.sin(phi)
        z = -0.035 - 0.03 * along + 0.10 * along**2 + arm * build * np.cos(phi)
        q = np.stack([x, -0.175 - 0.72 * along + 0 * x, z], -1)
        grids.append(Grid(q, wear * (1 - bare) + skin * 0.95 * bare + 0 * q, WRAPS, hang=1.0, gloss=0.01))
        x = sign * 0.085 * build + leg * build * np.sin(phi)
        q = np.stack([x, -0.80 - 0.78 * along + 0 * x, -0.025 + leg * build * np.cos(phi)], -1)
        grids.append(Grid(q, trousers + 0 * q, WRAPS, hang=1.0))
    if style >= 3:
        grids.append(_collar(style == 5, shirt if style == 4 else wear, neck_w))
    return grids


def _collar(hood: bool, colour: np.ndarray, neck_w: float) -> Grid:
    """A shirt collar open at the front, or a hood lying on the back."""
    if hood:
        phi = np.linspace(0.45, 2 * math.pi - 0.45, 33)[None]
        around = np.linspace(-0.6, 2.8, 9)[:, None]
        back = (1 - np.cos(phi)) / 2
        bulk = 0.007 + 0.026 * back
        r = neck_w + 0.012 + 0.6 * bulk + bulk * np.sin(around)
        q = np.stack([r * np.sin(phi), -0.148 + bulk * np.cos(around) + 0.028 * back, -0.034 + r * np.cos(phi)], -1)
        return Grid(q, colour * 0.92 + 0 * q, TWO_SIDED, hang=1.0)
    phi = np.linspace(0.10, 2 * math.pi - 0.10, 33)[None]
    v = np.array([0.0, 0.3, 0.5, 1.0, 1.0])[:, None]
    h = np.array([-0.128, -0.110, -0.108, -0.136, -0.140])[:, None]
    point = 0.026 * np.exp(-((np.minimum(phi, 2 * math.pi - phi) / 0.35) ** 2)) * v
    r = neck_w + 0.003 + 0.022 * v
    z = -0.030 + r * np.cos(phi) * (0.85 + 0.25 * (np.cos(phi) < 0))
    q = np.stack([r * np.sin(phi) * (1 + 0.1 * v), h - point + 0 * phi, z], -1)
    return Grid(q, colour * (0.75 + 0.3 * v)[..., None] + 0 * q, TWO_SIDED, hang=1.0)


def glasses(half_ipd: float, eye_y: float, rng: np.random.Generator) -> tuple[np.ndarray, float, np.ndarray]:
    u = rng.uniform
    w, h, power = u(0.0245, 0.028), u(0.018, 0.023), u(2.0, 4.5)
    a = np.linspace(0, 2 * math.pi, 29)
    cx = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** (2 / power) * w
    cy = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** (2 / power) * h
    lines = []

    def at(x, y):
        return np.stack([x, y, 0.098 - 2.2 * np.asarray(x) ** 2], -1)
    for sign in (1, -1):
        rim = at(sign * (half_ipd + 0.001) + cx, eye_y - 0.003 + cy)
        lines.append(np.stack([rim[:-1], rim[1:]], 1))
        hinge = at(np.array(sign * (half_ipd + 0.001 + w)), np.array(eye_y + 0.006))
        bend = hinge * [0, 1, 0] + [sign * 0.0715, 0, 0.072]
        temple = np.stack([hinge, bend, [sign * 0.0765, eye_y + 0.004, -0.004]])
        lines.append(np.stack([temple[:-1], temple[1:]], 1))
    b = np.linspace(-(half_ipd + 0.001 - w), half_ipd + 0.001 - w, 7)
    bridge = at(b, eye_y + 0.004 + 0.003 * np.cos(b / 0.01))
    lines.append(np.stack([bridge[:-1], bridge[1:]], 1))
    colour = palette("141416 3c2418 6e6a64 781e22 967846")[int(rng.integers(0, 5))]
    return np.concatenate(lines), float(u(0.0010, 0.0028)), colour
