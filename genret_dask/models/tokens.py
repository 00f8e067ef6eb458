"""Ragged token ids and their padding, and tokenisers as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from genret_dask.errors import ModelError


@dataclass(frozen=True)
class Tokens:
    """Ragged token ids: row i is ``flat[offsets[i]:offsets[i + 1]]``, never empty.

    Attributes
    ----------
    flat : int32[n]
    offsets : int64[rows + 1]
    cut : bool[rows]
        Whether the text had more tokens than were kept.
    """

    flat: np.ndarray
    offsets: np.ndarray
    cut: np.ndarray

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


def read_tokenizer(path: Path, build: Callable[[str], Tokenizer] = Tokenizer.from_str) -> Tokenizer:
    """The tokeniser of a `tokenizer.json`.

    Parameters
    ----------
    build : callable
        Makes it of the file's text.

    Raises
    ------
    ModelError
        The file is missing, or is none.
    """
    try:
        return build(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise ModelError(
            f"{path} is not a tokeniser: {str(error)[:200]}",
            expected="the tokenizer.json of the tokenizers library",
            fix=f"remove {path.parent} and run again",
        ) from error
