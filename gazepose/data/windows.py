"""Windows: seven indices around a centre face-frame, and the batch that some of them make.

A window is never seven copies of pixels: a batch holds each needed crop once (the pool) and says which of them
make each window. Track ends, missing frames and Gaussian Temporal Dropout only change those indices. The order of
windows is data/loader.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch

from gazepose.data.config import Scale, WindowConfig
from gazepose.data.features import Features
from gazepose.data.index import PRIORS, Index
from gazepose.data.quality import drop_in_evaluation, drop_in_training, fit_quality, quality_p, scaled
from gazepose.data.random_changes import random_crops, random_looks
from gazepose.keyed_random import uniform
from gazepose.text import counted

# The purpose of a draw is one of its keys, so that two purposes with equal keys get different numbers.
_SHIFT, _DROP, _FLIP = range(3)
BLACK = -1                       # where a window shows a black frame instead of a row


@dataclass(frozen=True, kw_only=True)
class LoaderRules:
    """Where the published loaders make other windows of the same rows than one would want.

    `--behaviour` chooses one of two sets, for the windows as for the model (models/queries.py, models/transformer.py)
    and the learning rate (optim.py). Rows of validation and test keep the order of the index under both: the published
    loaders shuffle them, but no score depends on it.
    """

    share_frames: bool
    """in training, neighbouring windows share their frames under one flip and one crop; without it every slot of every
    window is a picture with a random crop of its own, and only the flip is common to a window"""
    mirror_priors: bool
    """landmarks, head pose and their left and right follow the flip and the crop of the pixels"""
    black_is_missing: bool
    """in a window where a slot is missing or dropped, every neighbour whose crop is all black counts as missing too, so
    the others close up over it; in a whole window it stays black"""
    quality_of_key_frames: bool
    """in training only key frames (every stride-th position) have a quality; a frame without one is never dropped"""
    black_centre_at_test: bool
    """a blurred centre frame becomes black at test; it is never dropped otherwise"""
    landmarks_from: tuple[int, ...]
    """frames counted from the centre, the centre first; the first that has landmarks gives the window's. At test the
    centre alone does"""


BEHAVIOURS = {
    "intended": LoaderRules(share_frames=True, mirror_priors=True, black_is_missing=False, quality_of_key_frames=False,
                            black_centre_at_test=False, landmarks_from=(0,)),
    "published": LoaderRules(share_frames=False, mirror_priors=False, black_is_missing=True, quality_of_key_frames=True,
                             black_centre_at_test=True, landmarks_from=(0, -1, 1, -2, 2, 3, -3)),
}


def close_up(present: np.ndarray) -> np.ndarray:
    """Which slot each slot of a window shows, once the missing ones are gone.

    The present slots of each side move towards the centre, and the outermost of them is repeated; a side without
    any shows the centre. The centre itself always counts as present.

    Args:
        present: bool [B, T], T odd.

    Returns:
        int64 [B, T], slots 0..T-1.
    """
    reach = present.shape[1] // 2
    outwards = np.arange(1, reach + 1)
    source = np.empty(present.shape, np.int64)
    source[:, reach] = reach
    for direction in (-1, 1):
        slots = reach + direction * outwards                         # nearest first
        on_side = present[:, slots]                                  # [B, reach]
        nearest = np.argsort(~on_side, axis=1, kind="stable")        # the present ones first, in their order
        rank = np.minimum(outwards - 1, on_side.sum(1, keepdims=True) - 1)
        shown = slots[np.take_along_axis(nearest, np.maximum(rank, 0), axis=1)]
        source[:, slots] = np.where(rank >= 0, shown, reach)
    return source


def centre_rows(index: Index, stride: int) -> np.ndarray:
    """Rows of every stride-th position of each track, int64 ascending.

    Strides count positions in the cleaned track, not frames; a position whose crop is not there is skipped. In a track
    that has labels, but not of all its rows, a stride above 1 counts the labelled rows, and only these are taken.
    """
    if stride < 1:
        raise ValueError(f"stride {stride} -> give a stride of 1 or more")
    chosen = index.position % stride == 0
    labelled = index.label >= 0
    if stride > 1 and labelled.any() and not labelled.all():
        before = np.append(0, np.cumsum(labelled))                     # labelled rows before each row
        first, sizes = before[index.track_start], np.diff(index.track_start)
        sparse = np.repeat((np.diff(first) > 0) & (np.diff(first) < sizes), sizes)
        number = before[:-1] - np.repeat(first[:-1], sizes)            # of the row among the labelled ones of its track
        chosen = np.where(sparse, labelled & (number % stride == 0), chosen)
    return np.flatnonzero(chosen)


def counts_of(index: Index, rows: np.ndarray) -> str:
    """How many of a split's faces some rows are, in words; of the labelled ones too, where there are any others."""
    known = index.label >= 0
    words = f"{index.facts.get('split', index.folder.name)}: {len(rows)} of {counted(len(index), 'face')}"
    if known.any() and not known.all():
        words += f"; {int(known[rows].sum())} of the {int(known.sum())} with a label"
    return words


def neighbours(index: Index, rows: np.ndarray, reach: int) -> np.ndarray:
    """Rows of the frames around each centre, by frame number within its track.

    Args:
        rows: int64 [B].
        reach: frames on each side.

    Returns:
        int64 [B, 2 * reach + 1]; -1 where the track has no such frame. If a track has a frame several times, its last
        row is the neighbour (as with images written under one name); the centre is always its own row.
    """
    track = index.track_of(rows)
    start, end = index.track_start[track][:, None], index.track_start[track + 1][:, None]  # [B, 1]
    frame = index.frame[rows].astype(np.int64)[:, None] + np.arange(-reach, reach + 1)     # [B, T]
    # binary search in all tracks at once: `last` becomes the track's last row that is not past the frame
    last = np.broadcast_to(start - 1, frame.shape)
    for power in reversed(range(int((end - start).max(initial=0)).bit_length())):
        further = last + (1 << power)
        right = (further < end) & (index.frame[np.minimum(further, len(index) - 1)] <= frame)
        last = np.where(right, further, last)
    neighbour = np.where((last >= start) & (index.frame[last] == frame), last, -1)
    neighbour[:, reach] = rows
    return neighbour


def shown_rows(index: Index, rows: np.ndarray, reach: int) -> np.ndarray:
    """Rows of every crop that windows of these centres may show, and BLACK; int64 ascending, each once."""
    return np.unique(np.append(neighbours(index, rows, reach), BLACK))


def quality_fit(index: Index, scale: Scale, behaviour: LoaderRules, stride: int) -> tuple[float, float] | None:
    """Mean and standard deviation of the quality of a split, on a scale; None where it is unknown, or p is given."""
    key_frames = centre_rows(index, stride) if behaviour.quality_of_key_frames else slice(None)
    return fit_quality(index.quality[key_frames], scale)


@dataclass(frozen=True, kw_only=True)
class WindowRule(WindowConfig):
    """How rows become windows: all that decides which frames a model sees, apart from the index."""

    windows_per_segment: int = 1
    reach: int = 3
    stride: int = 1
    behaviour: LoaderRules = BEHAVIOURS["intended"]
    """with or without the differences of the published loaders"""
    train: bool = False
    """random flip, crop and temporal dropout, each a function of (seed, epoch, segment or row)"""
    test: bool = False
    """of the test split, where the published loader differs from that of validation"""
    quality_fit: tuple[float, float] | None = None
    """mean and standard deviation of the Laplacian variance on quality_scale, from the training split"""
    seed: int = 0

    @classmethod
    def of(cls, config: WindowConfig, **settings: Any) -> "WindowRule":
        """The rule of these flags and of settings by name."""
        return cls(**{flag.name: getattr(config, flag.name) for flag in fields(WindowConfig)}, **settings)

    def for_evaluation(self, stride: int) -> "WindowRule":
        """The same windows without anything random, at every stride-th position of a split other than test."""
        return replace(self, train=False, stride=stride, windows_per_segment=1)


def segments(index: Index, rule: WindowRule, rows: np.ndarray, epoch: int) -> np.ndarray:
    """Number of the segment each row belongs to: neighbouring centres of one track, at most windows_per_segment.

    Borders move from epoch to epoch. The numbers are unique over the index. Where windows do not share frames each is
    a segment of its own.
    """
    if rule.windows_per_segment == 1 or not rule.train or not rule.behaviour.share_frames:
        return rows
    track = index.track_of(rows)
    count = rule.windows_per_segment
    shift = (uniform(rule.seed, epoch, _SHIFT, track) * count).astype(np.int64)
    # a track of n positions has at most n segments, so counting on from its first one makes the numbers unique
    return index.track_position[track] + (index.position[rows] // rule.stride + shift) // count


def window_rows(index: Index, rule: WindowRule, rows: np.ndarray, epoch: int = 0) -> np.ndarray:
    """Rows of the crops that each window shows, after padding and temporal dropout; int64 [B, T], BLACK: a black frame.

    Gaussian Temporal Dropout (GazePose report, Temporal Dynamic Refinement): p is the CDF of a neighbour's quality. In
    training the neighbour is dropped if a uniform number exceeds p + 0.2, otherwise if p < 0.2. The centre is never
    dropped. Under the published behaviour it becomes black at test where its p < 0.2, and so does every slot that
    repeats it. An unknown quality never drops: so do the published loaders in training and validation; at test, where
    they fail, it is our choice.
    """
    frames = neighbours(index, rows, rule.reach)
    present = frames >= 0
    known = np.maximum(frames, 0)                        # any row where there is none; `present` leaves it out
    if rule.gaussian_drop:
        p = _probability(index, rule, known)
        if rule.train and rule.behaviour.quality_of_key_frames:
            p = np.where(index.position[known] % rule.stride == 0, p, np.nan)
        drawn = uniform(rule.seed, epoch, _DROP, rows[:, None], np.arange(frames.shape[1]))
        dropped = drop_in_training(p, drawn) if rule.train else drop_in_evaluation(p)
        if rule.test and rule.behaviour.black_centre_at_test:
            frames[dropped[:, rule.reach], rule.reach] = BLACK
        else:
            dropped[:, rule.reach] = False
        present &= ~dropped
    if rule.behaviour.black_is_missing:
        present &= present.all(1, keepdims=True) | ~index.black[known]
    return np.take_along_axis(frames, close_up(present), axis=1)


def window_landmarks(index: Index, rule: WindowRule, rows: np.ndarray) -> np.ndarray:
    """Landmarks of each window, float32 [B, 5, 3], NaN unknown: the centre's, or as LoaderRules.landmarks_from says."""
    offsets = (0,) if rule.test else rule.behaviour.landmarks_from
    slots = [rule.reach + offset for offset in offsets if abs(offset) <= rule.reach]
    frames = neighbours(index, rows, rule.reach)[:, slots]                                # [B, K], the centre first
    frames[:, 0] = rows
    landmarks = index.landmarks[np.maximum(frames, 0)]                                    # [B, K, 5, 3]
    known = (frames >= 0) & ~np.isnan(landmarks).all(axis=(2, 3))
    return landmarks[np.arange(len(rows)), known.argmax(axis=1)]                          # none known: the centre's


def window_priors(index: Index, rule: WindowRule, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every prior of each window, [B, ...] with NaN unknown: those of its centre, but see `window_landmarks`."""
    columns = {name: getattr(index, name)[rows] for name in PRIORS if name != "landmarks"}
    return {**columns, "landmarks": window_landmarks(index, rule, rows)}


def _probability(index: Index, rule: WindowRule, rows: np.ndarray) -> np.ndarray:
    """p of the quality of each row, float like rows; NaN unknown."""
    if rule.quality_scale == "given":
        if "quality_p" not in index.columns:
            raise ValueError(f"{index.folder}: has no column quality_p -> import it with `python -m gazepose priors "
                             f"import quality_p FILE --data {index.folder}`, or choose another --quality_scale")
        return index.quality_p[rows]
    if rule.quality_fit is None:
        raise ValueError("Gaussian Temporal Dropout needs the quality fit of the training split -> measure it with "
                         f"`python -m gazepose priors quality --data {index.folder}`, or leave out --Gaussiandrop")
    return quality_p(scaled(index.quality[rows], rule.quality_scale), *rule.quality_fit)


def pool_of(index: Index, rule: WindowRule, centre: np.ndarray, shown: np.ndarray, epoch: int
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pool of frames that windows are made of, each needed picture once.

    Args:
        centre: rows, int64 [B]; shown: what `window_rows` gave for them, int64 [B, T].

    Returns:
        row [F] of each picture (BLACK: a black one); window [B, T], indices into the pool; flip and crop [F], the keys
        of the random numbers of training: pictures of equal keys are flipped, or cut, alike. All int64.
    """
    if not rule.train:
        pool, window = np.unique(shown, return_inverse=True)
        return pool, window.reshape(shown.shape), pool, pool
    if not rule.behaviour.share_frames:
        slot = np.arange(shown.size)
        flip = np.repeat(centre, shown.shape[1])
        return shown.ravel(), slot.reshape(shown.shape), flip, flip * shown.shape[1] + slot % shown.shape[1]
    # two segments that show the same frame see it with two flips and two crops, so they need two pool entries
    names, segment = np.unique(segments(index, rule, centre, epoch), return_inverse=True)
    pool, window = np.unique(segment[:, None] * len(index) + shown, return_inverse=True)
    name = names[pool // len(index)]
    return pool % len(index), window.reshape(shown.shape), name, name


def read_pool(index: Index, pool: np.ndarray, crop_size: int, empty: Callable[..., np.ndarray] = np.empty
              ) -> np.ndarray:
    """The crops of some rows (BLACK: a black one), uint8 [F, S, S, 3]; resized when stored at another size."""
    frames = empty((len(pool), crop_size, crop_size, 3), np.uint8)
    same_size = index.facts.get("crop_size") == crop_size
    first: dict[int, int] = {}                                        # place of each row
    for place, (crop, row) in enumerate(zip(frames, pool.tolist(), strict=True)):
        if first.setdefault(row, place) != place:                     # a copy takes a tenth of decoding it again
            crop[:] = frames[first[row]]
        elif row == BLACK:
            crop[:] = 0
        elif same_size:                                               # decoded in place: a copy each would cost a tenth
            index.crop(row, crop)
        else:
            stored = index.crop(row)
            shrink = stored.shape[0] > crop_size
            crop[:] = cv2.resize(stored, crop.shape[:2], interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return frames


def make_batch(index: Index, rule: WindowRule, rows: np.ndarray, epoch: int, crop_size: int,
               empty: Callable[..., np.ndarray] = np.empty, features: Features | None = None, size: int = 0
               ) -> dict[str, torch.Tensor]:
    """The batch of some centre rows (architecture: a window is seven indices into a pool of frames).

    Args:
        rows: int64 [B]; a bitwise complement (below zero) is a filler. Its label is -1 and `row` keeps the complement,
            so that it is neither learnt from nor scored.
        crop_size: pixels per side; crops stored at another size are resized.
        empty: allocates the array of a shape and dtype that the frames are written into.
        features: of the frames, instead of their pixels; without pixels nothing is flipped or cut.
        size: how many pictures the pool is to have. Its own ones, evenly spread, fill it up; no window shows these
            copies, but BatchNorm counts them. Copies, because pictures of other rows may not have been read.

    Returns:
        frames uint8 [F, 3, S, S] (each needed crop once), or their features float16 [F, C, h, w]; window int64 [B, T]
        into them, each prior float32 [B, ...], gaze float32 [B, 2], label int64 [B], row int64 [B]; for
        training on pixels also flip bool [F], crop float32 [F, 4] and, with `augment`, look float32 [F, LOOKS].
    """
    filler = rows < 0
    centre = np.where(filler, ~rows, rows)
    shown = window_rows(index, rule, centre, epoch)                                       # [B, T]
    pool, window, flip_key, crop_key = pool_of(index, rule, centre, shown, epoch)
    if missing := max(0, size - len(pool)):
        filled = np.append(np.arange(len(pool)), np.arange(missing) * len(pool) // missing)
        pool, flip_key, crop_key = pool[filled], flip_key[filled], crop_key[filled]
    if features is None:
        frames = torch.from_numpy(read_pool(index, pool, crop_size, empty)).permute(0, 3, 1, 2)  # NHWC in memory
    else:
        frames = torch.from_numpy(features.read(pool, empty))
    batch = {
        "frames": frames,
        "window": torch.from_numpy(window.astype(np.int64)),
        **{name: torch.from_numpy(np.array(values, np.float32))
           for name, values in window_priors(index, rule, centre).items()},
        "gaze": torch.from_numpy(np.array(index.gaze[centre], np.float32)),
        "label": torch.from_numpy(np.where(filler, -1, index.label[centre]).astype(np.int64)),
        "row": torch.from_numpy(rows.astype(np.int64)),
    }
    for name in (*PRIORS, "gaze"):
        if torch.isinf(batch[name]).any():               # NaN is unknown; this would poison what is learnt
            row = int(centre[torch.isinf(batch[name]).flatten(1).any(1).numpy()][0])
            raise ValueError(f"{index.folder}: row {row} ({index.name_of(row)}): {name} is not finite -> import "
                             "that prior again")
    if rule.train and features is None:
        flip = uniform(rule.seed, epoch, _FLIP, flip_key) < 0.5 if rule.flip else np.zeros(len(pool), bool)
        batch["flip"] = torch.from_numpy(flip)
        whole, changed = np.tile(np.array([0, 0, 1, 1], np.float32), (len(pool), 1)), rule.augment != "off"
        batch["crop"] = torch.from_numpy(random_crops(crop_key, rule.seed, epoch, crop_size, changed)
                                         if rule.random_crop else whole)
        if changed:
            batch["look"] = torch.from_numpy(random_looks(flip_key, pool, rule.seed, epoch))
    return batch
