"""Compare families at matched N, D or FLOPs, identifier kinds, and one model with another.

Every difference is of the same resampled queries on both sides, so that what makes a query hard for
all models drops out of its interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.errors import InputError
from genret_dask.fits.points import Estimate
from genret_dask.fits.series import Means, groups_of, means_of, pareto, recall_of
from genret_dask.metrics.bootstrap import finite
from genret_dask.metrics.queries import place_in


def better(
    values: xr.Dataset,
    first: str,
    second: str,
    *,
    beam: int | None = None,
    draws: int = 1000,
    seed: int = 0,
    metric: str = MAIN_METRIC,
) -> list[dict[str, Any]]:
    """Compare two models of a cube on the same queries.

    Parameters
    ----------
    values : xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    first, second : str
        Names of models.
    beam : int, optional
        For the metric; the largest by default.
    draws, seed : int
        Resamples of the queries.
    metric : str
        A measure of a ranking among the values.

    Returns
    -------
    list of dict
        A record for cgl (lower is better) and for the metric: what was compared, both sides and
        their difference as estimates, `better` (the side's name, or None where the 95 % interval
        of the difference holds 0) and `share`, the share of the resamples in which the first is
        better.

    Raises
    ------
    InputError
        There is no such model or beam.
    """
    means = means_of(values, draws, seed, metric=metric)
    column = place_in(means.beam, means.beam.max() if beam is None else beam, "beam")
    sides = [
        _side(name, means, place_in(means.model, name, "model"), column) for name in (first, second)
    ]
    return list(_both_metrics(sides, {"by": "model"}, metric, means.beam[column]))


def compare_families(means: Means) -> list[dict[str, Any]]:
    """Compare each two families at matched N, D and FLOPs.

    At matched N and D a side's value at an x of the other side is that on the straight line, over
    log x, between its measured neighbours; there is none outside its own range. N is that of the
    models at the family's largest train fraction, D that of the N with most fractions, and the
    metric is at the largest beam. At matched FLOPs it is the measured search with the best metric
    within them.

    Returns
    -------
    list of dict
        As `better` gives them, with ``by`` of "n", "d" or "flops" and the `x` that is matched.
    """
    found: list[dict[str, Any]] = []
    for pair in itertools.combinations(groups_of(means), 2):
        for by, column in (("n", means.n), ("d", means.d)):
            varying = [(name, _varying(means, rows, by)) for name, rows in pair]
            for x in _shared(*(column[rows] for _, rows in varying)):
                sides = []
                for name, rows in varying:
                    weights = _between(np.log(column[rows]), math.log(x))
                    sides.append(_side(name, means, rows, means.widest, weights))
                of = [
                    name + (f" N={means.n[rows[0]]:,.0f}" if by == "d" else "")
                    for name, rows in varying
                ]
                widest = means.beam[means.widest]
                matched = {"by": by, "x": finite(x)}
                found += _both_metrics(sides, matched, means.metric, widest, of=of)
        for budget in _budgets(means, *(rows for _, rows in pair)):
            places = [_bought(means, rows, budget) for _, rows in pair]
            names = [name for name, _ in pair]
            sides = [_side(name, means, *at) for name, at in zip(names, places, strict=True)]
            found.append(
                {
                    "by": "flops",
                    "x": finite(budget),
                    "metric": means.metric,
                    "of": [
                        f"{means.model[row]} beam {means.beam[column]}" for row, column in places
                    ],
                    **_record(sides, means.metric),
                }
            )
    return found


def compare_kinds(
    sets: Mapping[str, xr.Dataset],
    *,
    draws: int = 1000,
    seed: int = 0,
    metric: str = MAIN_METRIC,
) -> list[dict[str, Any]]:
    """Compare identifier kinds, or runs, model by model on the queries that both have.

    Parameters
    ----------
    sets : mapping of name to xarray.Dataset
        Metrics of each query, as `reduce_queries` gives them. Models are matched by name, the
        metric is at the largest beam size that both have.
    draws, seed, metric
        As in `better`.

    Returns
    -------
    list of dict
        As `better` gives them, with ``by`` "identifiers", the `model` and `queries`, how many both
        have. By cgl neither is better where identifiers differ in length or number: each token adds
        to a loss, whatever the model knows.

    Raises
    ------
    InputError
        Two sets have no query in common.
    """
    found: list[dict[str, Any]] = []
    for (first, one), (second, other) in itertools.combinations(sets.items(), 2):
        theirs = set(other["query"].values.tolist())
        queries = [query for query in one["query"].values.tolist() if query in theirs]
        if not queries:
            raise InputError(
                f"{first} and {second} have no query in common",
                expected="runs over the same queries",
            )
        means = [
            means_of(part.sel(query=queries), draws, seed, metric=metric) for part in (one, other)
        ]
        alike = one.attrs.get("extent") == other.attrs.get("extent")
        beam = max(set(means[0].beam.tolist()) & set(means[1].beam.tolist()), default=None)
        for name in means[0].model.tolist():
            if name in means[1].model.tolist():
                sides = []
                for label, part in zip((first, second), means, strict=True):
                    column = None if beam is None else place_in(part.beam, beam, "beam")
                    sides.append(_side(label, part, place_in(part.model, name, "model"), column))
                common = {"by": "identifiers", "model": name, "queries": len(queries)}
                for record in _both_metrics(sides, common, metric, beam):
                    judged = alike or record["metric"] != "cgl"
                    found.append(record if judged else {**record, "better": None})
    return found


_Side = tuple[str, dict[str, tuple[float, np.ndarray]]]
"""A name, and by metric its mean and that of each resample."""


def _side(
    name: str,
    means: Means,
    rows: np.ndarray | int,
    column: int | None,
    weights: np.ndarray | None = None,
) -> _Side:
    """A single model, or a weighted mean of several; without metric where there is no beam."""
    rows = np.atleast_1d(rows)
    weights = np.ones(1) if weights is None else weights
    found = {"cgl": (float(means.cgl[rows] @ weights), means.cgl_draws[:, rows] @ weights)}
    if column is not None:
        value = float(recall_of(means.error[rows, column] @ weights))
        found[means.metric] = value, recall_of(means.error_draws[:, rows, column] @ weights)
    return name, found


def _both_metrics(
    sides: Sequence[_Side], common: Mapping[str, Any], metric: str, beam: int | None, **more: Any
) -> Iterator[dict[str, Any]]:
    """Records of CGL, and of the other metric where there is a beam."""
    yield {**common, "metric": "cgl", **more, **_record(sides, "cgl")}
    if beam is not None:
        yield {**common, "metric": metric, **more, "beam": int(beam), **_record(sides, metric)}


def _record(sides: Sequence[_Side], metric: str) -> dict[str, Any]:
    names = [name for name, _ in sides]
    (first, draws), (second, others) = (values[metric] for _, values in sides)
    change = draws - others
    change = change[np.isfinite(change)]
    difference = Estimate.of(first - second, change)
    sign = -1 if metric == "cgl" else 1
    winner = None
    if math.isfinite(difference.low) and (difference.low > 0 or difference.high < 0):
        winner = names[0] if sign * difference.value > 0 else names[1]
    share = (sign * change > 0).mean() + (change == 0).mean() / 2 if len(change) else math.nan
    return {
        "sides": names,
        "first": Estimate.of(first, draws).record(),
        "second": Estimate.of(second, others).record(),
        "difference": difference.record(),
        "better": winner,
        "share": finite(share),
    }


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
        costs.append(flops[pareto(flops, means.error[rows].ravel())])
    both = np.unique(np.concatenate(costs))
    return both[both >= max(cost.min(initial=np.inf) for cost in costs)]


def _bought(means: Means, rows: np.ndarray, budget: float) -> tuple[int, int]:
    flops = means.flops[rows].ravel()
    place = pareto(np.where(flops <= budget, flops, np.nan), means.error[rows].ravel())[-1]
    row, column = divmod(int(place), len(means.beam))
    return int(rows[row]), column
