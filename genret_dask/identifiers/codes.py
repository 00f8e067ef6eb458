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
from itertools import count
from pathlib import Path

import numpy as np

from genret_dask.errors import NumericError
from genret_dask.identifiers.evenly import assign_evenly
from genret_dask.identifiers.trie import Trie
from genret_dask.identifiers.vectors import BLOCK, Vectors
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched, publishing, record_of
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.records import damaged

logger = logging.getLogger(__name__)

CROWD = 2000
"""Documents below one prefix of all levels but the last, above which a warning is due."""

MOST_CODES = 65_536

ROUNDS, TRAINED = 25, 256
"""Of k-means, and the vectors a centroid that it sees in each: faiss takes no more, by default."""


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
    vectors: Vectors, names: Sequence[str], levels: int, codes: int, seed: int = 0
) -> np.ndarray:
    """Quantise documents' embeddings and make the cells unique.

    Parameters
    ----------
    names : sequence of str
        Of the documents, for messages.

    Returns
    -------
    int32[documents, levels or one more]

    Raises
    ------
    NumericError
        A document's embedding is not finite.
    """
    _check_vectors(vectors, names)
    return make_unique(residual_quantise(vectors, levels, min(codes, len(vectors)), seed))


def crowded(documents: int, levels: int, codes: int) -> str | None:
    """Say that too many documents share all codes but the last, and what would suit; or None."""

    def fits(levels: int, codes: int) -> bool:
        return documents <= CROWD * codes ** (levels - 1)

    if fits(levels, codes):
        return None
    fix = f"levels to {next(more for more in count(levels) if fits(more, codes))}"
    wider = range(codes, MOST_CODES + 1) if levels > 1 else ()
    if found := next((more for more in wider if fits(levels, more)), None):
        fix += f" or codes to {found}"
    crowd = round(documents / codes ** (levels - 1))
    return (
        f"levels {levels} and codes {codes} leave {crowd} of {documents} documents to be told "
        f"apart by the last level: set {fix}, which leaves {CROWD} or fewer"
    )


def _check_vectors(vectors: Vectors, names: Sequence[str]) -> None:
    """Refuse embeddings that are not finite; say so where they tell no document from another."""
    bad, first_bad, differ = 0, 0, False
    first = vectors.take(np.arange(1))
    for rows in vectors.blocks():
        block = vectors.take(rows)
        finite = np.isfinite(block).all(axis=1)
        if not bad and not finite.all():
            first_bad = int(rows[finite.argmin()])
        bad += int((~finite).sum())
        differ = differ or bool((block != first).any())
    if bad:
        raise NumericError(
            f"the embeddings of {bad} documents are not finite, the first that of "
            f"{names[first_bad]}",
            expected="finite numbers",
            fix="choose another identifiers.embedding",
        )
    if len(vectors) > 1 and not differ:
        logger.warning(
            "all %d documents have the same embedding: their codes mean nothing", len(vectors)
        )


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


def residual_quantise(vectors: Vectors, levels: int, codes: int, seed: int) -> np.ndarray:
    """Cells of each level, int32 [vectors, levels]; level by level, nearest centroid first.

    In the last level, vectors below one prefix spread over the cells as evenly as they can (see
    `genret_dask.identifiers.evenly`), so that few or none share every cell.
    """
    import faiss

    cells = np.empty((len(vectors), levels), dtype=np.int32)
    residual = _Residual(vectors, cells)
    for level in range(levels):
        own_seed = seed + level + 1
        kmeans = faiss.Kmeans(
            vectors.dim, codes, niter=ROUNDS, seed=own_seed, min_points_per_centroid=1
        )
        kmeans.train(residual.take(_sample(len(vectors), codes, own_seed)))
        centroids = np.array(kmeans.centroids)
        for rows in vectors.blocks():
            cells[rows, level] = kmeans.index.search(residual.take(rows), 1)[1][:, 0]
        if level == levels - 1:
            _separate(cells, residual, centroids)
        residual.centroids.append(centroids)
    return cells


def _sample(number: int, codes: int, seed: int) -> np.ndarray:
    """The rows that faiss would choose to train with, had it all of them; in its order."""
    import faiss

    if number <= codes * TRAINED:
        return np.arange(number)
    rows = np.empty(number, dtype=np.int32)
    faiss.rand_perm(faiss.swig_ptr(rows), number, seed)  # type: ignore[attr-defined]
    return rows[: codes * TRAINED]


def _separate(cells: np.ndarray, residual: _Residual, centroids: np.ndarray) -> None:
    """Reassign the last cells, in place, where they repeat below one prefix."""
    order, keys = _sorted(cells)
    prefixes = keys // (int(cells[:, -1].max()) + 1)
    starts = np.flatnonzero(np.append(True, prefixes[1:] != prefixes[:-1]))
    repeats = np.append(False, keys[1:] == keys[:-1])
    chosen = np.flatnonzero(np.logical_or.reduceat(repeats, starts))
    starts, sizes = starts[chosen], np.diff(np.append(starts, len(keys)))[chosen]
    batch = (np.cumsum(sizes) - sizes) // BLOCK
    for number in np.unique(batch):
        spans = zip(starts[batch == number], sizes[batch == number], strict=True)
        groups = [np.sort(order[start : start + size]) for start, size in spans]
        left, first = residual.take(np.concatenate(groups)), 0
        for rows in groups:
            cells[rows, -1] = assign_evenly(left[first : first + len(rows)], centroids)
            first += len(rows)


def make_unique(cells: np.ndarray) -> np.ndarray:
    """Append a level that numbers the rows of equal cells; none where all rows differ already."""
    order, keys = _sorted(cells)
    new_group = np.append(True, keys[1:] != keys[:-1])
    if new_group.all():
        return cells
    starts = np.flatnonzero(new_group)
    last = np.empty(len(cells), dtype=np.int32)
    last[order] = np.arange(len(cells)) - np.repeat(starts, np.diff(np.append(starts, len(cells))))
    return np.column_stack([cells, last])


def _sorted(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows, equal ones as they stand, and a number for each row, in that order.

    Numbers are as ordered as the rows; divided by the cells of the last level, those of the
    prefixes. Where they outgrow 63 bits, the prefixes so far are numbered from 0.
    """
    keys, bound = np.zeros(len(cells), dtype=np.int64), 1
    for column in cells.T:
        size = int(column.max()) + 1
        if bound * size >= 2**63:
            keys = np.unique(keys, return_inverse=True)[1].astype(np.int64, copy=False)
            bound = len(cells)
        keys *= size
        keys += column
        bound *= size
    order = np.argsort(keys, kind="stable")
    return order, keys[order]


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
