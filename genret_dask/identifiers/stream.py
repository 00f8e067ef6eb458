"""A corpus as one run of tokens: texts one after the other, each closed by a separator."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from genret_dask.models.reader import Reader


@dataclass(frozen=True)
class Stream:
    """Texts as one run of tokens.

    Attributes
    ----------
    tokens : uint16 or uint32[n]
        Token ids plus one; each text is closed by 0.
    starts : int64[texts]
        Where each text begins.
    documents : int32[texts]
        Its document; ascending.
    """

    tokens: np.ndarray
    starts: np.ndarray
    documents: np.ndarray

    def first_texts(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell which of some documents have a text here, and which text is the first of each.

        Returns
        -------
        row : int64[n]
            Into `documents`.
        text : int64[n]
        """
        documents = documents.astype(self.documents.dtype)  # or all of the column is converted
        text = np.searchsorted(self.documents, documents)
        row = np.flatnonzero(text < len(self.documents))
        row = row[self.documents[text[row]] == documents[row]]
        return row, text[row]


def tokenize_stream(texts: Iterator[tuple[int, str]], reader: Reader, vocabulary: int) -> Stream:
    """Tokenise texts, each with its document; a text without a token is left out."""
    dtype = np.uint16 if vocabulary < 2**16 else np.uint32
    owners: deque[int] = deque()  # of the texts that the reader has taken and not given back
    parts, lengths, documents = [np.empty(0, dtype)], array("q", [0]), array("i")

    def taken() -> Iterator[str]:
        for document, text in texts:
            owners.append(document)
            yield text

    for chunk in reader.bare(taken()):
        named = [(owners.popleft(), ids) for ids in chunk]
        runs = [(document, ids) for document, ids in named if ids]
        documents.extend(document for document, _ in runs)
        lengths.extend(len(ids) + 1 for _, ids in runs)
        closed = chain.from_iterable(chain((one + 1 for one in ids), (0,)) for _, ids in runs)
        parts.append(np.fromiter(closed, dtype))
    starts = np.cumsum(lengths, dtype=np.int64)[:-1]
    return Stream(np.concatenate(parts), starts, np.array(documents, dtype=np.int32))
