"""Plan within a budget: by what was measured, and beyond that by each family's fitted surface.

The surface says what metric (recall@10 unless told otherwise) a model of N parameters, trained on D
pairs and searched with C FLOPs would have. What it may cost is bounded by three rules that come
from the measured models of the family: what training takes and what the smallest beam takes are
power laws of N and D, and N, C / N stay within a factor `REACH` of what was measured. D stays
within what there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genret_dask.fits.fitting import Fit, fit_points
from genret_dask.fits.frontier import Budget, best, cheapest, frontier, rivals
from genret_dask.fits.points import LEVELS, Estimate, Recorded, plain
from genret_dask.fits.series import Means, groups_of, points_of

REACH = 10.0
"""How far beyond the measured N and C / N a surface is asked."""

_GRID = 121
_CostLaw = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Outlook(Recorded):
    """The model and search that a family's surface promises most of within a budget.

    Attributes
    ----------
    family : str
        And precision, as in the series of the laws.
    n, d, flops, beam : float
        Where the surface is best; the beam size is what others with about that C / N had.
    train_flops : float
    recall : Estimate
        The metric, for a model to be measured.
    needed : Estimate or None
        Where a target was asked for: FLOPs of a query that reach it, with this n and d.
    beyond : tuple of str
        Axes that lie outside what was measured, with the factor.
    r2, points, warnings : float, int, tuple of str
        Of the surface.
    """

    family: str
    n: float
    d: float
    flops: float
    beam: float
    train_flops: float
    recall: Estimate
    needed: Estimate | None
    beyond: tuple[str, ...]
    r2: float
    points: int
    warnings: tuple[str, ...]


def plan_record(kind: str, means: Means, budget: Budget, seed: int = 0) -> dict[str, Any]:
    """Collect what a decision asks for, as plain JSON values.

    Parameters
    ----------
    kind : str
        Identifier kind.
    means : Means
    budget : Budget
    seed : int
        Of the noise of predictions.

    Returns
    -------
    dict
        identifiers, metric, budget; frontier (within the budget for training, whatever a query
        costs); measured, the best search within the budget, or the cheapest that reaches a target,
        None where there is none; rivals, cheaper searches that it does not surely beat; predicted,
        for each family what its surface promises.

    Raises
    ------
    InputError
        The budget makes no sense.
    """
    budget.check()
    trained = Budget(train_flops=budget.train_flops)
    choice = best(means, budget) if budget.target is None else cheapest(means, budget)
    others = [] if choice is None or budget.target is not None else rivals(means, budget, choice)
    found = {
        "identifiers": kind,
        "metric": means.metric,
        "budget": {
            "flops": budget.flops,
            "train_flops": budget.train_flops,
            "target_recall": budget.target,
        },
        "frontier": frontier(means, trained),
        "measured": choice,
        "rivals": others,
        "predicted": outlooks(means, budget, kind, seed),
    }
    return {name: plain(value) for name, value in found.items()}


def outlooks(means: Means, budget: Budget, kind: str = "", seed: int = 0) -> list[Outlook]:
    """Find the best that each family's surface promises within a budget.

    A family without a surface has none.

    With a target, the fewest FLOPs that reach it, and the n and d that do with as little.
    """
    groups = dict(groups_of(means))
    surfaces = [points for points in points_of(means, kind) if "c/n" in points.axes]
    fits = [fit_points(points, seed=seed) for points in surfaces]
    found = [_outlook(means, groups[fit.points.series], budget, fit) for fit in fits if fit.has_law]
    return [outlook for outlook in found if outlook is not None]


def _outlook(means: Means, rows: np.ndarray, budget: Budget, fit: Fit) -> Outlook | None:
    train_cost = _cost_law(means.n[rows], means.d[rows], means.train_flops[rows])
    ratio = means.flops[rows] / means.n[rows, None]
    n, d, c = _candidates(means, rows, budget, train_cost, ratio)
    if not len(n):
        return None
    values = {"n": n, "d": d, "c/n": c / n}
    x = np.stack([values[axis] for axis in fit.points.axes], axis=1)
    error = fit.law.predict(x)[0]
    needed = None
    if budget.target is None:
        place = int(np.lexsort((c, error))[0])
    else:
        wanted = 1 - budget.target
        reach = np.flatnonzero(error <= wanted)
        cheap = reach[np.lexsort((error[reach], c[reach]))]
        place = int(cheap[0] if len(cheap) else error.argmin())
        needed = _needed(fit, x[place], float(n[place]), wanted)
    (estimate,) = fit.predict(x[place], new=True)
    return Outlook(
        family=fit.points.series,
        n=float(n[place]),
        d=float(d[place]),
        flops=float(c[place]),
        beam=_beam(means, ratio, float(c[place] / n[place])),
        train_flops=float(train_cost(n[place], d[place])),
        recall=_complement(estimate),
        needed=needed,
        beyond=_beyond(fit, x[place]),
        r2=fit.r2,
        points=fit.n,
        warnings=fit.warnings,
    )


def _candidates(
    means: Means, rows: np.ndarray, budget: Budget, train_cost: _CostLaw, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n, d and c of what the budget allows."""
    n = np.geomspace(means.n[rows].min(), means.n[rows].max() * REACH, _GRID)
    ends = ratio[:, 0].min(), ratio.max() * REACH
    n, d, per = (
        side.ravel()
        for side in np.meshgrid(n, np.unique(means.d[rows]), np.geomspace(*ends, _GRID))
    )
    # The smallest beam's cost for a parameter falls with N; no search is cheaper than that.
    least = _cost_law(means.n[rows], np.ones(len(rows)), means.flops[rows].min(axis=1))
    c = per * n
    if math.isfinite(budget.flops):
        n, d = np.concatenate([n, n]), np.concatenate([d, d])
        c = np.concatenate([c, np.full(len(c), budget.flops)])
    within = (
        (c <= budget.flops)
        & (c >= least(n, np.ones(len(n))))
        & (c / n <= ends[1])
        & ~(train_cost(n, d) > budget.train_flops)
    )
    return n[within], d[within], c[within]


def _cost_law(n: np.ndarray, d: np.ndarray, cost: np.ndarray) -> _CostLaw:
    """A power law of N and D through measured costs, of the least norm where they do not vary."""
    there = np.isfinite(cost) & (cost > 0) & np.isfinite(d)
    plane = np.array([np.nan, 0.0, 0.0])
    if there.any():
        logs = np.stack([np.log(n[there]), np.log(d[there])], axis=1)
        middle = logs.mean(axis=0)
        log_cost = np.log(cost[there])
        slope = np.linalg.lstsq(logs - middle, log_cost - log_cost.mean(), rcond=1e-9)[0]
        plane = np.array([log_cost.mean() - middle @ slope, *slope])
    return lambda n, d: np.exp(plane[0] + plane[1] * np.log(n) + plane[2] * np.log(d))


def _needed(fit: Fit, here: np.ndarray, n: float, error: float) -> Estimate:
    """FLOPs at which the surface falls to an error; infinite where it never does."""
    place = fit.points.axes.index("c/n")
    value = n * float(_solve(fit.law, here, place, error)[0])
    draws = n * _solve(fit.resampled, here, place, error)
    if not len(draws):
        return Estimate(value)
    low, high = np.quantile(draws, LEVELS, method="nearest")
    return Estimate(value, float(low), float(high))


def _solve(law: Any, here: np.ndarray, place: int, error: float) -> np.ndarray:
    """x of one axis, the others as they are: float64[rows]."""
    power = law.exponent[:, law.power_axis]
    ratio = law.exponent / power[:, None]
    with np.errstate(all="ignore"):
        total = np.maximum(error - law.asymptote, 0.0) ** (1 / power)
        terms = np.exp(ratio * (law.log_scale - np.log(here)))
        rest = total - (terms.sum(axis=1) - terms[:, place])
        x = np.exp(law.log_scale[:, place] - np.log(rest) / ratio[:, place])
    return np.where(law.fitted & (rest > 0), x, np.inf)


def _complement(error: Estimate) -> Estimate:
    """The metric, between 0 and 1."""
    value, low, high = (
        min(max(1 - end, 0.0), 1.0) if math.isfinite(end) else math.nan
        for end in (error.value, error.high, error.low)
    )
    return Estimate(value, low, high)


def _beam(means: Means, ratio: np.ndarray, wanted: float) -> float:
    """Beam size by the logarithms of C / N, on the line through the last two beyond the ends."""
    known, beams = np.log(ratio.mean(axis=0)), np.log(means.beam.astype(np.float64))
    order = np.argsort(known)
    known, beams = known[order], beams[order]
    if len(known) < 2:
        return float(np.exp(beams[0]))
    at = int(np.clip(np.searchsorted(known, np.log(wanted)), 1, len(known) - 1))
    slope = (beams[at] - beams[at - 1]) / max(known[at] - known[at - 1], 1e-12)
    return float(np.exp(max(beams[at] + slope * (np.log(wanted) - known[at]), 0.0)))


def _beyond(fit: Fit, here: np.ndarray) -> tuple[str, ...]:
    found = []
    for axis, value, column in zip(fit.points.axes, here, fit.points.x.T, strict=True):
        factor = max(value / column.max(), column.min() / value)
        if factor > 1.001:
            found.append(f"{axis.upper()} {factor:.3g} times beyond what was measured")
    return tuple(found)
