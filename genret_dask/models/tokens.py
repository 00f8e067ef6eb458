"""The text side of a model: ragged token ids and their padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer


@dataclass(frozen=True)
class Tokens:
    """Ragged token ids: row i is ``flat[offsets[i]:offsets[i + 1]]``, never empty."""

    flat: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows, right-padded with 0 to `width` or the longest, and their lengths; int64."""
        lengths = self.lengths[rows]
        out = np.zeros((len(rows), width or int(lengths.max())), dtype=np.int64)
        places = np.arange(out.shape[1])
        mask = places < lengths[:, None]
        out[mask] = self.flat[(self.offsets[rows][:, None] + places)[mask]]
        return out, lengths


def tokenize(
    texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int, end: int | None, empty: int
) -> Tokens:
    """Token ids of each text, cut to `max_tokens`.

    Parameters
    ----------
    end : int or None
        Token that closes every row, within `max_tokens`.
    empty : int
        Token that stands for a text without any.
    """
    keep = max_tokens - (end is not None)
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    rows = [encoding.ids[:keep] for encoding in encoded]
    rows = [ids if end is None else [*ids, end] for ids in rows]
    rows = [ids or [empty] for ids in rows]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in rows])])
    flat = np.fromiter((token for ids in rows for token in ids), np.int64, int(offsets[-1]))
    return Tokens(flat, offsets)
