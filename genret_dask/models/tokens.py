"""The text side of a model: ragged token ids and their padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from genret_dask.errors import ModelError


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


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokeniser of a `tokenizer.json`.

    Raises
    ------
    ModelError
        The file is missing, or is none.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise ModelError(
            f"{path} is not a tokeniser: {str(error)[:200]}",
            expected="the tokenizer.json of the tokenizers library",
            fix=f"remove {path.parent} and run again",
        ) from error


def closing_tokens(provenance: Mapping[str, Any]) -> tuple[int | None, int]:
    """The tokens that end a model's queries, if any, and that stand for an empty one.

    Raises
    ------
    ModelError
        The manifest that this is of does not say.
    """
    end, empty = provenance.get("end_token"), provenance.get("eos_token")
    if not isinstance(end, int | None) or not isinstance(empty, int):
        raise ModelError(
            f"the manifest's provenance has end_token {end!r} and eos_token {empty!r}",
            expected="tokens of the model",
            fix="export the model again",
        )
    return end, empty


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
