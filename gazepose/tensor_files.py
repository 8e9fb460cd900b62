"""Files of tensors: safetensors, and files of torch.save, which are pickles.

A pickle is read by torch's restricted reader, which runs no code. But it can still be made to take any amount of
memory, or to end its process. So a child process with a memory limit reads it, and writes what it found as safetensors.
"""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gazepose.io import open_regular, unique_names
from gazepose.startup import end_with_parent

MAX_FILE = 16 << 30          # bytes of a file of tensors
MAX_HEADER = 4 << 20         # bytes of a safetensors header: about 30,000 entries
MAX_TENSORS = 20_000
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
COPIES, ROOM = 4, 512 << 20  # memory of the child: so many copies of the file, and so many bytes beside them
SECONDS = 900                # of the child; a network disk may be slow
FAULT = 3                    # exit code of a child that printed why it refuses the file
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from gazepose.tensor_files import child; child(*sys.argv[2:])"
Entries = dict[str, tuple[torch.dtype, tuple[int, ...]]]


# ---- safetensors

def tensor_entries(path: Path) -> Entries:
    """Dtype and shape of each tensor of a safetensors file, by its header alone.

    Raises:
        FileNotFoundError; ValueError naming the file: too large a header, too many entries, a name twice, an unknown
            dtype.
    """
    try:
        with open_regular(path, "file of tensors", MAX_FILE) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MAX_HEADER, max(os.fstat(file.fileno()).st_size - 8, 0)):
                raise ValueError(f"its header would be {length} bytes long")
            entries = json.loads(file.read(length), object_pairs_hook=unique_names)
        if not isinstance(entries, dict) or len(entries) > MAX_TENSORS:
            raise ValueError(f"{len(entries) if isinstance(entries, dict) else 'no'} entries, at most {MAX_TENSORS} "
                             "are read")
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
                raise ValueError(f"{name[:80]} is not of a known dtype")
            if not isinstance(entry.get("shape"), list) or any(type(size) is not int for size in entry["shape"]):
                raise ValueError(f"{name[:80]} has no shape")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}) -> use another checkpoint") from error
    return {name: (DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in entries.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name, all finite. safetensors checks the offsets; the rest is checked here.

    Raises:
        FileNotFoundError; ValueError naming the file: as `tensor_entries`, damaged, or a value that is not finite.
    """
    tensor_entries(path)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read ({error}) -> use another checkpoint") from error
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: cannot be read ({name[:80]} is not finite) -> use another checkpoint")
    return state


# ---- files of torch.save

def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the prefix of DataParallel: of torch.save, or safetensors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of tensors, damaged, one that would run code or take more memory than its size explains.
    """
    try:
        with open_regular(path, "checkpoint", MAX_FILE) as file:
            start = file.read(9)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such checkpoint -> check the path") from None
    if start[8:] == b"{":                                                 # safetensors begins with its header
        state = read_tensors(path)
    else:
        with tempfile.TemporaryDirectory(prefix="gazepose-") as folder:
            copy = Path(folder) / "tensors.safetensors"
            try:
                names = in_child(path, copy)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            try:
                state = read_tensors(copy)
            except ValueError as error:
                raise ValueError(str(error).replace(str(copy), str(path))) from None
            state = {name: state[name] for name in names}
    cut = len("module.") if all(name.startswith("module.") for name in state) else 0     # DataParallel's
    return {name[cut:]: value for name, value in state.items()}


def in_child(path: Path, copy: Path) -> list[str]:
    """As `convert`, in a child process with limited memory."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    package = str(Path(__file__).resolve().parents[1])
    try:
        done = subprocess.run([sys.executable, "-P", "-c", CHILD, package, str(path), str(copy)], env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"not read within {SECONDS} seconds -> save only its state_dict") from None
    if done.returncode == FAULT:
        raise ValueError(done.stdout.decode(errors="replace"))
    if done.returncode:
        reason = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        raise ValueError(f"not a checkpoint of tensors: reading it ended a process ({reason}) -> save only its "
                         "state_dict")
    return json.loads(done.stdout)


def child(path: str, copy: str) -> None:
    """What the child process does; it prints the names of the tensors, or what is wrong with the file."""
    if sys.platform == "linux":
        end_with_parent(signal.SIGKILL)
    _limit_memory(COPIES * os.stat(path).st_size + ROOM)
    try:
        print(json.dumps(convert(Path(path), Path(copy))))
    except ValueError as error:
        print(error, end="")
        sys.exit(FAULT)


def _limit_memory(more: int) -> None:
    """Limit this process to so many bytes more than it has; Windows and macOS know no such limit."""
    if sys.platform != "linux":
        return
    import resource
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        return


def convert(path: Path, copy: Path) -> list[str]:
    """Write the tensors of a torch.save file as safetensors, and return their names in the order of the file.

    Raises:
        ValueError: not a checkpoint of tensors; the message has no path.
    """
    size = path.stat().st_size
    number: Any = np.float64(0).__reduce__()[0]                           # the published training saved its mAP so
    numbers = [(number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int64")]
    try:
        _check_archive(path, size)
        with torch.serialization.safe_globals([*numbers, np.dtype, *dtypes]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        detail = f"it names {match[1]:.80}, which could run code" if match else "its pickle holds more than tensors"
        raise ValueError(f"not read, {detail} -> if you trust the file, save only its state_dict") from error
    except MemoryError as error:
        raise ValueError(_too_much(size)) from error
    except Exception as error:                                            # damaged bytes make a reader raise anything
        if "allocate memory" in str(error):
            raise ValueError(_too_much(size)) from error
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"not a checkpoint of tensors ({detail:.300}) -> the file is damaged, or of another "
                         "kind") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("no state_dict of tensors inside -> save one with torch.save")
    if sum(value.numel() * value.element_size() for value in state.values()) > COPIES * size + ROOM:
        raise ValueError(_too_much(size))
    tensors = {str(name): value for name, value in state.items()}
    try:
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, copy)
    except MemoryError as error:
        raise ValueError(_too_much(size)) from error
    except Exception as error:                                            # sparse, quantised, without memory, disk full
        raise ValueError(f"its tensors cannot be written to {copy.parent} ({str(error):.300}) -> save only its "
                         "state_dict, or make room there") from error
    return list(tensors)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors on the CPU as safetensors, readable by whom the umask lets read: the library's file is its owner's
    alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path)
    path.chmod(mode)


def _check_archive(path: Path, size: int) -> None:
    """torch.save packs nothing, so that an archive is as large as what it holds."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise ValueError(f"{unpacked >> 20} MiB when it is unpacked, {size >> 20} MiB on the disk")


def _too_much(size: int) -> str:
    return (f"not a checkpoint of tensors: a file of {size} bytes that takes more than "
            f"{COPIES * size + ROOM >> 20} MiB of memory -> save only its state_dict, with a .clone() of each tensor")
