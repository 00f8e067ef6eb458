"""genret-dask plan: the frontier of what was measured, and what to buy within a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from genret_dask.cli.compare import errors_of
from genret_dask.cli.options import metric_option, path, resample_options


@click.command()
@click.argument("run", type=path)
@click.option("--flops", type=float, default=math.inf, help="FLOPs that a query may cost.")
@click.option("--train-flops", type=float, default=math.inf, help="FLOPs that training may cost.")
@click.option(
    "--target",
    "--target-recall",
    "target",
    type=float,
    help="Value of the metric to reach with the fewest FLOPs.",
)
@metric_option
@click.option("--json", "as_json", is_flag=True, help="Print records instead of tables.")
@resample_options
def plan(
    run: Path,
    flops: float,
    train_flops: float,
    target: float | None,
    metric: str | None,
    as_json: bool,
    draws: int,
    seed: int,
) -> None:
    """Say which model and beam of RUN to use, and what lies beyond them.

    By measurement: the frontier of the metric against FLOPs, the best search within the budget, or
    with --target the cheapest that reaches it. By the fitted surface L(N,D,C): what a model
    that was not trained would reach.
    """
    from genret_dask.cli.tables import plan_text
    from genret_dask.fits import Budget, means_of, plan_record

    budget = Budget(flops, train_flops, target)
    budget.check()
    metric, reduced = errors_of([run], metric)
    found = [
        plan_record(kind, means_of(values, draws, seed, metric=metric), budget, seed)
        for kind, values in reduced[run].items()
    ]
    text = json.dumps(found, indent=1) if as_json else "\n\n".join(map(plan_text, found))
    click.echo(text)
