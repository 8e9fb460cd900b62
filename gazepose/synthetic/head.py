"""One person drawn on the CPU, so that one can see where the eyes look.

A person is a few grids of vertices (head with hair, ears, neck, torso, arms, long hair), made from a seed by
identity.py. They are lit per vertex and drawn into a depth buffer with 2 x 2 samples a pixel. Eyes and lids, brows,
lips, nostrils and glasses must stay sharp, so they are painted per sample, at the surface point that the depth gives.
The kernels are raster.py and paint.py. Room, occluders, blur, noise and exposure are scene.py and camera.py.

Frames: head +x to the person's own left, +y up, +z out of the face, metres, origin between the ears; camera x right,
y down, z forward. The face frame, in which people are built and painted, is the head frame tilted by face.LEVEL.
Pixel i covers [i, i + 1): its centre lies at i + 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.eyes import paint_eyes
from gazepose.synthetic.face import LEVEL
from gazepose.synthetic.glasses import draw_frame, draw_lenses
from gazepose.synthetic.identity import Identity
from gazepose.synthetic.light import Light, clear_of, lamp_of
from gazepose.synthetic.mesh import Mesh
from gazepose.synthetic.paint import MOUTH_GAP, TEXEL, paint_face, paint_hair
from gazepose.synthetic.raster import average_samples, draw_grids, light_vertices, visible
from gazepose.synthetic.skin import hair_strands

FINE = 220.0  # pixels of head height from which the fine meshes are drawn
# a box around all that is painted, face frame
PAINTED = np.array([[a, b, c] for a in (-0.08, 0.08) for b in (0.1, -0.11) for c in (0.0, 0.125)])


@dataclass(frozen=True)
class Pose:
    """Where a person is and what the face does; see the module docstring for frames."""

    position: np.ndarray  # [3] head centre, camera frame, metres
    rotation: np.ndarray  # [3,3] head -> camera
    eyes: np.ndarray  # [2,3] unit gaze of own left, own right eye, HEAD frame
    lids: float | np.ndarray = 1.0  # 1 open, 0 closed; [2] for each eye; gaze pitch moves the lids by itself
    squint: float = 0.0  # 0..1, beside the person's own
    mouth: float = 0.0  # 0 closed, 1 open
    shoulders: float = 0.0  # radians; 0 faces the camera, > 0 turns towards image right


@dataclass(frozen=True)
class Patch:
    """A drawn person: colours (not premultiplied) and coverage, at x0, y0 of the picture."""

    x0: int
    y0: int
    rgb: np.ndarray  # uint8 [h,w,3]
    alpha: np.ndarray  # float32 [h,w], 0..1


def project(points_head: np.ndarray, pose: Pose, focal: float, centre: tuple[float, float]) -> np.ndarray:
    """Where points of the head frame [n,3] lie in the picture, pixels [n,2]."""
    p = np.asarray(points_head, float) @ pose.rotation.T + pose.position
    return focal * p[:, :2] / p[:, 2:] + np.asarray(centre, float)


def face_box(identity: Identity, pose: Pose, focal: float, centre: tuple[float, float]) -> np.ndarray:
    """The box of a face detector, x1, y1, x2, y2 in pixels: from forehead to chin and from cheek to cheek."""
    p = project(identity.outline, pose, focal, centre)
    return np.concatenate([p.min(0), p.max(0)])


def landmark_visible(identity: Identity, pose: Pose) -> np.ndarray:
    """Which landmarks the camera sees, bool [5]: those that no part of the same person hides."""
    mesh = identity.meshes[1]
    nowhere = np.array([0.0, 0.0, -1.0, -1.0]) * 1e12  # no vertex needs light
    sx, sy, iz, _ = _light_mesh(mesh, pose, np.zeros((7, 3)), np.array([1000.0, 0.0, 0.0]), nowhere)
    p = project(identity.landmarks, pose, 1000.0, (0.0, 0.0))
    z = identity.landmarks @ pose.rotation[2] + pose.position[2]
    return visible(sx, sy, iz, mesh.grids, p, 1.0 / (z - 0.008))


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
        region: x0, y0, x1, y1 of the part that is drawn; None: the whole picture. A part equals the same part of the
            whole.

    Returns:
        The patch around the person inside the region; 0 x 0 when nothing of the person lies there.
    """
    left, top, right, bottom = region if region is not None else (0, 0, size[0], size[1])
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    pixels = focal * 0.23 / max(float(pose.position[2]), 0.05)  # height of the head
    mesh = identity.meshes[0 if pixels > FINE else 1]
    camera = 2.0 * np.array([focal, centre[0], centre[1]], float)  # in samples: two by two in a pixel
    window = 2.0 * np.array([left, top, right, bottom], float)
    lamp = lamp_of(light)
    sx, sy, iz, rgb = _light_mesh(mesh, pose, lamp, camera, window)
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

    _paint(identity, pose, lamp, camera, (2 * left, 2 * top), depth, code)
    out, alpha = np.empty((h, w, 3), np.uint8), np.empty((h, w), np.float32)
    average_samples(depth, code, out, alpha)
    return Patch(left, top, out, alpha)


def _paint(identity: Identity, pose: Pose, lamp: np.ndarray, camera: np.ndarray, corner: tuple[int, int],
           depth: np.ndarray, code: np.ndarray) -> None:
    """Paint what must be sharp: skin, hair, eyes, glasses."""
    rotation, origin = _face_rotation(pose), np.array(pose.position, float)
    corners = project(PAINTED @ LEVEL.T, pose, camera[0], (camera[1], camera[2]))
    box = np.concatenate([np.floor(corners.min(0)), np.ceil(corners.max(0))]).astype(np.int64)
    where = (rotation, origin, lamp, camera, *corner)
    coarser = float(np.log2(max(origin[2] / camera[0] / TEXEL, 1.0)))  # halvings that make a cell of a map a sample
    skin, strands = (maps[min(round(coarser), len(maps) - 1)] for maps in (identity.skin, hair_strands()))
    squint = 1 - (1 - identity.squint) * (1 - pose.squint)
    paint_face(identity.paint, identity.colours, skin, float(pose.mouth), squint, *where, box, depth, code)
    paint_hair(strands, 0.35, rotation, origin, camera, *corner, depth, code)
    lids = np.array(np.broadcast_to(pose.lids, 2), float)
    free = clear_of(identity.eye_rise, lamp, rotation)
    paint_eyes(identity.eye_numbers, identity.eye_colours, identity.drawn_eyes, pose.eyes @ LEVEL, lids,
               squint, free, *where, depth, code)
    glasses = identity.glasses
    if glasses is not None:
        draw_lenses(glasses.lenses, glasses.shape, glasses.glass, glasses.mirror, *where, depth, code)
        shown = 1023 * np.sqrt(np.clip(glasses.colour * (np.array([0.5, 0.6, 0.3]) @ lamp[1:4]) + 0.004, 0, 1))
        draw_frame(glasses.frame, glasses.width, shown, rotation, origin, camera, *corner, depth, code)


def _light_mesh(mesh: Mesh, pose: Pose, lamp: np.ndarray, camera: np.ndarray, window: np.ndarray
                ) -> tuple[np.ndarray, ...]:
    """Every vertex projected and lit: x, y, 1 / depth, colour; see `light_vertices`."""
    n = len(mesh.position)
    sx, sy, iz, rgb = np.empty(n), np.empty(n), np.empty(n), np.zeros((n, 3), np.float32)
    turns = np.stack([_face_rotation(pose), _body_rotation(pose), _upright(pose.rotation)])
    per_vertex = (mesh.position, mesh.normal, mesh.albedo, mesh.jaw, mesh.hang, mesh.gloss, mesh.kind, mesh.rise)
    origin = np.array(pose.position, float)
    free = clear_of(mesh.rise, lamp, turns[0]) if lamp.any() else np.ones(n)
    light_vertices(*per_vertex, free, turns, origin, MOUTH_GAP * pose.mouth, lamp, camera, window, sx, sy, iz, rgb)
    return sx, sy, iz, rgb


def _face_rotation(pose: Pose) -> np.ndarray:
    """Face -> camera."""
    return np.ascontiguousarray(pose.rotation @ LEVEL)


def _body_rotation(pose: Pose) -> np.ndarray:
    yaw = math.atan2(-pose.position[0], pose.position[2]) + pose.shoulders
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]])


def _upright(rotation: np.ndarray) -> np.ndarray:
    """The part of the head's rotation that is about the vertical; hair hangs by it."""
    yaw = math.atan2(rotation[0, 2], -rotation[2, 2])
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]])

