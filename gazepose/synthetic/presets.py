"""Presets and seeds: how difficult an embedded world is, how much of it there is, and where its chance comes from.

Light to import: it needs neither numba nor OpenCV.
"""

from dataclasses import dataclass, replace

import numpy as np

VERSION = 3
"""of the bytes that a preset and a seed give; goes up when the renderer draws something else"""
FPS = 30
SPLITS = ("train", "val", "test", "stills")
"""a split's place here is its number in every seed"""
LONG = (30, 240)
"""frames of a long shot, least and most: one to eight seconds"""
BOX_RULES = ("annotated", "detector")
"""how boxes lie on the face; box_rule of the truth is the place here"""
PEOPLE_PER_SPLIT = 100_000_000
"""numbers of people that belong to one split, so that no person is in two"""


@dataclass(frozen=True, kw_only=True)
class WorldPreset:
    """How difficult a world is, and how much of it there is."""

    name: str
    distance: tuple[float, float]
    """metres from the camera to a head"""
    beyond: float = 0.0
    """share of people who are nearer or farther than that: faces of 220 to 20 pixels"""
    view: float = 60.0
    """horizontal field of view, degrees"""
    size: tuple[int, int] = (640, 360)
    """picture width and height"""
    nearest: float
    """smallest angle between a negative gaze target and the camera, degrees"""
    p_camera: float
    """probability that a fixation is on the camera"""
    independent: float
    """share of fixations whose head direction is drawn without regard to the gaze"""
    gain: tuple[float, float]
    """share of a gaze shift that the head makes"""
    turned: float = 0.0
    """share of people who sit turned aside; at .25 a fifth of all heads are turned by more than 35 degrees"""
    ego: float
    """scale of the wearer's sway"""
    pans: float
    """turns of the wearer's head per second"""
    jolts: float = 0.0
    """steps of the wearer and knocks of the camera, per second; each blurs a few frames"""
    rolling: float = 0.0
    """most time between the first and the last row of a picture, in frames (rolling shutter)"""
    blinks: float = 0.25
    """per second, beside those with a gaze shift"""
    shutter: float = 1.0
    """factor of the time that the shutter is open, which is at most that of a frame"""
    dark: float = 0.0
    """share of shots in bad light"""
    defocus: float = 0.0
    """share of shots out of focus"""
    defocus_sigma: tuple[float, float] = (0.8, 2.2)
    """blur of a shot out of focus, pixels"""
    occluder: float = 0.0
    """share of people with a hand or a thing before the face"""
    crf: int = 24
    """x264 quality, higher is worse"""
    clips: tuple[int, int, int]
    """clips of train, val, test"""
    shots: int
    """short shots that a clip is edited from"""
    val_shots: int | None = None
    """those of a validation clip, if it has another number: many short clips give narrower intervals"""
    long_every: int = 0
    """one of so many clips is edited from long shots instead, one for eight short ones; 0: none"""
    frames: tuple[int, int] = (9, 12)
    """frames of a short shot, least and most"""
    people: tuple[int, int] = (2, 4)
    """people in a shot, least and most"""
    stills: int
    """single crops for gaze pre-training"""
    detector: float = 0.0
    """share of training tracks and of stills whose boxes lie as a face detector's, not as annotated ones"""
    prior_noise: float = 1.0
    """how much worse the priors get as the face gets small or blurred"""

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.size[0] / 2 / np.tan(np.radians(self.view) / 2)

    @property
    def box_rules(self) -> tuple[str, ...]:
        """How boxes of training tracks and of stills lie on the face."""
        return BOX_RULES if self.detector else BOX_RULES[:1]

    def shots_of(self, split: str, number: int) -> tuple[int, tuple[int, int]]:
        """Shots of a clip, and how many frames each has, least and most."""
        count = self.shots if split != "val" or self.val_shots is None else self.val_shots
        if self.long_every and number % self.long_every == self.long_every - 1:
            return max(1, count // 8), LONG
        return count, self.frames


_DEFAULT = WorldPreset(
    name="default", distance=(0.7, 1.8), nearest=12, p_camera=0.40, independent=0.40, gain=(0.2, 0.8), ego=0.5,
    pans=0.6, dark=0.2, defocus=0.25, occluder=0.08, crf=24, clips=(36, 30, 6), shots=16, stills=7000,
    turned=0.25, beyond=0.3, jolts=0.3, rolling=0.5, val_shots=5, long_every=9, frames=(8, 11), detector=0.5)

PRESETS: dict[str, WorldPreset] = {preset.name: preset for preset in (
    WorldPreset(
        name="tiny", distance=(0.7, 1.0), size=(320, 180), nearest=18, p_camera=0.42, independent=0.45,
        gain=(0.2, 0.6), ego=0.25, pans=0.25, crf=20, clips=(3, 2, 1), shots=2, people=(2, 3), stills=64),
    _DEFAULT,
    replace(
        _DEFAULT, name="hard", distance=(0.9, 3.0), view=66, nearest=8, p_camera=0.30, independent=0.35,
        gain=(0.3, 0.95), ego=0.7, pans=1.1, dark=0.35, defocus=0.5, occluder=0.15, crf=27),
    replace(
        _DEFAULT, name="lowquality", distance=(0.8, 2.3), independent=0.25, gain=(0.4, 0.85), defocus=0.3,
        defocus_sigma=(3.0, 4.5), prior_noise=2.0),
    # half of the frames of a track show no eyes: closed, or smeared. What neighbours say is all there is to know
    replace(
        _DEFAULT, name="temporal", distance=(0.6, 1.2), turned=0.0, beyond=0.0, dark=0.0, defocus=0.0, occluder=0.0,
        blinks=1.0, jolts=12.0, pans=0.2, shutter=2.0, long_every=2, detector=0.0),
)}


def find_preset(name: str) -> WorldPreset:
    """The preset of a name; ValueError when there is none."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown -> give one of {', '.join(PRESETS)}")
    return PRESETS[name]


# ---- seeds: chance is keyed by (seed, split, number), so it is the same in any order and process

def generator(seed: int, split: str, number: int, use: int) -> np.random.Generator:
    """Random numbers of one clip, or one batch of stills, for one use."""
    key = (seed, SPLITS.index(split), number, use)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def random_name(rng: np.random.Generator, letters: int) -> str:
    """A name of letters alone: the published scripts look frames up by searching names for five digits."""
    return "".join(rng.choice(list("abcdefghjkmnpqrstuvwxyz"), letters))


def clip_names(seed: int, split: str, number: int) -> tuple[str, str]:
    """uid of the clip and of the video it is cut from."""
    rng = generator(seed, split, number, 0)
    clip, video = ("-".join([random_name(rng, 8), random_name(rng, 4), f"{split}{number:03d}"]) for _ in range(2))
    return clip, video
