"""A plan as one record: what was measured within a budget, and what the surfaces say beyond it."""

from __future__ import annotations

from typing import Any

from genret_dask.fits.frontier import Budget, best, cheapest, frontier, rivals
from genret_dask.fits.outlook import outlooks
from genret_dask.fits.points import number
from genret_dask.fits.series import Means


def plan_record(kind: str, means: Means, budget: Budget, seed: int = 0) -> dict[str, Any]:
    """Everything that a decision asks for; plain JSON values.

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
        identifiers, budget; frontier (within the budget for training, whatever a query costs);
        measured, the best search within the budget, or with a target the cheapest that reaches it,
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
    return {
        "identifiers": kind,
        "budget": {
            "flops": number(budget.flops),
            "train_flops": number(budget.train_flops),
            "target_recall": budget.target,
        },
        "frontier": [item.record() for item in frontier(means, trained)],
        "measured": None if choice is None else choice.record(),
        "rivals": [item.record() for item in others],
        "predicted": [item.record() for item in outlooks(means, budget, kind, seed)],
    }
