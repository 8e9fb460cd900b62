"""Prepared data for tests: the same calls with settings by name, quiet and with small crops."""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data import prepare as prepare_module
from gazepose.data.index import SHARDS
from gazepose.data.prepare import PrepareConfig
from gazepose.io import writing_by_checksum
from gazepose.processes import Processes


def quiet(line: str) -> None:
    """A message that nobody reads."""


def shards_of(folder: Path, clips: Sequence[str], clip_of: np.ndarray, crops: Sequence[bytes]
              ) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Write the crops of an index folder, a shard for each clip; returns their columns, and the shards' entries.

    Args:
        clip_of: int [rows], the number of each crop's clip.
    """
    columns = {name: np.zeros(len(crops), np.int64) for name in ("offset", "length", "checksum")}
    shards = []
    for number, clip in enumerate(clips):
        with writing_by_checksum(folder / SHARDS, f"{clip}.bin") as (file, entry):
            for row in np.flatnonzero(np.asarray(clip_of) == number).tolist():
                columns["offset"][row], columns["length"][row] = file.tell(), file.write(crops[row])
                columns["checksum"][row] = zlib.crc32(crops[row])
        shards.append(entry)
    return columns, shards


def settings_of(rules: dict[str, Any] | None = None, crop_size: int = 64, **settings: Any) -> PrepareConfig:
    rule = tuple(f"{name}={value}" for name, value in (rules or {}).items())
    return PrepareConfig(rule=rule, crop_size=crop_size, **settings)


def prepare(root: Path, split: str, *, jobs: int | None = None, notify: Callable[[str], None] = quiet, rank: int = 0,
            world_size: int = 1, wait: Callable[[], None] = lambda: None, **settings: Any) -> Path:
    return prepare_module.prepare(root, split, settings_of(**settings), Processes(rank, world_size, wait, notify), jobs)


def list_faces(root: Path, split: str, *, notify: Callable[[str], None] = quiet, **settings: Any) -> Path:
    """The rows of a split without its crops, which are cut out of the videos when they are used."""
    return prepare(root, split, jobs=1, notify=notify, crops="video", **settings)
