"""Pictures of what is planned: rooms, people, what is held before them, seen by the camera; and crops of faces."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from gazepose.synthetic import camera, head
from gazepose.synthetic.behaviour import Preset
from gazepose.synthetic.plan import Clip
from gazepose.synthetic.shot import Shot, identity_of, place_of, pose_of


def draw_clip(clip: Clip) -> Iterator[np.ndarray]:
    """The frames of a clip, uint8 [H, W, 3] RGB, in order."""
    for shot in clip.shots:
        yield from draw_shot(clip.preset, shot, clip.world_seed)


def draw_shot(preset: Preset, shot: Shot, world_seed: int) -> Iterator[np.ndarray]:
    """The frames of one shot."""
    rng = np.random.default_rng(shot.seed)
    room = camera.make_room(rng, preset)
    sprites: dict[int, np.ndarray] = {}
    far_first = sorted(range(len(shot.persons)), key=lambda p: -shot.acts[p].position[0, 2])
    for frame in range(shot.frames):
        picture = room.view(preset, shot.rotation[frame])
        for person in far_first:
            draw_person(picture, (0, 0), preset, shot, person, frame, world_seed, sprites)
        yield camera.take(rng, picture, shot.exposure, frame, tuple(shot.motion[frame]), picture.shape[:2])


def draw_person(picture: np.ndarray, corner: tuple[int, int], preset: Preset, shot: Shot, person: int, frame: int,
                world_seed: int, sprites: dict[int, np.ndarray]) -> None:
    """Draw a person into the part of the picture that begins at corner, with what is held before the face."""
    identity, pose = identity_of(world_seed, shot.identities[person]), pose_of(shot, person, frame)
    centre = (preset.size[0] / 2 - corner[0], preset.size[1] / 2 - corner[1])
    light = replace(shot.exposure.light, direction=shot.rotation[frame].T @ shot.exposure.light.direction)
    height, width = picture.shape[:2]
    patch = head.render_person(identity, pose, light, preset.focal, centre, (width, height))
    camera.blend(picture, patch.x0, patch.y0, patch.rgb, patch.alpha)
    occluder = shot.occluders[person]
    if occluder is None:
        return
    box = head.face_box(identity, pose, preset.focal, centre)
    if person not in sprites:
        sprites[person] = camera.make_occluder(
            np.random.default_rng(occluder.seed), occluder.kind, _tone(picture, box, (0.35, 0.65), (0.4, 0.7)),
            _tone(picture, box, (-0.1, 0.25), (1.8, 2.1)))
    middle, wide, angle = place_of(occluder, frame, box)
    camera.lay_over(picture, sprites[person], (float(middle[0]), float(middle[1])), wide, angle)


def _tone(picture: np.ndarray, box: np.ndarray, across: tuple[float, float], down: tuple[float, float]) -> np.ndarray:
    """Median colour, as lit, of a part of the picture given in shares of the box of a face."""
    x = np.clip(box[0] + np.array(across) * (box[2] - box[0]), 0, picture.shape[1] - 1).astype(int)
    y = np.clip(box[1] + np.array(down) * (box[3] - box[1]), 0, picture.shape[0] - 1).astype(int)
    return np.median(picture[y[0]:y[1] + 1, x[0]:x[1] + 1].reshape(-1, 3), axis=0).astype(float)


def cut_face(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The crop of a box (x1, y1, x2, y2) in pixels: integer corners, stretched bilinearly to size x size."""
    x0, y0, x1, y1 = box.astype(int)
    part = picture[max(y0, 0):max(y1, y0 + 1), max(x0, 0):max(x1, x0 + 1)]
    small = part.shape[0] > 2 * size or part.shape[1] > 2 * size
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR)
