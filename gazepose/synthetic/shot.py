"""A shot, planned: who sits where, where the camera looks, what is held before a face; nothing is drawn.

How people behave is behaviour.py; what follows by geometry truth.py.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gazepose.synthetic import camera, head
from gazepose.synthetic.behaviour import FPS, WARM_UP, Act, Preset, act, ego_motion, seats
from gazepose.synthetic.seeds import random_name


@dataclass
class Occluder:
    """A thing before one face through a shot; its place is in widths of the face from the middle of the face."""

    seed: int
    kind: str
    place: np.ndarray       # float64 [n, 2]
    angle: np.ndarray       # float64 [n], degrees


@dataclass
class Shot:
    """A few frames of one conversation, planned."""

    first: int                          # its first frame in the clip
    frames: int
    seed: int                           # of everything that is chance in its pictures
    rotation: np.ndarray                # float64 [n, 3, 3], camera -> world
    position: np.ndarray                # float64 [n, 3], of the camera
    motion: np.ndarray                  # float64 [n, 2], pixels moved while the shutter is open
    exposure: camera.Exposure
    identities: list[int]
    persons: list[str]
    tracks: list[str]
    acts: list[Act]
    occluders: list[Occluder | None]


@lru_cache(maxsize=64)
def identity_of(world_seed: int, number: int) -> head.Identity:
    return head.make_identity(world_seed * 1_000_000_000 + number)


def plan_shot(rng: np.random.Generator, preset: Preset, first: int, frames: int, identities: list[int],
              persons: list[str], world_seed: int, strangers: int = 0) -> Shot:
    """One shot of these people; strangers take seats among them, may be looked at, and are never drawn."""
    places = seats(rng, preset, len(identities) + strangers)
    if strangers:
        places = rng.permutation(places)
    total = WARM_UP + frames
    rotation, position = ego_motion(rng, preset, total + 1, WARM_UP + int(rng.integers(frames)))
    exposure = camera.make_exposure(rng, preset, frames)
    ahead = np.einsum("nji,nj->ni", rotation[WARM_UP:-1], rotation[WARM_UP + 1:, :, 2])      # the next middle, seen now
    motion = -preset.focal * ahead[:, :2] / ahead[:, 2:] * exposure.shutter
    acts, occluders = [], []
    for seat, identity in enumerate(identities):
        eyes = head.eye_centres(identity_of(world_seed, identity))
        acts.append(act(rng, preset, seat, places, eyes, position[:total], frames))
        held = rng.random() < preset.occluder
        wave = np.sin(2 * np.pi * (rng.uniform(0.2, 0.8, (3, 1)) * np.arange(frames) / FPS + rng.random((3, 1))))
        occluders.append(Occluder(
            seed=int(rng.integers(2**31)), kind=str(rng.choice(camera.KINDS, p=[0.4, 0.25, 0.2, 0.15])),
            place=rng.normal(0, [0.07, 0.03], (1, 2)) + 0.04 * wave[:2].T,
            angle=rng.uniform(-12, 12) + 3 * wave[2]) if held else None)
    return Shot(first=first, frames=frames, seed=int(rng.integers(2**31)), rotation=rotation[WARM_UP:-1],
                position=position[WARM_UP:total], motion=motion, exposure=exposure, identities=identities,
                persons=persons, tracks=[f"{random_name(rng, 6)}-track" for _ in identities], acts=acts,
                occluders=occluders)


def pose_of(shot: Shot, person: int, frame: int) -> head.Pose:
    """How one person of a shot is to be drawn in one frame."""
    a, turn = shot.acts[person], shot.rotation[frame].T
    position = turn @ (a.position[frame] - shot.position[frame])
    return head.Pose(position=position, rotation=turn @ a.rotation[frame], eyes=a.eyes[frame],
                     lids=float(a.lids[frame]), mouth=float(a.mouth[frame]), shoulders=a.body)


def place_of(occluder: Occluder, frame: int, box: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Middle in pixels, width of the face in pixels, and angle in degrees of the thing before a face."""
    middle, height = (box[:2] + box[2:]) / 2, box[3] - box[1]
    width = 0.76 * height                                      # of a face seen from the front, whatever way it turns
    return middle + occluder.place[frame] * width, width, float(occluder.angle[frame])
