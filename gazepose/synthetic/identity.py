"""People: one for each seed, as meshes, numbers and colours that hold in every frame.

The order in which random numbers are drawn is part of what a seed means: moving a draw makes other people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic import eyes as eye
from gazepose.synthetic import paint as at
from gazepose.synthetic.face import (
    CAP,
    EYE_Z,
    FULL,
    HEAD_Y,
    LEVEL,
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
from gazepose.synthetic.glasses import Glasses, make_glasses
from gazepose.synthetic.light import rise_of_head
from gazepose.synthetic.mesh import TWO_SIDED, WRAPS, Grid, Mesh, curve, join_grids, ramp, ring, warp
from gazepose.synthetic.skin import make_skin


def rgb(*v: float) -> np.ndarray:
    """Linear reflectance of a display colour 0..255, gamma 2."""
    return (np.array(v, float) / 255.0) ** 2


def palette(colours: str) -> list[np.ndarray]:
    """Reflectances of colours in hexadecimal."""
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
    """One person; made by make_identity, used in every frame. Frames: see head.py."""

    seed: int
    eyes: np.ndarray  # [2,3] eye centres, own left then own right, head frame as landmarks and outline
    landmarks: np.ndarray  # [5,3] nose tip, own left and right eye, own left and right mouth corner, on the surface
    outline: np.ndarray  # [K,3] points whose projection spans the face box
    meshes: tuple[Mesh, ...]  # fine to coarse, face frame as all that follows
    drawn_eyes: np.ndarray  # [2,3] eye centres
    paint: np.ndarray  # [at.N_PAINT]
    colours: np.ndarray  # [at.N_COLOUR,3]
    eye_numbers: np.ndarray  # [eye.N_EYE]
    eye_colours: np.ndarray  # [eye.N_EYE_COLOUR,3]
    eye_rise: np.ndarray  # int8 [2,8], see light.py
    squint: float  # 0..1 of the face at rest
    skin: list[np.ndarray]  # maps, fine to coarse, see skin.py
    glasses: Glasses | None


def make_identity(seed: int) -> Identity:
    """The person of a seed; the same seed gives the same person in any process."""
    rng = np.random.default_rng([seed, 7])
    u = rng.uniform
    t = _traits(rng)
    male, tone = t["male"] > 0, t["tone"]
    k = tone * (len(SKINS) - 1)
    skin = SKINS[int(k)] * (1 - k % 1) + SKINS[min(int(k) + 1, len(SKINS) - 1)] * (k % 1)
    skin = skin * np.array([1.0, u(0.95, 1.06), u(0.96, 1.28)])
    common = int(rng.choice(8, p=[0.2, 0.2, 0.17, 0.13, 0.1, 0.08, 0.06, 0.06]))
    hair = HAIRS[common if u() > 0.6 * tone else common % 3]
    if t["age"] > 0.8:
        grey = u(0.4, 1.0)
        hair = hair * (1 - grey) + HAIRS[8 + int(u() < 0.5)] * grey
    paint, eye_numbers = _paint_numbers(t, rng), _eye_numbers(t, rng)
    colours, eye_colours = _paint_colours(skin, hair, t, rng), _eye_colours(eye_numbers, skin, t, rng)

    face = surface(t, paint, eye_numbers[eye.EYE_R])
    style = hair_style(t, rng)
    cloth = CLOTHES[int(rng.integers(0, len(CLOTHES)))]
    thick = add_hair(face, style, t, cloth if style.cap == CAP else hair, rng)
    add_complexion(face, t, skin, rng)
    beard = add_beard(face, t, paint, hair, rng) if male else 0
    neck_w = u(0.045, 0.052) + 0.007 * male
    grids = [head_grid(face, paint, style, u(0.5, 1.8)), neck(neck_w, skin)]
    if not (style.scarf or style.long and u() < 0.7):  # otherwise the hair covers them
        grids += ears(t, skin, rng)
    grids += clothes(neck_w, u(0.9, 1.06) + 0.1 * male, skin, rng)
    if style.long or style.scarf:
        grids.append(curtain(t, cloth if style.scarf else hair, thick, rng, style.cap == WAVY, style.scarf))
    elif not male and style.cap in (SHORT, FULL) and u() < 0.6:
        grids.append(ball(((0, 0.135, -0.055), (0, 0.075, -0.115))[int(u() < 0.4)], u(0.026, 0.036), hair, rng))
    glasses = make_glasses(t["half_ipd"], t["eye_y"], rng) if u() < 0.28 else None

    mouth_row = int(np.argmin(np.abs(HEAD_Y - paint[at.MOUTH_Y])))
    mouth_z = float(np.interp(paint[at.MOUTH_W], face.x[mouth_row, :30], face.z[mouth_row, :30]))
    tip = np.argmax(np.where((face.ax < 0.004) & (np.abs(face.y + 0.022 - t["nose_y"]) < 0.012), face.z, -1.0))
    eyes = np.array([[t["half_ipd"], t["eye_y"], EYE_Z], [-t["half_ipd"], t["eye_y"], EYE_Z]])
    corners = [[paint[at.MOUTH_W] * c, paint[at.MOUTH_Y] + paint[at.MOUTH_SMILE], mouth_z] for c in (1, -1)]
    pupils = eyes + [0, 0, eye_numbers[eye.EYE_R]]
    landmarks = np.array([[0.0, face.y.flat[tip], face.z.flat[tip]], *pupils, *corners])
    cheek, jaw = 0.066 * t["cheek"] * t["wide"], 0.05 * t["jaw"] * t["wide"]
    half_outline = [[0.04, 0.064, 0.072], [0.068, 0.03, 0.03], [cheek, -0.005, 0.03], [jaw, -0.065, 0.045]]
    middle = [[0, 0.068, 0.088], [0, -0.099, 0.075], landmarks[0]]
    outline = np.array([*middle, *half_outline, *([-a, b, c] for a, b, c in half_outline)])
    size = t["size"]
    for g in grids:
        g.p = g.p * size
    skin_maps = make_skin(t, paint, beard, rng)
    paint[at.LENGTHS] *= size
    eye_numbers[eye.EYE_LENGTHS] *= size
    eyes, landmarks, outline = eyes * size, landmarks * size, outline * size
    front = eyes + [0, -0.001, eye_numbers[eye.EYE_R] + 0.001]
    grids[0].rise, rise = rise_of_head(grids[0].p, front)
    return Identity(
        seed, eyes @ LEVEL.T, landmarks @ LEVEL.T, outline @ LEVEL.T, join_grids(grids), eyes, paint, colours,
        eye_numbers, eye_colours, rise, t["squint"], skin_maps, glasses.scaled(size) if glasses else None)


def _traits(rng: np.random.Generator) -> dict[str, float]:
    u = rng.uniform
    male = float(u() < 0.5)
    smile = u(0.15, 1.0) * (u() < 0.5)
    return {
        "male": male, "age": u(), "tone": u(), "size": u(0.96, 1.04) + 0.01 * male,
        "half_ipd": u(0.0305, 0.0345), "eye_y": 0.018 + u(-0.003, 0.002),
        "cheek": u(0.92, 1.06), "jaw": u(0.86, 1.04) + 0.05 * male, "wide": u(0.925, 1.0),
        "chin": u(0.80, 1.1) + 0.08 * male, "chin_out": u(-0.004, 0.005),
        "nose": u(0.70, 1.2) + 0.08 * male, "nose_w": u(0.80, 1.50), "nose_y": u(0.0005, 0.0075), "bridge": u(0.4, 1.3),
        "brow": u(0.2, 0.8) + 0.6 * male, "bone": u(0.3, 1.5), "lips": u(0.75, 1.6), "smile": smile,
        "squint": min(0.9, 0.35 * smile * u() + u(0.2, 0.8) * (u() < 0.04)), "narrow": u() * (u() < 0.4),
    }


def _paint_numbers(t: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Sizes of brows, mouth and nostrils that paint.py paints, [N_PAINT]: metres."""
    u = rng.uniform
    male, smile = t["male"] > 0, t["smile"]
    p = np.zeros(at.N_PAINT)
    p[at.BROW_Y], p[at.BROW_ARCH] = u(0.0165, 0.0220) - 0.0012 * male, u(-0.001, 0.005)
    p[at.BROW_THICK], p[at.BROW_DENSE] = u(0.0024, 0.0050) + 0.0012 * male, u(0.45, 0.95)
    p[at.BROW_IN], p[at.BROW_OUT], p[at.BROW_PEAK] = u(0.008, 0.015), u(0.045, 0.054), u(0.48, 0.74)
    p[at.BROW_TILT] = u(0.001, 0.006)
    p[at.EYE_Y] = t["eye_y"]
    p[at.MOUTH_Y], p[at.MOUTH_W] = -0.053 + u(-0.003, 0.003), u(0.0220, 0.0280) + 0.0070 * smile
    p[at.MOUTH_SMILE] = u(-0.0005, 0.0045) + 0.0070 * smile
    p[at.TEETH] = u(0.004, 0.0105) * smile * (smile > 0.3) * (u() < 0.75)
    p[at.LIP_UP], p[at.LIP_LOW] = 0.0060 * t["lips"] * (1 - 0.25 * smile), 0.0088 * t["lips"] * (1 - 0.2 * smile)
    p[at.NOSTRIL_X], p[at.NOSTRIL_Y] = 0.0072 * t["nose_w"], -0.0315 + t["nose_y"]
    p[at.TEXTURE] = u(0, 100)
    return p


def _eye_numbers(t: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Sizes of all that eyes.py paints, [N_EYE]: metres; radians for the opening of the lids."""
    u, narrow, male = rng.uniform, t["narrow"], t["male"] > 0
    p = np.zeros(eye.N_EYE)
    p[eye.EYE_R], p[eye.IRIS_R] = u(0.0130, 0.0140), u(0.0056, 0.0062)  # large: gaze must be visible at 64 px
    p[eye.PUPIL_R] = p[eye.IRIS_R] * u(0.32, 0.52)
    p[eye.OPEN_IN], p[eye.OPEN_OUT] = u(0.98, 1.10), u(1.06, 1.20)
    p[eye.LID_UP], p[eye.LID_LOW] = u(0.29, 0.42) * (1 - 0.38 * narrow), u(0.34, 0.43) * (1 - 0.22 * narrow)
    p[eye.LID_TILT], p[eye.UNEVEN] = u(-0.04, 0.08) + 0.06 * narrow, rng.normal(0, 0.018)
    p[eye.LASH], p[eye.CREASE] = u(0.0008, 0.0013) + 0.0006 * (not male), u(0.15, 0.75) * (1 - 0.8 * narrow)
    p[eye.HOOD] = max(0.6 * narrow * u(), u() * (u() < 0.25 + 0.3 * t["age"]))
    p[eye.TEXTURE] = u(0, 100)
    if not male:
        p[eye.LINER], p[eye.SHADOW] = u() * (u() < 0.5), u(0.0, 0.6) * (u() < 0.4)
    return p


def _paint_colours(skin: np.ndarray, hair: np.ndarray, t: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Colours of brows, lips and mouth, [N_COLOUR,3], see paint.py."""
    u = rng.uniform
    c = np.zeros((at.N_COLOUR, 3))
    c[at.C_INNER] = rgb(60, 20, 20)
    c[at.C_BROW] = np.minimum(hair, skin * 0.5) * u(0.6, 1.0) / skin
    c[at.C_LIP] = (u(0.74, 0.98), u(0.44, 0.68), u(0.46, 0.70))
    if t["male"] == 0 and u() < 0.45:
        c[at.C_LIP] = (u(0.60, 0.85), u(0.20, 0.4), u(0.24, 0.45))
    c[at.C_DARK] = np.minimum(rgb(44, 26, 22), skin * 0.15)
    c[[at.C_BROW, at.C_LIP]] **= 0.5
    return c


def _eye_colours(p: np.ndarray, skin: np.ndarray, t: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Colours of eyeballs, lids and lashes, [N_EYE_COLOUR,3], see eyes.py."""
    u = rng.uniform
    iris = IRISES[int(rng.integers(0, len(IRISES) if u() > t["tone"] else 3))] * u(0.5, 0.95)
    c = np.zeros((eye.N_EYE_COLOUR, 3))
    c[eye.C_IRIS], c[eye.C_LIMBUS] = iris, iris * u(0.1, 0.5)
    c[eye.C_CENTRE] = iris * (1 - 0.6 * (k := u() * (u() < 0.6))) + IRISES[int(rng.integers(0, 4))] * 0.6 * k
    c[eye.C_SCLERA] = rgb(216, 208, 200) * u(0.75, 1.15) * np.array([1, u(0.94, 1), u(0.90, 1)])
    c[eye.C_LASH] = np.minimum(rgb(38, 28, 26), skin * 0.15)
    c[eye.C_LID] = (0.80, 0.62, 0.62) if p[eye.SHADOW] == 0 else (u(0.3, 0.8), u(0.25, 0.65), u(0.3, 0.8))
    c[[eye.C_LASH, eye.C_LID]] **= 0.5
    return c


# ---- ears, neck and clothes

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
        x = 0.0710 * t["cheek"] * t["wide"] + off * math.cos(flare) + (rear + 0.008) * math.sin(flare)
        z = -0.012 - rear * math.cos(flare) + off * math.sin(flare) * 0.3
        q = np.stack([sign * x, -0.003 + up, z], -1)
        q = q if sign < 0 else q[:, ::-1]  # columns run so that the outer face is the front
        tint = np.array([1.0, 0.88, 0.86]) * (0.66 + 0.34 * np.clip(rad * 1.25 - 0.2, 0, 1))[..., None]
        ears.append(Grid(q, skin * tint + 0 * q, WRAPS | TWO_SIDED, gloss=0.03))
    return ears


def neck(width: float, skin: np.ndarray) -> Grid:
    y = np.linspace(-0.03, -0.19, 15)[:, None]
    phi = np.linspace(0, 2 * math.pi, 32, endpoint=False)[None]
    x, z = ring(phi, width + 0 * y, 0.030 - 0.03 * ramp(-0.05, -0.16, y), -0.072, -0.03, 2.0)
    q = np.stack([x, y + 0 * x, z], -1)
    shadow = 1 - 0.62 * ramp(-0.14, -0.085, y) * (0.4 + 0.6 * ramp(-0.06, 0.02, z))  # under the chin
    return Grid(q, skin * shadow[..., None], WRAPS, hang=0.35 + 0.65 * ramp(-0.03, -0.15, y) + 0 * x)


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
    folds = 0.0025 * np.sin(90 * x + 22 * y + u(0, 6)) * ramp(-0.2, -0.4, y)
    garment = np.broadcast_to(wear, (*x.shape, 3)).copy()
    if pattern == 1:
        garment += (second - wear) * ramp(-0.4, 0.4, np.sin(2 * math.pi * y / u(0.06, 0.11)))[..., None]
    elif pattern == 2:
        crossing = ramp(-0.4, 0.4, np.sin(2 * math.pi * y / 0.08)) + ramp(-0.4, 0.4, np.sin(2 * math.pi * x / 0.08))
        garment += (second - wear) * 0.35 * crossing[..., None]
    trousers = CLOTHES[int(rng.choice([0, 1, 5, 6, 11, 15]))] * 0.8
    garment += (trousers - garment) * ramp(-0.70, -0.73, y)[..., None]
    garment[11:13] *= 0.72  # the seam
    garment[:11] = shirt if style == 4 else skin * 0.92
    if style == 4 and u() < 0.5:
        tie = (np.abs(x[:11]) < 0.017 - 0.04 * np.maximum(y[:11] + 0.16, 0)) & (z[:11] > 0)
        garment[:11][tie] = second
    grids = [Grid(np.stack([x, y, z + folds], -1), garment, WRAPS, hang=1.0, gloss=0.01)]

    along = np.linspace(0, 1, 25)[:, None]
    phi = np.linspace(0, 2 * math.pi, 16, endpoint=False)[None]
    sleeve = 0.80 if u() < 0.65 else 0.34
    bare = ramp(sleeve, sleeve + 0.03, along)[..., None]
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

