"""Identifiers that are listed, one after the other: token sequences of any length, and whose.

Several documents may share an identifier. Identifiers of one length, all of whose tokens tell how
long they are, need no end; others close with an end token.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from genret_dask.identifiers.trie import Trie, lexicographic
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched, publishing, record_of
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.records import damaged

_FACTS = {"block_starts": list, "level_sizes": list, "rows": int}


@dataclass(frozen=True)
class Listing:
    """The identifiers of documents.

    Tokens count from a base: the first vocabulary row of all where `rows` is 0, else the first of
    so many new ones.

    Attributes
    ----------
    tokens : int32[identifiers, longest]
        Within each level's block; -1 behind an identifier's last. Rows differ, and ascend.
    identifier : int32[documents]
        Row of each document's identifier; -1 where it has none.
    block_starts : int64[steps]
        First row of each level's block, from the base.
    level_sizes : tuple of int
        Rows of each block.
    end : int or None
        The token that closes every identifier, from the base: a row of every block. None where all
        have one length.
    rows : int
        Vocabulary rows that the identifiers add to a model.
    tokenizer : str or None
        SHA-256 of the tokeniser whose tokens they are.
    stored_trie : Trie, optional
        The trie of the tokens where it is at hand; built otherwise.
    searched : int64[n], optional
        Rows of the documents that a search may find; all by default.
    """

    tokens: np.ndarray
    identifier: np.ndarray
    block_starts: np.ndarray
    level_sizes: tuple[int, ...]
    end: int | None = None
    rows: int = 0
    tokenizer: str | None = None
    stored_trie: Trie | None = field(default=None, repr=False, compare=False)
    searched: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def steps(self) -> int:
        """Tokens of the longest identifier, its end token among them."""
        return len(self.level_sizes)

    @cached_property
    def trie(self) -> Trie:
        """The prefixes of all identifiers; its documents are rows of `tokens`."""
        return self.stored_trie or Trie.build(self.tokens, closed=self.end is not None)

    @cached_property
    def _by_identifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Documents in the order of their identifiers, then of their rows; and where each opens."""
        rows = np.arange(len(self.identifier)) if self.searched is None else self.searched
        identifier = self.identifier[rows]
        order = np.argsort(identifier, kind="stable")
        opens = np.searchsorted(identifier[order], np.arange(len(self.tokens) + 1))
        return rows[order].astype(np.int32), opens

    @cached_property
    def sizes(self) -> np.ndarray:
        """Documents of each identifier; int64[identifiers]."""
        return np.diff(self._by_identifier[1])

    @cached_property
    def shared(self) -> bool:
        """Whether an identifier stands for several documents."""
        return bool((self.sizes > 1).any())

    def documents(self, identifiers: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the document at a place among those of each identifier; int32, of their shape."""
        order, opens = self._by_identifier
        return order[opens[identifiers] + place]

    def within(self, documents: np.ndarray) -> Listing:
        """Keep a search to some documents; the identifiers of the others can still be scored."""
        found = np.unique(self.identifier[documents])
        found = found[found >= 0]
        trie = Trie.build(np.asarray(self.tokens[found]), closed=self.end is not None)
        trie = replace(trie, documents=found[trie.documents].astype(np.int32))
        return replace(self, stored_trie=trie, searched=documents)

    def paths(self, documents: np.ndarray) -> np.ndarray:
        """Tokens of documents' identifiers within their blocks, the end token among them.

        Returns
        -------
        int64[..., steps]
            -1 behind the last, and where a document is -1, none.
        """
        rows = np.where(documents < 0, -1, self.identifier[np.maximum(documents, 0)])
        paths = np.full((*rows.shape, self.steps), -1, dtype=np.int64)
        paths[..., : self.tokens.shape[1]] = self.tokens[np.maximum(rows, 0)]
        if self.end is not None:
            lengths = (paths >= 0).sum(axis=-1, keepdims=True)
            np.put_along_axis(paths, lengths, self.end - self.block_starts[lengths], axis=-1)
        paths[rows < 0] = -1
        return paths


def list_identifiers(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell distinct token rows, in ascending order, and which is each document's; O(n log n).

    Parameters
    ----------
    rows : int32[documents, longest]
        -1 behind a document's last token; all -1 where it has no identifier.

    Returns
    -------
    tokens : int32[identifiers, longest]
    identifier : int32[documents]
        -1 where there is none.
    """
    identifier = np.full(len(rows), -1, dtype=np.int32)
    having = np.flatnonzero(rows[:, 0] >= 0)
    order = having[lexicographic(rows[having] + 1)]
    opens = np.zeros(len(order), dtype=bool)
    opens[:1] = True
    for column in rows.T:
        ordered = column[order]
        opens[1:] |= ordered[1:] != ordered[:-1]
    identifier[order] = np.cumsum(opens) - 1
    return rows[order[opens]], identifier


def prefixes_of_others(tokens: np.ndarray) -> np.ndarray:
    """Find the identifiers that others begin with; int64[n], rows of ascending `tokens`."""
    lengths = (tokens >= 0).sum(axis=1)
    begins = lengths[:-1] < lengths[1:]
    for level, (column, following) in enumerate(zip(tokens[:-1].T, tokens[1:].T, strict=True)):
        begins &= (column == following) | (level >= lengths[:-1])
    return np.flatnonzero(begins)


def write_listing(
    listing: Listing, folder: Path, made_from: Origin, **facts: int | list[int]
) -> None:
    """Publish listed identifiers and their trie as an artefact.

    Parameters
    ----------
    facts
        Further values of its record.
    """
    record = {
        "kind": made_from.kind,
        "block_starts": listing.block_starts.tolist(),
        "level_sizes": listing.level_sizes,
        "end": listing.end,
        "rows": listing.rows,
        "tokenizer": listing.tokenizer,
        "identifiers": len(listing.tokens),
    }
    with publishing(folder, made_from, **record, **facts) as partial:
        np.save(partial / "tokens.npy", listing.tokens)
        np.save(partial / "identifier.npy", listing.identifier)
        listing.trie.save(partial)


def read_shape(folder: Path) -> tuple[int, int]:
    """New vocabulary rows and steps of listed identifiers, by their record alone."""
    record = record_of(folder, needs=_FACTS)
    return record["rows"], len(record["level_sizes"])


def read_listing(folder: Path) -> Listing:
    """Open listed identifiers; arrays are memory-mapped.

    Raises
    ------
    ModelError
        A file is missing or its hash differs from the record's.
    """
    folder = fetched(folder)
    record = record_of(folder, needs=_FACTS)
    found = Listing(
        tokens=read_array(folder / "tokens.npy", dims=2),
        identifier=read_array(folder / "identifier.npy", dims=1),
        block_starts=np.array(record["block_starts"], dtype=np.int64),
        level_sizes=tuple(record["level_sizes"]),
        end=record.get("end"),
        rows=record["rows"],
        tokenizer=record.get("tokenizer"),
        stored_trie=Trie.load(folder),
    )
    steps = found.tokens.shape[1] + (found.end is not None)
    if steps != found.steps or len(found.block_starts) != steps:
        what = f"has {len(found.level_sizes)} levels for tokens.npy of {found.tokens.shape[1]}"
        raise damaged(folder / RECORD, what)
    return found
