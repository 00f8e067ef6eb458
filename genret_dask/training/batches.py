"""Batches of token ids: seeded, bucketed by length, addressable by step.

Batch number i depends on the seed and i alone, so a resumed run sees what an unbroken one sees.
"""

from __future__ import annotations

import numpy as np

from genret_dask.datasets.pairs import SOURCES, Pairs

_BLOCK = 16  # batches drawn together, then sorted by length


class Batches:
    """Endless batches of pair rows.

    Parameters
    ----------
    query_share : float
        Share of rows drawn from train queries; the rest comes from the other sources. Where one
        side is empty the other gives all.
    """

    def __init__(
        self, pairs: Pairs, lengths: np.ndarray, batch_size: int, query_share: float, seed: int
    ) -> None:
        is_query = pairs.source == SOURCES.index("query")
        self._pools = [
            (np.flatnonzero(is_query), query_share),
            (np.flatnonzero(~is_query), 1 - query_share),
        ]
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._block: tuple[int, list[np.ndarray]] = (-1, [])

    def rows(self, step: int) -> np.ndarray:
        """Pair rows of batch number `step`."""
        number, position = divmod(step, _BLOCK)
        if self._block[0] != number:
            self._block = (number, self._draw(number))
        return self._block[1][position]

    def _draw(self, number: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self._seed, 1, number))
        size = _BLOCK * self._batch_size
        pools = [(rows, share) for rows, share in self._pools if len(rows)]
        if len(pools) == 2:
            pools = [(rows, share) for rows, share in pools if share]
        # Of two pools the first gives its share; of one, everything.
        first = rng.binomial(size, pools[0][1]) if len(pools) == 2 else size
        counts = (first, size - first)
        rows = np.concatenate(
            [self._visit(rows, count, rng) for (rows, _), count in zip(pools, counts, strict=False)]
        )
        rows = rows[np.lexsort((rng.random(size), self._lengths[rows]))]
        batches = np.split(rows, _BLOCK)
        return [batches[i] for i in rng.permutation(_BLOCK)]

    @staticmethod
    def _visit(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """`size` rows: whole passes without replacement, then a part of one."""
        passes = [rng.permutation(rows) for _ in range(-(-size // len(rows)))]
        return np.concatenate(passes)[:size] if passes else rows[:0]
