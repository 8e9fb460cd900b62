"""Follow faces from picture to picture: boxes in, the number of each box's track out.

Constant velocity, overlap and distance, one assignment a picture. All rules are in seconds and in sizes of faces, so
they hold at any frame rate and any picture size.
"""

import numpy as np

from gazepose.watch.detect import BOX, COLUMNS

GAP = 0.5                    # seconds for which a face may not be found before its track ends
NEAR = 0.8                   # distance of two centres, in sizes of the face, that one face may have moved
NEAR_A_SECOND = 2.0          # added for each second in which it was not found
ALIKE = 1.8                  # ratio of two sizes that one face may have
OVERLAP = 0.1                # IoU at which the distance no longer counts
INERTIA = 0.5                # part of the old velocity that stays
FASTEST = 6.0                # sizes of the face a second
NEVER = 1e6                  # cost of a pair that cannot be
TRACK = COLUMNS + 4          # columns of a track: the last face; then its number, its time, its velocity in x and y
NUMBER, SECONDS, VELOCITY = COLUMNS, COLUMNS + 1, slice(COLUMNS + 2, COLUMNS + 4)


class Tracker:
    """The tracks that are alive, float64 [n, TRACK]; numbers count from 0 and are never used again."""

    def __init__(self) -> None:
        self.tracks = np.zeros((0, TRACK))
        self.count = 0

    def end_all(self) -> None:
        """End every track: a new shot begins."""
        self.tracks = np.zeros((0, TRACK))

    def step(self, seconds: float, faces: np.ndarray) -> np.ndarray:
        """The number of each face's track, int64 [n].

        Args:
            seconds: later than that of the step before.
            faces: float64 [n, COLUMNS].
        """
        alive = self.tracks[seconds - self.tracks[:, SECONDS] <= GAP + 1e-6]
        numbers = np.full(len(faces), -1, np.int64)
        followed = np.zeros((len(faces), TRACK))
        followed[:, :COLUMNS], followed[:, SECONDS] = faces, seconds
        old, new = assign(alive, faces, seconds)
        for track, face in zip(old.tolist(), new.tolist(), strict=True):
            before = alive[track]
            numbers[face] = int(before[NUMBER])
            moved = (centres(faces[None, face]) - centres(before[None]))[0] / (seconds - before[SECONDS])
            most = FASTEST * sizes(faces[None, face])[0]
            followed[face, VELOCITY] = np.clip(INERTIA * before[VELOCITY] + (1 - INERTIA) * moved, -most, most)
        fresh = np.flatnonzero(numbers < 0)
        numbers[fresh] = self.count + np.arange(len(fresh))
        self.count += len(fresh)
        followed[:, NUMBER] = numbers
        unseen = np.delete(alive, old, axis=0)
        self.tracks = np.concatenate([unseen, followed])
        self.tracks = self.tracks[np.argsort(self.tracks[:, NUMBER])]
        return numbers

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` takes."""
        return {"tracks": self.tracks, "count": np.array(self.count)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.tracks, self.count = state["tracks"], int(state["count"])


def centres(faces: np.ndarray) -> np.ndarray:
    """Centres of faces or tracks, float64 [n, 2]."""
    return faces[:, :2] + faces[:, 2:4] / 2


def sizes(faces: np.ndarray) -> np.ndarray:
    """Sizes of faces or tracks, float64 [n]: of a square of the same area."""
    return np.sqrt(faces[:, 2] * faces[:, 3])


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of each box x, y, width, height with each other, float64 [n, m]."""
    one, other = one[:, None], other[None]
    inner = np.minimum(one[..., :2] + one[..., 2:4], other[..., :2] + other[..., 2:4]) - np.maximum(
        one[..., :2], other[..., :2])
    shared = np.clip(inner, 0, None).prod(axis=-1)
    return shared / (one[..., 2:4].prod(axis=-1) + other[..., 2:4].prod(axis=-1) - shared)


def assign(tracks: np.ndarray, faces: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Which tracks go on with which faces: two arrays of places, int64 [k] each."""
    if not len(tracks) or not len(faces):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    from scipy.optimize import linear_sum_assignment
    unseen = seconds - tracks[:, SECONDS]                              # [t]
    expected = tracks[:, BOX].copy()
    expected[:, :2] += tracks[:, VELOCITY] * unseen[:, None]
    overlap = overlaps(expected, faces[:, BOX])                        # [t, f]
    size = (sizes(tracks)[:, None] + sizes(faces)[None]) / 2
    # a face that turns back is where it was, not where its velocity would bring it
    distance = np.minimum(_distances(expected, faces), _distances(tracks, faces)) / size
    ratio = sizes(tracks)[:, None] / sizes(faces)[None]
    near = (overlap > OVERLAP) | (distance < NEAR + NEAR_A_SECOND * unseen[:, None])
    possible = near & (np.maximum(ratio, 1 / ratio) < ALIKE)
    old, new = linear_sum_assignment(np.where(possible, 1 - overlap + distance, NEVER))
    pairs = possible[old, new]
    return old[pairs], new[pairs]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances between all centres, float64 [n, m]."""
    return np.linalg.norm(centres(one)[:, None] - centres(other)[None], axis=-1)
