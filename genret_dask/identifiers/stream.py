"""A corpus as one run of tokens: texts one after the other, each closed by a separator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from genret_dask.models.tokens import read_tokenizer

_TEXTS = 1024  # tokenised together


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
        Its document.
    """

    tokens: np.ndarray
    starts: np.ndarray
    documents: np.ndarray


def tokenize_stream(
    texts: Iterator[tuple[int, str]], tokenizer: Tokenizer, vocabulary: int
) -> Stream:
    """Tokenise texts, each with its document; a text without a token is left out."""
    dtype = np.uint16 if vocabulary < 2**16 else np.uint32
    runs, lengths, documents = [], [], []
    for batch in _batches(texts, _TEXTS):
        encoded = tokenizer.encode_batch(
            [one_line(text) for _, text in batch], add_special_tokens=False
        )
        for (document, _), encoding in zip(batch, encoded, strict=True):
            if encoding.ids:
                runs.append(np.fromiter([*(i + 1 for i in encoding.ids), 0], dtype))
                lengths.append(len(runs[-1]))
                documents.append(document)
    return Stream(
        np.concatenate([np.empty(0, dtype), *runs]),
        np.cumsum([0, *lengths], dtype=np.int64)[:-1],
        np.array(documents, dtype=np.int32),
    )


def one_line(text: str) -> str:
    """A text as it is tokenised: words, with one space between them."""
    return " ".join(text.split())


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokeniser that reads its own special tokens, where a text spells them, as plain text."""
    tokenizer = read_tokenizer(path)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
