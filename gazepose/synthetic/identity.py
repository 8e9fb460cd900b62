"""Identities: one person per seed, as meshes, numbers and colours that hold in every frame.

The order in which chance is drawn is part of what a seed means: a draw moved makes other people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.body import clothes, ears, glasses, neck
from gazepose.synthetic.face import EYE_Z, HEAD_Y, add_complexion, surface
from gazepose.synthetic.features import (
    BROW_ARCH,
    BROW_DENSE,
    BROW_IN,
    BROW_OUT,
    BROW_THICK,
    BROW_Y,
    C_BROW,
    C_INNER,
    C_IRIS,
    C_LASH,
    C_LID,
    C_LIMBUS,
    C_LIP,
    C_SCLERA,
    CREASE,
    EYE_R,
    IRIS_R,
    LASH,
    LENGTHS,
    LID_LOW,
    LID_TILT,
    LID_UP,
    LINER,
    LIP_LOW,
    LIP_UP,
    MOUTH_SMILE,
    MOUTH_W,
    MOUTH_Y,
    N_COLOUR,
    N_PAINT,
    NOSTRIL_X,
    NOSTRIL_Y,
    OPEN_IN,
    OPEN_OUT,
    PUPIL_R,
    SHADOW,
    TEXTURE,
)
from gazepose.synthetic.hair import (
    CAP,
    FULL,
    SHORT,
    WAVY,
    add_beard,
    add_hair,
    ball,
    curtain,
    hair_style,
    head_grid,
)
from gazepose.synthetic.mesh import Mesh, gather
from gazepose.synthetic.palette import CLOTHES, HAIRS, IRISES, SKINS, rgb


@dataclass(frozen=True)
class Identity:
    """One person: what every frame needs, made by make_identity."""

    seed: int
    eyes: np.ndarray  # [2,3] eye centres, own left then own right
    landmarks: np.ndarray  # [5,3]
    outline: np.ndarray  # [K,3] points whose projection spans the face box
    meshes: tuple[Mesh, ...]  # fine to coarse
    paint: np.ndarray  # [N_PAINT]
    colours: np.ndarray  # [N_COLOUR,3]
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

    mouth_row = int(np.argmin(np.abs(HEAD_Y - paint[MOUTH_Y])))
    mouth_z = float(np.interp(paint[MOUTH_W], face.x[mouth_row, :30], face.z[mouth_row, :30]))
    tip = np.argmax(np.where((face.ax < 0.004) & (np.abs(face.y + 0.022 - t["nose_y"]) < 0.012), face.z, -1.0))
    eyes = np.array([[t["half_ipd"], t["eye_y"], EYE_Z], [-t["half_ipd"], t["eye_y"], EYE_Z]])
    landmarks = np.array([[0.0, face.y.flat[tip], face.z.flat[tip]], *(eyes + [0, 0, paint[EYE_R]]),
                          *([paint[MOUTH_W] * c, paint[MOUTH_Y] + paint[MOUTH_SMILE], mouth_z] for c in (1, -1))])
    cheek, jaw = 0.066 * t["cheek"], 0.05 * t["jaw"]
    half_outline = [[0.04, 0.064, 0.072], [0.068, 0.03, 0.03], [cheek, -0.005, 0.03], [jaw, -0.065, 0.045]]
    middle = [[0, 0.068, 0.088], [0, -0.099, 0.075], landmarks[0]]
    outline = np.array([*middle, *half_outline, *([-a, b, c] for a, b, c in half_outline)])
    size = t["size"]
    for g in grids:
        g.p = g.p * size
    paint[LENGTHS] *= size
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
    """Sizes of what is painted per sample: metres, radians for the opening of the lids, [N_PAINT]."""
    u = rng.uniform
    male = t["male"] > 0
    p = np.zeros(N_PAINT)
    p[EYE_R], p[IRIS_R] = u(0.0137, 0.0145), u(0.0059, 0.0064)  # a little large: the gaze must be readable at 64 px
    p[PUPIL_R] = p[IRIS_R] * u(0.36, 0.5)
    p[OPEN_IN], p[OPEN_OUT] = u(0.98, 1.06), u(1.06, 1.17)
    p[LID_UP], p[LID_LOW], p[LID_TILT] = u(0.36, 0.45), u(0.38, 0.44), u(-0.02, 0.09)
    p[LASH], p[CREASE] = u(0.0008, 0.0013) + 0.0005 * (not male), u(0.1, 0.5)
    p[BROW_Y], p[BROW_ARCH] = u(0.0185, 0.0225) - 0.001 * male, u(0.0, 0.005)
    p[BROW_THICK], p[BROW_DENSE] = u(0.0028, 0.0045) + 0.0012 * male, u(0.6, 0.95)
    p[BROW_IN], p[BROW_OUT] = u(0.010, 0.015), u(0.047, 0.054)
    p[MOUTH_Y], p[MOUTH_W], p[MOUTH_SMILE] = -0.053 + u(-0.003, 0.003), u(0.0225, 0.0285), u(-0.002, 0.004)
    p[LIP_UP], p[LIP_LOW] = 0.0068 * t["lips"], 0.0085 * t["lips"]
    p[NOSTRIL_X], p[NOSTRIL_Y] = 0.0072 * t["nose_w"], -0.0315 + t["nose_y"]
    p[TEXTURE] = u(0, 100)
    if not male:
        p[LINER], p[SHADOW] = u() * (u() < 0.5), u(0.0, 0.6) * (u() < 0.4)
    return p


def _paint_colours(
    paint: np.ndarray, skin: np.ndarray, hair: np.ndarray, t: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    u = rng.uniform
    iris = IRISES[int(rng.integers(0, len(IRISES) if u() > t["tone"] else 3))]
    c = np.zeros((N_COLOUR, 3))
    c[C_IRIS], c[C_LIMBUS] = iris, iris * 0.25
    c[C_SCLERA] = rgb(240, 236, 230) * np.array([1, u(0.96, 1), u(0.93, 1)])
    c[C_INNER] = rgb(70, 24, 24)
    c[C_BROW] = np.minimum(hair, skin * 0.5) * u(0.7, 1.0) / skin
    c[C_LIP] = (u(0.80, 0.98), u(0.5, 0.66), u(0.5, 0.68))
    if t["male"] == 0 and u() < 0.45:
        c[C_LIP] = (u(0.65, 0.85), u(0.22, 0.4), u(0.25, 0.45))
    c[C_LASH] = np.minimum(rgb(38, 28, 26), skin * 0.15)
    c[C_LID] = (0.9, 0.75, 0.75) if paint[SHADOW] == 0 else (u(0.4, 0.8), u(0.35, 0.7), u(0.4, 0.9))
    c[[C_BROW, C_LIP, C_LASH, C_LID]] **= 0.5
    return c
