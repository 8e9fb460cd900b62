"""Prepared data for tests: the same calls with settings by name, quiet and with small crops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gazepose.data import prepare as prepare_module
from gazepose.data.prepare import PrepareConfig
from gazepose.processes import Processes


def quiet(line: str) -> None:
    """A message that nobody reads."""


def settings_of(rules: dict[str, Any] | None = None, crop_size: int = 64, **settings: Any) -> PrepareConfig:
    rule = tuple(f"{name}={value}" for name, value in (rules or {}).items())
    return PrepareConfig(rule=rule, crop_size=crop_size, **settings)


def prepare(root: Path, split: str, *, jobs: int | None = None, notify: Callable[[str], None] = quiet, rank: int = 0,
            world_size: int = 1, wait: Callable[[], None] = lambda: None, **settings: Any) -> Path:
    return prepare_module.prepare(root, split, settings_of(**settings), Processes(rank, world_size, wait, notify), jobs)


def list_faces(root: Path, split: str, *, notify: Callable[[str], None] = quiet, **settings: Any) -> Path:
    """The rows of a split without its crops, which are cut out of the videos when they are used."""
    return prepare(root, split, jobs=1, notify=notify, crops="video", **settings)
