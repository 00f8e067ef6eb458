"""The collection: documents, queries and relevance judgements by split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from genret_dask.errors import DatasetError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Qrels:
    """Relevance judgements of one split, sorted by query row, then document row.

    Attributes
    ----------
    query, document : int32[n]
        Rows into the collection's queries and documents.
    relevance : int32[n]
        Grades; above 0 is relevant.
    """

    query: np.ndarray
    document: np.ndarray
    relevance: np.ndarray

    @classmethod
    def from_rows(cls, query: object, document: object, relevance: object) -> Qrels:
        """Sort judgements; of a pair judged twice the higher grade stays."""
        q, d, r = (np.asarray(column, dtype=np.int32) for column in (query, document, relevance))
        order = np.lexsort((-r, d, q))
        q, d, r = q[order], d[order], r[order]
        first = np.ones(len(q), dtype=bool)
        first[1:] = (q[1:] != q[:-1]) | (d[1:] != d[:-1])
        return cls(q[first], d[first], r[first])

    def __len__(self) -> int:
        return len(self.query)

    def relevant(self) -> Qrels:
        """The judgements above grade 0."""
        keep = self.relevance > 0
        return Qrels(self.query[keep], self.document[keep], self.relevance[keep])

    def by_query(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (query row, document rows, grades), by ascending query row."""
        rows, starts = np.unique(self.query, return_index=True)
        ends = np.append(starts[1:], len(self.query))
        for row, start, end in zip(rows, starts, ends, strict=True):
            yield int(row), self.document[start:end], self.relevance[start:end]


@dataclass(frozen=True)
class Collection:
    """A retrieval collection in memory.

    Attributes
    ----------
    name, version : str
        What it is, and of which build.
    document_ids, titles, texts : tuple of str
        Equal lengths; a title may be empty.
    query_ids, queries : tuple of str
        Equal lengths.
    qrels : dict of split to Qrels
        Always has the keys train, dev and test; a split may be empty.
    answers : dict of query id to tuple of str
        Answer strings, where the collection has them.

    Raises
    ------
    DatasetError
        The collection has no documents or repeats an id.
    """

    name: str
    version: str
    document_ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    qrels: dict[str, Qrels]
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.document_ids:
            raise DatasetError(
                f"collection {self.name} has no documents", expected="at least one document"
            )
        for kind, ids in (("document", self.document_ids), ("query", self.query_ids)):
            if len(set(ids)) != len(ids):
                seen: set[str] = set()
                twice = next(name for name in ids if name in seen or seen.add(name))
                raise DatasetError(
                    f"collection {self.name} has {kind} id {twice!r} more than once",
                    expected=f"unique {kind} ids",
                )

    def __len__(self) -> int:
        return len(self.document_ids)

    def document(self, row: int) -> str:
        """Title and text of a document as one string."""
        return f"{self.titles[row]}\n{self.texts[row]}" if self.titles[row] else self.texts[row]

    @cached_property
    def content_hash(self) -> str:
        """Sixteen hexadecimal digits over every id, text, judgement and answer."""
        digest = hashlib.sha256()
        for column in (
            self.document_ids,
            self.titles,
            self.texts,
            self.query_ids,
            self.queries,
        ):
            for text in column:
                data = text.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
            digest.update(b"\xff" * 8)
        for split in SPLITS:
            qrels = self.qrels[split]
            for array in (qrels.query, qrels.document, qrels.relevance):
                digest.update(len(array).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
        digest.update(repr(sorted(self.answers.items())).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]
