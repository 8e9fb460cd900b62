"""Files: bounded safe reading, atomic writing, checksums, JSON and locks. Imports no other module of the package.

Reading never runs code, never follows a link out of the data set, and never reads more than a stated size. A file or
folder that has its name is whole: it is written under a temporary name, flushed to the disk, then renamed.
"""

import gc
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeGuard

import filelock
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON = 1 << 30           # bytes of a JSON file; Ego4D's own annotations have 250 MB
MAX_ARRAYS = 16 << 30        # bytes of an .npz, unpacked: about ten million faces with all their priors
MAX_HEADER = 4 << 20         # bytes of a safetensors header: about 30,000 entries
MAX_TENSORS = 20_000
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.-]{1,128}")
PART = re.compile(r"\..+\.part-\d+\Z")       # the temporary name of what is being written


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
        raise ValueError(f"{path}: is a link -> link the folder instead, or put the file there")
    _regular(path, facts, what, most)


def _regular(path: str | Path, facts: os.stat_result, what: str, most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{path}: is not a regular file")
    if facts.st_size > most:
        raise ValueError(f"{path}: {facts.st_size >> 20} MiB; a {what} of at most {most >> 20} MiB is read")


def plain_folder(path: Path, what: str) -> None:
    """Check that a path is a folder and no link.

    Raises:
        FileNotFoundError, ValueError: naming it.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such {what}")
    if path.is_symlink():
        raise ValueError(f"{path}: is a link -> link {path.parent.name} instead, or put the folder there")


# ---- JSON, arrays, tensors

def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ (json's object_pairs_hook); a name that occurs twice is a ValueError."""
    named = dict(pairs)
    if len(named) != len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
    return named


def read_json(path: str | Path, *, missing: str = "the folder is not whole, or the path is wrong",
              remedy: str = "the file is damaged; use another copy", most: int = MAX_JSON) -> Any:
    """Any JSON value of a regular file, in UTF-8. NaN and numbers past the range of a float are read as such.

    Args:
        missing, remedy: what to do when the file is not there, or cannot be read; for the message.
        most: bytes that are read at most.

    Raises:
        FileNotFoundError, ValueError: naming the file and the remedy: not JSON, nested absurdly, not UTF-8, too large,
            not a regular file, or a name twice in one object.
    """
    try:
        _regular(path, os.stat(path), "JSON file", most)
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there -> {missing}") from None
    collecting = gc.isenabled()
    gc.disable()                                 # millions of small objects, none of them cyclic
    try:
        return json.loads(content, object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable JSON: {error} -> {remedy}") from None
    finally:
        if collecting:
            gc.enable()


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
    except Exception as error:                           # damaged bytes make zipfile, zlib and numpy raise anything
        raise ValueError(f"{path}: not arrays that can be read: {type(error).__name__}: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write an .npz; see `writing_path`."""
    with writing_bytes(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)      # type: ignore[arg-type]


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Tensors of a safetensors file by name, all finite. safetensors checks the offsets; the rest is checked here.

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


def map_array(path: Path) -> np.ndarray:
    """An .npy file as a read-only map: every process that reads it shares its pages. Arrays of objects are refused.

    Raises:
        FileNotFoundError; ValueError naming the file: damaged, cut short, or without a single value.
    """
    try:
        # a plain array of the same memory: each access to an np.memmap costs ten times as much
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there") from None
    except Exception as error:                           # damaged bytes make numpy raise anything
        raise ValueError(f"{path}: not an array that can be read: {type(error).__name__}: {error}") from error


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


def write_column(folder: Path, name: str, dtype: type | np.dtype, shape: Sequence[int], blocks: Iterable[np.ndarray],
                 digits: int = 8) -> dict[str, Any]:
    """Write an .npy file as `writing_by_checksum` does; returns its entry.

    Args:
        shape: of the whole array. blocks: its values, one after another along the first axis.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(shape)}
    with writing_by_checksum(folder, f"{name}.npy", digits) as (file, entry):
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)
    return entry


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
    with open(path, "rb") as file:
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
