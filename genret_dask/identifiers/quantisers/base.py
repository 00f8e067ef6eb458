"""What every quantiser answers, and what several are made of: k-means, and the last level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from genret_dask.identifiers.evenly import assign_evenly
from genret_dask.identifiers.unique import in_order
from genret_dask.identifiers.vectors import BLOCK, Vectors

ROUNDS, TRAINED = 25, 256
"""Of k-means, and the vectors a centroid that it sees in each: faiss takes no more, by default."""

Take = Callable[[np.ndarray], np.ndarray]
"""Reads the vectors of some rows; float32[rows, dim]."""


class Quantiser(ABC):
    """Gives each vector a cell a level, near vectors the same ones.

    Several vectors may share every cell: `genret_dask.identifiers.unique` tells them apart.

    Attributes
    ----------
    centroids : list of float32[codes, dim]
        Of each level, once `quantise` has run; empty where a quantiser has none for all vectors.
    """

    def __init__(self) -> None:
        self.centroids: list[np.ndarray] = []

    def problem(self, levels: int, codes: int, dim: int) -> str | None:
        """Say why vectors of so many directions cannot be quantised so; None where they can."""
        return None

    @abstractmethod
    def compared(self, documents: int, levels: int, codes: int) -> float:
        """Return how many whole vectors are compared with all centroids of a level, in all."""

    @abstractmethod
    def quantise(self, vectors: Vectors, levels: int, codes: int, seed: int) -> np.ndarray:
        """Return the cells of each level, int32[vectors, levels or fewer]; the same on every call.

        Parameters
        ----------
        codes : int
            Cells of a level, at most the number of vectors.
        """

    def distances(
        self, vectors: np.ndarray, centroids: list[np.ndarray], cells: np.ndarray
    ) -> np.ndarray:
        """Return how far vectors are from the cells of a level, float32[vectors, codes].

        Parameters
        ----------
        vectors : float32[vectors, dim]
        centroids : list of float32[codes, dim]
            Of the levels up to this one, as `quantise` left them.
        cells : int32[vectors, levels before]

        Raises
        ------
        NotImplementedError
            The quantiser keeps no centroids.
        """
        raise NotImplementedError


def train(take: Take, number: int, dim: int, codes: int, seed: int) -> np.ndarray:
    """Return the centroids of `number` vectors by k-means; float32[codes, dim]."""
    import faiss

    kmeans = faiss.Kmeans(dim, codes, niter=ROUNDS, seed=seed, min_points_per_centroid=1)
    kmeans.train(take(_sample(number, codes, seed)))
    return np.array(kmeans.centroids)


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest centroid of each vector; int64[vectors]."""
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    found: np.ndarray = index.search(vectors, 1)[1][:, 0]
    return found


def squared_distances(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the squared distances to centroids, less each vector's own length; float32."""
    found: np.ndarray = (centroids**2).sum(axis=1) - 2 * (vectors @ centroids.T)
    return found


def _sample(number: int, codes: int, seed: int) -> np.ndarray:
    """The rows that faiss would choose to train with, had it all of them; in its order."""
    import faiss

    if number <= codes * TRAINED:
        return np.arange(number)
    rows = np.empty(number, dtype=np.int32)
    faiss.rand_perm(faiss.swig_ptr(rows), number, seed)  # type: ignore[attr-defined]
    return rows[: codes * TRAINED]


def separate(cells: np.ndarray, take: Take, centroids: np.ndarray) -> None:
    """Reassign the last cells, in place, where they repeat below one prefix: as evenly as can be.

    Parameters
    ----------
    centroids : float32[codes, dim]
        Of the last level.
    """
    order, keys = in_order(cells)
    prefixes = keys // (int(cells[:, -1].max()) + 1)
    starts = np.flatnonzero(np.append(True, prefixes[1:] != prefixes[:-1]))
    repeats = np.append(False, keys[1:] == keys[:-1])
    chosen = np.flatnonzero(np.logical_or.reduceat(repeats, starts))
    starts, sizes = starts[chosen], np.diff(np.append(starts, len(keys)))[chosen]
    batch = (np.cumsum(sizes) - sizes) // BLOCK
    for number in np.unique(batch):
        spans = zip(starts[batch == number], sizes[batch == number], strict=True)
        groups = [np.sort(order[start : start + size]) for start, size in spans]
        left, first = take(np.concatenate(groups)), 0
        for rows in groups:
            cells[rows, -1] = assign_evenly(left[first : first + len(rows)], centroids)
            first += len(rows)
