"""How the kernels are compiled: once for all processes, where that can be stored; and what several of them use."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """numba's njit without the GIL, kept beside the code or in the home; where neither can be written, compiled anew
    in every process, which takes about half a minute."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(kernel)
    except RuntimeError:                         # "cannot cache function": there is no place
        return njit(nogil=True, error_model="numpy")(kernel)


@compiled
def turned(m, v):
    """m @ v in a fixed order: the library's product may differ in the last bit from call to call."""
    out = np.empty(3)
    for r in range(3):
        out[r] = m[r, 0] * v[0] + m[r, 1] * v[1] + m[r, 2] * v[2]
    return out


@compiled
def unit(x):
    """x, but at least 0 and at most 1."""
    return 0.0 if x < 0 else 1.0 if x > 1 else x
