"""Stamps of folders of images: a quick look at names, sizes and times of their files, and a full one at their bytes.

io.stamp sees a folder's own time, so an image that is changed in place escapes it. A quick look at many folders is
bounded: of more than MAX_FILES files it takes every n-th folder, and of the others their times alone.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gazepose.io import sha256_of, stamp

MAX_FILES = 50_000           # that a quick look takes in: 0.2 s on a local disk
Sources = dict[str, list[str | None]]
"""file or folder of a data set -> its stamp, and its SHA-256 if it is known"""


def stamp_of_files(path: Path) -> str | None:
    """As io.stamp; of a folder, also the names, sizes and times of its files and of those in its folders: "TIMES FILES
    COUNT". None: it is not there."""
    times = stamp(path)
    if times is None or not path.is_dir():
        return times
    digest, count = hashlib.sha256(), 0
    for name, facts in _files(path):
        digest.update(f"{name}\0{facts.st_size} {facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
        count += 1
    return f"{times} {digest.hexdigest()[:16]} {count}"


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's files; None: it is not there."""
    if not path.is_dir():
        return sha256_of(path) if path.is_file() else None
    digest = hashlib.sha256()
    for name, facts in _files(path):
        digest.update(f"{name}\0{facts.st_size}\n".encode(errors="surrogateescape"))
        digest.update(sha256_of(path / name).encode())
    return digest.hexdigest()


def unchanged(path: Path, seen: str | None, times_alone: bool = False) -> bool:
    """Whether a file or folder is as `stamp_of_files` saw it, or gone since.

    Args:
        times_alone: of a folder, look at its times and not at its files.
    """
    if seen is None or not path.is_dir():
        return stamp(path) in (seen, None)
    if times_alone or " " not in seen:                                 # an index of before has the times alone
        return stamp(path) == seen.partition(" ")[0]
    return stamp_of_files(path) == seen


def changed_in(root: Path, sources: Mapping[str, Sequence[str | None]], full: bool = False) -> list[str]:
    """Names of sources, files or folders in `root`, that are not as they were; those that are gone do not count.

    Args:
        sources: as `Sources`. full: compare bytes where their SHA-256 is known, in place of stamps.
    """
    counts = {name: int(words[2]) for name, (seen, _) in sources.items()
              if len(words := str(seen).split()) == 3 and words[2].isdecimal()}
    step = max(-(-sum(counts.values()) // MAX_FILES), 1)
    sampled = set(list(counts)[::step])
    changed = []
    for name, (seen, digest) in sources.items():
        if full and digest is not None:
            same = digest_of(root / name) in (digest, None)
        else:
            same = unchanged(root / name, seen, times_alone=name not in sampled)
        changed += [name] * (not same)
    return changed


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(name, facts) of the files of a folder, and of those in its folders, by name. Links are not followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False):
                yield entry.name, entry.stat(follow_symlinks=False)
            elif entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as inner:
                    for file in sorted(inner, key=lambda file: file.name):
                        if file.is_file(follow_symlinks=False):
                            yield f"{entry.name}/{file.name}", file.stat(follow_symlinks=False)
