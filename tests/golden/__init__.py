"""Checks of a folder of golden vectors against this project, one module per file; each yields what it compared.

They rely on the structure that the folder's README states and on no particular number, so they hold for another
recording too. A check that finds nothing to compare raises. `tests/check_parity.py` runs them all.
"""

import json
import math
import sys
import zlib
from collections.abc import Sized
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

# the code that stands beside these checks, not another copy that happens to be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

Items = TypeVar("Items", bound=Sized)


class Result(NamedTuple):
    """One comparison; it holds if `difference` is at most `tolerance`."""

    what: str
    difference: float
    tolerance: float


def read(path: Path) -> Any:
    """The contents of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def some(what: str, items: Items) -> Items:
    """The items, of which there must be some: to compare nothing is a failure."""
    if not len(items):
        raise ValueError(f"{what}: nothing to compare")
    return items


def same(got: Any, recorded: Any) -> float:
    """Difference of exact data: 0 or infinity."""
    return 0.0 if got == recorded else math.inf


def apart(got: Any, recorded: Any) -> float:
    """Largest absolute difference of two arrays; infinity if the shapes differ or a number is missing on one side."""
    ours, theirs = np.asarray(got, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != theirs.shape:
        return math.inf
    difference = np.abs(ours - theirs).max(initial=0.0)
    return math.inf if np.isnan(difference) else float(difference)


def z(label: str, n: int) -> np.ndarray:
    """n numbers of mean 0 and variance 1 that belong to the label, float64."""
    raw = np.asarray(np.random.PCG64(zlib.crc32(label.encode())).random_raw(n))
    return (2.0 * ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1.0) * math.sqrt(3.0)


def octets(label: str, n: int) -> np.ndarray:
    """n numbers in 0..255 that belong to the label, int64."""
    raw = np.asarray(np.random.PCG64(zlib.crc32(label.encode())).random_raw(n))
    return (raw >> np.uint64(56)).astype(np.int64)
