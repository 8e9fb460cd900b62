"""The wearer's camera: planned shots -> pictures -> video, with the effects of lens, sensor and codec.

Pictures are uint8 RGB [H, W, 3].
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from gazepose.synthetic import head, scene
from gazepose.synthetic.plan import PlannedClip
from gazepose.synthetic.presets import WorldPreset
from gazepose.synthetic.shot import Exposure, Shot, identity_of, place_of, pose_of


def draw_clip(clip: PlannedClip) -> Iterator[np.ndarray]:
    """The frames of a clip, uint8 [H, W, 3] RGB, in order."""
    for shot in clip.shots:
        yield from draw_shot(clip.preset, shot, clip.world_seed)


def draw_shot(preset: WorldPreset, shot: Shot, world_seed: int) -> Iterator[np.ndarray]:
    """The frames of one shot."""
    rng = np.random.default_rng(shot.seed)
    farthest = max(float(a.position[0, 2]) for a in shot.people)
    room = scene.make_room(rng, preset, farthest)
    sprites: dict[int, np.ndarray] = {}
    far_first = sorted(range(len(shot.persons)), key=lambda p: -shot.people[p].position[0, 2])
    for frame in range(shot.frames):
        picture = room.view(preset, shot.rotation[frame])
        for person in far_first:
            draw_person(picture, (0, 0), preset, shot, person, frame, world_seed, sprites)
        picture = roll(picture, shot.skew[frame], preset.size[1] / 2)
        yield expose(rng, picture, shot.exposure, frame, tuple(shot.smear[frame]), picture.shape[:2])


def draw_person(picture: np.ndarray, corner: tuple[int, int], preset: WorldPreset, shot: Shot, person: int, frame: int,
                world_seed: int, sprites: dict[int, np.ndarray]) -> None:
    """Draw a person, and the thing before the face, into the part of the picture that begins at corner.

    Args:
        sprites: things that are drawn already, by person; kept over the frames of a shot.
    """
    identity, pose = identity_of(world_seed, shot.identities[person]), pose_of(shot, person, frame)
    centre = (preset.size[0] / 2 - corner[0], preset.size[1] / 2 - corner[1])
    light, turn = shot.exposure.light, shot.rotation[frame].T
    light = replace(light, direction=turn @ light.direction, second=turn @ light.second)
    height, width = picture.shape[:2]
    patch = head.render_person(identity, pose, light, preset.focal, centre, (width, height))
    scene.blend(picture, patch.x0, patch.y0, patch.rgb, patch.alpha)
    occluder, moved = shot.occluders[person], shot.own_smear[person, frame]
    if occluder is None and np.hypot(*moved) < 1:
        return
    box = head.face_box(identity, pose, preset.focal, centre)
    blur_head(picture, box, *moved.tolist())
    if occluder is None:
        return
    if person not in sprites:
        sprites[person] = scene.make_occluder(
            np.random.default_rng(occluder.seed), occluder.kind, _tone(picture, box, (0.35, 0.65), (0.4, 0.7)),
            _tone(picture, box, (-0.1, 0.25), (1.8, 2.1)))
    middle, wide, angle = place_of(occluder, frame, box)
    scene.lay_over(picture, sprites[person], (float(middle[0]), float(middle[1])), wide, angle)


def _tone(picture: np.ndarray, box: np.ndarray, across: tuple[float, float], down: tuple[float, float]) -> np.ndarray:
    """Median colour of a part of the picture; across and down are in shares of the box of a face."""
    x = np.clip(box[0] + np.array(across) * (box[2] - box[0]), 0, picture.shape[1] - 1).astype(int)
    y = np.clip(box[1] + np.array(down) * (box[3] - box[1]), 0, picture.shape[0] - 1).astype(int)
    return np.median(picture[y[0]:y[1] + 1, x[0]:x[1] + 1].reshape(-1, 3), axis=0).astype(float)


@lru_cache(maxsize=4)
def _grain(height: int, width: int) -> np.ndarray:
    """Sensor noise around 128 with a spread of 32, uint8 [height, width, 3], the same in every process."""
    grain = np.random.default_rng(20).standard_normal((height, width, 3), np.float32)
    grain = 0.75 * grain + 0.65 * grain.mean(2, keepdims=True)
    return np.clip(grain * (32 / grain.std()) + 128, 0, 255).astype(np.uint8)


def smear(picture: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The picture moved by (dx, dy) pixels while the shutter is open: mean of itself along that line."""
    length = np.hypot(dx, dy)
    if length < 1:
        return picture
    h, w = picture.shape[:2]
    pad = int(np.ceil(max(abs(dx), abs(dy)) / 2)) + 2
    out = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    for i in range(1, int(np.ceil(np.log2(length))) + 1):       # halves: 2^i points on the line after i rounds
        vx, vy = round(dx / 2**i), round(dy / 2**i)
        hh, ww = out.shape[0] - abs(vy), out.shape[1] - abs(vx)
        ya, xa, yb, xb = max(vy, 0), max(vx, 0), max(-vy, 0), max(-vx, 0)
        if vx or vy:
            out = cv2.addWeighted(out[ya:ya + hh, xa:xa + ww], 0.5, out[yb:yb + hh, xb:xb + ww], 0.5, 0)
    y0, x0 = (out.shape[0] - h) // 2, (out.shape[1] - w) // 2
    return out[y0:y0 + h, x0:x0 + w]


@lru_cache(maxsize=1)
def _around_head() -> np.ndarray:
    """1 on a head and 0 around it, float32 [64, 64]."""
    x = np.linspace(-1, 1, 64)
    out = np.hypot(x[:, None], x)
    return np.clip((1 - out) / 0.4, 0, 1).astype(np.float32)


def blur_head(picture: np.ndarray, box: np.ndarray, dx: float, dy: float) -> None:
    """Smear a head in the picture, in place, by what it moves on its own while the shutter is open.

    Args: box: of its face, x1, y1, x2, y2.
    """
    if np.hypot(dx, dy) < 1:
        return
    height, width = picture.shape[:2]
    centre, half = (box[:2] + box[2:]) / 2, (box[3] - box[1]) * np.array([0.75, 0.85])
    x0, y0 = np.maximum(centre - half, 0).astype(int).tolist()
    x1, y1 = np.minimum(centre + half, [width, height]).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return
    moved = smear(picture[y0:y1, x0:x1], dx, dy)
    scene.blend(picture, x0, y0, moved, cv2.resize(_around_head(), (x1 - x0, y1 - y0)))


def roll(picture: np.ndarray, skew: np.ndarray, middle: float) -> np.ndarray:
    """The picture as a rolling shutter takes it, whose rows are exposed one after another; see `shot.rolled`."""
    if not skew.any():
        return picture
    across, down = skew.tolist()
    move = np.array([[1, across, -across * (middle - 0.5)], [0, 1 + down, -down * (middle - 0.5)]])
    return cv2.warpAffine(picture, move, picture.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def expose(rng: np.random.Generator, picture: np.ndarray, exposure: Exposure, frame: int, motion: tuple[float, float],
           size: tuple[int, int]) -> np.ndarray:
    """Apply motion blur, defocus, brightness and noise to a picture, or to a part of one. Returns uint8 [H, W, 3].

    Args:
        motion: pixels moved while the shutter is open.
        size: (height, width) of the whole picture, for the noise.
    """
    picture = smear(picture, *motion)
    sigma = exposure.defocus[frame]
    if sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture = cv2.LUT(np.ascontiguousarray(picture), exposure.sensed)
    h, w = picture.shape[:2]
    grain = _grain(size[0] + 64, size[1] + 64)
    y, x = rng.integers(0, grain.shape[0] - h + 1), rng.integers(0, grain.shape[1] - w + 1)
    weight = exposure.noise / 32
    picture = cv2.addWeighted(picture, 1.0, grain[y:y + h, x:x + w], weight, -128 * weight)
    return cv2.LUT(picture, exposure.table.reshape(256, 1, 3))
