"""Glasses: their frame, their lenses, and what is reflected on them; how a person's glasses are drawn from chance.

numba's cache checks one file only, so all that these kernels call is in this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.compiled import compiled, turned, unit

FRAMES = ((20, 20, 20), (60, 36, 24), (110, 106, 100), (120, 30, 34), (150, 120, 70), (40, 44, 70), (190, 180, 160))
"""colours of frames as shown, 0..255"""


@dataclass(frozen=True)
class Glasses:
    """A pair of glasses, head frame, metres."""

    frame: np.ndarray  # [S,2,3] segments
    width: float  # of the segments
    colour: np.ndarray  # [3] linear reflectance
    lenses: np.ndarray  # [2,3] middle of the own left and right lens
    shape: np.ndarray  # [3] half width, half height, power of the superellipse
    glass: np.ndarray  # [3] share of light that passes
    mirror: float  # reflectance when seen straight on

    def scaled(self, size: float) -> Glasses:
        """The same glasses for a head of another size."""
        return Glasses(self.frame * size, self.width * size, self.colour, self.lenses * size,
                       self.shape * [size, size, 1], self.glass, self.mirror)


def make_glasses(half_ipd: float, eye_y: float, rng: np.random.Generator) -> Glasses:
    """Reading glasses; some are tinted, a few are sunglasses."""
    u = rng.uniform
    kind = int(rng.choice(4, p=[0.45, 0.42, 0.08, 0.05]))  # thin frame, thick frame, tinted, sunglasses
    big = 0.002 * (kind == 3)
    w, h, power = u(0.0225, 0.0275) + big, u(0.0165, 0.0225) + big, u(2.0, 4.5)
    a = np.linspace(0, 2 * math.pi, 29)
    cx = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** (2 / power) * w
    cy = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** (2 / power) * h
    middle, slip = half_ipd + 0.001, eye_y - u(0.001, 0.006)
    lines = []

    def at(x, y):
        return np.stack([x, y, 0.098 - 2.2 * np.asarray(x) ** 2], -1)
    for sign in (1, -1):
        rim = at(sign * middle + cx, slip + cy)
        lines.append(np.stack([rim[:-1], rim[1:]], 1))
        hinge = at(np.array(sign * (middle + w)), np.array(slip + 0.4 * h))
        bend = hinge * [0, 1, 0] + [sign * 0.0715, 0, 0.072]
        temple = np.stack([hinge, bend, [sign * 0.0765, eye_y + 0.004, -0.004]])
        lines.append(np.stack([temple[:-1], temple[1:]], 1))
    b = np.linspace(w - middle, middle - w, 7)
    bridge = at(b, slip + 0.35 * h + 0.003 * np.cos(b / 0.01))
    lines.append(np.stack([bridge[:-1], bridge[1:]], 1))
    lenses = np.stack([at(np.array(s * middle), np.array(slip)) for s in (1, -1)])
    colour = (np.array(FRAMES[int(rng.integers(len(FRAMES)))], float) / 255) ** 2
    width = u(0.0026, 0.0046) if kind in (1, 3) else u(0.0009, 0.0018)
    hue = u(0.75, 1.0, 3)
    glass = (u(0.93, 0.98), u(0.93, 0.98), u(0.4, 0.75), u(0.03, 0.12))[kind] * (hue if kind >= 2 else np.ones(3))
    return Glasses(np.concatenate(lines), float(width), colour, lenses, np.array([w, h, power]), glass,
                   float(u(0.01, 0.07) if kind < 3 else u(0.05, 0.12)))


@compiled
def _window(r, lamp, hard):
    """Brightness of a window, or of a lamp if the light is hard, in direction r; both in the camera frame."""
    ahead = r[0] * lamp[0] + r[1] * lamp[1] + r[2] * lamp[2]
    level = math.sqrt(lamp[0] * lamp[0] + lamp[2] * lamp[2])
    if ahead < 0.4 or level < 0.05:
        return 0.0
    wide, high = 0.42 - 0.30 * hard, 0.34 - 0.24 * hard
    turn = abs(r[0] * lamp[2] - r[2] * lamp[0]) / level
    rise = abs((r[1] - ahead * lamp[1]) / level)
    inside = min(unit(0.5 + (wide - turn) / 0.05), unit(0.5 + (high - rise) / 0.05))
    if hard < 0.6 and turn < 0.03:  # the bar between two panes
        inside *= 0.25
    return inside * (2.0 + 6.0 * hard)


@compiled
def draw_lenses(lenses, shape, glass, mirror, head, position, light, camera, x0, y0, depth, code):
    """Darken what lies behind the lenses and add what they reflect: lamps, windows, ceiling and floor."""
    h, w = depth.shape
    f, cx, cy = camera[0], camera[1], camera[2]
    origin = -turned(head.T, position)  # the camera in the head frame
    d, n, r = np.empty(3), np.empty(3), np.empty(3)
    dense = glass[0] + glass[1] + glass[2] < 1
    for k in range(2):
        middle = turned(head, lenses[k]) + position
        if middle[2] < 0.05:
            continue
        px, py = f * middle[0] / middle[2] + cx, f * middle[1] / middle[2] + cy
        reach = 1.25 * max(shape[0], shape[1]) * f / middle[2] + 2
        tilt = -4.4 * lenses[k, 0]  # the lens bends around the face
        for j in range(max(int(py - reach) - y0, 0), min(int(py + reach) + 1 - y0, h)):
            for i in range(max(int(px - reach) - x0, 0), min(int(px + reach) + 1 - x0, w)):
                if depth[j, i] <= 0 and not dense:
                    continue
                x, y = (x0 + i + 0.5 - cx) / f, (y0 + j + 0.5 - cy) / f
                for c in range(3):
                    d[c] = head[0, c] * x + head[1, c] * y + head[2, c]
                along = d[2] - tilt * d[0]
                if abs(along) < 1e-6:
                    continue
                t = (lenses[k, 2] + tilt * (origin[0] - lenses[k, 0]) - origin[2]) / along  # depth of the lens
                if t < 0.05 or 1.0 / t < depth[j, i]:
                    continue
                u, v = origin[0] + t * d[0] - lenses[k, 0], origin[1] + t * d[1] - lenses[k, 1]
                a, b = abs(u) / shape[0], abs(v) / shape[1]
                if a >= 1 or b >= 1 or (a * a + b * b > 1 and a ** shape[2] + b ** shape[2] > 1):
                    continue
                n[0], n[1], n[2] = u / 0.11 - tilt, v / 0.11, 1.0
                size = math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
                long = math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
                facing = -(n[0] * d[0] + n[1] * d[1] + n[2] * d[2]) / (size * long)
                if facing < 0.02:
                    continue
                for c in range(3):
                    n[c] = d[c] / long + 2 * facing * n[c] / size
                for c in range(3):
                    r[c] = head[c, 0] * n[0] + head[c, 1] * n[1] + head[c, 2] * n[2]
                share = mirror + (1 - mirror) * (1 - facing) ** 5
                lamp, lamp2 = _window(r, light[0], light[6, 0]), _window(r, light[4], 0.3)
                sky = unit(0.5 - 0.9 * r[1])
                seen = code[j, i] if depth[j, i] > 0 else 0
                mixed = 0
                for c in range(3):
                    value = ((seen >> (10 * c)) & 1023) / 1023.0
                    around = light[1, c] * lamp + light[5, c] * 3 * lamp2
                    around += 0.9 * (light[2, c] * sky * sky + 0.3 * light[3, c] * (1 - sky))
                    value = math.sqrt(value * value * glass[c] + share * around)
                    mixed |= int(1023 * min(value, 1.0)) << (10 * c)
                code[j, i] = mixed
                if depth[j, i] <= 0:
                    depth[j, i] = 1.0 / t


@compiled
def draw_frame(segments, width, shown, head, origin, camera, x0, y0, depth, code):
    """Draw glasses as lines of constant width. A sample is covered at most once; nearer surfaces hide the lines."""
    h, w = depth.shape
    f, cx, cy = camera[0], camera[1], camera[2]
    ends = np.empty((segments.shape[0], 2, 3))  # x, y in samples, 1 / depth
    left, top, right, bottom = x0 + w, y0 + h, x0, y0
    for s in range(segments.shape[0]):
        for e in range(2):
            p = segments[s, e]
            z = head[2, 0] * p[0] + head[2, 1] * p[1] + head[2, 2] * p[2] + origin[2]
            if z < 0.05:
                return
            ends[s, e, 0] = f * (head[0, 0] * p[0] + head[0, 1] * p[1] + head[0, 2] * p[2] + origin[0]) / z + cx
            ends[s, e, 1] = f * (head[1, 0] * p[0] + head[1, 1] * p[1] + head[1, 2] * p[2] + origin[1]) / z + cy
            ends[s, e, 2] = 1 / z
            wide = 0.5 * width * f / z + 2
            left, right = min(left, int(ends[s, e, 0] - wide)), max(right, int(ends[s, e, 0] + wide) + 1)
            top, bottom = min(top, int(ends[s, e, 1] - wide)), max(bottom, int(ends[s, e, 1] + wide) + 1)
    left, top, right, bottom = max(left - x0, 0), max(top - y0, 0), min(right - x0, w), min(bottom - y0, h)
    if left >= right or top >= bottom:
        return
    cover = np.zeros((bottom - top, right - left), np.float32)
    near = np.zeros((bottom - top, right - left), np.float32)
    for s in range(segments.shape[0]):
        ax, ay, ia = ends[s, 0, 0], ends[s, 0, 1], ends[s, 0, 2]
        bx, by, ib = ends[s, 1, 0], ends[s, 1, 1], ends[s, 1, 2]
        true = 0.25 * width * f * (ia + ib)
        half = max(true, 0.5)
        dx, dy = bx - ax, by - ay
        dd = dx * dx + dy * dy + 1e-9
        for j in range(max(top, int(min(ay, by) - half - 1) - y0), min(bottom, int(max(ay, by) + half + 2) - y0)):
            for i in range(max(left, int(min(ax, bx) - half - 1) - x0), min(right, int(max(ax, bx) + half + 2) - x0)):
                px, py = x0 + i + 0.5 - ax, y0 + j + 0.5 - ay
                t = unit((px * dx + py * dy) / dd)
                ex, ey = px - t * dx, py - t * dy
                a = unit(0.5 + half - math.sqrt(ex * ex + ey * ey)) * min(1.0, true / half)
                z = ia + (ib - ia) * t
                if a > cover[j - top, i - left] and z * 1.002 > depth[j, i]:
                    cover[j - top, i - left] = a
                    near[j - top, i - left] = z
    for j in range(top, bottom):
        for i in range(left, right):
            a = cover[j - top, i - left]
            if a > 0 and (depth[j, i] > 0 or a >= 0.5):
                v = code[j, i]
                if depth[j, i] == 0:
                    v, a = 0, np.float32(1.0)
                r, g, b = v & 1023, (v >> 10) & 1023, (v >> 20) & 1023
                r, g, b = r + (shown[0] - r) * a, g + (shown[1] - g) * a, b + (shown[2] - b) * a
                code[j, i] = int(r) | (int(g) << 10) | (int(b) << 20)
                depth[j, i] = max(depth[j, i], near[j - top, i - left])
