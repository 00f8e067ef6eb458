"""Which searches are worth their price."""

from __future__ import annotations

import numpy as np


def pareto(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Rows that no other row beats: none is as cheap and as good, and better in one of the two.

    Parameters
    ----------
    cost, error : float64[n]
        Rows with NaN are never chosen; of equal rows the first is.

    Returns
    -------
    int array
        By rising cost, and so by falling error.

    Examples
    --------
    >>> pareto(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.5, 0.6])).tolist()
    [1, 0]
    """
    there = np.flatnonzero(np.isfinite(cost) & np.isfinite(error))
    order = there[np.lexsort((there, error[there], cost[there]))]
    if not len(order):
        return order
    lowest = np.minimum.accumulate(error[order])
    kept = np.concatenate([[True], error[order][1:] < lowest[:-1]])
    return order[kept]
