"""Which spans of a document identify it for a query: those that look like the query.

Places are drawn by the softmax of their fuzzy overlap with the query, as the training data of SEAL
and MINDER are (Bevilacqua et al., 2022, arXiv 2204.10628, section 4; Li et al., 2023, "Multiview
Identifiers Enhanced Generative Retrieval", arXiv 2305.16675): the overlap of a place is the sum,
over the query's three-word runs, of the edit similarity with the three words that begin there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from rapidfuzz import fuzz, process

from genret_dask.datasets.words import one_line, words
from genret_dask.models.reader import Reader

_RUN = 3  # words that are compared at once
_QUERY_WORDS = 32  # of a query, the first; documents serve as queries too
_LETTERS = 64  # of a word, the first, that are compared


@dataclass(frozen=True)
class _Places:
    """Where a span of a document may begin: at its words, or at its start where none will do."""

    runs: list[str]
    starts: np.ndarray  # the token that each begins with
    stops: np.ndarray  # the token at which a span that begins there ends


class Rows(Protocol):
    """Texts by their rows."""

    def __getitem__(self, row: int, /) -> str: ...


class SpanSampler:
    """Samples spans of documents; what it draws depends on seed, query and document alone.

    Parameters
    ----------
    texts, ids : of int to str
        Text and id of each document, by its row.
    reader : Reader
        Of the index.
    seed : int
    spans : int
        Sampled of each (query, document).
    span_words : int
        Words of a span.
    min_tokens, max_tokens : int
        Of a span.
    temperature : float
        Of the sampling by overlap.
    """

    def __init__(
        self,
        texts: Rows,
        ids: Rows,
        reader: Reader,
        seed: int,
        *,
        spans: int,
        span_words: int,
        min_tokens: int,
        max_tokens: int,
        temperature: float,
    ) -> None:
        self._texts, self._ids, self._reader, self._seed = texts, ids, reader, seed
        self._spans, self._words, self._temperature = spans, span_words, temperature
        self._min_tokens, self._max_tokens = min_tokens, max_tokens
        self._places = lru_cache(maxsize=2**14)(self._read)
        self._asked = lru_cache(maxsize=2**8)(_asked)

    def sample(self, query: str, document: int) -> np.ndarray:
        """Spans of a document for a query.

        Returns
        -------
        int32[spans, 2]
            First token of each span within the text, and the token that it ends before; a place may
            be drawn more than once, and both are -1 where the text is too short for any.
        """
        places = self._places(document)
        if not len(places.starts):
            return np.full((self._spans, 2), -1, dtype=np.int32)
        query = one_line(query)
        overlap = process.cdist(
            self._asked(query), places.runs, scorer=fuzz.ratio, dtype=np.float32
        )
        weight = overlap.sum(axis=0, dtype=np.float64) / (100 * self._temperature)
        chance = np.cumsum(np.exp(weight - weight.max()))
        key = f"{query}\0{self._ids[document]}".encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(key).digest()
        rng = np.random.default_rng((self._seed, 4, int.from_bytes(digest[:8], "little")))
        drawn = np.searchsorted(chance, rng.random(self._spans) * chance[-1], side="right")
        drawn = np.minimum(drawn, len(chance) - 1)
        return np.stack([places.starts[drawn], places.stops[drawn]], axis=-1).astype(np.int32)

    def _read(self, document: int) -> _Places:
        text = one_line(self._texts[document])
        size, ends = self._reader.aligned(text)
        found = words(text)
        first, last = np.array(found, dtype=np.int64).reshape(-1, 2).T
        # A word has the tokens that its letters are in, whatever else is in them.
        starts = np.searchsorted(ends, first, side="right")
        last = last[np.minimum(np.arange(len(last)) + self._words, len(last)) - 1]
        whole = np.searchsorted(ends, last, side="right")
        stops = np.maximum(whole, np.searchsorted(ends, last, side="left") + 1)
        stops = np.minimum(np.minimum(stops, size), starts + self._max_tokens)
        usable = np.flatnonzero(stops - starts >= self._min_tokens)
        if not len(usable) and size >= self._min_tokens:
            return _Places([""], np.array([0]), np.array([min(size, self._max_tokens)]))
        runs = _runs([text[start:stop] for start, stop in found], every=True)
        return _Places([runs[row] for row in usable], starts[usable], stops[usable])


def _asked(query: str) -> list[str]:
    return _runs([query[start:stop] for start, stop in words(query, _QUERY_WORDS)])


def _runs(spelled: list[str], *, every: bool = False) -> list[str]:
    """Runs of three words in lower case; with `every`, those that the end cuts short as well."""
    low = [word[:_LETTERS].lower() for word in spelled]
    last = len(low) if every else max(1, len(low) - _RUN + 1)
    return [" ".join(low[start : start + _RUN]) for start in range(last)]
