"""Which is better: families at matched N, D or FLOPs, identifier kinds, and one model or another.

Every difference is of the same resampled queries on both sides, so that what makes a query hard for
all models drops out of its interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.errors import InputError
from genret_dask.fits.pareto import pareto
from genret_dask.fits.points import LEVELS, Estimate, number
from genret_dask.fits.series import ERROR, Means, groups_of, means_of, recall_of


def better(
    values: xr.Dataset,
    first: str,
    second: str,
    *,
    beam: int | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare two models of a cube on the same queries.

    Parameters
    ----------
    values : xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    first, second : str
        Names of models.
    beam : int, optional
        For recall; the largest by default.
    draws, seed : int
        Resamples of the queries.

    Returns
    -------
    list of dict
        A record for cgl (lower is better) and for recall@10: what was compared, both sides and
        their difference as estimates, `better` (the side's name, or None where the 95 % interval
        of the difference holds 0) and `share`, the share of the resamples in which the first is
        better.

    Raises
    ------
    InputError
        There is no such model or beam.
    """
    means = means_of(values, draws, seed)
    rows = {name: _place(means.model, name, "model") for name in (first, second)}
    column = _place(means.beam, means.beam.max() if beam is None else beam, "beam")
    losses = [_Side(name, *_loss(means, rows[name])) for name in (first, second)]
    recalls = [_Side(name, *_recall(means, rows[name], column)) for name in (first, second)]
    beam_size = {"beam": int(means.beam[column])}
    return [
        {"by": "model", "metric": "cgl", **_record(*losses, higher=False)},
        {"by": "model", "metric": ERROR, **beam_size, **_record(*recalls, higher=True)},
    ]


def compare_families(means: Means) -> list[dict[str, Any]]:
    """Compare each two families at matched N, D and FLOPs.

    At matched N and D a side's value at an x of the other side is that on the straight line, over
    log x, between its measured neighbours; there is none outside its own range. N is that of the
    models at the family's largest train fraction, D that of the N with most fractions, and recall
    is at the largest beam. At matched FLOPs it is the measured search with the highest recall
    within them.

    Returns
    -------
    list of dict
        As `better` gives them, with ``by`` of "n", "d" or "flops" and the `x` that is matched.
    """
    found: list[dict[str, Any]] = []
    for (first, one), (second, other) in itertools.combinations(list(groups_of(means)), 2):
        for by, column in (("n", means.n), ("d", means.d)):
            sides = [_varying(means, rows, by) for rows in (one, other)]
            for x in _shared(column[sides[0]], column[sides[1]]):
                found += _matched(means, by, column, x, (first, second), sides)
        for budget in _budgets(means, one, other):
            bought = [_bought(means, rows, budget) for rows in (one, other)]
            pair = [
                _Side(name, *_recall(means, *place))
                for name, place in zip((first, second), bought, strict=True)
            ]
            of = [f"{means.model[row]} beam {means.beam[column]}" for row, column in bought]
            found.append(
                {
                    "by": "flops",
                    "x": number(budget),
                    "metric": ERROR,
                    "of": of,
                    **_record(*pair, higher=True),
                }
            )
    return found


def compare_kinds(
    sets: Mapping[str, xr.Dataset], *, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Compare identifier kinds, or runs, model by model on the queries that both have.

    Parameters
    ----------
    sets : mapping of name to xarray.Dataset
        Metrics of each query, as `reduce_queries` gives them. Models are matched by name, recall is
        at the largest beam size that both have.

    Returns
    -------
    list of dict
        As `better` gives them, with ``by`` "identifiers", the `model` and `queries`, how many both
        have.

    Raises
    ------
    InputError
        Two sets have no query in common.
    """
    found = []
    for (first, one), (second, other) in itertools.combinations(sets.items(), 2):
        theirs = set(other["query"].values.tolist())
        queries = [query for query in one["query"].values.tolist() if query in theirs]
        if not queries:
            raise InputError(
                f"{first} and {second} have no query in common",
                expected="runs over the same queries",
            )
        means = [means_of(part.sel(query=queries), draws, seed) for part in (one, other)]
        names = [name for name in means[0].model.tolist() if name in means[1].model.tolist()]
        beams = sorted(set(means[0].beam.tolist()) & set(means[1].beam.tolist()))
        for name in names:
            rows = [part.model.tolist().index(name) for part in means]
            sides = zip((first, second), means, rows, strict=True)
            places = [(label, part, row) for label, part, row in sides]
            common = {"by": "identifiers", "model": name, "queries": len(queries)}
            losses = [_Side(label, *_loss(part, row)) for label, part, row in places]
            found.append({**common, "metric": "cgl", **_record(*losses, higher=False)})
            if beams:
                recalls = [
                    _Side(label, *_recall(part, row, part.beam.tolist().index(beams[-1])))
                    for label, part, row in places
                ]
                record = _record(*recalls, higher=True)
                found.append({**common, "metric": ERROR, "beam": beams[-1], **record})
    return found


@dataclass(frozen=True)
class _Side:
    """A name, its value, and its value in each resample."""

    name: str
    value: float
    draws: np.ndarray


def _record(first: _Side, second: _Side, *, higher: bool) -> dict[str, Any]:
    change = first.draws - second.draws
    change = change[np.isfinite(change)]
    difference = _estimate(first.value - second.value, change)
    sign = 1 if higher else -1
    winner = None
    if math.isfinite(difference.low) and (difference.low > 0 or difference.high < 0):
        winner = first.name if sign * difference.value > 0 else second.name
    share = (sign * change > 0).mean() + (change == 0).mean() / 2 if len(change) else math.nan
    return {
        "sides": [first.name, second.name],
        "first": _estimate(first.value, first.draws).record(),
        "second": _estimate(second.value, second.draws).record(),
        "difference": difference.record(),
        "better": winner,
        "share": number(share),
    }


def _estimate(value: float, draws: np.ndarray) -> Estimate:
    draws = draws[np.isfinite(draws)]
    if not len(draws) or not math.isfinite(value):
        return Estimate(value)
    low, high = np.quantile(draws, LEVELS)
    return Estimate(value, float(low), float(high))


def _loss(means: Means, row: int) -> tuple[float, np.ndarray]:
    return float(means.cgl[row]), means.cgl_draws[:, row]


def _recall(means: Means, row: int, column: int) -> tuple[float, np.ndarray]:
    draws = recall_of(means.error_draws[:, row, column])
    return float(recall_of(means.error[row, column])), draws


def _place(labels: np.ndarray, wanted: Any, dim: str) -> int:
    known = labels.tolist()
    if wanted not in known:
        raise InputError(
            f"there is no {dim} {wanted!r}", expected=f"one of {', '.join(map(str, known))}"
        )
    return known.index(wanted)


def _varying(means: Means, rows: np.ndarray, by: str) -> np.ndarray:
    """The models of a family that differ in N alone, or in D alone, by rising x."""
    if by == "n":
        rows = rows[means.fraction[rows] == means.fraction[rows].max()]
        return rows[np.argsort(means.n[rows], kind="stable")]
    sizes = {size: rows[means.n[rows] == size] for size in np.unique(means.n[rows])}
    most = max(sizes.values(), key=lambda same: (len(np.unique(means.d[same])), means.n[same[0]]))
    return most[np.argsort(means.d[most], kind="stable")]


def _shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All x of either side that lie within both ranges."""
    low, high = max(first.min(), second.min()), min(first.max(), second.max())
    both = np.unique(np.concatenate([first, second]))
    return both[(both >= low) & (both <= high)]


def _matched(
    means: Means,
    by: str,
    column: np.ndarray,
    x: float,
    names: tuple[str, str],
    sides: list[np.ndarray],
) -> Iterator[dict[str, Any]]:
    widest = int(means.beam.argmax())
    for metric, higher in (("cgl", False), (ERROR, True)):
        pair = []
        for name, rows in zip(names, sides, strict=True):
            weights = _between(np.log(column[rows]), math.log(x))
            if metric == "cgl":
                value = float(means.cgl[rows] @ weights)
                draws = means.cgl_draws[:, rows] @ weights
            else:
                value = float(recall_of(means.error[rows, widest] @ weights))
                draws = recall_of(means.error_draws[:, rows, widest] @ weights)
            pair.append(_Side(name, value, draws))
        beam = {} if metric == "cgl" else {"beam": int(means.beam[widest])}
        fixed = [""] * 2
        if by == "d":
            fixed = [f" N={means.n[rows[0]]:,.0f}" for rows in sides]
        yield {
            "by": by,
            "x": number(x),
            "metric": metric,
            "of": [name + text for name, text in zip(names, fixed, strict=True)],
            **beam,
            **_record(pair[0], pair[1], higher=higher),
        }


def _between(known: np.ndarray, wanted: float) -> np.ndarray:
    """Weights of the neighbours of a place between the first and the last of rising places."""
    weights = np.zeros(len(known))
    right = int(np.searchsorted(known, wanted))
    if right < len(known) and known[right] == wanted:
        weights[right] = 1.0
        return weights
    left = right - 1
    share = (wanted - known[left]) / (known[right] - known[left])
    weights[left], weights[right] = 1 - share, share
    return weights


def _budgets(means: Means, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """FLOPs at which either frontier takes a step and both can buy something."""
    costs = []
    for rows in (one, other):
        flops = means.flops[rows].ravel()
        best = pareto(flops, means.error[rows].ravel())
        if not len(best):
            return np.empty(0)
        costs.append(flops[best])
    low = max(costs[0].min(), costs[1].min())
    both = np.unique(np.concatenate(costs))
    return both[both >= low]


def _bought(means: Means, rows: np.ndarray, budget: float) -> tuple[int, int]:
    flops = means.flops[rows].ravel()
    place = pareto(np.where(flops <= budget, flops, np.nan), means.error[rows].ravel())[-1]
    row, column = divmod(int(place), len(means.beam))
    return int(rows[row]), column
