"""Merge: the cut clips of a split become shards of about 256 MB and one index, with the priors that exist.

Clips are data/clip_crops.py; what the files look like is data/shards.py and data/index.py.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.clip_crops import ClipCrops
from gazepose.data.index import PRIORS, Index, add_columns, write_index
from gazepose.data.join import join
from gazepose.data.quality import fit_gaussian
from gazepose.data.shards import QUALITY, SUBSAMPLING
from gazepose.io import read_arrays

SHARD_BYTES = 256 << 20


def merge(folder: Path, root: Path, clips: Sequence[ClipCrops], facts: Mapping[str, Any], workplace: Path) -> None:
    """Write the index folder and its shards; clips stand in their order, those without a row are left out.

    Streamed clips have no shards; their videos' sizes become a fact, by which a reader notices that one has changed.

    Args:
        folder: where the index goes; shards are written in `workplace` first.
        root: of the data set; priors/<split>.npz and, except for test, the gaze of truth/<split>.npz are joined.
        clips: finished, at least one with a row. facts: of the index, with its split.

    Raises:
        ValueError: a table of priors cannot be joined; the message names it.
    """
    tables = {clip.uid: clip.rows() for clip in clips}
    clips = [clip for clip in clips if tables[clip.uid].sizes.any()]
    used = [tables[clip.uid] for clip in clips]
    columns = {name: np.concatenate([rows.columns[name] for rows in used]) for name in used[0].columns}
    sizes = np.concatenate([rows.sizes for rows in used])
    names = np.array([name for rows in used for name in rows.tracks], str)
    clip_of = np.repeat(np.arange(len(used)), [len(rows.sizes) for rows in used])
    filled = sizes > 0
    shards, clip_shard, clip_base = [], [0] * len(clips), [0] * len(clips)
    if clips[0].crops_from == "streamed":
        sources = {clip.uid: clip.source.stat().st_size for clip in clips}
        facts = {**facts, "quality_fit": None, "bytes": sources}
    else:
        facts = {**facts, "quality_fit": fit_gaussian(columns["quality"]), "encoder": f"JPEG q{QUALITY} {SUBSAMPLING}"}
        shards, clip_shard, clip_base = _write_shards(clips, workplace / ".shards")
    index = write_index(folder, columns=columns, clips=[clip.uid for clip in clips], track_name=names[filled].tolist(),
                        track_clip=clip_of[filled], track_start=np.r_[0, np.cumsum(sizes[filled])],
                        clip_shard=np.array(clip_shard), clip_base=np.array(clip_base), shards=shards, facts=facts)
    _join_columns(index, root / "priors" / f"{facts['split']}.npz", *PRIORS)
    if facts["split"] != "test":
        _join_columns(index, root / "truth" / f"{facts['split']}.npz", "gaze")


def _write_shards(clips: Sequence[ClipCrops], folder: Path) -> tuple[list[Path], list[int], list[int]]:
    """Write clips one after another; returns paths, and per clip its shard and the byte it starts at."""
    shutil.rmtree(folder, ignore_errors=True)                          # of a run that was killed here
    folder.mkdir()
    shards: list[Path] = []
    clip_shard: list[int] = []
    clip_base: list[int] = []
    for clip in clips:
        if not shards or shards[-1].stat().st_size + clip.shard.stat().st_size > SHARD_BYTES:
            shards.append(folder / f"{len(shards):05d}.bin")
        with open(shards[-1], "ab") as shard, open(clip.shard, "rb") as crops:
            clip_shard.append(len(shards) - 1)
            clip_base.append(shard.tell())
            shutil.copyfileobj(crops, shard)
    return shards, clip_shard, clip_base


def _join_columns(index: Index, path: Path, *names: str) -> None:
    """Add columns of a table to the index, where that file exists."""
    if not path.is_file():
        return
    try:
        add_columns(index.folder, join(index, read_arrays(path, ("clip", "track", "frame", *names))))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: cannot be joined: {error}") from error
