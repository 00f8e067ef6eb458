"""Hierarchical k-means: each level splits the clusters of the level before.

As Tay et al. (2022), "Transformer memory as a differentiable search index", and Wang et al. (2022),
"A neural corpus indexer for document retrieval", but for the depth, which is that of `levels`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from genret_dask.identifiers.evenly import assign_evenly
from genret_dask.identifiers.quantisers.base import (
    ROUNDS,
    TRAINED,
    Quantiser,
    nearest,
    train,
)
from genret_dask.identifiers.vectors import BLOCK, Vectors

FEW = 1024
"""Vectors of a cluster up to which many clusters are split together, without faiss."""

_ROOM = 2**24  # numbers of such a batch


class HierarchicalKmeans(Quantiser):
    """Splits clusters, and numbers the documents of those that have no more than a level's cells.

    In the last level, the documents of a larger cluster spread over its cells as evenly as they
    can (see `genret_dask.identifiers.evenly`). Levels that no cluster needs are left out.
    """

    def compared(self, documents: int, levels: int, codes: int) -> float:
        """See `Quantiser.compared`; below the first level all vectors are trained with."""
        first = ROUNDS * min(documents, TRAINED * codes) + documents
        split = sum(documents > codes**level for level in range(1, levels))
        return first + split * (ROUNDS + 1) * documents

    def quantise(self, vectors: Vectors, levels: int, codes: int, seed: int) -> np.ndarray:
        """See `Quantiser.quantise`."""
        cells = np.zeros((len(vectors), levels), dtype=np.int32)
        order, starts = np.arange(len(vectors)), np.zeros(1, dtype=np.int64)
        for level in range(levels):
            sizes = np.diff(starts, append=len(order))
            if level and sizes.max() == 1:
                return cells[:, :level]
            cluster = np.repeat(np.arange(len(starts)), sizes)
            few = sizes[cluster] <= codes
            own = np.zeros(len(order), dtype=np.int64)
            own[few] = np.flatnonzero(few) - starts[cluster[few]]
            split = _Split(vectors, order, codes, level == levels - 1, seed + level + 1)
            larger = sizes > codes
            for places, found in split.clusters(starts[larger], sizes[larger]):
                own[places] = found
            cells[order, level] = own
            keys = cluster * codes + own
            within = np.argsort(keys, kind="stable")
            order, keys = order[within], keys[within]
            starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        return cells


class _Split:
    """The split of one level's clusters, each with more vectors than a level has cells.

    Parameters
    ----------
    order : int64[vectors]
        Rows by cluster, ascending within each; a place is one in this array.
    even : bool
        Whether no cell may have more vectors than it must.
    """

    def __init__(
        self, vectors: Vectors, order: np.ndarray, codes: int, even: bool, seed: int
    ) -> None:
        self._vectors, self._order, self._codes = vectors, order, codes
        self._even, self._seed = even, seed

    def clusters(
        self, starts: np.ndarray, sizes: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield places and their cells; int64."""
        large = sizes > FEW
        for start, size in zip(starts[large].tolist(), sizes[large].tolist(), strict=True):
            yield from self._large(start, size)
        # Clusters of a batch are padded to one width, of which they fill more than half.
        draws = np.random.default_rng(self._seed).random(len(self._order), dtype=np.float32)
        width = FEW
        while width > self._codes:
            chosen = np.flatnonzero((sizes <= width) & (sizes > max(self._codes, width // 2)))
            together = max(1, _ROOM // (width * (self._codes + self._vectors.dim)))
            for first in range(0, len(chosen), together):
                some = chosen[first : first + together]
                yield self._small(starts[some], sizes[some], draws)
            width //= 2

    def _large(self, start: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Split one cluster by faiss."""
        rows, take = self._order[start : start + size], self._vectors.take
        centroids = train(
            lambda chosen: take(rows[chosen]), size, self._vectors.dim, self._codes, self._seed
        )
        if self._even:
            yield np.arange(start, start + size), assign_evenly(take(rows), centroids)
            return
        for first in range(0, size, BLOCK):
            block = rows[first : first + BLOCK]
            places = np.arange(start + first, start + first + len(block))
            yield places, nearest(take(block), centroids)

    def _small(
        self, starts: np.ndarray, sizes: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Split clusters together; k-means begins with `codes` of each one's vectors."""
        step = np.arange(sizes.max())
        inside = step < sizes[:, None]
        places = starts[:, None] + np.minimum(step, sizes[:, None] - 1)
        rows = self._vectors.take(self._order[places].ravel()).reshape(*places.shape, -1)
        drawn = np.where(inside, draws[places], np.inf)
        chosen = np.argpartition(drawn, self._codes - 1, axis=1)[:, : self._codes]
        centroids = np.take_along_axis(rows, chosen[..., None], axis=1)
        cells, centroids = _kmeans(rows, inside, centroids)
        if self._even:
            for one, size in enumerate(sizes.tolist()):
                cells[one, :size] = assign_evenly(rows[one, :size], centroids[one])
        return places[inside], cells[inside]


def _kmeans(
    rows: np.ndarray, inside: np.ndarray, centroids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's rounds for many clusters; a cell that lost its vectors keeps its centroid.

    Parameters
    ----------
    rows : float32[clusters, width, dim]
    inside : bool[clusters, width]
        Which rows are vectors of the cluster.
    centroids : float32[clusters, codes, dim]
        To begin with.

    Returns
    -------
    cells : int64[clusters, width]
    centroids : float32[clusters, codes, dim]
    """
    clusters, codes, dim = centroids.shape
    flat, first = rows[inside], codes * np.nonzero(inside)[0]
    cells = np.full(inside.shape, -1)
    for _ in range(ROUNDS):
        distance = (centroids**2).sum(axis=-1)[:, None] - 2 * (rows @ centroids.swapaxes(1, 2))
        new = distance.argmin(axis=-1)
        if (new[inside] == cells[inside]).all():
            break
        cells = new
        column, ends = first + cells[inside], np.arange(len(flat) + 1)
        member = csr_array(
            (np.ones(len(flat), np.float32), column, ends), shape=(len(flat), clusters * codes)
        )
        counts = np.bincount(column, minlength=clusters * codes)[:, None]
        means = (member.T @ flat) / np.maximum(counts, 1)
        centroids = np.where(counts, means, centroids.reshape(-1, dim)).astype(np.float32)
        centroids = centroids.reshape(clusters, codes, dim)
    return cells, centroids
