"""What a model is taught to generate: the labels of training pairs, for each identifier kind."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from genret_dask.identifiers import Codes, read_codes
from genret_dask.identifiers.codes import read_level_sizes
from genret_dask.identifiers.ngrams import NgramIndex, close, read_index
from genret_dask.specs import IdentifiersSpec, NgramsIdentifiers
from genret_dask.training.pairs import Pairs

IGNORED = -100
"""Label of padding, as PyTorch's cross-entropy has it: no loss sees it."""

_COUNTED = 2**14  # pairs whose identifiers are compared at a time


Space = Codes | NgramIndex
"""What identifies documents, opened."""


def open_space(spec: IdentifiersSpec, folder: Path) -> Space:
    """Open the identifiers of a run directory."""
    return read_index(folder) if isinstance(spec, NgramsIdentifiers) else read_codes(folder)


def label_shape(spec: IdentifiersSpec, folder: Path) -> tuple[int, int]:
    """Vocabulary rows that a space adds to a model, and steps of a label, without opening it."""
    if isinstance(spec, NgramsIdentifiers):
        return 0, spec.max_tokens
    level_sizes = read_level_sizes(folder)
    return sum(level_sizes), len(level_sizes)


class Targets(Protocol):
    """The labels of training pairs.

    Attributes
    ----------
    length : int
        Steps of a label.
    """

    length: int

    def labels(self, pairs: Pairs, rows: np.ndarray, visit: np.random.Generator) -> np.ndarray:
        """Labels of pairs, int64[rows, length], `IGNORED` behind the end.

        Parameters
        ----------
        visit : numpy.random.Generator
            Chooses where a pair has several identifiers.
        """
        ...

    def distinct(self, pairs: Pairs) -> int:
        """How many distinct (text, identifier) pairs there are."""
        ...


class CodeTargets:
    """A document's one code, in the vocabulary rows behind the start token."""

    def __init__(self, codes: Codes, start_token: int) -> None:
        self.length = codes.length
        self._tokens = codes.tokens + start_token + 1

    def labels(self, pairs: Pairs, rows: np.ndarray, visit: np.random.Generator) -> np.ndarray:
        """See `Targets.labels`."""
        return self._tokens[pairs.document[rows]]

    def distinct(self, pairs: Pairs) -> int:
        """See `Targets.distinct`."""
        return len(pairs)


class NgramTargets:
    """The spans that were sampled for a pair, one of them at every visit."""

    def __init__(self, index: NgramIndex, length: int, end_token: int) -> None:
        self.length = length
        self._index, self._end = index, end_token

    def labels(self, pairs: Pairs, rows: np.ndarray, visit: np.random.Generator) -> np.ndarray:
        """See `Targets.labels`."""
        which = visit.integers(0, pairs.spans.shape[1], len(rows))
        return self._tokens(pairs.document[rows], pairs.spans[rows, which])

    def distinct(self, pairs: Pairs) -> int:
        """See `Targets.distinct`."""
        many, total = pairs.spans.shape[1], 0
        for first in range(0, len(pairs), _COUNTED):
            few = pairs.take(np.arange(first, min(first + _COUNTED, len(pairs))))
            pair = np.repeat(np.arange(len(few)), many)
            tokens = self._tokens(np.repeat(few.document, many), few.spans.reshape(-1, 2))
            total += len(np.unique(np.column_stack([pair, tokens]), axis=0))
        return total

    def _tokens(self, documents: np.ndarray, spans: np.ndarray) -> np.ndarray:
        return close(self._index.spans(documents, spans, self.length), self._end, IGNORED)


def targets_of(space: Space, spec: IdentifiersSpec, start_token: int, end_token: int) -> Targets:
    """The targets in a space, for a model whose text ends with `end_token`."""
    if isinstance(space, NgramIndex):
        length = spec.max_tokens if isinstance(spec, NgramsIdentifiers) else 0
        return NgramTargets(space, length, end_token)
    return CodeTargets(space, start_token)
