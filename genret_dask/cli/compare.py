"""genret-dask compare: which family, identifier kind or model is better, on the same queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from genret_dask.cli.options import path, resample_options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=path)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Compare these two models instead; give it twice.",
)
@click.option("--beam", type=click.IntRange(min=1), help="For the recall of two models.")
@click.option("--json", "as_json", is_flag=True, help="Print records instead of a table.")
@resample_options
def compare(
    runs: tuple[Path, ...],
    models: tuple[str, ...],
    beam: int | None,
    as_json: bool,
    draws: int,
    seed: int,
) -> None:
    """Compare the families of each of RUNS, and the identifiers of all kinds and RUNS.

    Differences are of the same queries on both sides, with 95 % bootstrap intervals.
    """
    if models and len(models) != 2:
        raise click.UsageError("give --model twice, or not at all")
    from genret_dask.cli.tables import compare_table
    from genret_dask.fits import better, compare_families, compare_kinds, means_of

    sets, found = {}, []
    for run in runs:
        for kind, values in errors_of(run):
            name = kind if len(runs) == 1 else f"{run.name}/{kind}"
            sets[name] = values
            records: list[dict[str, Any]]
            if models:
                records = better(values, *models, beam=beam, draws=draws, seed=seed)
            else:
                records = compare_families(means_of(values, draws, seed))
            found += [{"set": name, **record} for record in records]
    if not models:
        found += [{"set": "", **record} for record in compare_kinds(sets, draws=draws, seed=seed)]
    click.echo(json.dumps(found, indent=1) if as_json else compare_table(found))


def errors_of(run: Path) -> Iterator[tuple[str, Any]]:
    """The search error of every model and query of a run's cube, by identifier kind."""
    from genret_dask.cube.open import kinds, open_cube
    from genret_dask.fits.series import ERROR
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.ranking import MEASURES

    for kind, search, contrast in kinds(open_cube(run)):
        yield kind, reduce_queries(search, contrast, {ERROR: MEASURES[ERROR]})
