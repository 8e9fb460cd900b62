"""Merge: the cut clips of a split become one index, with the priors that exist.

Clips are data/clip_files.py; what the index looks like is data/index.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.clip_files import ClipCrops
from gazepose.data.index import COLUMNS, PRIORS, Index
from gazepose.data.index_writer import typed, write_index
from gazepose.data.join import join, match, place_numbers
from gazepose.data.quality import fit_gaussian
from gazepose.data.shards import QUALITY, SUBSAMPLING
from gazepose.data.stamps import Sources
from gazepose.io import read_arrays, sha256_of, stamp


def merge(folder: Path, root: Path, clips: Sequence[ClipCrops], sources: Sources, facts: Mapping[str, Any],
          before: Index | None) -> tuple[Index, list[str]]:
    """Write the index of a folder; clips stand in their order, those without a row are left out.

    Args:
        root: of the data set; priors/<split>.npz and, except for test, the gaze of truth/<split>.npz are joined.
        clips: finished, at least one with a row.
        sources: what else the index was made from. facts: of the index, with its split.
        before: the index that is replaced; priors that were imported or computed into it are kept.

    Returns:
        The index, and a line for each prior that some of its new rows lack.

    Raises:
        ValueError: a table of priors cannot be joined; the message names it.
    """
    tables = {clip.uid: clip.rows() for clip in clips}
    sources = {**sources, **{name_in(root, clip.source): tables[clip.uid].source for clip in clips}}
    clips = [clip for clip in clips if tables[clip.uid].sizes.any()]
    used = [tables[clip.uid] for clip in clips]
    columns = {name: np.concatenate([rows.columns[name] for rows in used]) for name in used[0].columns}
    sizes = np.concatenate([rows.sizes for rows in used])
    names = np.array([name for rows in used for name in rows.tracks], str)
    clip_of = np.repeat(np.arange(len(used)), [len(rows.sizes) for rows in used])
    filled = sizes > 0
    kept = dict(before.facts.get("priors", {})) if before else {}
    split, lines = facts["split"], []
    if facts["decoder"]:                         # clips that were cut earlier may have been read by another
        facts = {**facts, "decoders": sorted({rows.notes.get("setting", str(facts["decoder"])) for rows in used})}
    if "quality" not in columns:                                       # streamed: measured when the crops are cut
        facts = {**facts, "quality_fit": None}
    else:
        facts = {**facts, "quality_fit": fit_gaussian(columns["quality"]), "encoder": f"JPEG q{QUALITY} {SUBSAMPLING}"}
    tables_of = [(root / "priors" / f"{split}.npz", tuple(name for name in PRIORS if name not in kept))]
    if split != "test":
        tables_of.append((root / "truth" / f"{split}.npz", ("gaze",)))
    sources |= {name_in(root, path): source_of(path) for path, _ in tables_of}

    def beside(index: Index) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """More columns of the new rows, and the facts that follow from them."""
        found = {}
        for path, columns in tables_of:
            if path.is_file() and columns:
                found |= _joined(index, path, columns)
        if before is not None and kept:
            found |= carried(before, index, list(kept))
        for name, source in kept.items():
            lacking = np.isnan(found[name]).reshape(len(index), -1).all(1)
            known_before = np.isfinite(getattr(before, name)).any()
            if lacking.any() and known_before:
                lines.append(f"{folder}: {name} ({source}) is unknown for {int(lacking.sum())} of {len(index)} faces "
                             "-> import or compute it again if these are new")
        return found, {"quality_fit": fit_gaussian(found["quality"])} if "quality" in kept else {}

    index = write_index(folder, columns=columns, clips=[clip.uid for clip in clips], track_name=names[filled].tolist(),
                        track_clip=clip_of[filled], track_start=np.r_[0, np.cumsum(sizes[filled])],
                        shards=[rows.shard for rows in used], facts={**facts, "sources": sources, "priors": kept},
                        beside=beside)
    return index, lines


def name_in(root: Path, path: Path) -> str:
    """A file's name within its data set."""
    return path.relative_to(root).as_posix()


def source_of(path: Path) -> list[str | None]:
    """Stamp and SHA-256 of a file; of a folder, or where there is nothing, no SHA-256."""
    return [stamp(path), sha256_of(path) if path.is_file() else None]


def _joined(index: Index, path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a table, for the rows of the index."""
    try:
        joined = join(index, read_arrays(path, ("clip", "track", "frame", *names)))
        return {name: typed(index.folder, len(index), name, values) for name, values in joined.items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: cannot be joined: {error}") from error


def carried(before: Index, index: Index, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of an index, for the same faces in another; NaN for faces that it did not have."""
    track = [(before.clips[clip], name) for clip, name in zip(before.track_clip, before.track_name, strict=True)]
    number = np.repeat(np.arange(len(track)), np.diff(before.track_start))
    place, row_place = np.asarray(before.frame, np.int64), np.asarray(index.frame, np.int64)
    if before.unique_id is not None and index.unique_id is not None:
        place, row_place = place_numbers(before.unique_id, index.unique_id)
    entry = match(index, track, number, place, row_place).entry
    found = {}
    for name in names:
        found[name] = np.full((len(index), *COLUMNS[name][1]), np.nan, np.float32)
        found[name][entry >= 0] = getattr(before, name)[entry[entry >= 0]]
    return found
