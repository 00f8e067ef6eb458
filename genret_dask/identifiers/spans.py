"""Which spans of a document identify it for a query: those that look like the query.

Places are drawn by the softmax of their fuzzy overlap with the query, as the training data of SEAL
and MINDER are (Bevilacqua et al., 2022, arXiv 2204.10628, section 4; Li et al., 2023, "Multiview
Identifiers Enhanced Generative Retrieval", arXiv 2305.16675): the overlap of a place is the sum,
over the query's three-word runs, of the edit similarity with the three words that begin there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rapidfuzz import fuzz, process
from tokenizers import Tokenizer

from genret_dask.identifiers.stream import one_line
from genret_dask.specs import NgramsIdentifiers

_RUN = 3  # words that are compared at once
_QUERY_WORDS = 32  # of a query, the first; documents serve as queries too


@dataclass(frozen=True)
class _Words:
    """The words of a document at which a span may begin."""

    runs: list[str]
    starts: np.ndarray  # the token that each word begins with
    stops: np.ndarray  # the token at which a span that begins there ends


class SpanSampler:
    """Samples spans of documents; what it draws depends on seed, query and document alone.

    Parameters
    ----------
    texts, ids : sequence of str
        Text and id of each document.
    tokenizer : tokenizers.Tokenizer
        Of the index.
    spec : NgramsIdentifiers
        min_tokens, max_tokens, span_words, spans and temperature.
    seed : int
    """

    def __init__(
        self,
        texts: Sequence[str],
        ids: Sequence[str],
        tokenizer: Tokenizer,
        spec: NgramsIdentifiers,
        seed: int,
    ) -> None:
        self._texts, self._ids, self._tokenizer = texts, ids, tokenizer
        self._spec, self._seed = spec, seed
        self._words = lru_cache(maxsize=2**14)(self._read)

    def sample(self, query: str, document: int) -> np.ndarray:
        """Spans of a document for a query.

        Returns
        -------
        int32[spans, 2]
            First token of each span within the text, and the token that it ends before; a place may
            be drawn more than once, and both are -1 where the text is too short for any.
        """
        words = self._words(document)
        if not len(words.starts):
            return np.full((self._spec.spans, 2), -1, dtype=np.int32)
        asked = _runs(query.lower().split()[:_QUERY_WORDS])
        overlap = process.cdist(asked, words.runs, scorer=fuzz.ratio, dtype=np.float32)
        weight = overlap.sum(axis=0, dtype=np.float64) / (100 * self._spec.temperature)
        chance = np.cumsum(np.exp(weight - weight.max()))
        key = f"{query}\0{self._ids[document]}".encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(key).digest()
        rng = np.random.default_rng((self._seed, 4, int.from_bytes(digest[:8], "little")))
        drawn = np.searchsorted(chance, rng.random(self._spec.spans) * chance[-1], side="right")
        drawn = np.minimum(drawn, len(chance) - 1)
        return np.stack([words.starts[drawn], words.stops[drawn]], axis=-1).astype(np.int32)

    def _read(self, document: int) -> _Words:
        spec, text = self._spec, one_line(self._texts[document])
        words = text.split()
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        first = np.cumsum([0, *(len(word) + 1 for word in words)])
        ends = np.fromiter((end for _, end in encoding.offsets), np.int64, len(encoding))
        # A token is of the word that its last letter is in.
        starts = np.searchsorted(ends, first, side="right")
        stops = starts[np.minimum(np.arange(len(words)) + spec.span_words, len(words))]
        stops = np.minimum(stops, starts[:-1] + spec.max_tokens)
        usable = np.flatnonzero(stops - starts[:-1] >= spec.min_tokens)
        runs = _runs(text.lower().split(), every=True)
        return _Words([runs[row] for row in usable], starts[usable], stops[usable])


def _runs(words: list[str], *, every: bool = False) -> list[str]:
    """Runs of three words; with `every`, those that the end cuts short as well."""
    last = len(words) if every else max(1, len(words) - _RUN + 1)
    return [" ".join(words[start : start + _RUN]) for start in range(last)]
