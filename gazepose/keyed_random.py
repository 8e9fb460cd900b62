"""Keyed random numbers: uniform numbers that are a function of their keys alone.

Nothing here has a state, so a sample looks the same in whichever process, worker or run it is drawn.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


def _mixed(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014), element by element."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_A
    value = (value ^ (value >> np.uint64(27))) * _MIX_B
    return value ^ (value >> np.uint64(31))


def keyed(*keys: int | np.ndarray) -> np.ndarray:
    """One 64-bit number for each combination of keys.

    Args:
        keys: integers or integer arrays that broadcast together; their order matters.

    Returns:
        uint64 array of the broadcast shape.
    """
    value = np.zeros(np.broadcast_shapes(*(np.shape(key) for key in keys)), np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            value = _mixed(value + np.asarray(key).astype(np.int64).astype(np.uint64) + _GOLDEN)
    return value


def uniform(*keys: int | np.ndarray) -> np.ndarray:
    """float64 in [0, 1) for each combination of keys; see `keyed`."""
    return (keyed(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53
