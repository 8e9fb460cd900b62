"""Eyelids over time: blinks, closures longer than a blink, drowsy eyes and squints. Nothing is drawn here."""

from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.presets import FPS

CLOSED = 0.2
"""lid opening below which an eye is closed: the pupil is covered"""
WITH_SHIFT = 1 / 3
"""share of gaze shifts with a blink"""
PARTIAL = 0.15
"""share of blinks that do not close the eyes"""
CLOSURES = 0.02
"""closures longer than a blink, per second"""
CLOSURE = (13, 45)
"""frames of such a closure, least and most; a blink closes the eyes for at most 0.4 s, which is 12 frames"""
DROWSY, SQUINTING = 0.03, 0.1
"""shares of people with half-closed eyes, and of people who squint, through a shot"""


@dataclass
class Lids:
    """The eyelids of one person over n frames."""

    opening: np.ndarray       # float64 [n, 2], own left and right eye, 1 open, 0 closed
    squint: np.ndarray        # float64 [n], 0 relaxed, 1 narrowed; a squint leaves the pupil free
    resting: np.ndarray       # bool [n], the eyes are closed for longer than a blink


def plan_lids(rng: np.random.Generator, blinks: float, count: int, shifts: np.ndarray) -> Lids:
    """Simulate the lids of one person.

    Args:
        blinks: per second, beside those with a gaze shift.
        count: frames.
        shifts: frames at which the gaze shifts.
    """
    t = np.arange(count) / FPS
    rest = np.ones((count, 2))
    drift = np.sin(2 * np.pi * (rng.uniform(0.1, 0.4) * t + rng.random()))
    if rng.random() < DROWSY:
        rest = rng.uniform(0.3, 0.55) + rng.uniform(-0.06, 0.06, 2) + 0.05 * drift[:, None]
    squint = np.zeros(count)
    if rng.random() < SQUINTING:
        squint = np.clip(rng.uniform(0.3, 0.9) + 0.15 * drift, 0, 1)
    factor = np.ones(count)
    with_shift = shifts[rng.random(len(shifts)) < WITH_SHIFT]
    for onset in [*np.flatnonzero(rng.random(count) < blinks / FPS).tolist(), *with_shift.tolist()]:
        _lower(factor, onset, _closure(rng, int(rng.integers(1, 4)), rng.random() < PARTIAL))
    resting = np.zeros(count, bool)
    for onset in np.flatnonzero(rng.random(count) < CLOSURES / FPS).tolist():
        course = _closure(rng, int(rng.integers(CLOSURE[0], CLOSURE[1] + 1)), False)
        _lower(factor, onset, course)
        resting[onset + np.flatnonzero(course[:count - onset] < CLOSED)] = True
    return Lids(rest * factor[:, None], squint, resting)


def _closure(rng: np.random.Generator, closed: int, partial: bool) -> np.ndarray:
    """Lid opening over the frames of one closure: two frames down, `closed` frames shut, three or four frames up."""
    lowest = rng.uniform(0.25, 0.5) if partial else 0.0
    up = np.linspace(0, 1, int(rng.integers(3, 5)) + 2)[1:-1] ** 0.8
    return lowest + (1 - lowest) * np.concatenate([[0.55, 0.12], np.zeros(closed), up])


def _lower(opening: np.ndarray, onset: int, course: np.ndarray) -> None:
    part = opening[onset:onset + len(course)]
    np.minimum(part, course[:len(part)], out=part)
