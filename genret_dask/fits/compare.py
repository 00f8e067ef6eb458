"""Compare families at matched N, D or FLOPs, identifier kinds, and one model with another.

Every difference is of the same resampled queries on both sides, so that what makes a query hard for
all models drops out of its interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.errors import InputError
from genret_dask.fits.points import Estimate, number
from genret_dask.fits.series import ERROR, Means, groups_of, means_of, pareto, recall_of


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
    column = _place(means.beam, means.beam.max() if beam is None else beam, "beam")
    sides = [
        _Side.of(name, means, _place(means.model, name, "model"), column)
        for name in (first, second)
    ]
    return list(_both_metrics(sides, {"by": "model"}))


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
    for pair in itertools.combinations(groups_of(means), 2):
        for by, column in (("n", means.n), ("d", means.d)):
            varying = [(name, _varying(means, rows, by)) for name, rows in pair]
            for x in _shared(*(column[rows] for _, rows in varying)):
                sides = []
                for name, rows in varying:
                    weights = _between(np.log(column[rows]), math.log(x))
                    sides.append(_Side(name, means, rows, weights, means.widest))
                of = [
                    name + (f" N={means.n[rows[0]]:,.0f}" if by == "d" else "")
                    for name, rows in varying
                ]
                found += _both_metrics(sides, {"by": by, "x": number(x)}, of=of)
        for budget in _budgets(means, *(rows for _, rows in pair)):
            sides = [_Side.of(name, means, *_bought(means, rows, budget)) for name, rows in pair]
            found.append(
                {
                    "by": "flops",
                    "x": number(budget),
                    "metric": ERROR,
                    "of": [f"{means.model[s.rows[0]]} beam {means.beam[s.column]}" for s in sides],
                    **_record(sides, ERROR),
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
    found: list[dict[str, Any]] = []
    for (first, one), (second, other) in itertools.combinations(sets.items(), 2):
        theirs = set(other["query"].values.tolist())
        queries = [query for query in one["query"].values.tolist() if query in theirs]
        if not queries:
            raise InputError(
                f"{first} and {second} have no query in common",
                expected="runs over the same queries",
            )
        means = [means_of(part.sel(query=queries), draws, seed) for part in (one, other)]
        beams = sorted(set(means[0].beam.tolist()) & set(means[1].beam.tolist()))
        columns = [part.beam.tolist().index(beams[-1]) if beams else None for part in means]
        for name in means[0].model.tolist():
            if name in means[1].model.tolist():
                sides = [
                    _Side.of(label, part, _place(part.model, name, "model"), column)
                    for label, part, column in zip((first, second), means, columns, strict=True)
                ]
                common = {"by": "identifiers", "model": name, "queries": len(queries)}
                found += _both_metrics(sides, common)
    return found


@dataclass(frozen=True)
class _Side:
    """A weighted mean of some models, most often of a single one.

    Attributes
    ----------
    name : str
    means : Means
    rows : int array
        Of the models.
    weights : float64 array
        Of those; sum to 1.
    column : int or None
        Of the beam that recall is at; None where there is none to compare.
    """

    name: str
    means: Means
    rows: np.ndarray
    weights: np.ndarray
    column: int | None

    @classmethod
    def of(cls, name: str, means: Means, row: int, column: int | None) -> _Side:
        """Take a single model."""
        return cls(name, means, np.array([row]), np.ones(1), column)

    def values(self, metric: str) -> tuple[float, np.ndarray]:
        """Give the mean of a metric, and that of each resample."""
        means, rows = self.means, self.rows
        if metric == "cgl":
            return float(means.cgl[rows] @ self.weights), means.cgl_draws[:, rows] @ self.weights
        value = float(recall_of(means.error[rows, self.column] @ self.weights))
        return value, recall_of(means.error_draws[:, rows, self.column] @ self.weights)


def _both_metrics(
    sides: Sequence[_Side], common: Mapping[str, Any], **more: Any
) -> Iterator[dict[str, Any]]:
    """Records of CGL, and of recall where there is a beam."""
    yield {**common, "metric": "cgl", **more, **_record(sides, "cgl")}
    if (column := sides[0].column) is not None:
        beam = {"beam": int(sides[0].means.beam[column])}
        yield {**common, "metric": ERROR, **more, **beam, **_record(sides, ERROR)}


def _record(sides: Sequence[_Side], metric: str) -> dict[str, Any]:
    names = [side.name for side in sides]
    (first, draws), (second, others) = (side.values(metric) for side in sides)
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
        "share": number(share),
    }


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
