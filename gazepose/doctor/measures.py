"""What is measured of tracks: gaps, repeats, overlaps, sizes. Pure functions of arrays, no files."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gazepose.data.tracks import FaceTrack, RawTrack

SAME_FACE = 0.5              # boxes that overlap so much (intersection over union) show one face


def gaps(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of missing frames: (how long each is, the last frame before it), int64; frames ascend."""
    steps = np.diff(frames) - 1
    at = np.flatnonzero(steps > 0)
    return steps[at], frames[at]


def repeats(raw: RawTrack) -> tuple[np.ndarray, np.ndarray]:
    """Frames that come again, (with a box they had before, with another), one entry per record beyond the first."""
    rows = np.column_stack([raw.frames, raw.boxes])
    rows = rows[np.isfinite(rows).all(axis=1)]
    whole, first = np.unique(rows, axis=0, return_index=True)
    copied = np.ones(len(rows), bool)
    copied[first] = False
    contradicts = whole[1:, 0] == whole[:-1, 0] if len(whole) else np.zeros(0, bool)
    return rows[copied, 0], whole[1:][contradicts, 0]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes x1, y1, x2, y2, [n, 4] each; 0 where both are empty."""
    with np.errstate(over="ignore", invalid="ignore"):                 # absurd boxes overlap with nothing
        inner = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
        union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - inner
        return np.divide(inner, union, out=np.zeros(len(a)), where=union > 0)


def overlaps(tracks: Sequence[FaceTrack]) -> list[dict[str, Any]]:
    """Pairs of one clip's tracks whose boxes show the same face in some frames.

    Returns:
        Per pair: tracks and persons (two names each), frames (how many), frame (the first), iou (mean over them).
    """
    names = sorted({track.track for track in tracks})
    person = {track.track: track.person for track in tracks}
    if len(names) < 2:
        return []
    number = np.concatenate([np.full(len(track.frames), names.index(track.track)) for track in tracks])
    frame = np.concatenate([track.frames for track in tracks])
    box = np.concatenate([track.boxes for track in tracks])
    order = np.lexsort((number, frame))
    number, frame, box = number[order], frame[order], box[order]
    pairs, at, shares = [], [], []
    for shift in range(1, len(frame)):                                 # neighbours, next neighbours, ... of one frame
        same = np.flatnonzero(frame[shift:] == frame[:-shift])
        if not len(same):
            break
        share = iou(box[same], box[same + shift])
        hit = (share >= SAME_FACE) & (number[same] != number[same + shift])
        pairs.append(number[same[hit]] * len(names) + number[same[hit] + shift])
        at.append(frame[same[hit]])
        shares.append(share[hit])
    if not pairs:
        return []
    pair, frame, share = np.concatenate(pairs), np.concatenate(at), np.concatenate(shares)
    found = []
    for code in np.unique(pair).tolist():
        mine = pair == code
        both = [names[code // len(names)], names[code % len(names)]]
        found.append({"tracks": both, "persons": [person[name] for name in both], "frames": int(mine.sum()),
                      "frame": int(frame[mine].min()), "iou": round(float(share[mine].mean()), 3)})
    return found


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Quantiles by name; None of nothing."""
    if not len(values):
        return None
    names = {"least": 0, "5 %": .05, "25 %": .25, "median": .5, "75 %": .75, "95 %": .95, "greatest": 1}
    return {name: round(float(value), 2)
            for name, value in zip(names, np.quantile(values, list(names.values())), strict=True)}
