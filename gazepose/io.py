"""The gate: what a file must be before a reader sees it. Imported by every room, imports none.

Folders of media may be links; below them nothing is, so that no name leads out of the data set. Archives and tensors
are read without running code, and within bounds.
"""

import json
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MAX_ARRAYS = 16 << 30        # bytes of an .npz, unpacked: some ten million faces with all their priors
MAX_HEADER = 4 << 20         # bytes of a safetensors header: some 30,000 entries
MAX_TENSORS = 20_000
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


def plain_file(path: str | Path, what: str, most: int) -> None:
    """A regular file of at most `most` bytes, not a link: never a pipe, a device or a way out of the folder.

    Raises:
        FileNotFoundError, ValueError: naming it.
    """
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such {what}") from None
    if stat.S_ISLNK(facts.st_mode):
        raise ValueError(f"{path}: is a link -> link the folder instead, or put the file there")
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{path}: is not a regular file")
    if facts.st_size > most:
        raise ValueError(f"{path}: {facts.st_size >> 20} MiB; a {what} of at most {most >> 20} MiB is read")


def plain_folder(path: Path, what: str) -> Path:
    """The folder itself, not a link.

    Raises:
        FileNotFoundError, ValueError: naming it.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such {what}")
    if path.is_symlink():
        raise ValueError(f"{path}: is a link -> link {path.parent.name} instead, or put the folder there")
    return path


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ (json's object_pairs_hook); which of two is meant cannot be told: ValueError."""
    named = dict(pairs)
    if len(named) != len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
    return named


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz by name; of `names` those that are there. Arrays of objects would be pickles: refused.

    Raises:
        FileNotFoundError; ValueError naming the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_ARRAYS:
            raise ValueError(f"{size >> 20} MiB unpacked, at most {MAX_ARRAYS >> 20} MiB are read")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (stored.files if names is None else names) if name in stored}
        if other := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{other[0][:80]} is no array")
        return arrays
    except FileNotFoundError:
        raise
    except Exception as error:                           # what damaged bytes do to zipfile, zlib and numpy is open
        raise ValueError(f"{path}: not arrays that can be read: {type(error).__name__}: {error}") from error


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Tensors of a safetensors file by name, all finite. Offsets are checked by safetensors, what it lets pass here.

    Raises:
        FileNotFoundError; ValueError naming the file: damaged, too large a header, too many entries, a name twice, an
            unknown dtype, a value that is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MAX_HEADER, max(os.fstat(file.fileno()).st_size - 8, 0)):
                raise ValueError(f"its header would be {length} bytes long")
            entries = json.loads(file.read(length), object_pairs_hook=unique_names)
        if not isinstance(entries, dict) or len(entries) > MAX_TENSORS:
            raise ValueError(f"{len(entries) if isinstance(entries, dict) else 'no'} entries, at most {MAX_TENSORS} "
                             "are read")
        for name, entry in entries.items():
            if name != "__metadata__" and (not isinstance(entry, dict) or entry.get("dtype") not in DTYPES):
                raise ValueError(f"{name[:80]} is not of a known dtype")
        state = load_file(path)
        for name, value in state.items():
            if not torch.isfinite(value).all():
                raise ValueError(f"{name[:80]} is not finite")
    except (ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}) -> use another checkpoint") from error
    return state
