"""Arrays of a run directory: plain .npy files, mapped, never pickled objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from genret_dask.errors import ModelError

_TRIES = 8

T = TypeVar("T")


def parsed(read: Callable[[], T]) -> T:
    """Call a function that parses Python literals, again if another thread parsed meanwhile.

    NumPy parses the header of every array. CPython before 3.11.8 counts the depth of a parse in one
    place for all threads, so that by chance it raises a SystemError (CPython issue 106905).
    """
    for _ in range(_TRIES - 1):
        try:
            return read()
        except SystemError:
            continue
    return read()


def load(path: Path, *, mapped: bool = True) -> np.ndarray:
    """Load a .npy file as `np.load` does, mapped or read; never pickled objects."""
    mode: Literal["r"] | None = "r" if mapped else None
    found: np.ndarray = parsed(lambda: np.load(path, mmap_mode=mode, allow_pickle=False))
    return found


def read_array(path: Path, *, mapped: bool = True, dims: int | None = None) -> np.ndarray:
    """Read numbers from a .npy file.

    Parameters
    ----------
    mapped : bool
        Map the file instead of reading it: processes on a host share its pages.
    dims : int, optional
        How many dimensions it must have.

    Raises
    ------
    ModelError
        The file is missing, is not a whole .npy file, or holds something other than numbers.
    """
    try:
        found = load(path, mapped=mapped)
    except (OSError, ValueError, TypeError, EOFError, OverflowError, MemoryError) as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise _damaged(path, "it does not hold an array of numbers")
    if dims is not None and found.ndim != dims:
        raise _damaged(path, f"it has {found.ndim} dimensions in place of {dims}")
    return np.asarray(found)


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} cannot be read: {reason}",
        expected="a .npy file of numbers, as genret-dask wrote it; pickled objects are not read",
        fix=f"remove {path.parent} and run again",
    )
