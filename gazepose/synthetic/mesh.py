"""Meshes: curves and rings, and how grids of vertices become one mesh. face.py and identity.py make the grids.

Frame: see head.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.compiled import compiled

WRAPS, TWO_SIDED = 1, 2
HAIR = 4  # kind of a vertex
CLEAR = np.array([-127] * 8 + [0], np.int8)  # rise of what nothing shades


@dataclass(frozen=True)
class Mesh:
    """Grids of vertices, head frame. position, normal, albedo float32 [N,3]; the rest [N]; grids int32 [G,4]."""

    position: np.ndarray
    normal: np.ndarray
    albedo: np.ndarray  # linear reflectance
    jaw: np.ndarray  # 0..1 how far a vertex drops with the mouth
    hang: np.ndarray  # 0 follows the head, 1 hangs from the body, -1 turns with the head but stays upright
    gloss: np.ndarray
    kind: np.ndarray  # uint8, a sum: 1 skin on which the face is painted, 2 part of a two-sided sheet, 4 hair
    rise: np.ndarray  # int8 [N,9], see light.py
    grids: np.ndarray  # first vertex, rows, columns, WRAPS | TWO_SIDED


@dataclass
class Grid:
    """A sheet of vertices; the columns are those of Mesh."""

    p: np.ndarray  # [r,c,3]
    albedo: np.ndarray  # [r,c,3]
    flags: int
    jaw: np.ndarray | float = 0.0
    hang: np.ndarray | float = 0.0
    gloss: np.ndarray | float = 0.0
    kind: np.ndarray | int = 0
    rise: np.ndarray | None = None  # [r,c,9]; None: nothing casts a shadow on it


def curve(x: np.ndarray, xs: Sequence[float], ys: Sequence[float]) -> np.ndarray:
    """Smooth curve through points (cubic Hermite, monotone xs, either direction)."""
    px, py = np.array(xs, float), np.array(ys, float)
    if px[0] > px[-1]:
        px, py = px[::-1].copy(), py[::-1].copy()
    x = np.ascontiguousarray(x, float)
    return _curve(x.ravel(), px, py).reshape(x.shape)


@compiled
def _curve(x, px, py):
    n = px.shape[0]
    slope = np.empty(n)
    slope[0], slope[n - 1] = (py[1] - py[0]) / (px[1] - px[0]), (py[n - 1] - py[n - 2]) / (px[n - 1] - px[n - 2])
    for i in range(1, n - 1):
        before, after = px[i] - px[i - 1], px[i + 1] - px[i]
        rise = before * before * (py[i + 1] - py[i]) + after * after * (py[i] - py[i - 1])
        slope[i] = rise / (before * after * (before + after))
    out = np.empty(x.shape[0])
    k = 0
    for i in range(x.shape[0]):
        v = min(max(x[i], px[0]), px[n - 1])
        while k > 0 and v < px[k]:
            k -= 1
        while k < n - 2 and v > px[k + 1]:
            k += 1
        h = px[k + 1] - px[k]
        t = (v - px[k]) / h
        near = py[k] * (1 + 2 * t) + slope[k] * h * t
        out[i] = near * (1 - t) ** 2 + t * t * (py[k + 1] * (3 - 2 * t) + slope[k + 1] * h * (t - 1))
    return out


def ramp(lo: float | np.ndarray, hi: float | np.ndarray, x: np.ndarray) -> np.ndarray:
    """0 at lo, 1 at hi, smooth between them."""
    t = np.clip((x - lo) / (hi - lo), 0.0, 1.0)
    return t * t * (3 - 2 * t)


@compiled
def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """exp(-((x - cx) / sx)^2 - ((y - cy) / sy)^2) on tables [R,C]; 0 where the exponent is below -10."""
    out = np.zeros(x.shape)
    per_x, per_y = 1 / sx, 1 / sy
    for j in range(x.shape[0]):
        for i in range(x.shape[1]):
            u, v = (x[j, i] - cx) * per_x, (y[j, i] - cy) * per_y
            u = u * u + v * v
            if u < 10:
                out[j, i] = math.exp(-u)
    return out


def ring(phi, half, front, back, middle, power) -> tuple[np.ndarray, np.ndarray]:
    """x and z of superellipse sections: [rows,1] sizes, phi [1,cols] from the front over the own left to the back."""
    s, c = np.sin(phi), np.cos(phi)
    e = 2.0 / power
    x = half * np.sign(s) * np.abs(s) ** e
    z = middle + np.where(c > 0, front - middle, middle - back) * np.sign(c) * np.abs(c) ** e
    return x, z


def warp(n: int, dense: list[tuple[float, float]]) -> np.ndarray:
    """n angles once around, from the front; closer together near the front by `dense` (half width, weight)."""
    a = np.linspace(0, math.pi, 721)
    density = np.full_like(a, 0.35)
    for width, weight in dense:
        density += weight * np.exp(-((a / width) ** 2))
    cum = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    half = np.interp(np.arange(n // 2 + 1) / (n // 2), cum / cum[-1], a)
    return np.concatenate([half, (2 * math.pi - half[1:-1])[::-1]])


def _normals(p: np.ndarray, wraps: bool) -> np.ndarray:
    """Outward unit normals of a grid [rows, cols, 3]; rows go down, columns towards the own left at the front."""
    dv = np.concatenate([p[1:2] - p[:1], p[2:] - p[:-2], p[-1:] - p[-2:-1]])
    before, after = (p[:, -1:], p[:, :1]) if wraps else (p[:, :1], p[:, -1:])
    du = np.concatenate([p[:, 1:2] - before, p[:, 2:] - p[:, :-2], after - p[:, -2:-1]], 1)
    a, b, c = dv[..., 0], dv[..., 1], dv[..., 2]
    d, e, f = du[..., 0], du[..., 1], du[..., 2]
    n = np.stack([b * f - c * e, c * d - a * f, a * e - b * d], -1)
    size = np.sqrt(np.einsum("ijk,ijk->ij", n, n))
    flat = size < 1e-12
    n /= np.where(flat, 1.0, size)[..., None]
    n[flat] = (0.0, -1.0, 0.0)
    n[0][flat[0]] = (0.0, 1.0, 0.0)  # where a closed grid's first row is one point, it is its top
    return n


def _every_second(a: np.ndarray, wraps: bool) -> np.ndarray:
    """Half the resolution of a colour table, smoothed so that fine texture does not alias."""
    up, down = np.concatenate([a[:1], a[:-1]]), np.concatenate([a[1:], a[-1:]])
    a = (2 * a + up + down) / 4
    if wraps:
        left, right = np.roll(a, 1, 1), np.roll(a, -1, 1)
    else:
        left, right = np.concatenate([a[:, :1], a[:, :-1]], 1), np.concatenate([a[:, 1:], a[:, -1:]], 1)
    return ((2 * a + left + right) / 4)[::2, ::2]


def join_grids(grids: list[Grid]) -> tuple[Mesh, Mesh]:
    """All grids as one mesh, fine and at half the resolution."""
    names = ("position", "normal", "albedo", "jaw", "hang", "gloss", "kind", "rise")
    parts: tuple[list, list] = ([], [])
    tables: tuple[list, list] = ([], [])
    first = [0, 0]
    for g in grids:
        wraps, shape = bool(g.flags & WRAPS), g.p.shape[:2]
        per_vertex = (g.jaw, g.hang, g.gloss, g.kind | (g.flags & TWO_SIDED))
        rise = np.tile(CLEAR, (*shape, 1)) if g.rise is None else g.rise
        tables_of = (np.broadcast_to(np.asarray(v), shape) for v in per_vertex)
        fine = [g.p, _normals(g.p, wraps), g.albedo, *tables_of, rise]
        coarse = [_every_second(v, wraps) if v is g.albedo else v[::2, ::2] for v in fine]
        for k, level in enumerate((fine, coarse)):
            rows, cols = level[0].shape[:2]
            parts[k].append([v.reshape(rows * cols, *v.shape[2:]) for v in level])
            tables[k].append((first[k], rows, cols, g.flags))
            first[k] += rows * cols
    made = []
    for k in range(2):
        columns = {}
        for name, arrays in zip(names, zip(*parts[k], strict=True), strict=True):
            columns[name] = np.concatenate(arrays).astype({"kind": np.uint8, "rise": np.int8}.get(name, np.float32))
        made.append(Mesh(grids=np.array(tables[k], np.int32), **columns))
    return made[0], made[1]
