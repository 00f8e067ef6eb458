"""The collection: documents, queries and relevance judgements by split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from genret_dask.datasets.words import one_line, words
from genret_dask.errors import DatasetError

SPLITS = ("train", "dev", "test")
_BREAK = re.compile(r"[\t\n\r]")


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold a text; lone surrogates, which JSON lets through, it cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        The collection has no documents, or repeats an id, or has an id that no TSV file can hold
        (empty, or with a tab or a line break), or text that UTF-8 cannot hold.
    ValueError
        Columns differ in length, a judgement names a row that is not there, or answers name a
        query id that is not there.
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
                twice = Counter(ids).most_common(1)[0][0]
                raise DatasetError(
                    f"collection {self.name} has {kind} id {twice!r} more than once",
                    expected=f"unique {kind} ids",
                )
            for name in ids:
                if not name or _BREAK.search(name):
                    raise DatasetError(
                        f"collection {self.name} has the {kind} id {name!r}",
                        expected="ids that are not empty and hold no tab or line break",
                    )
        self._check_columns()

    def _check_columns(self) -> None:
        documents, queries = len(self.document_ids), len(self.query_ids)
        lengths = {len(self.titles), len(self.texts), documents}, {len(self.queries), queries}
        if any(len(found) > 1 for found in lengths):
            raise ValueError(f"columns of collection {self.name} differ in length")
        if not self.answers.keys() <= set(self.query_ids):
            raise ValueError(f"answers of collection {self.name} name an unknown query")
        for split in SPLITS:
            judged = self.qrels[split]
            for rows, size in ((judged.query, queries), (judged.document, documents)):
                if len(rows) and not 0 <= rows.min() <= rows.max() < size:
                    raise ValueError(f"qrels {split} name a row outside 0..{size - 1}")
        for column in (*self._columns, *self.answers.values()):
            for row, text in enumerate(column):
                if not encodable(text):
                    raise DatasetError(
                        f"collection {self.name}, row {row}: {text[:60]!r} holds half a character",
                        expected="text without lone surrogates",
                    )

    @property
    def _columns(self) -> tuple[tuple[str, ...], ...]:
        return self.document_ids, self.titles, self.texts, self.query_ids, self.queries

    def __len__(self) -> int:
        return len(self.document_ids)

    def document(self, row: int) -> str:
        """Title and text of a document as one string."""
        return f"{self.titles[row]}\n{self.texts[row]}" if self.titles[row] else self.texts[row]

    @cached_property
    def content_hash(self) -> str:
        """Sixteen hexadecimal digits over every id, text, judgement and answer."""
        digest = hashlib.sha256()
        for column in self._columns:
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


def count_repeated(collection: Collection) -> int:
    """How many documents have the text of an earlier one, up to white space."""
    texts = (one_line(collection.document(row)) for row in range(len(collection)))
    hashes = np.fromiter((hash(text) for text in texts if text), np.int64)
    return len(hashes) - len(np.unique(hashes))


def summary(collection: Collection) -> dict[str, Any]:
    """Counts that describe a collection and show what is wrong with it; plain JSON values.

    Returns
    -------
    dict
        name, version, content_hash; documents, queries; splits: for each split its judged
        queries, judgements, relevant judgements and distinct relevant documents; words: mean
        words of a document (title included) and of a query; queries_with_answers;
        queries_without_qrels (in no split, or judged only as irrelevant);
        queries_in_two_splits; documents_without_text; documents_repeated (those whose text, up to
        white space, an earlier one has); queries_with_a_documents_id; queries_without_text;
        documents_without_train_query, test_documents_without_train_query.
    """
    splits = {split: collection.qrels[split].relevant() for split in SPLITS}
    asked = {split: np.unique(qrels.query) for split, qrels in splits.items()}
    wanted = {split: np.unique(qrels.document) for split, qrels in splits.items()}
    appearances = np.bincount(
        np.concatenate(list(asked.values())), minlength=len(collection.query_ids)
    )
    texts = [collection.document(row) for row in range(len(collection))]
    return {
        "name": collection.name,
        "version": collection.version,
        "content_hash": collection.content_hash,
        "documents": len(collection),
        "queries": len(collection.query_ids),
        "splits": {
            split: {
                "queries": len(np.unique(collection.qrels[split].query)),
                "judgements": len(collection.qrels[split]),
                "relevant": len(splits[split]),
                "documents": len(wanted[split]),
            }
            for split in SPLITS
        },
        "words": {
            "document": _mean_words(texts),
            "query": _mean_words(collection.queries),
        },
        "queries_with_answers": sum(name in collection.answers for name in collection.query_ids),
        "queries_without_qrels": int((appearances == 0).sum()),
        "queries_in_two_splits": int((appearances > 1).sum()),
        "documents_without_text": sum(not text.strip() for text in texts),
        "documents_repeated": count_repeated(collection),
        "queries_with_a_documents_id": len({*collection.query_ids} & {*collection.document_ids}),
        "queries_without_text": sum(not text.strip() for text in collection.queries),
        "documents_without_train_query": len(collection) - len(wanted["train"]),
        "test_documents_without_train_query": len(np.setdiff1d(wanted["test"], wanted["train"])),
    }


def _mean_words(texts: Sequence[str]) -> float:
    return round(sum(len(words(text)) for text in texts) / len(texts), 1) if texts else 0.0
