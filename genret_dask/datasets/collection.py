"""The collection: documents, queries and relevance judgements by split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc

from genret_dask.datasets.columns import Strings
from genret_dask.errors import DatasetError

SPLITS = ("train", "dev", "test")
_UNUSABLE_ID = r"^$|[\t\n\r]"


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
    def from_rows(cls, query: object, document: object, relevance: object = 1) -> Qrels:
        """Sort judgements; of a pair judged twice the higher grade stays."""
        q, d, r = (np.asarray(column, dtype=np.int32) for column in (query, document, relevance))
        r = np.broadcast_to(r, q.shape)
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
    """A retrieval collection, in columns.

    Attributes
    ----------
    name, version : str
        What it is, and of which build.
    document_ids, titles, texts : Strings
        Equal lengths; a title may be empty. Any sequence of str will do.
    query_ids, queries : Strings
        Equal lengths.
    qrels : dict of split to Qrels
        Always has the keys train, dev and test; a split may be empty.
    answers : dict of query id to tuple of str
        Answer strings, where the collection has them.
    left_out : uint64[n]
        Ascending hashes of the ids of documents that the source has beside those that were kept.
    known : dict, optional
        The values of `content_hash` and `blank` for columns that were checked before; others are
        checked now.

    Raises
    ------
    DatasetError
        The collection has no documents, or repeats an id, or has an id that no TSV file can hold
        (empty, or with a tab or a line break), or text that UTF-8 cannot hold.
    ValueError
        Columns differ in length, a judgement names a row that is not there, or answers name a
        query id that is not there.
    """

    name: str
    version: str
    document_ids: Strings
    titles: Strings
    texts: Strings
    query_ids: Strings
    queries: Strings
    qrels: dict[str, Qrels]
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: np.ndarray = field(
        default_factory=lambda: np.empty(0, np.uint64), repr=False, compare=False
    )
    known: InitVar[dict[str, Any] | None] = None
    _known: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self, known: dict[str, Any] | None) -> None:
        object.__setattr__(self, "_known", known or {})
        for name in ("document_ids", "titles", "texts", "query_ids", "queries"):
            object.__setattr__(self, name, Strings.of(getattr(self, name)))
        if known is None:
            self._check()

    def _check(self) -> None:
        if not len(self):
            raise DatasetError(
                f"collection {self.name} has no documents", expected="at least one document"
            )
        for kind, ids in (("document", self.document_ids), ("query", self.query_ids)):
            if twice := ids.repeated():
                raise DatasetError(
                    f"collection {self.name} has {kind} id {ids[twice[0]]!r} more than once",
                    expected=f"unique {kind} ids",
                )
            bad = pc.index(pc.match_substring_regex(ids.column, _UNUSABLE_ID), True).as_py()
            if bad >= 0:
                raise DatasetError(
                    f"collection {self.name} has the {kind} id {ids[bad]!r}",
                    expected="ids that are not empty and hold no tab or line break",
                )
        documents, queries = len(self.document_ids), len(self.query_ids)
        lengths = {len(self.titles), len(self.texts), documents}, {len(self.queries), queries}
        if any(len(found) > 1 for found in lengths):
            raise ValueError(f"columns of collection {self.name} differ in length")
        if (self.query_ids.find(list(self.answers)) < 0).any():
            raise ValueError(f"answers of collection {self.name} name an unknown query")
        for split in SPLITS:
            judged = self.qrels[split]
            for rows, size in ((judged.query, queries), (judged.document, documents)):
                if len(rows) and not 0 <= rows.min() <= rows.max() < size:
                    raise ValueError(f"qrels {split} name a row outside 0..{size - 1}")

    def __len__(self) -> int:
        return len(self.document_ids)

    def document(self, row: int) -> str:
        """Title and text of a document as one string."""
        return _joined(self.titles[row], self.texts[row])

    def documents(self, first: int = 0, last: int | None = None) -> Iterator[str]:
        """Yield title and text of each document of a range of rows."""
        rows = slice(first, last)
        return map(_joined, self.titles[rows], self.texts[rows])

    def were_left_out(self, names: Sequence[str]) -> np.ndarray:
        """Tell which ids are of documents that were not kept; bool[names]."""
        hashes = Strings.of(names).hashes
        first, last = (np.searchsorted(self.left_out, hashes, side) for side in ("left", "right"))
        return np.asarray(first < last)

    @cached_property
    def blank(self) -> np.ndarray:
        """Rows of the documents without a text: int64[n]."""
        if "blank" in self._known:
            return np.array(self._known["blank"], dtype=np.int64)
        rows = (row for row, text in enumerate(self.documents()) if not text.strip())
        return np.fromiter(rows, np.int64)

    @cached_property
    def content_hash(self) -> str:
        """Sixteen hexadecimal digits over every id, text, judgement and answer."""
        if "content_hash" in self._known:
            return str(self._known["content_hash"])
        digest = hashlib.sha256()
        columns = self.document_ids, self.titles, self.texts, self.query_ids, self.queries
        for column in columns:
            digest.update(column.digest())
        for split in SPLITS:
            qrels = self.qrels[split]
            for array in (qrels.query, qrels.document, qrels.relevance):
                digest.update(len(array).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
        answers = sorted((name, found) for name, found in self.answers.items() if found)
        digest.update(repr(answers).encode())
        return digest.hexdigest()[:16]


def _joined(title: str, text: str) -> str:
    return f"{title}\n{text}" if title else text
