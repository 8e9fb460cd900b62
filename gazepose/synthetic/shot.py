"""Plans of shots: who sits where, how the camera moves, the light, and what is held before a face. Nothing is drawn.

How people move is motion.py; what follows from a plan by geometry is plan.py.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gazepose.synthetic import head, scene
from gazepose.synthetic.identity import Identity, make_identity
from gazepose.synthetic.light import Light, make_light
from gazepose.synthetic.motion import WARM_UP, PersonMotion, ego_motion, plan_motion, seats
from gazepose.synthetic.presets import FPS, WorldPreset, random_name


@dataclass
class Occluder:
    """A hand or a thing before one face through a shot."""

    seed: int
    kind: str
    place: np.ndarray       # float64 [n, 2], widths of the face from its middle
    angle: np.ndarray       # float64 [n], degrees


@dataclass(frozen=True)
class Exposure:
    """Light, sensor and lens of one shot; constant over its n frames but for the focus, which drifts."""

    light: Light
    sensed: np.ndarray          # uint8 [256], grey levels on the scale on which the noise is equal everywhere
    table: np.ndarray           # uint8 [256, 3], from that scale to the picture: brightness and tint of the sensor
    noise: float                # standard deviation on that scale
    shutter: float              # share of the frame time that the shutter is open
    rolling: float              # time between the first and the last row, in frames
    defocus: np.ndarray         # float64 [n], sigma in pixels


@dataclass
class Shot:
    """The plan of one shot: a few frames of one conversation."""

    first: int                          # its first frame in the clip
    frames: int
    seed: int                           # of all random numbers in its pictures
    rotation: np.ndarray                # float64 [n, 3, 3], camera -> world
    position: np.ndarray                # float64 [n, 3], of the camera
    smear: np.ndarray                   # float64 [n, 2], pixels the camera moves the picture while the shutter is open
    own_smear: np.ndarray               # float64 [people, n, 2], pixels that each head moves beside that
    skew: np.ndarray                    # float64 [n, 2], pixels that a row is moved for each row it lies lower
    exposure: Exposure
    identities: list[int]
    persons: list[str]
    tracks: list[str]
    people: list[PersonMotion]
    occluders: list[Occluder | None]


@lru_cache(maxsize=64)
def identity_of(world_seed: int, number: int) -> Identity:
    """The person of a number in a world."""
    return make_identity(world_seed * 1_000_000_000 + number)


def plan_shot(rng: np.random.Generator, preset: WorldPreset, first: int, frames: int, identities: list[int],
              persons: list[str], world_seed: int, strangers: int = 0) -> Shot:
    """Plan one shot of these people.

    Args:
        first: the shot's first frame in the clip.
        strangers: further people, who take seats and may be looked at, but are never drawn.
    """
    places = seats(rng, preset, len(identities) + strangers)
    if strangers:
        places = rng.permutation(places)
    total = WARM_UP + frames
    rotation, position = ego_motion(rng, preset, total + 1, WARM_UP + int(rng.integers(frames)))
    exposure = make_exposure(rng, preset, frames)
    ahead = np.einsum("nji,nj->ni", rotation[WARM_UP:-1], rotation[WARM_UP + 1:, :, 2])      # the next middle, seen now
    moved = -preset.focal * ahead[:, :2] / ahead[:, 2:]                # by the camera, from a frame to the next
    skew = moved * exposure.rolling / preset.size[1]
    skew[np.abs(skew).max(1) * preset.size[1] < 1] = 0                 # not half a pixel at the border
    people, occluders = [], []
    for seat, identity in enumerate(identities):
        eyes = identity_of(world_seed, identity).eyes
        people.append(plan_motion(rng, preset, seat, places, eyes, position[:total], frames))
        held = rng.random() < preset.occluder
        wave = np.sin(2 * np.pi * (rng.uniform(0.2, 0.8, (3, 1)) * np.arange(frames) / FPS + rng.random((3, 1))))
        occluders.append(Occluder(
            seed=int(rng.integers(2**31)), kind=str(rng.choice(scene.KINDS, p=[0.4, 0.25, 0.2, 0.15])),
            place=rng.normal(0, [0.07, 0.03], (1, 2)) + 0.04 * wave[:2].T,
            angle=rng.uniform(-12, 12) + 3 * wave[2]) if held else None)
    own = np.array([_moved(preset, a, rotation[WARM_UP:], position[WARM_UP:]) - moved for a in people])
    return Shot(first=first, frames=frames, seed=int(rng.integers(2**31)), rotation=rotation[WARM_UP:-1],
                position=position[WARM_UP:total], smear=moved * exposure.shutter, own_smear=own * exposure.shutter,
                skew=skew, exposure=exposure, identities=identities, persons=persons,
                tracks=[f"{random_name(rng, 6)}-track" for _ in identities], people=people, occluders=occluders)


def _moved(preset: WorldPreset, a: PersonMotion, rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Pixels [n, 2] that the eyes move in the picture from each frame to the next.

    Args: rotation [n + 1, 3, 3], position [n + 1, 3]: of the camera.
    """
    now = np.einsum("nji,nj->ni", rotation[:-1], a.midpoint - position[:-1])
    then = np.einsum("nji,nj->ni", rotation[1:], a.midpoint + a.velocity - position[1:])
    return preset.focal * (then[:, :2] / then[:, 2:] - now[:, :2] / now[:, 2:])


def rolled(points: np.ndarray, skew: np.ndarray, middle: float) -> np.ndarray:
    """Where points [..., 2] of a picture lie after a rolling shutter.

    Args: skew [2]: as of a shot; middle: the row that stays.
    """
    return points + skew * (points[..., 1:] - middle)


def pose_of(shot: Shot, person: int, frame: int) -> head.Pose:
    """The pose in which one person of a shot is drawn in one frame, camera frame."""
    a, turn = shot.people[person], shot.rotation[frame].T
    position = turn @ (a.position[frame] - shot.position[frame])
    return head.Pose(position=position, rotation=turn @ a.rotation[frame], eyes=a.eyes[frame],
                     lids=a.lids.opening[frame], squint=float(a.lids.squint[frame]), mouth=float(a.mouth[frame]),
                     shoulders=a.body)


def place_of(occluder: Occluder, frame: int, box: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Where the thing before a face is: middle in pixels, width of the face in pixels, angle in degrees."""
    middle, height = (box[:2] + box[2:]) / 2, box[3] - box[1]
    width = 0.76 * height                                      # of a face seen from the front; independent of its turn
    return middle + occluder.place[frame] * width, width, float(occluder.angle[frame])


def make_exposure(rng: np.random.Generator, preset: WorldPreset, frames: int) -> Exposure:
    """Light, brightness, noise, shutter and focus of a shot, drawn with the preset's shares."""
    dark = rng.random() < preset.dark
    light = make_light(np.random.default_rng(rng.integers(2**31)))
    gain = rng.uniform(0.6, 0.85) if dark else rng.uniform(0.88, 1.08)
    tint = 1 + rng.normal(0, 0.02, 3) + (np.array([0.05, 0.0, -0.06]) if dark else 0)
    x = np.arange(256)[:, None] / 255
    shown = np.clip(255 * (x * gain * tint) ** rng.uniform(0.94, 1.06) + (4 if dark else 0), 0, 255)
    soft = 0.0
    if rng.random() < preset.defocus:
        soft = rng.uniform(*preset.defocus_sigma)
    focus = soft * (1 + 0.15 * np.sin(2 * np.pi * (rng.uniform(0.3, 1.0) * np.arange(frames) / FPS + rng.random())))
    noise, shutter = rng.uniform((4, 0.6), (8, 0.9)) if dark else rng.uniform((1.2, 0.25), (3, 0.6))
    sensed, table, noise = _sensor(shown, noise, 0.3 if dark else 0.12)
    return Exposure(light=light, sensed=sensed, table=table, noise=noise, shutter=min(shutter * preset.shutter, 1.0),
                    rolling=preset.rolling * rng.uniform(0.3, 1), defocus=focus)


def _sensor(shown: np.ndarray, noise: float, reading: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Two tables and a noise between them, which together are stronger in the dark than in the light.

    Photon noise is equal at all levels of a picture with gamma 2; the noise of reading the sensor is greater in the
    dark. On a scale whose slope is one over that noise, both are one constant.

    Args:
        shown: grey levels of the picture by level, float [256, 3].
        noise: grey levels, in the light. reading: noise of reading, as a share of that, at full light.

    Returns:
        sensed and table of an Exposure, and the noise between them.
    """
    level = np.arange(256) / 255
    slope = 1 / np.hypot(1, reading / (level + 0.08))
    scale = np.concatenate([[0], np.cumsum(slope[1:])])
    scale *= 255 / scale[-1]
    back = np.interp(np.arange(256), scale, np.arange(256))
    table = np.stack([np.interp(back, np.arange(256), column) for column in shown.T], -1)
    return np.round(scale).astype(np.uint8), np.round(table).astype(np.uint8), noise / float(slope[1:].mean())
