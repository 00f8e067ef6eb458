"""Continuations of frequent prefixes, which most of the vocabulary may follow.

Tokens are looked up in the index in the order of their scores, only until no other can enter a
beam: what a search keeps is exact.
"""

from __future__ import annotations

import numpy as np

from genret_dask.identifiers.ngrams import NgramIndex
from genret_dask.inference.finite import check_finite
from genret_dask.inference.rows import Children, Step
from genret_dask.inference.selection import kth_best
from genret_dask.monitoring.meter import phase

_BLOCK = 64  # tokens whose largest score stands for them all
_SLACK = 1e-3  # nats by which a float32 score may miss its float64 value, and more


class LookUp:
    """Continuations of frequent prefixes, found in the order of their scores.

    Parameters
    ----------
    step : Step
    rows : int64[r]
        The frequent ones among the step's prefixes.
    index : NgramIndex
    """

    def __init__(self, step: Step, rows: np.ndarray, index: NgramIndex) -> None:
        self.step, self.rows, self.index = step, rows, index
        self.queries = step.queries
        self.query = step.live.query[rows]
        base = step.live.score[rows] - step.partition[rows]
        # Scores of every continuation, legal or not; float32[r, vocabulary].
        self.table = step.logits[step.place[rows]] + base[:, None].astype(np.float32)
        starts = np.arange(0, self.table.shape[1], _BLOCK)
        largest = np.maximum.reduceat(self.table, starts, axis=1)
        check_finite(largest.max(axis=1), self.query, step.depth, "the largest logit")
        # One line a query, however many of its prefixes are frequent.
        place = np.arange(len(rows)) - np.searchsorted(self.query, self.query)
        shape = self.queries, int(place.max()) + 1, len(starts)
        peaks = np.full(shape, -np.inf, dtype=np.float32)
        peaks[self.query, place] = largest
        self.peaks = peaks.reshape(self.queries, -1)

    @phase("constraint")
    def complete(self, children: Children, sizes: np.ndarray) -> Children:
        """Add continuations until every beam size's best are among the children."""
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
            states = self.index.refine(self.step.live.states[row], self.step.depth, token)
            occurs = np.flatnonzero(self.index.count(states))
            found = self.step.children(row[occurs], token[occurs], states[occurs])
            children = Children.join([children, found])
            bound, wanted = lower, 4 * wanted

    def _worst_kept(self, children: Children, sizes: np.ndarray) -> np.ndarray:
        """Of each query the lowest score that any beam size keeps; float64[queries]."""
        order = np.argsort(children.query, kind="stable")
        query, row, score = children.query[order], children.row[order], children.score[order]
        worst = np.full(self.queries, np.inf)
        for size, member in zip(sizes, self.step.live.member, strict=True):
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
