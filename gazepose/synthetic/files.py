"""Files of a world: where they lie, and how they are written so that each appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A name beside path to write to; renamed to path when the block succeeds, removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with staged(path) as part:
        part.write_text(text, encoding="utf-8")


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with staged(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)                                # type: ignore[arg-type]


def video_path(root: Path, split: str, uid: str) -> Path:
    return root / ("heldout/videos" if split == "test" else "videos") / f"{uid}.mp4"


def piece_path(root: Path, split: str, number: int) -> Path:
    return root / ".pieces" / f"{split}-{number:04d}.npz"
