"""Scores of rows become files: names are looked up again for pred.csv, and the report gets what it draws.

What a submission must look like is submission.py's affair.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gazepose.data.index import Index
from gazepose.evaluation.examples import spread, telling_tracks, worst_mistakes
from gazepose.evaluation.metrics import head_pose_scores
from gazepose.evaluation.submission import write_test_csv, write_val_csv

Face = tuple[str, str, str]


def names(index: Index, rows: np.ndarray) -> list[tuple[str, str]]:
    """(clip, track) of each row."""
    track = index.track_of(rows)
    return [(index.clips[index.track_clip[t]], index.track_name[t]) for t in track.tolist()]


def faces(index: Index, rows: np.ndarray) -> list[Face]:
    """(video_id, unique_id, track_id) of each row of a test index: a face's name in a submission.

    Raises:
        ValueError: the index has no unique ids.
    """
    if index.unique_id is None:
        raise ValueError(f"{index.folder}: no unique ids, so this is not a test set -> run "
                         "python infer.py --split test")
    return [(clip, unique.decode(), track) for (clip, track), unique in
            zip(names(index, rows), index.unique_id[rows].tolist(), strict=True)]


def write_csv(path: Path, index: Index, rows: np.ndarray, label: np.ndarray, score: np.ndarray) -> None:
    """pred.csv of a split, as the original guide has it: of val with a header and labels, of test without."""
    if index.facts["split"] == "test":
        write_test_csv(path, [(*face, value) for face, value in zip(faces(index, rows), score.tolist(), strict=True)])
    else:
        table = zip(names(index, rows), index.frame[rows].tolist(), index.box[rows].tolist(), label.tolist(),
                    score.tolist(), strict=True)
        write_val_csv(path, [(clip, track, frame, *box, known, value)
                             for (clip, track), frame, box, known, value in table])


def write_records(folder: Path, index: Index, rows: np.ndarray, label: np.ndarray, score: np.ndarray,
                  partial: str = "", plain: np.ndarray | None = None,
                  head_pose_fit: Sequence[float] | None = None) -> None:
    """<split>.npz and, of val, timeline.npz and mistakes.npz, which report, sweep and chain read; each under its name
    only when whole.

    Args:
        label: of each row, -1 unknown; of an embedded world's test set it is known, though its index has none.
        partial: comes into the files' names when the rows are limited.
        plain: where `score` is an average over the mirror, the score without it; becomes the column score_plain.
        head_pose_fit: the trivial baseline's weights (metrics.fit_head_pose); with them head_pose_score is kept.
    """
    split = index.facts["split"]
    box, pose = np.asarray(index.box[rows]), np.asarray(index.head_pose[rows])
    track, frame = index.track_of(rows), np.asarray(index.frame[rows])
    columns = {"row": rows, "score": score, "label": label, "frame": frame, "track": track,
               "clip": index.track_clip[track], "head_pose": pose, "quality": np.asarray(index.quality[rows]),
               "size": box[:, 3] - box[:, 1]}
    if plain is not None:
        columns["score_plain"] = plain
    if head_pose_fit is not None:
        columns["head_pose_score"] = head_pose_scores(head_pose_fit, pose)
    _save(folder / f"{split}{partial}.npz", **columns)
    if split != "val":
        return
    kept = [name for name in ("row", "frame", "score", "label", "head_pose_score") if name in columns]
    shown = telling_tracks(label, score, track, frame)
    at = np.concatenate(shown)
    start = np.cumsum([0, *map(len, shown)])
    crop_at = np.concatenate([first + spread(frame[places], label[places])
                              for first, places in zip(start, shown, strict=False)])
    _save(folder / f"timeline{partial}.npz", **{name: columns[name][at] for name in kept}, start=start,
          crop_at=crop_at, crops=_crops(index, rows[at[crop_at]]), **_named(index, rows[at[start[:-1]]]),
          clips=np.array(index.clips, str))              # whose numbers are the table's column clip
    wrong = worst_mistakes(label, score, track, columns["clip"], frame)
    _save(folder / f"mistakes{partial}.npz", **{name: columns[name][wrong] for name in kept},
          crops=_crops(index, rows[wrong]), **_named(index, rows[wrong]))


def _crops(index: Index, rows: np.ndarray) -> np.ndarray:
    """uint8 [k, S, S, 3]."""
    return np.stack([index.crop(row) for row in rows.tolist()]) if len(rows) else np.zeros((0, 1, 1, 3), np.uint8)


def _named(index: Index, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The clip and the track of each row by name."""
    named = np.array(names(index, rows), str).reshape(-1, 2)
    return {"clip_name": named[:, 0], "track_name": named[:, 1]}


def _save(path: Path, **columns: np.ndarray) -> None:
    staged = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez_compressed(staged, **columns)              # type: ignore[arg-type]
    os.replace(staged, path)
