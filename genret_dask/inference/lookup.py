"""Continuations of frequent prefixes, which most of the vocabulary may follow.

Tokens are looked up in the index in the order of their scores, only until no other can enter a
beam: what a search keeps is exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genret_dask.identifiers.ngrams import NgramIndex
from genret_dask.inference.beam import kth_best
from genret_dask.inference.finite import check_finite
from genret_dask.inference.prefixes import Children, Ngrams
from genret_dask.monitoring.meter import phase

_BLOCK = 64  # tokens whose largest score stands for them all
_SLACK = 1e-3  # nats by which a float32 score may miss its float64 value, and more


class LookUp:
    """Continuations of frequent prefixes, found in the order of their scores.

    Parameters
    ----------
    rows : int64[r]
        The frequent ones among the prefixes.
    table : float32[r, vocabulary]
        Scores of their continuations, legal or not.
    """

    def __init__(
        self, live: Ngrams, rows: np.ndarray, table: np.ndarray, index: NgramIndex, level: int
    ) -> None:
        self.live, self.rows, self.table = live, rows, table
        self.index, self.level = index, level
        self.queries = int(live.query[-1]) + 1
        self.query = live.query[rows]
        starts = np.arange(0, table.shape[1], _BLOCK)
        largest = np.maximum.reduceat(table, starts, axis=1)
        check_finite(largest.max(axis=1), self.query, level, "the largest logit")
        # One line a query, however many of its prefixes are frequent.
        first = np.searchsorted(self.query, self.query)
        place = np.arange(len(rows)) - first
        shape = self.queries, int(place.max()) + 1, len(starts)
        peaks = np.full(shape, -np.inf, dtype=np.float32)
        peaks[self.query, place] = largest
        self.peaks = peaks.reshape(self.queries, -1)

    @phase("constraint")
    def complete(
        self, children: Children, scored: Callable[..., Children], sizes: np.ndarray
    ) -> Children:
        """Add continuations until every beam size's best are among the children.

        Parameters
        ----------
        scored : callable
            Gets prefixes, tokens and states; returns them as children.
        """
        bound = np.full(self.queries, -np.inf)
        bound[self.query] = np.inf  # the best that has not been looked up; of the others, none is
        wanted = 2 * int(sizes.max())
        while True:
            worst = self._worst_kept(children, sizes)
            pending = bound > worst
            if not pending.any():
                return children
            lower = np.where(pending, np.maximum(worst, self._reached_by(wanted)), bound)
            of_row, over_row = lower[self.query, None], bound[self.query, None]
            asked = (self.table >= (of_row - _SLACK)) & (self.table < (over_row - _SLACK))
            row, token = np.nonzero(asked)
            row = self.rows[row]
            states = self.index.refine(self.live.states[row], self.level, token)
            occurs = np.flatnonzero(self.index.count(states))
            found = scored(row[occurs], token[occurs], states[occurs])
            children = Children.join(children, found)
            bound, wanted = lower, 4 * wanted

    def _worst_kept(self, children: Children, sizes: np.ndarray) -> np.ndarray:
        """Of each query the lowest score that any beam size keeps; float64[queries]."""
        order = np.argsort(self.live.query[children.row], kind="stable")
        row, score = children.row[order], children.score[order]
        query = self.live.query[row]
        worst = np.full(self.queries, np.inf)
        for size, member in zip(sizes, self.live.member, strict=True):
            concerned = np.zeros(self.queries, dtype=bool)
            concerned[self.query[member[self.rows]]] = True
            mine = member[row]
            kth = kth_best(query[mine], score[mine], int(size), self.queries)
            worst = np.where(concerned, np.minimum(worst, kth), worst)
        return worst

    def _reached_by(self, wanted: int) -> np.ndarray:
        """Of each query a score that at least `wanted` continuations reach; float64[queries]."""
        width = self.peaks.shape[1]
        if wanted > width:
            return np.full(self.queries, -np.inf)
        return np.partition(self.peaks, width - wanted, axis=1)[:, width - wanted].astype(float)
