"""Batches of training pairs and their tokens: seeded, bucketed by length, addressable by step.

Batch number i depends on the seed and i alone, so a resumed run sees what an unbroken one sees.
Pairs are drawn and read when their block of batches is reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genret_dask.datasets.order import in_random_order
from genret_dask.datasets.pairs import Pairs, TrainingPairs
from genret_dask.models.reader import Reader

_BLOCK = 16  # batches drawn together, then sorted by length


@dataclass(frozen=True)
class Batch:
    """Pairs and their padded tokens.

    Attributes
    ----------
    pairs : Pairs
    tokens : int64[pairs, width]
    lengths : int64[pairs]
    cut : int
        Texts with more tokens than are kept.
    """

    pairs: Pairs
    tokens: np.ndarray
    lengths: np.ndarray
    cut: int


class Batches:
    """Endless batches.

    Parameters
    ----------
    pairs : TrainingPairs
    reader : Reader
    batch_size : int
    query_share : float
        Share of pairs of train queries; the rest comes from the other sources. Where one side is
        empty the other gives all.
    seed : int
    """

    def __init__(
        self, pairs: TrainingPairs, reader: Reader, batch_size: int, query_share: float, seed: int
    ) -> None:
        self._pairs, self._reader = pairs, reader
        self._batch_size, self._seed = batch_size, seed
        self._share = query_share if pairs.queries and pairs.others else float(pairs.queries > 0)
        self._block: tuple[int, list[Batch]] = (-1, [])

    def at(self, step: int) -> Batch:
        """Return batch number `step`."""
        number, position = divmod(step, _BLOCK)
        if self._block[0] != number:
            self._block = (number, self._draw(number))
        return self._block[1][position]

    def _draw(self, block: int) -> list[Batch]:
        rng = np.random.default_rng((self._seed, 1, block))
        size = _BLOCK * self._batch_size
        asked = int(rng.binomial(size, self._share))
        queries = self._visit(self._pairs.queries, asked, (self._seed, 9, block))
        others = self._visit(self._pairs.others, size - asked, (self._seed, 10, block))
        pairs = self._pairs.take(np.concatenate([queries, self._pairs.queries + others]))
        tokens = self._reader.read(pairs.texts)
        order = np.lexsort((rng.random(size), tokens.lengths))
        parts = np.split(order, _BLOCK)
        return [
            Batch(pairs.take(rows), *tokens.padded(rows), int(tokens.cut[rows].sum()))
            for rows in (parts[place] for place in rng.permutation(_BLOCK))
        ]

    @staticmethod
    def _visit(pool: int, count: int, key: tuple[int, ...]) -> np.ndarray:
        """Numbers below `pool`: whole passes without replacement, then a part of one."""
        if not count:
            return np.empty(0, dtype=np.int64)
        passes, place = np.divmod(np.arange(count), pool)
        return np.concatenate(
            [
                in_random_order(place[passes == number], pool, (*key, number))
                for number in range(int(passes[-1]) + 1)
            ]
        )
