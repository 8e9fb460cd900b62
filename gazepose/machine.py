"""What this machine has: cores, GPUs and packages."""

import ctypes
import importlib
import os
import sys
from pathlib import Path
from typing import Any

DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
"""library of NVIDIA's driver, by sys.platform"""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4            # of mallopt(3)


def core_numbers() -> list[int]:
    """Numbers of the cores that this process may use, ascending; all of the machine where the system does not say."""
    affinity = getattr(os, "sched_getaffinity", None)                  # Linux
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def cores() -> int:
    """How many cores this process may use."""
    return len(core_numbers())


def let_waiting_threads_sleep() -> None:
    """Before torch: its threads wait for a few microseconds, then sleep, unless OMP_WAIT_POLICY says otherwise.

    Threads that spin for longer take a core from others. Those that sleep at once wake too late for small layers: on
    two idle cores training then has half its speed (docs/tried.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "300")


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, if its C library is glibc.

    Each step of a training needs the memory of the step before again. glibc gives large pieces back to the system,
    which clears them each time: a tenth of the CPU-seconds of a step on a CPU (docs/tried.md). A process then has the
    memory of its largest step until its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)            # never


def needed(module: str, extra: str, package: str = "") -> Any:
    """A module that an extra of this package brings; ImportError with the command that installs it.

    Args:
        package: its name at the index, if that is another.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = package or module
        raise ImportError(f"{name} is not installed ({error}) -> pip install 'gazepose[{extra}]'") from error


def has_gpu() -> bool:
    """Whether torch computes on a GPU here. torch takes seconds to import, so it is asked only where a driver is."""
    if "torch" not in sys.modules and not _has_driver():
        return False
    import torch
    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Whether the driver of a GPU is installed: NVIDIA's, or AMD's."""
    if sys.platform not in DRIVERS:
        return False
    try:
        return bool(ctypes.CDLL(DRIVERS[sys.platform]))
    except OSError:
        return Path("/dev/kfd").exists()
