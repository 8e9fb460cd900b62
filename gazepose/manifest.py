"""Manifests: which files of a folder we wrote, so that nothing else in it is ever removed.

A manifest names the files with their checksums. A mark in the folder says that this very folder was written here: it
holds the numbers that the disk gave the folder and its parent (inodes), which no copy has.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from gazepose.io import is_id, read_object, sha256_of, write_json

MANIFEST = "manifest.json"
"""SHA-256 of each other file that was written into the folder"""
MARK = "folder.json"
"""the inodes of the folder's parent and of the folder"""
WRITTEN: set[Path] = set()
"""folders that this process wrote, for the few disks whose inodes change"""


def write_manifest(folder: Path) -> None:
    """Write what a folder's files are, so that who replaces or removes the folder knows them from a user's files."""
    write_json(folder / MANIFEST, {file.name: sha256_of(file) for file in sorted(folder.iterdir())})


def read_manifest(folder: Path) -> dict[str, str]:
    """File names and SHA-256 of a folder's manifest.

    Raises:
        FileNotFoundError, ValueError: naming the file and the first name that is none.
    """
    manifest = read_object(folder / MANIFEST)
    for name, digest in manifest.items():
        if not is_id(name) or not isinstance(digest, str):
            raise ValueError(f"{folder / MANIFEST}: {name[:140]!r} is not a file name with a checksum -> use another "
                             "checkpoint")
    return manifest


def copy_others(folder: Path, goal: Path) -> None:
    """Copy what a folder's manifest does not name, the user's own files, unless a file there has that name."""
    try:
        written = {MANIFEST, *read_manifest(folder)}
    except (FileNotFoundError, ValueError):
        written = set()                          # by an older version: nothing is known to be ours
    for path in folder.iterdir():
        if path.name in written or (goal / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, goal / path.name, symlinks=True)
        else:
            shutil.copy2(path, goal / path.name, follow_symlinks=False)


def mark_folder(part: Path, folder: Path) -> None:
    """Mark a folder that is written here under the temporary name `part`; renamed to `folder`, it stays marked."""
    write_json(part / MARK, _inodes(part))
    WRITTEN.add(folder.resolve())


def is_written_here(folder: Path) -> bool:
    """Whether a folder has the mark, and has been neither copied nor moved to another folder since."""
    try:
        return folder.resolve() in WRITTEN or read_object(folder / MARK) == _inodes(folder)
    except (OSError, ValueError):
        return False


def _inodes(folder: Path) -> dict[str, int]:
    return {"parent": folder.resolve().parent.stat().st_ino, "folder": folder.stat().st_ino}


def remove_written(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of a folder that its manifest names, then the folder if nothing else is in it.

    Args:
        names: of the files that a writer writes, for a folder whose manifest is damaged.
    """
    try:
        names = list(read_manifest(folder))
    except (OSError, ValueError):
        names = [*names, MARK]
    for name in (MANIFEST, *names):              # without its manifest, what is left counts for nobody
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
