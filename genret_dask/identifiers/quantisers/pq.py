"""Product quantisation: each level quantises a part of the vector's directions by itself.

Jegou, Douze and Schmid (2011), "Product quantization for nearest neighbor search". Vectors are not
rotated: the directions of latent semantic analysis stand by falling weight, so that the first
levels tell most.
"""

from __future__ import annotations

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


class ProductQuantiser(Quantiser):
    """A level for each part; the last one is spread as evenly as `ResidualQuantiser` has it."""

    def problem(self, levels: int, codes: int, dim: int) -> str | None:
        """See `Quantiser.problem`."""
        if dim >= levels:
            return None
        return f"quantiser pq cuts an embedding into {levels} levels, and it has {dim} directions"

    def compared(self, documents: int, levels: int, codes: int) -> float:
        """See `Quantiser.compared`; the parts make one vector."""
        return ROUNDS * min(documents, TRAINED * codes) + documents

    def quantise(self, vectors: Vectors, levels: int, codes: int, seed: int) -> np.ndarray:
        """See `Quantiser.quantise`."""
        cells = np.empty((len(vectors), levels), dtype=np.int32)
        self.centroids = []
        for level in range(levels):
            first, stop = (place * vectors.dim // levels for place in (level, level + 1))

            def take(rows: np.ndarray, first: int = first, stop: int = stop) -> np.ndarray:
                return np.ascontiguousarray(vectors.take(rows)[:, first:stop])

            centroids = train(take, len(vectors), stop - first, codes, seed + level + 1)
            for rows in vectors.blocks():
                cells[rows, level] = nearest(take(rows), centroids)
            if level == levels - 1:
                separate(cells, take, centroids)
            self.centroids.append(centroids)
        return cells

    def distances(
        self, vectors: np.ndarray, centroids: list[np.ndarray], cells: np.ndarray
    ) -> np.ndarray:
        """See `Quantiser.distances`; a level's part begins where those before it end."""
        first = sum(one.shape[1] for one in centroids[:-1])
        part = vectors[:, first : first + centroids[-1].shape[1]]
        return squared_distances(part, centroids[-1])
