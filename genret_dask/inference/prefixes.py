"""Prefixes of n-grams while a search grows them, and what they may become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genret_dask.identifiers.ngrams import NgramIndex


@dataclass(frozen=True)
class Rules:
    """What an n-gram is to a model.

    Attributes
    ----------
    start_token : int
        Opens every n-gram.
    end_token : int
        Ends one early.
    min_tokens, max_tokens : int
        Tokens of an n-gram, the end token left out.
    partials : bool
        Whether prefixes that were kept count as n-grams too, from `min_tokens` on.
    """

    start_token: int
    end_token: int
    min_tokens: int
    max_tokens: int
    partials: bool = True


@dataclass(frozen=True)
class Ngrams:
    """Prefixes, in the end n-grams, that any beam size holds, by query, then descending score.

    Attributes
    ----------
    query : int64[rows]
    order : int64[rows]
        Orders the token sequences of a query.
    is_open : bool[rows]
        May still grow.
    score : float64[rows]
    member : bool[beams, rows]
        Which beam sizes hold it.
    states : int64[rows, parts, 2]
        Its intervals in the index.
    token : int64[rows, steps]
        The end token is one of them; -1 behind the last.
    logit, log_partition : float32[rows, steps]
        NaN behind the last.
    slot : int64[rows]
        Row of its query in the model's last step.
    """

    query: np.ndarray
    order: np.ndarray
    is_open: np.ndarray
    score: np.ndarray
    member: np.ndarray
    states: np.ndarray
    token: np.ndarray
    logit: np.ndarray
    log_partition: np.ndarray
    slot: np.ndarray

    @classmethod
    def root(cls, queries: int, beams: int, steps: int, index: NgramIndex) -> Ngrams:
        return cls(
            query=np.arange(queries),
            order=np.zeros(queries, dtype=np.int64),
            is_open=np.ones(queries, dtype=bool),
            score=np.zeros(queries),
            member=np.ones((beams, queries), dtype=bool),
            states=index.root(queries),
            token=np.full((queries, steps), -1, dtype=np.int64),
            logit=np.full((queries, steps), np.nan, dtype=np.float32),
            log_partition=np.full((queries, steps), np.nan, dtype=np.float32),
            slot=np.zeros(queries, dtype=np.int64),
        )

    def take(self, rows: np.ndarray) -> Ngrams:
        """Some of the rows."""
        columns = {name: column[rows] for name, column in vars(self).items() if name != "member"}
        return Ngrams(**columns, member=self.member[:, rows])

    @classmethod
    def join(cls, parts: Sequence[Ngrams]) -> Ngrams:
        """All rows of several, in order again."""
        columns = {
            name: np.concatenate([vars(part)[name] for part in parts], axis=int(name == "member"))
            for name in vars(parts[0])
        }
        order = np.lexsort((*columns["token"].T[::-1], columns["query"]))
        columns["order"][order] = np.arange(len(order))
        joined = cls(**columns)
        return joined.take(np.lexsort((joined.order, -joined.score, joined.query)))


@dataclass(frozen=True)
class Children:
    """Continuations of prefixes, in any order; a prefix that has ended continues as itself."""

    row: np.ndarray  # int64[c], of the prefixes
    token: np.ndarray  # int64[c], -1 where the prefix has ended
    score: np.ndarray  # float64[c]
    is_open: np.ndarray  # bool[c]
    states: np.ndarray  # int64[c, parts, 2]

    @classmethod
    def join(cls, *parts: Children) -> Children:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))
