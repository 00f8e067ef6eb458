"""Which of a search's children each beam size keeps."""

from __future__ import annotations

import numpy as np

from genret_dask.inference.rows import Children, Rows
from genret_dask.monitoring.meter import phase


@phase("select")
def select(
    rows: Rows | Children, member: np.ndarray, sizes: np.ndarray, leave: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose, for each beam size, the best of its own.

    Parameters
    ----------
    rows : Rows or Children
        Of those that score the same, the one in front is chosen.
    member : bool[beams, rows]
        Whose they are.
    sizes : int64[beams]
    leave : bool
        Whether those that have ended leave the beam: they are chosen where they are among the best
        of all, and take no place from the others.

    Returns
    -------
    chosen : int64[n]
        Rows that any beam size keeps, ascending.
    member : bool[beams, n]
        Which keep them.
    slot : int64[n]
        Place of each that has not ended among those of its query, the best first.
    """
    contenders = _contenders(rows, member, sizes, leave)
    query = rows.query[contenders]
    order = np.lexsort((-rows.score[contenders], query))
    ranked = contenders[order]
    stays = ~rows.ended[ranked]
    held, first = member.take(ranked, axis=1), np.searchsorted(query, query)
    best = _places(held, first) <= sizes[:, None]
    if leave:
        best |= stays & (_places(held & stays, first) <= sizes[:, None])
    held &= best
    kept = np.logical_or.reduce(held)
    # From the order of scores back to that of the rows.
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    place = place[kept[place]]
    slot = _places((kept & stays)[None], first)[0] - 1
    return ranked[place], held.take(place, axis=1), slot[place]


def _contenders(
    rows: Rows | Children, member: np.ndarray, sizes: np.ndarray, leave: bool
) -> np.ndarray:
    """List the rows that score as much as the worst that some beam size keeps, and few others."""
    queries = int(rows.query[-1]) + 1 if len(rows.query) else 0
    contends = np.zeros(len(rows.query), dtype=bool)
    for mine, size in zip(member, sizes, strict=True):
        held = np.flatnonzero(mine)
        query, score = rows.query[held], rows.score[held]
        stays = ~rows.ended[held] if leave else slice(None)
        least = kth_best(query[stays], score[stays], int(size), queries)
        contends[held[score >= least[query]]] = True
    return np.flatnonzero(contends)


def _places(counted: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Count, for each column, those of its query up to it; int64[beams, columns].

    Parameters
    ----------
    counted : bool[beams, columns]
    first : int64[columns]
        First column of each column's query.
    """
    counts = np.cumsum(counted, axis=1)
    return counts - np.where(first > 0, counts.take(first - 1, axis=1), 0)


def kth_best(query: np.ndarray, score: np.ndarray, k: int, queries: int) -> np.ndarray:
    """The k-th highest score of each query, -inf where it has fewer; float64[queries].

    Takes linear time, so that only the few that reach it need sorting.

    Parameters
    ----------
    query : int64[n]
        Ascending.
    score : float64[n]
    """
    first = np.searchsorted(query, np.arange(queries))
    width = int(np.diff(np.append(first, len(query))).max(initial=0))
    if width < k:
        return np.full(queries, -np.inf)
    table = np.full((queries, width), -np.inf)
    table[query, np.arange(len(query)) - first[query]] = score
    return np.partition(table, width - k, axis=1)[:, width - k]
