"""Files: bounded safe reading, atomic writing, checksums, JSON and locks. Imports no other module of the package.

Reading never runs code, never follows a link out of the data set, never waits for a pipe or a device, and never reads
more than a stated size. A file or folder that has its name is whole: it is written under a temporary name, flushed to
the disk, then renamed. Text is text.py; columns of an index are columns.py; tensors are tensor_files.py.
"""

import gc
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeGuard

import filelock
import numpy as np

MAX_JSON = 1 << 30           # bytes of a JSON file; Ego4D's own annotations have 250 MB
MAX_NESTING = 200            # of lists and objects; far more end Python's recursion in whoever walks them
MAX_ARRAYS = 16 << 30        # bytes of an .npz, unpacked: about ten million faces with all their priors
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.-]{1,128}")
PART = re.compile(r"\..+\.part-\d+\Z")       # the temporary name of what is being written


class UnusableFile(ValueError):
    """A file or folder of the data cannot be used; the message names it and what is wrong. Other ValueErrors are ours.
    """


# ---- what may be read

def is_id(text: object) -> TypeGuard[str]:
    """Ids become file names: letters, digits, `_`, `.`, `-`, at most 128, and not only dots."""
    return isinstance(text, str) and ID.fullmatch(text) is not None


def plain_file(path: str | Path, what: str, most: int) -> None:
    """Check that a path is a regular file of at most `most` bytes: no link, no pipe, no device.

    Raises:
        FileNotFoundError, ValueError: naming it.
    """
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such {what}") from None
    if stat.S_ISLNK(facts.st_mode):
        raise UnusableFile(f"{path}: is a link -> link the folder instead, or put the file there")
    _regular(path, facts, what, most)


def open_regular(path: str | Path, what: str = "file", most: int | None = None) -> BufferedReader:
    """Open a regular file of at most `most` bytes for reading. A pipe or a device is refused, and not waited for.

    Raises:
        FileNotFoundError, ValueError: naming it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such {what}") from None
    try:
        _regular(path, os.fstat(descriptor), what, most)
    except ValueError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _regular(path: str | Path, facts: os.stat_result, what: str, most: int | None) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UnusableFile(f"{path}: is not a regular file -> put the {what} itself there")
    if most is not None and facts.st_size > most:
        raise UnusableFile(f"{path}: {facts.st_size >> 20} MiB; a {what} of at most {most >> 20} MiB is read")


def plain_folder(path: Path, what: str) -> None:
    """Check that a path is a folder and no link.

    Raises:
        FileNotFoundError, ValueError: naming it.
    """
    if path.is_symlink():
        raise UnusableFile(f"{path}: is a link -> link {path.parent.name} instead, or put the folder there")
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such {what}")


# ---- JSON, arrays

def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ (json's object_pairs_hook); a name that occurs twice is a ValueError."""
    named = dict(pairs)
    if len(named) != len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
    return named


def read_json(path: str | Path, *, missing: str = "the folder is not whole, or the path is wrong",
              remedy: str = "the file is damaged; use another copy", most: int = MAX_JSON) -> Any:
    """Any JSON value of a regular file of at most `most` bytes, in UTF-8. NaN and infinite numbers are read as such.

    Raises:
        FileNotFoundError: its remedy is `missing`. ValueError: naming the file and the `remedy`: not JSON, nested
            absurdly, not UTF-8, too large, not a regular file, or a name twice in one object.
    """
    try:
        with open_regular(path, "JSON file", most) as file:
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there -> {missing}") from None
    collecting = gc.isenabled()
    gc.disable()                                 # millions of small objects, none of them cyclic
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable JSON: {error} -> {remedy}") from None
    finally:
        if collecting:
            gc.enable()


def parse_json(content: bytes) -> Any:
    """The value of a JSON text; ValueError or RecursionError where it is none, or nested absurdly."""
    if content.count(b"[") + content.count(b"{") > MAX_NESTING:
        brackets = np.frombuffer(content.translate(None, NO_BRACKETS), np.uint8)
        depth = np.cumsum(np.where(brackets % 4 == 3, 1, -1), dtype=np.int64).max()          # [ is 91, { is 123
        if depth > MAX_NESTING:                  # in text they count too, but there what is opened is mostly closed
            raise ValueError(f"lists and objects are nested {depth} deep, at most {MAX_NESTING}")
    return json.loads(content, object_pairs_hook=unique_names)


def read_object(path: str | Path, **how: Any) -> dict[str, Any]:
    """As `read_json`, of a file that holds one JSON object."""
    content = read_json(path, **how)
    if not isinstance(content, dict):
        remedy = how.get("remedy", "the file is damaged; use another copy")
        raise ValueError(f"{path}: wanted a JSON object, got a {type(content).__name__} -> {remedy}")
    return content


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write JSON; see `writing`."""
    with writing(path) as file:
        json.dump(content, file, indent=indent, allow_nan=False)
        file.write("\n")


def read_arrays(path: Path, names: Iterable[str] | None = None, most: int = MAX_ARRAYS) -> dict[str, np.ndarray]:
    """Arrays of an .npz of at most `most` bytes, unpacked, by name; of `names` those that are there. Arrays of objects
    would be pickles: refused.

    Raises:
        FileNotFoundError; ValueError naming the file.
    """
    try:
        with open_regular(path, "archive of arrays") as file, zipfile.ZipFile(file) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if (size := sum(entry.file_size for entry in archive.infolist())) > most:
                raise ValueError(f"{size >> 20} MiB unpacked, at most {most >> 20} MiB are read")
            return {name: _read_entry(archive, entries[name]) for name in (entries if names is None else names)
                    if name in entries}
    except FileNotFoundError:
        raise
    except Exception as error:                           # damaged bytes make zipfile, zlib and numpy raise anything
        raise ValueError(f"{path}: not arrays that can be read: {type(error).__name__}: {error}") from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array; its header must not state more than is stored, because memory is taken by what it states."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in headers:
            raise ValueError(f"{entry.filename[:80]} is of format {version}")
        shape, _, dtype = headers[version](file)
        if math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{entry.filename[:80]} states {shape} of {dtype}, which is more than it holds")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write an .npz; see `writing_path`."""
    with writing_bytes(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)      # type: ignore[arg-type]


# ---- atomic writing

def part_of(path: Path) -> Path:
    """The temporary name beside `path` under which this process writes it."""
    return path.with_name(f".{path.name}.part-{os.getpid()}")


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Temporary files and folders of `name` in a folder: of writers that are at work, or were killed."""
    return [path for path in folder.glob(f".{name}.part-*") if PART.match(path.name)]


@contextmanager
def writing_path(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path beside it, which is flushed to the disk and renamed to `path`
    when the block succeeds, and removed when it does not. Makes the parent folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
        sync_file(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing_bytes(path: Path) -> Iterator[BinaryIO]:
    """As `writing_path`: yields the open file."""
    with writing_path(path) as part, open(part, "wb") as file:
        yield file


@contextmanager
def writing(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """As `writing_path`, of a text file in UTF-8: yields the open file."""
    with writing_path(Path(path)) as part, open(part, "w", encoding="utf-8", newline=newline) as file:
        yield file


@contextmanager
def writing_by_checksum(folder: Path, name: str, digits: int = 16) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """Write a file whose name ends in its checksum, STEM-DIGITS.SUFFIX, atomically: yields the open file and its entry.

    A new version never overwrites the one that others read. Bytes go out by plain writes: on a full disk they raise
    OSError, where a memory map would kill the process.

    Args:
        name: STEM.SUFFIX. digits: how many hexadecimal digits of its SHA-256 the name carries.

    Yields:
        The file, and a dictionary that holds {"file": its name, "bytes", "sha256"} once the block has succeeded.
    """
    path, entry = folder / name, {}
    folder.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        with open(part, "wb") as file:
            yield file, entry
        sync_file(part)
        digest = sha256_of(part)
        entry |= {"file": f"{path.stem}-{digest[:digits]}{path.suffix}", "bytes": part.stat().st_size, "sha256": digest}
        os.replace(part, folder / entry["file"])
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Write a folder atomically: yields a new temporary folder beside it, whose files are flushed to the disk and which
    is renamed to `folder` when the block succeeds, and removed when it does not. Makes the parent folder.

    Args:
        replace: a folder of that name is removed last; without it, it stays and is an error.

    Raises:
        FileExistsError: the folder is there. OSError: the disk is full; what was there is untouched.
    """
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for path in part.rglob("*"):
            sync_file(path) if path.is_file() else sync_folder(path)
        sync_folder(part)
        if folder.exists():
            if not replace:
                raise FileExistsError(f"{folder}: is there already -> delete it to make it again")
            old = part_of(folder.with_name(f"{folder.name}.old"))
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
            os.replace(part, folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(part, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDWR)        # Windows flushes only what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> str | None:
    """What a quick look sees of a file: its size and time of change; of a folder: these times of it and of the folders
    in it. None: it is not there."""
    try:
        facts = os.stat(path)
        if not stat.S_ISDIR(facts.st_mode):
            return f"{facts.st_size} {facts.st_mtime_ns}"
        with os.scandir(path) as entries:
            inside = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.is_dir())
        return hashlib.sha256(repr((facts.st_mtime_ns, inside)).encode()).hexdigest()[:16]
    except (FileNotFoundError, NotADirectoryError):
        return None


# ---- locks

def lock(path: Path, notify: Callable[[str], None] | None = None) -> filelock.BaseFileLock:
    """Hold a lock file: until `release()` of the result, or the end of this process.

    Args:
        notify: wait while another process holds it, and say so once; without it, raise.

    Raises:
        BlockingIOError: another process holds it; its message names that process and its host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():                        # the file that it leads to would be overwritten
        raise ValueError(f"{path}: is a link, and locks are not written through one -> remove the link")
    held = filelock.FileLock(path, thread_local=False)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        holder = _holder(path)
        if notify is None:
            raise BlockingIOError(holder) from None
        notify(f"{path.parent}: waiting for {holder}, which works in this folder")
        held.acquire()
    except OSError as error:                     # some network file systems have no locks
        if notify is not None:
            notify(f"{path}: cannot be locked ({error.strerror}) -> start one process on this folder at a time")
        return held
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return held


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()[:200] or "another process"
    except (OSError, ValueError):
        return "another process"
