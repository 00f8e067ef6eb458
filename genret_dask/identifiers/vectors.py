"""Vectors in parts: rows are read where they are needed, and never all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLOCK = 2**17
"""Rows that are in memory at once."""


@dataclass(frozen=True)
class Vectors:
    """Rows of one dimension, in arrays that may be mapped.

    Attributes
    ----------
    parts : sequence of float32[n, dim]
        In the order of their rows.

    Examples
    --------
    >>> vectors = Vectors([np.zeros((2, 1)), np.ones((3, 1))])
    >>> len(vectors), vectors.take(np.array([4, 0]))[:, 0].tolist()
    (5, [1.0, 0.0])
    """

    parts: Sequence[np.ndarray]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def dim(self) -> int:
        return int(self.parts[0].shape[1])

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part) for part in self.parts])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copy some rows, in their order; the parts are read from first to last."""
        order = np.argsort(rows, kind="stable")
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        start = first = 0
        for part, stop in zip(self.parts, self._ends.tolist(), strict=True):
            last = int(np.searchsorted(rows, stop, sorter=order))
            if last > first:
                found[order[first:last]] = part[rows[order[first:last]] - start]
            start, first = stop, last
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the numbers of all rows, `BLOCK` at a time."""
        for first in range(0, len(self), BLOCK):
            yield np.arange(first, min(first + BLOCK, len(self)))
