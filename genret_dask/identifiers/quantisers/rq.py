"""Residual quantisation: level l quantises what levels before l left over.

Chen, Guan and Wang (2010), "Approximate nearest neighbor search by residual vector quantization".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from genret_dask.identifiers.quantisers.base import (
    ROUNDS,
    TRAINED,
    Quantiser,
    nearest,
    separate,
    squared_distances,
    train,
)
from genret_dask.identifiers.vectors import Vectors


class ResidualQuantiser(Quantiser):
    """Level by level, the nearest centroid first.

    In the last level, vectors below one prefix spread over the cells as evenly as they can (see
    `genret_dask.identifiers.evenly`), so that few or none share every cell.
    """

    def compared(self, documents: int, levels: int, codes: int) -> float:
        """See `Quantiser.compared`."""
        return levels * (ROUNDS * min(documents, TRAINED * codes) + documents)

    def quantise(self, vectors: Vectors, levels: int, codes: int, seed: int) -> np.ndarray:
        """See `Quantiser.quantise`."""
        cells = np.empty((len(vectors), levels), dtype=np.int32)
        residual = _Residual(vectors, cells)
        for level in range(levels):
            centroids = train(residual.take, len(vectors), vectors.dim, codes, seed + level + 1)
            for rows in vectors.blocks():
                cells[rows, level] = nearest(residual.take(rows), centroids)
            if level == levels - 1:
                separate(cells, residual.take, centroids)
            residual.centroids.append(centroids)
        self.centroids = residual.centroids
        return cells

    def distances(
        self, vectors: np.ndarray, centroids: list[np.ndarray], cells: np.ndarray
    ) -> np.ndarray:
        """See `Quantiser.distances`."""
        left = vectors.copy()
        for level, one in enumerate(centroids[:-1]):
            left -= one[cells[:, level]]
        return squared_distances(left, centroids[-1])


@dataclass(frozen=True)
class _Residual:
    """What the levels that are done leave of the vectors, computed where it is asked for.

    Attributes
    ----------
    centroids : list of float32[codes, dim]
        Of each level that is done.
    """

    vectors: Vectors
    cells: np.ndarray
    centroids: list[np.ndarray] = field(default_factory=list)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Residuals of some rows; float32[rows, dim]."""
        left = self.vectors.take(rows)
        for level, centroids in enumerate(self.centroids):
            left -= centroids[self.cells[rows, level]]
        return left
