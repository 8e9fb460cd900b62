"""Scores of rows become files: names are looked up again for pred.csv, and the report gets what it draws.

What a submission must look like is submission.py's affair.
"""

import os
from pathlib import Path

import numpy as np

from gazepose.data.index import Index
from gazepose.submission import write_test_csv, write_val_csv

Face = tuple[str, str, str]
TIMELINE_ROWS = 400


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


def telling_track(index: Index, rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Places in `rows` of the track in which looking and not looking are most even; for the timeline."""
    track = index.track_of(rows)
    numbers, inverse, count = np.unique(track, return_inverse=True, return_counts=True)
    looking, away = (np.bincount(inverse, weights=label == value) for value in (1, 0))
    best = numbers[np.argmax(np.minimum(looking, away) + 1e-3 * count)]
    return np.flatnonzero(track == best)[:TIMELINE_ROWS]


def write_records(folder: Path, index: Index, rows: np.ndarray, label: np.ndarray, score: np.ndarray,
                  partial: str = "", plain: np.ndarray | None = None) -> None:
    """<split>.npz and, of val, timeline.npz, which report, sweep and chain read; each under its name only when whole.

    Args:
        label: of each row, -1 unknown; of an embedded world's test set it is known, though its index has none.
        partial: comes into the name of <split>.npz when the rows are limited.
        plain: where `score` is an average over the mirror, the score without it; becomes the column score_plain.
    """
    split = index.facts["split"]
    box = np.asarray(index.box[rows])
    track = index.track_of(rows)
    _save(folder / f"{split}{partial}.npz", row=rows, score=score, label=label, frame=np.asarray(index.frame[rows]),
          track=track, clip=index.track_clip[track], head_pose=np.asarray(index.head_pose[rows]),
          quality=np.asarray(index.quality[rows]), size=box[:, 3] - box[:, 1],
          **({} if plain is None else {"score_plain": plain}))
    if split != "val":
        return
    shown = telling_track(index, rows, label)
    _save(folder / "timeline.npz", crops=np.stack([index.crop(row) for row in rows[shown].tolist()]),
          frame=np.asarray(index.frame[rows[shown]]), score=score[shown], label=label[shown])


def _save(path: Path, **columns: np.ndarray) -> None:
    staged = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez_compressed(staged, **columns)              # type: ignore[arg-type]
    os.replace(staged, path)
