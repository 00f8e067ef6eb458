"""Choose a model and beam: the frontier of what was measured, and the best within a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.points import LEVELS, Estimate, Recorded
from genret_dask.fits.series import Means, pareto, recall_of


@dataclass(frozen=True)
class Choice(Recorded):
    """A model searched with a beam size.

    Attributes
    ----------
    model, beam : str, int
    flops, train_flops : float
        Of a query, and of training the model.
    recall : Estimate
        Mean of the metric, which is recall@10 unless the collection or the user says otherwise.
    stable : float
        Share of the resamples in which it is what it is here: on the frontier, or the best.
    """

    model: str
    beam: int
    flops: float
    train_flops: float
    recall: Estimate
    stable: float


@dataclass(frozen=True)
class Budget:
    """What may be spent, and what is wanted.

    Attributes
    ----------
    flops, train_flops : float
        Of a query, and of training; infinite where nothing is said.
    target : float, optional
        Value of the metric to reach.
    """

    flops: float = math.inf
    train_flops: float = math.inf
    target: float | None = None

    def check(self) -> None:
        """Raise `InputError` where a figure makes no sense."""
        for name, value in (("FLOPs", self.flops), ("training FLOPs", self.train_flops)):
            if not value > 0:
                raise InputError(f"the budget of {name} is {value}", expected="a number above 0")
        if self.target is not None and not 0 < self.target <= 1:
            raise InputError(f"the target is {self.target}", expected="a number above 0, at most 1")


def frontier(means: Means, budget: Budget | None = None) -> list[Choice]:
    """List the searches that no other one beats with as few FLOPs, by rising FLOPs.

    Parameters
    ----------
    means : Means
    budget : Budget, optional
        Leaves out models that cost more to train, and searches that cost more.
    """
    cost, error, draws = _searches(means, budget or Budget())
    rows = pareto(cost, error)
    on = np.zeros(len(cost))
    for draw in draws:
        on[pareto(cost, draw)] += 1
    return [_choice(means, int(row), on[row] / max(len(draws), 1)) for row in rows]


def best(means: Means, budget: Budget) -> Choice | None:
    """Find the search with the best metric within a budget, the cheaper one of equals.

    None where nothing that was measured is within the budget.
    """
    cost, error, draws = _searches(means, budget)
    rows = pareto(cost, error)
    if not len(rows):
        return None
    row = int(rows[-1])
    winners = [pareto(cost, draw)[-1] for draw in draws]
    return _choice(means, row, float(np.mean(np.array(winners) == row)) if winners else math.nan)


def cheapest(means: Means, budget: Budget) -> Choice | None:
    """Find the search with the fewest FLOPs whose mean metric reaches the budget's target.

    Its `stable` is the share of the resamples in which it reaches the target. None where nothing
    that was measured does.
    """
    if budget.target is None:
        raise InputError("there is no target", expected="a target in the budget")
    cost, error, draws = _searches(means, budget)
    # As a mean of counts may lie a rounding error above its decimal.
    reach = np.flatnonzero(np.isfinite(cost) & (error <= 1 - budget.target + 1e-12))
    if not len(reach):
        return None
    row = int(reach[np.lexsort((error[reach], cost[reach]))[0]])
    reached = (draws[:, row] <= 1 - budget.target + 1e-12).mean() if len(draws) else math.nan
    return _choice(means, row, float(reached))


def rivals(means: Means, budget: Budget, choice: Choice) -> list[Choice]:
    """List cheaper searches within the budget that the choice does not surely beat.

    They come by rising FLOPs: those where the 95 % interval of the paired difference in the metric
    holds 0. `stable` is the share of resamples in which one is at least as good.
    """
    cost, error, draws = _searches(means, budget)
    model, beams = means.model.tolist().index(choice.model), means.beam.tolist()
    chosen = model * len(beams) + beams.index(choice.beam)
    found = []
    for row in pareto(cost, error):
        change = draws[:, chosen] - draws[:, row]
        if row != chosen and cost[row] < cost[chosen] and np.quantile(change, LEVELS[1]) >= 0:
            found.append(_choice(means, int(row), float((change >= 0).mean())))
    return found


def _searches(means: Means, budget: Budget) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cost, error and error in each resample, by model and beam; NaN as the cost beyond the budget.

    Resamples that lack a measured search are left out.
    """
    beams = len(means.beam)
    train = np.repeat(means.train_flops, beams)
    cost = means.flops.ravel().astype(np.float64)
    known = np.isfinite(train) | math.isinf(budget.train_flops)
    within = (cost <= budget.flops) & known & ~(train > budget.train_flops)
    draws = means.error_draws.reshape(len(means.error_draws), -1)
    draws = draws[np.isfinite(draws[:, np.isfinite(means.error.ravel())]).all(axis=1)]
    return np.where(within, cost, np.nan), means.error.ravel(), draws


def _choice(means: Means, row: int, stable: float) -> Choice:
    model, beam = divmod(row, len(means.beam))
    recall = float(recall_of(means.error[model, beam]))
    return Choice(
        model=str(means.model[model]),
        beam=int(means.beam[beam]),
        flops=float(means.flops[model, beam]),
        train_flops=float(means.train_flops[model]),
        recall=Estimate.of(recall, recall_of(means.error_draws[:, model, beam])),
        stable=float(stable),
    )
