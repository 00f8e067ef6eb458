"""genret-dask plan: the frontier of what was measured, and what to buy within a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from genret_dask.cli.options import resample_options
from genret_dask.cli.places import PLACE


@click.command()
@click.argument("run", type=PLACE)
@click.option("--flops", type=float, default=math.inf, help="FLOPs that a query may cost.")
@click.option("--train-flops", type=float, default=math.inf, help="FLOPs that training may cost.")
@click.option("--target-recall", type=float, help="Recall@10 to reach with the fewest FLOPs.")
@click.option("--json", "as_json", is_flag=True, help="Print records instead of tables.")
@resample_options
def plan(
    run: Path,
    flops: float,
    train_flops: float,
    target_recall: float | None,
    as_json: bool,
    draws: int,
    seed: int,
) -> None:
    """Say which model and beam of RUN to use, and what lies beyond them.

    By measurement: the frontier of recall@10 against FLOPs, the best search within the budget, or
    with --target-recall the cheapest that reaches it. By the fitted surface L(N,D,C): what a model
    that was not trained would reach.
    """
    from genret_dask.cli.plans import plan_text
    from genret_dask.cube import kinds, open_cube
    from genret_dask.fits import Budget, means_of, plan_record
    from genret_dask.fits.series import ERROR
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.ranking import MEASURES

    budget = Budget(flops, train_flops, target_recall)
    budget.check()
    found = []
    for kind, search, contrast in kinds(open_cube(run)):
        values = reduce_queries(search, contrast, {ERROR: MEASURES[ERROR]})
        found.append(plan_record(kind, means_of(values, draws, seed), budget, seed))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo("\n\n".join(plan_text(record) for record in found))
