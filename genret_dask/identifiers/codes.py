"""Codes: a document's identifier as the quantised cells of its embedding.

Documents that share every cell are told apart by one more level that counts them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np

from genret_dask.errors import DatasetError, NumericError
from genret_dask.identifiers.trie import Trie
from genret_dask.identifiers.unique import make_unique
from genret_dask.identifiers.vectors import Vectors
from genret_dask.specs.registry import entry
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched, publishing, record_of
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.records import damaged

logger = logging.getLogger(__name__)

CROWD = 2000
"""Documents below one prefix of all levels but the last, above which a warning is due."""

MOST_CODES = 65_536

KEPT = "learned"
"""The folder within the artefact of what documents that are added later are given codes by."""


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
    vectors: Vectors,
    names: Sequence[str],
    levels: int,
    codes: int,
    seed: int = 0,
    quantiser: str = "rq",
    kept: Path | None = None,
) -> np.ndarray:
    """Quantise documents' embeddings and make the cells unique.

    Parameters
    ----------
    names : sequence of str
        Of the documents, for messages.
    quantiser : str
        An entry of `genret_dask.quantisers`.
    kept : Path, optional
        A folder where centroids go, for documents that are added later.

    Returns
    -------
    int32[documents, levels or one more]

    Raises
    ------
    NumericError
        A document's embedding is not finite.
    DatasetError
        The embeddings have fewer directions than the quantiser takes.
    """
    _check_vectors(vectors, names)
    chosen = entry("quantisers", quantiser)()
    if problem := chosen.problem(levels, codes, vectors.dim):
        raise DatasetError(
            f"{problem}, as these documents have no more",
            fix="lower identifiers.levels, or choose another identifiers.quantiser",
        )
    cells = chosen.quantise(vectors, levels, min(codes, len(vectors)), seed)
    if kept is not None:
        for level, centroids in enumerate(getattr(chosen, "centroids", ())):
            np.save(kept / f"centroids-{level}.npy", centroids)
    return make_unique(cells)


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


def write_codes(codes: Codes, folder: Path, made_from: Origin, kept: Path | None = None) -> None:
    """Publish codes and their trie as an artefact.

    Parameters
    ----------
    kept : Path, optional
        A folder whose files become part of it.
    """
    facts = {"kind": made_from.kind, "level_sizes": codes.level_sizes}
    with publishing(folder, made_from, **facts) as partial:
        np.save(partial / "codes.npy", codes.codes)
        codes.trie.save(partial)
        if kept is not None and any(kept.iterdir()):
            shutil.copytree(kept, partial / KEPT)


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
