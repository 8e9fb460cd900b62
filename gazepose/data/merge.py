"""Merge: the pieces of a split become shards of about 256 MB and one index, with the priors that are there.

Pieces are data/clip_crops.py; what the files look like is data/shards.py and data/index.py.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.clip_crops import Piece
from gazepose.data.index import PRIORS, Index, add_columns, write_index
from gazepose.data.join import join
from gazepose.data.quality import fit_gaussian
from gazepose.data.shards import QUALITY, SUBSAMPLING, ShardWriter
from gazepose.data.skipped import outcomes, write_report
from gazepose.io import read_arrays

SHARD_BYTES = 256 << 20
NOT_ROWS = ("key", "counts", "told", "tracks", "sizes")


def merge(folder: Path, split: str, pieces: list[Piece], bad: dict[str, str], root: Path,
          facts: Mapping[str, Any], max_bad_fraction: float) -> None:
    """Write the index folder and its shards; clips stand in the order of `pieces`.

    Args:
        folder: where the index goes; it has its name only when it is whole.
        pieces: all of the split, at least one with a row; bad ones and those without any are left out.
        bad: clip -> why it could not be used; kept in the index's facts.
        root: of the data set; priors/<split>.npz and the gaze of truth/<split>.npz are joined, of test no truth.
        facts: what the index is made from (policy, crop size, ...); kept in its facts.
        max_bad_fraction: told in report.json.

    Raises:
        ValueError: a table of priors cannot be joined; the message names it.
    """
    for leftover in [path for kind in ("joining*", "shards-*") for path in folder.parent.glob(f"{split}.{kind}")]:
        shutil.rmtree(leftover, ignore_errors=True)                    # of a run that was killed here
    listed, pieces = pieces, [piece for piece in pieces if piece.uid not in bad]
    tables = [piece.read() for piece in pieces]
    counts = all_counts(tables)
    used = [k for k, table in enumerate(tables) if len(table["frame"])]
    pieces, tables = [pieces[k] for k in used], [tables[k] for k in used]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0] if name not in NOT_ROWS}
    size, track = (np.concatenate([table[name] for table in tables]) for name in ("sizes", "tracks"))
    clip_of = np.repeat(np.arange(len(tables)), [len(table["sizes"]) for table in tables])
    held = size > 0
    told, facts = facts, {**facts, "split": split, "encoder": f"JPEG q{QUALITY} {SUBSAMPLING}",
                          "quality_fit": fit_gaussian(columns["quality"]), "bad_clips": bad,
                          "counts": {rule: count for rule, count in sorted(counts.items()) if count}}
    staging = folder.with_name(f"{split}.shards-{os.getpid()}")
    staging.mkdir()
    try:
        shards, digests, clip_shard, clip_base = _write_shards(pieces, staging)
        index = write_index(folder.with_name(f"{split}.joining"), columns=columns,
                            clips=[piece.uid for piece in pieces], track_name=track[held].tolist(),
                            track_clip=clip_of[held], track_start=np.r_[0, np.cumsum(size[held])],
                            clip_shard=np.array(clip_shard), clip_base=np.array(clip_base), shards=shards,
                            sha256=digests, facts=facts)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    join_priors(index, root, split)
    write_report(index.folder, split, "prepared", len(listed), outcomes(listed, bad), bad, max_bad_fraction, told)
    os.replace(index.folder, folder)


def join_priors(index: Index, root: Path, split: str) -> None:
    """Add the columns of priors/<split>.npz and the gaze of truth/<split>.npz where they are there, of test no truth.

    Raises:
        ValueError: naming the table that cannot be joined.
    """
    _join_columns(index, root / "priors" / f"{split}.npz", *PRIORS)
    if split != "test":
        _join_columns(index, root / "truth" / f"{split}.npz", "gaze")


def all_counts(tables: list[dict[str, np.ndarray]]) -> Counter[str]:
    """How often each rule touched a record, over all pieces."""
    return sum((Counter(json.loads(str(table["counts"]))) for table in tables), Counter())


def _join_columns(index: Index, path: Path, *names: str) -> None:
    if not path.is_file():
        return
    try:
        add_columns(index.folder, join(index, read_arrays(path, ("clip", "track", "frame", *names))))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: cannot be joined: {error}") from error


def _write_shards(pieces: list[Piece], staging: Path) -> tuple[list[Path], list[str], list[int], list[int]]:
    """Pieces one after another; returns paths, SHA-256, and per clip its shard and the byte it starts at."""
    shards: list[Path] = []
    digests: list[str] = []
    clip_shard: list[int] = []
    clip_base: list[int] = []
    waiting = list(pieces)
    while waiting:
        shards.append(staging / f"{len(shards):05d}.bin")
        with ShardWriter(shards[-1]) as writer:
            while waiting and (not writer.size or writer.size + waiting[0].shard.stat().st_size <= SHARD_BYTES):
                clip_shard.append(len(shards) - 1)
                clip_base.append(writer.size)
                with open(waiting.pop(0).shard, "rb") as crops:
                    while chunk := crops.read(8 << 20):
                        writer.append(chunk)
        digests.append(writer.sha256)
    return shards, digests, clip_shard, clip_base
