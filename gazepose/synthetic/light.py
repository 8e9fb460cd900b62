"""Light on a person: a main light that casts shadows, a second one that does not, and light from all around.

Shadows come from a table: how high the head rises around each point of its surface, in eight directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from gazepose.synthetic.compiled import compiled, turned

CELL, COLUMNS, ROWS = 0.003, 64, 88  # a map of the head's front: metres per cell, and its size
LEFT, LOW = -0.096, -0.125  # its corner, head frame
STEPS = np.array([1.5, 2.5, 4.0, 6.0, 9.0, 13.0])  # cells at which the head's rise is measured


@dataclass(frozen=True)
class Light:
    """Linear light: a white surface facing it shows gain * (colour + ambient), 1.0 being full white."""

    direction: np.ndarray  # [3] towards the main light, camera frame
    colour: np.ndarray
    ambient_sky: np.ndarray
    ambient_ground: np.ndarray
    gain: float = 1.0
    second: np.ndarray = field(default_factory=lambda: np.array([0.0, -1.0, 0.0]))  # [3] towards another light
    second_colour: np.ndarray = field(default_factory=lambda: np.zeros(3))
    hard: float = 0.3  # 0 wide and soft, 1 a small lamp or the sun


def make_light(rng: np.random.Generator) -> Light:
    """Light of a room: through a window, from the ceiling, from the side, from behind, or from two sides."""
    u = rng.uniform
    kind = int(rng.choice(5, p=[0.32, 0.24, 0.16, 0.12, 0.16]))
    low, high = ((-1.2, 1.2), (-0.9, 0.9), (1.0, 1.8), (1.9, 2.9), (-1.3, 1.3))[kind]
    around = u(low, high) * (rng.choice([-1, 1]) if kind in (2, 3) else 1)
    height = u(*((0.15, 0.9), (0.8, 1.3), (0.0, 0.7), (0.1, 0.8), (0.1, 0.9))[kind])
    key = u(*((0.45, 0.95), (0.5, 0.95), (0.5, 1.05), (0.6, 1.4), (0.45, 0.85))[kind])
    around_all = u(0.5, 0.85) - 0.32 * min(key, 0.9) + 0.25 * (kind == 3)
    strong = rng.random() < 0.25
    warm, green = rng.normal(0, 0.15 if strong else 0.05), rng.normal(0, 0.02)
    tint = np.array([1 + warm, 1.0 + green, 1 - warm])
    cool = np.array([1 - 0.4 * warm, 1.0, 1 + 0.4 * warm])
    other = -np.sign(around) * u(0.7, 2.2)
    weak = u(0.25, 0.7) * key if kind == 4 else u(0.0, 0.15)
    floor = u(0.45, 0.75) * around_all * np.array([1.0, u(0.9, 0.98), u(0.8, 0.95)])
    return Light(
        direction=_towards(around, height), colour=key * tint, ambient_sky=around_all * cool, ambient_ground=floor,
        gain=float(u(0.85, 1.12)), second=_towards(other, u(0.0, 0.6)),
        second_colour=weak * (2 - tint if strong else cool), hard=float(u(0.0, 1.0)))


def _towards(around: float, height: float) -> np.ndarray:
    """Direction by the angle around the person (0: behind the camera) and above the horizon, radians."""
    return np.array([np.sin(around) * np.cos(height), -np.sin(height), -np.cos(around) * np.cos(height)])


def lamp_of(light: Light) -> np.ndarray:
    """What the kernels read, [7,3]: direction, colour, sky, ground, second direction, its colour, (hard, 0, 0)."""
    first, second = np.asarray(light.direction, float), np.asarray(light.second, float)
    colours = np.array([light.colour, light.ambient_sky, light.ambient_ground, light.second_colour]) * light.gain
    return np.stack([first / np.linalg.norm(first), *colours[:3], second / np.linalg.norm(second), colours[3],
                     np.array([light.hard, 0.0, 0.0])])


def rise_of_head(head: np.ndarray, eyes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rise around the points of a head's table [r, c, 3] and around the eyes [2, 3]: int8 [r, c, 9] and [2, 8].

    The ninth number is the mean of the others without those below 0: how deep a point lies.
    """
    coarse = np.ascontiguousarray(head[::2, ::2])
    around = rise_around(head.reshape(-1, 3), np.concatenate([coarse.reshape(-1, 3), eyes]))
    table = around[:-2].reshape(*coarse.shape[:2], 8).astype(np.float32)
    table = cv2.resize(cv2.blur(table, (3, 3)), head.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    deep = np.maximum(table, 0).mean(2, keepdims=True)
    return np.concatenate([table, deep], 2).astype(np.int8), around[-2:]


@compiled
def rise_around(surface, points):
    """How high the head rises around points: sine of the angle above the plane of the face, [k, 8], times 127.

    Direction i is i / 8 of a turn from the own left over the top. surface [n, 3] are points all over the head.
    """
    height = np.full((ROWS, COLUMNS), -1.0)
    for i in range(surface.shape[0]):
        c, r = int((surface[i, 0] - LEFT) / CELL), int((surface[i, 1] - LOW) / CELL)
        if 0 <= c < COLUMNS and 0 <= r < ROWS and surface[i, 2] > height[r, c]:
            height[r, c] = surface[i, 2]
    rise = np.full((points.shape[0], 8), -127, np.int8)
    for i in range(points.shape[0]):
        if points[i, 2] < 0:
            continue
        x, y, z = (points[i, 0] - LEFT) / CELL, (points[i, 1] - LOW) / CELL, points[i, 2]
        if 0 <= x < COLUMNS and 0 <= y < ROWS:
            z = max(z, height[int(y), int(x)] - 0.001)  # a cell's highest point must not shade its neighbours
        for k in range(8):
            dx, dy = math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)
            most = -1.0
            for s in range(STEPS.shape[0]):
                c, r = int(x + STEPS[s] * dx), int(y + STEPS[s] * dy)
                if 0 <= c < COLUMNS and 0 <= r < ROWS and height[r, c] > 0:
                    up, far = height[r, c] - z - 0.0004, STEPS[s] * CELL
                    most = max(most, up / math.sqrt(up * up + far * far))
            rise[i, k] = int(127 * most)
    return rise


@compiled
def clear_of(rise, lamp, turn):
    """Share of the main light that reaches points with the given rise [k, 8] when a head is turned, [k]."""
    free = np.empty(rise.shape[0])
    towards = turned(turn.T, lamp[0])
    sector = math.atan2(towards[1], towards[0]) * 4 / math.pi
    sector = sector + 8 if sector < 0 else sector
    k, part = int(sector) % 8, sector - int(sector)
    soft = 0.45 - 0.33 * lamp[6, 0]
    for i in range(rise.shape[0]):
        most = ((1 - part) * rise[i, k] + part * rise[i, (k + 1) % 8]) / 127
        t = 1.0 if most < -0.99 else min(max((towards[2] - most + soft) / (2 * soft), 0.0), 1.0)
        free[i] = t * t * (3 - 2 * t)
    return free
