"""Codes: a document's identifier as the residual-quantised cells of its embedding.

Level l quantises what levels before l left over (Chen, Guan and Wang 2010, "Approximate nearest
neighbor search by residual vector quantization"). Documents that share every cell are told apart
by one more level that counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from genret_dask.datasets.collection import Collection
from genret_dask.errors import NumericError
from genret_dask.identifiers.embedding import EmbeddingSpec, embed
from genret_dask.identifiers.evenly import assign_evenly
from genret_dask.identifiers.trie import Trie
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched, publishing, record_of
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.records import damaged

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Codes:
    """Fixed-length identifiers of every document.

    Attributes
    ----------
    codes : int32[documents, levels]
        Cell of each level, counted from 0 within the level. Rows are unique.
    level_sizes : tuple of int
        Cells of each level; level l owns that many rows of the vocabulary.
    stored_trie : Trie, optional
        The trie of the codes where it is at hand; built otherwise.
    """

    codes: np.ndarray
    level_sizes: tuple[int, ...]
    stored_trie: Trie | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_cells(cls, cells: np.ndarray) -> Codes:
        """Number the cells of each level from 0 to the largest that a document has."""
        sizes = (cells.max(axis=0) + 1).tolist()
        logger.info("codes of %d documents: %s cells by level", len(cells), sizes)
        return cls(cells.astype(np.int32, copy=False), tuple(sizes))

    @property
    def length(self) -> int:
        """Tokens of an identifier."""
        return len(self.level_sizes)

    @cached_property
    def block_starts(self) -> np.ndarray:
        """First vocabulary row of each level, relative to the first code row; int64[levels]."""
        return np.concatenate([[0], np.cumsum(self.level_sizes)[:-1]]).astype(np.int64)

    @property
    def rows(self) -> int:
        """Vocabulary rows that the codes add to a model."""
        return int(sum(self.level_sizes))

    @cached_property
    def tokens(self) -> np.ndarray:
        """Identifiers as vocabulary rows relative to the first code row; int64[documents, levels].

        Blocks follow each other by level, so sorting tokens sorts codes.
        """
        return self.codes.astype(np.int64) + self.block_starts

    def paths(self, documents: np.ndarray) -> np.ndarray:
        """Codes of documents, int64[..., levels]; -1 where a document is -1, none."""
        paths = np.asarray(self.codes[np.maximum(documents, 0)], dtype=np.int64)
        paths[documents < 0] = -1
        return paths

    @cached_property
    def trie(self) -> Trie:
        """The prefixes of all identifiers."""
        return self.stored_trie or Trie.build(self.codes)


def build_cells(
    collection: Collection, embedding: EmbeddingSpec, levels: int, codes: int, seed: int = 0
) -> np.ndarray:
    """Embed the documents, quantise the embeddings and make the cells unique.

    Returns
    -------
    int32[documents, levels or one more]

    Raises
    ------
    NumericError
        A document's embedding is not finite.
    """
    vectors = embed(collection, embedding, seed)
    _check_vectors(vectors, collection.document_ids)
    return make_unique(residual_quantise(vectors, levels, min(codes, len(vectors)), seed))


def _check_vectors(vectors: np.ndarray, names: Sequence[str]) -> None:
    """Refuse embeddings that are not finite; say so where they tell no document from another."""
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise NumericError(
            f"the embeddings of {int((~finite).sum())} documents are not finite, the first that of "
            f"{names[int(finite.argmin())]}",
            expected="finite numbers",
            fix="choose another identifiers.embedding",
        )
    if len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
        logger.warning(
            "all %d documents have the same embedding: their codes mean nothing", len(vectors)
        )


def residual_quantise(vectors: np.ndarray, levels: int, codes: int, seed: int) -> np.ndarray:
    """Cells of each level, int32 [vectors, levels]; level by level, nearest centroid first.

    In the last level, vectors below one prefix spread over the cells as evenly as they can (see
    `genret_dask.identifiers.evenly`), so that few or none share every cell.
    """
    import faiss

    residual = np.array(vectors, dtype=np.float32, order="C")
    cells = np.empty((len(vectors), levels), dtype=np.int32)
    for level in range(levels):
        kmeans = faiss.Kmeans(
            residual.shape[1],
            codes,
            niter=25,
            seed=seed + level + 1,
            min_points_per_centroid=1,
        )
        kmeans.train(residual)
        centroids = np.asarray(kmeans.centroids)
        cells[:, level] = kmeans.index.search(residual, 1)[1][:, 0]
        if level == levels - 1:
            _separate(cells, residual, centroids)
        residual -= centroids[cells[:, level]]
    return cells


def _separate(cells: np.ndarray, residual: np.ndarray, centroids: np.ndarray) -> None:
    """Reassign the last cells, in place, where they repeat below one prefix."""
    _, group = np.unique(cells[:, :-1], axis=0, return_inverse=True)
    _, cell, sizes = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    repeating = np.unique(group[sizes[cell] > 1])
    order = np.argsort(group, kind="stable")
    first, last = (np.searchsorted(group[order], repeating, side) for side in ("left", "right"))
    for start, stop in zip(first.tolist(), last.tolist(), strict=True):
        rows = order[start:stop]
        cells[rows, -1] = assign_evenly(residual[rows], centroids)


def make_unique(cells: np.ndarray) -> np.ndarray:
    """Append a level that numbers the rows of equal cells; none where all rows differ already."""
    order = np.lexsort(cells.T[::-1])
    ordered = cells[order]
    new_group = np.ones(len(cells), dtype=bool)
    new_group[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    if new_group.all():
        return cells
    starts = np.flatnonzero(new_group)
    group = np.cumsum(new_group) - 1
    last = np.empty(len(cells), dtype=np.int32)
    last[order] = np.arange(len(cells)) - starts[group]
    return np.column_stack([cells, last])


def write_codes(codes: Codes, folder: Path, made_from: Origin) -> None:
    """Publish codes and their trie as an artefact."""
    facts = {"kind": made_from.kind, "level_sizes": codes.level_sizes}
    with publishing(folder, made_from, **facts) as partial:
        np.save(partial / "codes.npy", codes.codes)
        codes.trie.save(partial)


def read_level_sizes(folder: Path) -> tuple[int, ...]:
    """Cells of each level of a codes artefact, by its record alone."""
    sizes = tuple(record_of(folder, needs={"level_sizes": list})["level_sizes"])
    if not sizes or min(sizes) < 1:
        raise damaged(folder / RECORD, f"has level_sizes {list(sizes)}")
    return sizes


def read_codes(folder: Path) -> Codes:
    """Open a codes artefact; arrays are memory-mapped.

    Raises
    ------
    ModelError
        A file is missing or its hash differs from the record's.
    """
    folder = fetched(folder)
    sizes = read_level_sizes(folder)
    codes = Codes(read_array(folder / "codes.npy", dims=2), sizes, Trie.load(folder))
    cells = codes.codes
    fits = cells.dtype.kind in "iu" and cells.shape[1] == len(sizes) and len(cells)
    if not fits or cells.min() < 0 or (cells.max(axis=0) >= sizes).any():
        what = f"holds {cells.dtype}{list(cells.shape)}, not codes below {list(sizes)}"
        raise damaged(folder / "codes.npy", what)
    return codes
