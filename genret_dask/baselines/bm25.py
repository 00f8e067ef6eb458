"""BM25: documents by the words that they share with a query, weighted by how rare these are.

Lucene's variant, as Kamphuis et al. (ECIR 2020) write it down, by the library `bm25s` (Lù, 2024):
a word that n of N documents have adds ``ln(1 + (N - n + 0.5) / (n + 0.5)) * tf / (tf + k1 * (1 - b
+ b * length / mean length))``, once for each time that the query has it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from genret_dask.baselines.base import Baseline, Rankings, Report
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import RULES, terms
from genret_dask.kinds.base import Making

_RANGE = 2**14
"""Documents whose words are Python objects at the same time."""

LETTER_BYTES, LETTER_SECONDS, PAIR_SECONDS = 6, 0.3e-6, 5e-9
"""Memory and time that a byte of text takes, and a query its time for each document."""

_SMALL = 2**28
"""Bytes that any worker has to spare."""

_INDEXING = 0.5
"""Share of the work that is done once the documents are read."""


class Bm25Baseline(Baseline):
    """BM25 of title and text: lower-cased words, neither stemmed nor left out."""

    kind: Literal["bm25"] = "bm25"
    k1: Annotated[float, Field(ge=0)] = Field(0.9, description="how soon a repeated word saturates")
    b: Annotated[float, Field(ge=0, le=1)] = Field(0.4, description="how much length counts")

    def settings(self) -> dict[str, Any]:
        """See `Baseline.settings`."""
        return {**super().settings(), "method": "lucene", "words": RULES}

    def making(self, collection: Collection, queries: int) -> Making:
        """See `Baseline.making`."""
        letters = collection.texts.nbytes + collection.titles.nbytes
        needed = LETTER_BYTES * letters
        return Making(
            task_seconds=LETTER_SECONDS * letters + PAIR_SECONDS * queries * len(collection),
            task_bytes=needed if needed > _SMALL else 0,
            stage="ranking",
            fix=lambda nbytes: "leave BM25 out, as baselines: [] does",
        )

    def rank(
        self, collection: Collection, queries: np.ndarray, into: Rankings, report: Report
    ) -> None:
        """See `Baseline.rank`; ties are broken by document row."""
        import bm25s

        words, documents = _read(collection, lambda share: report(_INDEXING * share))
        if not words:
            return
        index = bm25s.BM25(self.k1, self.b, method="lucene", backend="numpy")
        index.scores = index.build_index_from_ids(range(len(words)), documents, show_progress=False)
        for place, text in enumerate(collection.queries.take(queries)):
            asked = [words[word] for word in terms(text) if word in words]
            scores = index.get_scores_from_ids(asked)
            rows = np.flatnonzero(scores)
            into.add(place, rows, scores[rows])
            report(_INDEXING + (1 - _INDEXING) * (place + 1) / len(queries))


class _Documents:
    """The word numbers of each document, as lists that are made while they are iterated."""

    def __init__(self, numbers: np.ndarray, ends: np.ndarray) -> None:
        self._numbers, self._ends = numbers, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self), _RANGE):
            ends = self._ends[first : first + _RANGE + 1]
            numbers, start = self._numbers[ends[0] : ends[-1]].tolist(), int(ends[0])
            places = (ends - start).tolist()
            for begin, end in zip(places, places[1:], strict=False):
                yield numbers[begin:end]


def _read(collection: Collection, report: Report) -> tuple[dict[str, int], _Documents]:
    """Number the words of all documents in the order in which they occur."""
    words: dict[str, int] = {}
    numbers, ends = array("i"), array("q", [0])
    for first in range(0, len(collection), _RANGE):
        for text in collection.documents(first, first + _RANGE):
            numbers.extend(words.setdefault(word, len(words)) for word in terms(text))
            ends.append(len(numbers))
        report(min(1.0, (first + _RANGE) / len(collection)))
    return words, _Documents(np.frombuffer(numbers, np.int32), np.frombuffer(ends, np.int64))
