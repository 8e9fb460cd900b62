"""How people and the camera move: where people sit, where they look, how head, eyes, lids and mouth follow.

Geometry and random numbers only: nothing is drawn or written here.
World frame: x right, y down, z forward, metres; the wearer's camera rests at the origin and looks along +z.
Angles of a person are (yaw, pitch) about the level line from their seat to the origin: yaw > 0 to +x, pitch > 0 up.
"""

from dataclasses import dataclass

import numpy as np

from gazepose.synthetic.lids import Lids, plan_lids
from gazepose.synthetic.presets import FPS, WorldPreset

RADIUS = 0.12
"""a gaze ray that passes the camera within this many metres is a look at the wearer"""
EYE_LIMIT = np.radians([42.0, 30.0])
"""farthest an eye turns in the head, yaw and pitch"""
HEAD_LIMIT = np.radians([95.0, 42.0])
"""farthest a head turns, yaw and pitch; up, seven tenths of it"""
BODY = np.radians(50.0)
"""farthest that the torso is turned of a person who does not sit turned aside"""
ASIDE = (60.0, 130.0)
"""degrees that it is turned of one who does, least and most"""
SELDOM = 0.4
"""factor of their looks at the camera"""
REACH = (0.48, 5.3)
"""metres: where people sit who are nearer or farther than the preset's distance; faces of 220 to 20 pixels"""
MOST_TURNED = np.radians(20.0)
"""farthest that the wearer turns away from where the shot began"""
WARM_UP = 45
"""frames simulated before a shot begins, so that heads and fixations are under way"""


@dataclass
class PersonMotion:
    """One person over the n frames of a shot, in the world frame."""

    position: np.ndarray      # float64 [n, 3], head centre
    rotation: np.ndarray      # float64 [n, 3, 3], head -> world
    midpoint: np.ndarray      # float64 [n, 3], between the eyes
    gaze: np.ndarray          # float64 [n, 3], unit, from the midpoint
    eyes: np.ndarray          # float64 [n, 2, 3], unit, own left and right eye, head frame; both meet in one point
    velocity: np.ndarray      # float64 [n, 3], of the midpoint, metres per frame
    lids: Lids
    mouth: np.ndarray         # float64 [n], 0 closed, 1 open
    body: float               # yaw of the torso, radians
    target: np.ndarray        # str [n]: camera, person, object, away


def unit(v: np.ndarray) -> np.ndarray:
    """The vectors v [..., 3] at length one."""
    return v / np.sqrt(np.einsum("...i,...i->...", v, v))[..., None]


def looks_at(origin: np.ndarray, direction: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Whether the ray from origin along the unit direction passes within RADIUS of goal, forward.

    Args: origin, direction, goal: [..., 3]. Returns: bool [...].
    """
    to = goal - origin
    along = np.einsum("...i,...i->...", to, direction)
    miss = to - along[..., None] * direction
    return (along > 0) & (np.einsum("...i,...i->...", miss, miss) < RADIUS**2)


def seats(rng: np.random.Generator, preset: WorldPreset, people: int) -> np.ndarray:
    """Places of heads in the world, float64 [people, 3], left to right, each in its own part of the picture."""
    width, height = preset.size
    near, far = preset.distance
    share = width / people / preset.focal                      # width of a part of the picture at one metre
    depth = rng.uniform(near, far, people)
    if preset.beyond:
        near, far = REACH
        elsewhere = np.exp(rng.uniform(np.log(near), np.log(far), people))
        depth = np.where(rng.random(people) < preset.beyond, elsewhere, depth)
    depth = np.clip(np.maximum(depth, min(0.21 / share, 0.9 * far)), near, far)      # a head fits into its part
    room = np.maximum(share - 0.20 / depth, 0.02) / 2
    across = (np.arange(people) + 0.5) * share - width / 2 / preset.focal + rng.uniform(-1, 1, people) * room
    slack = np.maximum(height / 2 / preset.focal - 0.17 / depth, 0.02)
    down = np.clip(rng.normal(-0.03, 0.07, people), -slack, slack)
    return np.stack([across, down, np.ones(people)], 1) * depth[:, None]


def ego_motion(rng: np.random.Generator, preset: WorldPreset, frames: int, at: int) -> tuple[np.ndarray, np.ndarray]:
    """The wearer's camera: sway in a few slow sines, steps of the body, and turns of the head.

    Args: at: the frame at which a turning camera points about at its rest direction.
    Returns: rotation camera -> world [frames, 3, 3]; position [frames, 3] in metres.
    """
    t = np.arange(frames) / FPS
    rate = rng.uniform(0.25, 1.1, (6, 3, 1))
    wave = np.sin(2 * np.pi * (rate * t + rng.random((6, 3, 1)))).mean(1)          # [6, frames]
    yaw, pitch, roll = np.radians([[3.2], [2.2], [2.4]]) * wave[:3] * preset.ego
    position = (np.array([[0.03], [0.02], [0.03]]) * wave[3:] * preset.ego).T
    turned = 0.0
    for begins in np.sort(rng.uniform(0, t[-1], rng.poisson(preset.pans * frames / FPS))):
        length, angle = rng.uniform(0.25, 0.55), np.radians(rng.uniform(6, 26)) * rng.choice([-1, 1])
        if abs(turned + angle) > MOST_TURNED:                  # in a long shot the wearer turns back to the people
            angle = -angle
        turned += angle
        x = np.clip((t - begins) / length, 0, 1)
        yaw = yaw + angle * x * x * (3 - 2 * x)
        pitch = pitch + rng.uniform(-0.25, 0.25) * angle * x * x * (3 - 2 * x)
    for begins in rng.uniform(0, t[-1], rng.poisson(preset.jolts * frames / FPS)):
        since = np.maximum(t - begins, 0)
        swing = np.exp(-since / rng.uniform(0.05, 0.09)) * np.sin(2 * np.pi * rng.uniform(4, 7) * since)
        yaw = yaw + np.radians(rng.normal(0, 0.8)) * swing
        pitch = pitch + np.radians(rng.normal(0, 1.6)) * swing
    yaw = yaw - yaw[at] + np.radians(rng.normal(0, 1.5))
    pitch = pitch - pitch[at] + np.radians(rng.normal(0, 1.5))
    return _turned(yaw, pitch, roll), position


def _turned(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotations [n, 3, 3] of a camera turned right by yaw, up by pitch and clockwise by roll."""
    z = np.stack([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)
    x = np.stack([np.cos(yaw), np.zeros_like(yaw), -np.sin(yaw)], -1)
    y = np.cross(z, x)
    c, s = np.cos(roll)[..., None], np.sin(roll)[..., None]
    return np.stack([c * x + s * y, c * y - s * x, z], -1)


def plan_motion(rng: np.random.Generator, preset: WorldPreset, seat: int, places: np.ndarray, eyes: np.ndarray,
        camera: np.ndarray, frames: int) -> PersonMotion:
    """Simulate one person through a shot: fixations, then the head, then the eyes.

    Args:
        seat: which of the places [p, 3] is theirs; they may look at the others.
        eyes: eye centres in the head frame [2, 3], the person's own left first.
        camera: positions of the camera over warm-up and shot, [WARM_UP + frames, 3].
        frames: length of the shot; its frames are the last ones of `camera`.
    """
    count = len(camera)
    home = places[seat]
    front = unit(np.array([-home[0], 0.0, -home[2]]))
    axes = np.array([[-front[2], 0.0, front[0]], [0.0, -1.0, 0.0], front])         # rows: image right, up, front

    def angles(v: np.ndarray) -> np.ndarray:
        return _angles(v @ axes.T)

    def direction(a: np.ndarray) -> np.ndarray:
        return _direction(a) @ axes

    body = np.clip(np.radians(rng.normal(0, 20)), -BODY, BODY)
    aside = bool(preset.turned) and rng.random() < preset.turned
    if aside:
        body = np.radians(rng.uniform(*ASIDE) * rng.choice([-1, 1]))
    gain = rng.uniform(*preset.gain)
    tilt = np.radians(rng.normal(0, 3))
    to_camera = angles(-home)
    distance = float(np.linalg.norm(home))

    p_camera = preset.p_camera * (SELDOM if aside else 1.0)
    start, kind, point, toward = _fixations(rng, preset, count, seat, places, angles, direction, body, gain, p_camera,
                                            to_camera, distance)

    # the head follows as a critically damped spring, two frames late
    now = np.searchsorted(start, np.arange(count), side="right") - 1            # fixation of each frame
    goal = toward[np.searchsorted(start + 2, np.arange(count), side="right").clip(1) - 1]
    goal[:, 2] += tilt
    head = _spring(goal, rng.uniform(8, 13))
    wave = np.sin(2 * np.pi * (rng.uniform(0.15, 0.6, (6, 1)) * np.arange(count) / FPS + rng.random((6, 1))))
    head = head + np.radians(0.8) * wave[:3].T
    forward = direction(head[:, :2])
    up = unit(axes[1] - np.einsum("ni,i->n", forward, axes[1])[:, None] * forward)
    right = np.cross(up, forward)
    c, s = np.cos(head[:, 2:]), np.sin(head[:, 2:])
    rotation = np.stack([c * right - s * up, c * up + s * right, forward], -1)   # [count, 3, 3]
    neck = home - 0.09 * axes[1] - 0.02 * axes[2] + 0.006 * wave[3:].T
    position = neck + rotation @ np.array([0.0, 0.09, 0.02])
    midpoint = position + rotation @ eyes.mean(0)

    # the gaze: on the point of the fixation, off it by a jitter, in a sweep of two or three frames between fixations
    fixed = np.where((kind == "camera")[now][:, None], camera, point[now])
    before = np.maximum(now - 1, 0)
    last = np.where((kind == "camera")[before][:, None], camera, point[before])
    jitter = np.radians(rng.normal(0, 0.6 / np.sqrt(2), (len(start), 2)))
    aim, past = angles(fixed - midpoint) + jitter[now], angles(last - midpoint) + jitter[before]
    near, near_past = np.linalg.norm(fixed - midpoint, axis=1), np.linalg.norm(last - midpoint, axis=1)
    w = _sweep(np.arange(count) - start[now], np.linalg.norm(aim - past, axis=-1))
    gaze = direction(past + (aim - past) * w[:, None])
    depth = 1 / (1 / near_past + (1 / near - 1 / near_past) * w)

    # an eye turns only so far in the head; both eyes meet in one point
    turn = _angles(np.einsum("nji,nj->ni", rotation, gaze))
    local = _direction(np.clip(turn, -EYE_LIMIT, EYE_LIMIT))
    gaze = np.einsum("nij,nj->ni", rotation, local)
    each = unit(eyes.mean(0) + depth[:, None, None] * local[:, None] - eyes)     # [count, 2, 3]

    keep = slice(count - frames, count)
    lids = plan_lids(rng, preset.blinks, count, start[1:])
    return PersonMotion(position=position[keep], rotation=rotation[keep], midpoint=midpoint[keep], gaze=gaze[keep],
                        eyes=each[keep], velocity=np.gradient(midpoint, axis=0)[keep],
                        lids=Lids(lids.opening[keep], lids.squint[keep], lids.resting[keep]),
                        mouth=_mouth(rng, count)[keep], body=float(body), target=kind[now][keep])


def _angles(v: np.ndarray) -> np.ndarray:
    """Vectors (side, up, front) [..., 3] -> yaw, pitch [..., 2]."""
    x, y, z = np.moveaxis(v, -1, 0)
    return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], -1)


def _direction(a: np.ndarray) -> np.ndarray:
    """yaw, pitch [..., 2] -> unit vectors (side, up, front) [..., 3]."""
    yaw, pitch = a[..., 0], a[..., 1]
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)


def _fixations(rng, preset: WorldPreset, count: int, seat: int, places: np.ndarray, angles, direction, body: float,
               gain: float, p_camera: float, to_camera: np.ndarray, distance: float):
    """Start frames [k], kinds [k], points in the world [k, 3] and head directions (yaw, pitch, roll) [k, 3]."""
    start, kind, point, toward = [], [], [], []
    t, previous = 0.0, None
    while t < count:
        target, aim, depth = "camera", to_camera, distance
        look = rng.random() < p_camera
        for _ in range(0 if look else 12):
            target, aim, depth = _elsewhere(rng, preset, seat, places, angles, body, to_camera)
            if previous is None or kind[-1] == "camera":
                break
            # a sweep between two other targets must not pass the camera: it would not count as a look
            w = _sweep(np.arange(3), float(np.linalg.norm(aim - previous)))
            between = previous + (aim - previous) * w[:, None] - to_camera
            if (distance * np.sin(np.minimum(np.linalg.norm(between, axis=1), 1.5)) > 1.25 * RADIUS).all():
                break
        rest = np.array([0.6 * body, np.radians(-3.0)])
        if rng.random() < preset.independent:
            turn = np.radians(rng.normal([0, -3], [24, 12])) + [rest[0] if abs(body) > BODY else 0.0, 0.0]
        else:
            turn = rest + gain * (aim - rest) + np.radians(rng.normal(0, 3, 2))
        most = np.radians([36, 22])                  # between head and gaze
        turn = np.clip(np.clip(turn, aim - most, aim + most), -HEAD_LIMIT, HEAD_LIMIT * [1, 0.7])
        start.append(int(t))
        kind.append(target)
        point.append(places[seat] + depth * direction(aim))
        toward.append([*turn, np.radians(rng.normal(0, 4))])
        previous = aim
        t += FPS * np.clip(np.exp(np.log(1.1) + 0.55 * rng.normal()), 0.35, 4.0)
    return np.array(start), np.array(kind), np.array(point), np.array(toward)


def _elsewhere(rng, preset: WorldPreset, seat: int, places: np.ndarray, angles, body: float, to_camera: np.ndarray
               ) -> tuple[str, np.ndarray, float]:
    """A target other than the camera: its kind, its (yaw, pitch) and its distance."""
    nearest = max(np.radians(preset.nearest), float(np.arcsin(min(1.1 * RADIUS / np.linalg.norm(places[seat]), 1))))
    while True:
        target = rng.choice(["person", "object", "away", "close"], p=[0.3, 0.26, 0.2, 0.24])
        if target == "person":
            other = places[rng.integers(len(places))] - places[seat]
            depth = float(np.linalg.norm(other))
            if depth < 0.1:
                continue
            aim = angles(other) + np.radians(rng.normal(0, 2, 2))
        elif target == "close":                                    # just past the camera: the hard negatives
            angle, around = nearest + np.radians(rng.uniform(0.5, 9)), rng.uniform(0, 2 * np.pi)
            aim = to_camera + angle * np.array([np.cos(around), 0.8 * np.sin(around)])
            target, depth = "away", rng.uniform(1, 4)
        elif target == "object":
            aim = np.radians(rng.normal([np.degrees(body) * 0.5, -20], [24, 11]))
            depth = rng.uniform(0.35, 1.5)
        else:
            aim = np.radians(rng.normal([np.degrees(body) * 0.5, 0], [30, 11]))
            depth = rng.uniform(1, 4)
        off = aim - to_camera
        if np.hypot(off[0] * np.cos(aim[1]), off[1]) < nearest or abs(aim[0] - 0.6 * body) > 1.4 or abs(aim[1]) > 0.75:
            continue
        return str(target), aim, depth


def _sweep(since: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Share of a saccade that is over, by frames since its start. It takes two frames; beyond 25 degrees, three."""
    x = np.clip((since + 0.5) / np.where(np.asarray(angle) > np.radians(25), 3.0, 2.0), 0, 1)
    return x * x * (3 - 2 * x)


def _spring(goals: np.ndarray, rate: float) -> np.ndarray:
    """A critically damped spring pulled to goals [n, k], exact for steps of one frame; rate in rad/s."""
    out, at, speed = np.empty_like(goals), goals[0].copy(), np.zeros(goals.shape[1])
    step, decay = 1 / FPS, float(np.exp(-rate / FPS))
    for i, goal in enumerate(goals):
        error = at - goal
        pull = speed + rate * error
        at = goal + (error + pull * step) * decay
        speed = (speed - rate * pull * step) * decay
        out[i] = at
    return out


def _mouth(rng, count: int) -> np.ndarray:
    """Mouth opening [count]: two in five people talk, in syllables; the mouths of the others hardly move."""
    t = np.arange(count) / FPS
    rate, phase = rng.uniform(2.5, 5.0, (3, 1)), rng.random((3, 1))
    wave = np.sin(2 * np.pi * (rate * t + phase)).sum(0)
    opening = rng.uniform(0.2, 0.45) if rng.random() < 0.4 else 0.02
    return np.clip(opening * (0.35 + 0.6 * wave), 0, 1)
