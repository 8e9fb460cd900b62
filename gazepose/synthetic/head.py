"""Heads: one person drawn on the CPU so that where the eyes look can be read.

A person is a handful of grids of vertices (head with hair, ears, neck, torso, arms, long hair) made from a seed, lit
per vertex and drawn into a depth buffer with 2x2 samples per pixel. What must stay crisp (eyes and lids, brows, lips,
nostrils, glasses) is then painted per sample at the surface point the depth gives. Everything is a function of the
arguments. Who a person is, identity.py says; the kernels are raster.py and features.py. Backgrounds, things in front of
the face, blur, noise and exposure are not here: draw.py and camera.py.

Frames: head +x to the person's own left, +y up, +z out of the face, metres, origin between the ears; camera x right,
y down, z forward. Pixel i covers [i, i + 1): its centre lies at i + 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.features import MOUTH_GAP, draw_frame, paint_features
from gazepose.synthetic.identity import Identity
from gazepose.synthetic.mesh import Mesh
from gazepose.synthetic.raster import draw_grids, light_vertices, reached, resolve

FINE = 220.0  # pixels of head height from which the fine meshes are drawn
# a box around all that is painted, head frame
FACE = np.array([[a, b, c] for a in (-0.058, 0.058) for b in (0.06, -0.105) for c in (0.03, 0.125)])


@dataclass(frozen=True)
class Pose:
    """Where a person is and what the face does; see the module docstring for frames."""

    position: np.ndarray  # [3] head centre, camera frame, metres
    rotation: np.ndarray  # [3,3] head -> camera
    eyes: np.ndarray  # [2,3] unit gaze of own left, own right eye, HEAD frame
    lids: float = 1.0  # 1 open, 0 closed; gaze pitch moves the lids by itself
    mouth: float = 0.0  # 0 closed, 1 open
    shoulders: float = 0.0  # radians; 0 faces the camera, > 0 turns towards image right


@dataclass(frozen=True)
class Light:
    """Linear light: a white surface facing it shows gain * (colour + ambient), 1.0 being full white."""

    direction: np.ndarray  # [3] towards the light, camera frame
    colour: np.ndarray
    ambient_sky: np.ndarray
    ambient_ground: np.ndarray
    gain: float = 1.0


@dataclass(frozen=True)
class Patch:
    """A drawn person: colours (not premultiplied) and coverage, at x0, y0 of the picture."""

    x0: int
    y0: int
    rgb: np.ndarray  # uint8 [h,w,3]
    alpha: np.ndarray  # float32 [h,w], 0..1


def projected(points_head: np.ndarray, pose: Pose, focal: float, centre: tuple[float, float]) -> np.ndarray:
    """Pixel places [n,2] of points [n,3] of the head frame."""
    p = np.asarray(points_head, float) @ pose.rotation.T + pose.position
    return focal * p[:, :2] / p[:, 2:] + np.asarray(centre, float)


def face_box(identity: Identity, pose: Pose, focal: float, centre: tuple[float, float]) -> np.ndarray:
    """x1, y1, x2, y2 in pixels of what a face detector would frame: forehead to chin, cheek to cheek."""
    p = projected(identity.outline, pose, focal, centre)
    return np.concatenate([p.min(0), p.max(0)])


def landmark_visible(identity: Identity, pose: Pose) -> np.ndarray:
    """bool [5]: does the ray from the camera reach the landmark before anything of the same person?"""
    mesh = identity.meshes[1]
    nowhere = np.array([0.0, 0.0, -1.0, -1.0]) * 1e12  # no vertex needs light
    sx, sy, iz, _ = _shown(mesh, pose, np.zeros((4, 3)), np.array([1000.0, 0.0, 0.0]), nowhere)
    p = projected(identity.landmarks, pose, 1000.0, (0.0, 0.0))
    z = identity.landmarks @ pose.rotation[2] + pose.position[2]
    return reached(sx, sy, iz, mesh.grids, p, 1.0 / (z - 0.008))


def render_person(
    identity: Identity,
    pose: Pose,
    light: Light,
    focal: float,
    centre: tuple[float, float],
    size: tuple[int, int],
    region: tuple[int, int, int, int] | None = None,
) -> Patch:
    """Draw a person.

    Args:
        focal, centre: pinhole camera, pixels.
        size: width, height of the picture.
        region: x0, y0, x1, y1 of the part wanted; None is the whole picture. A part equals the cut of the whole.

    Returns:
        The patch around the person inside the region; 0 x 0 when nothing of the person lies there.
    """
    left, top, right, bottom = region if region is not None else (0, 0, size[0], size[1])
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    pixels = focal * 0.23 / max(float(pose.position[2]), 0.05)  # height of the head
    mesh = identity.meshes[0 if pixels > FINE else 1]
    camera = 2.0 * np.array([focal, centre[0], centre[1]], float)  # in samples: two by two in a pixel
    window = 2.0 * np.array([left, top, right, bottom], float)
    lamp = _lamp(light)
    sx, sy, iz, rgb = _shown(mesh, pose, lamp, camera, window)
    seen = iz > 0
    if seen.any():
        left = max(left, int(sx[seen].min() // 2) - 1)
        top = max(top, int(sy[seen].min() // 2) - 1)
        right = min(right, int(sx[seen].max() // 2) + 2)
        bottom = min(bottom, int(sy[seen].max() // 2) + 2)
    if not seen.any() or right <= left or bottom <= top:
        return Patch(left, top, np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.float32))
    w, h = right - left, bottom - top
    depth, code = np.zeros((2 * h, 2 * w), np.float32), np.empty((2 * h, 2 * w), np.int32)
    draw_grids(sx, sy, iz, rgb, mesh.kind, mesh.grids, 2 * left, 2 * top, depth, code)

    rotation, origin = np.array(pose.rotation, float, order="C"), np.array(pose.position, float)
    corners = projected(FACE, pose, camera[0], (camera[1], camera[2]))
    box = np.concatenate([np.floor(corners.min(0)), np.ceil(corners.max(0))]).astype(np.int64)
    gaze = np.array(pose.eyes, float, order="C")
    face = (identity.paint, identity.colours, identity.eyes, gaze, float(pose.lids), float(pose.mouth))
    paint_features(*face, rotation, origin, lamp, camera, 2 * left, 2 * top, box, depth, code)
    if len(identity.frame):
        shown = 1023 * np.sqrt(np.clip(identity.frame_colour * (np.array([0.5, 0.6, 0.3]) @ lamp[1:]), 0, 1))
        glasses = (identity.frame, identity.frame_width, shown)
        draw_frame(*glasses, rotation, origin, camera, 2 * left, 2 * top, depth, code)
    out, alpha = np.empty((h, w, 3), np.uint8), np.empty((h, w), np.float32)
    resolve(depth, code, out, alpha)
    return Patch(left, top, out, alpha)


def _shown(mesh: Mesh, pose: Pose, lamp: np.ndarray, camera: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, ...]:
    n = len(mesh.position)
    sx, sy, iz, rgb = np.empty(n), np.empty(n), np.empty(n), np.zeros((n, 3), np.float32)
    turns = np.stack([np.asarray(pose.rotation, float), _body_rotation(pose), _upright(pose.rotation)])
    per_vertex = (mesh.position, mesh.normal, mesh.albedo, mesh.jaw, mesh.hang, mesh.gloss, mesh.kind)
    origin = np.array(pose.position, float)
    light_vertices(*per_vertex, turns, origin, MOUTH_GAP * pose.mouth, lamp, camera, window, sx, sy, iz, rgb)
    return sx, sy, iz, rgb


def _body_rotation(pose: Pose) -> np.ndarray:
    yaw = math.atan2(-pose.position[0], pose.position[2]) + pose.shoulders
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]])


def _upright(rotation: np.ndarray) -> np.ndarray:
    """The head's rotation with only its turn about the vertical left: how hair hangs."""
    yaw = math.atan2(rotation[0, 2], -rotation[2, 2])
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]])


def _lamp(light: Light) -> np.ndarray:
    """Direction, colour, sky, ground with the gain in them, [4,3]."""
    direction = np.asarray(light.direction, float)
    colours = np.array([light.colour, light.ambient_sky, light.ambient_ground], float) * light.gain
    return np.concatenate([direction[None] / np.linalg.norm(direction), colours])
