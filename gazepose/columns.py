"""Columns: arrays in .npy files of their own, written with their checksum in the name and read as memory maps."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.io import open_regular, writing_by_checksum


def map_array(path: Path) -> np.ndarray:
    """An .npy file as a read-only map: every process that reads it shares its pages. Arrays of objects are refused.

    Raises:
        FileNotFoundError; ValueError naming the file: damaged, cut short, or without a single value.
    """
    try:
        open_regular(path, "array").close()
        # a plain array of the same memory: each access to an np.memmap costs ten times as much
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there") from None
    except Exception as error:                           # damaged bytes make numpy raise anything
        raise ValueError(f"{path}: not an array that can be read: {type(error).__name__}: {error}") from error


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
