"""Tables of faces for tests of the wing that watches videos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gazepose.watch.table import FACES, Table, Video

NAN = float("nan")


def faces(looking: Sequence[float], video: str = "a.mp4", person: str = "P1", frames: Sequence[int] | None = None,
          seconds: Sequence[float] | None = None, fps: float = 10) -> Table:
    """Faces of one person, one for each probability; NaN is not codable."""
    frames = range(len(looking)) if frames is None else frames
    known = ~np.isnan(np.asarray(looking, np.float64))
    table = pd.DataFrame({name: np.zeros(len(looking)) for name in FACES})
    return table.assign(video=video, person=person, frame=np.asarray(frames, np.int64), width=40.0, height=50.0,
                        seconds=np.asarray(frames) / fps if seconds is None else np.asarray(seconds, np.float64),
                        looking=np.asarray(looking, np.float64), codable=known.astype(np.int64),
                        reason=np.where(known, "", "too small"))[list(FACES)]


def several(*tables: Table) -> Table:
    return pd.concat(tables, ignore_index=True)


def video_of(table: Table, name: str = "a.mp4", fps: float = 10, cuts: Sequence[float] = (),
             frames: int | None = None) -> Video:
    frames = int(table["frame"][table["video"] == name].max()) + 1 if frames is None else frames
    return Video(name, Path(name), 640, 360, frames, fps, frames / fps, tuple(cuts))


def spans(looks: Table, person: str = "P1") -> list[tuple[float, float]]:
    """(start, end) of a person's looks."""
    own = looks[looks["person"] == person]
    return [(round(start, 6), round(end, 6)) for start, end in zip(own["start"], own["end"], strict=True)]
