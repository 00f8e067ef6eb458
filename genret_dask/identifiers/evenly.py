"""Vectors spread over cells as evenly as they can be, each as near as that allows.

Small groups get the assignment of least total distance. That takes the cube of their number, so
that larger ones get one that is close to it: cells have prices, which rise until no cell is wanted
by more vectors than it has places for (Cuturi 2013, "Sinkhorn distances", with the regularisation
lowered step by step), and those who would lose least make way to their next best cell.
"""

from __future__ import annotations

import numpy as np

EXACT = 2**20
"""Vectors times places up to which the assignment is the best one."""

_NEAREST = 64  # cells that a vector may choose from at first
_SCALES = 0.5 ** np.arange(1, 10)  # of the regularisation, in spreads of the distances
_ROUNDS = 24  # for each


def assign_evenly(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Cells of vectors, none with more than ``ceil(vectors / cells)`` of them.

    Takes ``n log n`` time above `EXACT`, and some 3 kB of memory a vector.

    Parameters
    ----------
    vectors : float32[n, dim]
    centroids : float32[cells, dim]

    Returns
    -------
    int64[n]
        The same on every call.
    """
    from scipy.optimize import linear_sum_assignment

    places = -(-len(vectors) // len(centroids))
    if len(vectors) * places * len(centroids) <= EXACT:
        distance = _distances(vectors, centroids)
        return linear_sum_assignment(np.tile(distance, places))[1] % len(centroids)
    return _assign_by_price(vectors, centroids, places)


def _distances(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Squared distances, float64[n, cells], but for what all cells of a vector have in common."""
    rows, cells = vectors.astype(np.float64), centroids.astype(np.float64)
    # Not by a matrix product: of groups this small its threads wait for each other.
    return (cells**2).sum(axis=1) - 2 * np.einsum("nd,cd->nc", rows, cells)


def _assign_by_price(vectors: np.ndarray, centroids: np.ndarray, places: int) -> np.ndarray:
    import faiss

    room = np.full(len(centroids), places, dtype=np.int64)
    width = min(_NEAREST, len(centroids))
    cost, near = faiss.knn(vectors, np.ascontiguousarray(centroids), width)
    cells = _fill(cost + _prices(cost, near, room)[near], near, room)
    left = np.flatnonzero(cells < 0)
    if len(left):
        room -= np.bincount(cells[cells >= 0], minlength=len(room))
        cells[left] = _along_a_line(vectors[left], centroids, room)
    return cells


def _along_a_line(vectors: np.ndarray, centroids: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Cells with room in the order of the vectors, both along the cells' widest direction.

    For the few whose nearest cells are all full, and for any number of equal vectors.
    """
    opened = np.repeat(np.arange(len(room)), room)
    spread = centroids[room > 0] - centroids[room > 0].mean(axis=0)
    direction = np.linalg.eigh(spread.T @ spread)[1][:, -1]
    opened = opened[np.argsort((centroids @ direction)[opened], kind="stable")]
    chosen = np.arange(len(vectors)) * len(opened) // len(vectors)
    cells = np.empty(len(vectors), dtype=np.int64)
    cells[np.argsort(vectors @ direction, kind="stable")] = opened[chosen]
    return cells


def _prices(cost: np.ndarray, near: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Prices of cells at which they are wanted about as often as they have room; float64[cells].

    Parameters
    ----------
    cost : float32[n, width]
        Distances to some cells.
    near : int64[n, width]
        Which cells they are.
    room : int64[cells]
    """
    price = np.zeros(len(room))
    spread = float((cost[:, -1] - cost[:, 0]).mean())
    if spread <= 0:
        return price
    for scale in spread * _SCALES:
        for _ in range(_ROUNDS):
            value = cost + price[near]
            share = np.exp((value.min(axis=1, keepdims=True) - value) / scale)
            share /= share.sum(axis=1, keepdims=True)
            wanted = np.bincount(near.ravel(), share.ravel(), minlength=len(room))
            with np.errstate(divide="ignore"):
                price = np.maximum(price + scale * np.log(wanted / room), 0.0)
    return price


def _fill(value: np.ndarray, near: np.ndarray, room: np.ndarray) -> np.ndarray:
    """The cheapest cells that have room, to those first who would lose most; -1 where none has.

    Parameters
    ----------
    value : float64[n, width]
        Price and distance of the cells in `near`.
    room : int64[cells]
    """
    room, cells = room.copy(), np.full(len(value), -1, dtype=np.int64)
    rows = np.arange(len(value))
    while len(rows):
        open_value = np.where(room[near[rows]] > 0, value[rows], np.inf)
        best = open_value.argmin(axis=1)
        least = np.take_along_axis(open_value, best[:, None], axis=1)[:, 0]
        there = np.isfinite(least)
        rows, best, least = rows[there], best[there], least[there]
        if not len(rows):
            break
        open_value = open_value[there]
        open_value[np.arange(len(rows)), best] = np.inf
        loss = open_value.min(axis=1) - least  # infinite where it is the last cell with room
        wanted = near[rows, best]
        order = np.lexsort((rows, -loss, wanted))
        rank = np.arange(len(order)) - np.searchsorted(wanted[order], wanted[order])
        taken = order[rank < room[wanted[order]]]
        cells[rows[taken]] = wanted[taken]
        room -= np.bincount(wanted[taken], minlength=len(room))
        rows = np.delete(rows, taken)
    return cells
