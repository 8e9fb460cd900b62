"""How the kernels are compiled: once for all processes, where that can be stored."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """numba's njit without the GIL, kept beside the code or in the home; where neither can be written, compiled anew
    in every process, which takes about half a minute."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(kernel)
    except RuntimeError:                         # "cannot cache function": there is no place
        return njit(nogil=True, error_model="numpy")(kernel)
