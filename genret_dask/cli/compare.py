"""genret-dask compare: which family, identifier kind or model is better, on the same queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import metric_option, path, resample_options
from genret_dask.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@click.command()
@click.argument("runs", nargs=-1, required=True, type=path)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Compare these two models or baselines instead; give it twice.",
)
@click.option("--beam", type=click.IntRange(min=1), help="For the metric of two models.")
@metric_option
@click.option("--json", "as_json", is_flag=True, help="Print records instead of a table.")
@resample_options
def compare(
    runs: tuple[Path, ...],
    models: tuple[str, ...],
    beam: int | None,
    metric: str | None,
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
    metric, reduced = errors_of(runs, metric, baselines=bool(models))
    for run, kinds in reduced.items():
        for kind, values in kinds.items():
            name = kind if len(runs) == 1 else f"{run.name}/{kind}"
            sets[name] = values
            records: list[dict[str, Any]]
            if models:
                records = better(values, *models, beam=beam, draws=draws, seed=seed, metric=metric)
            else:
                records = compare_families(means_of(values, draws, seed, metric=metric))
            found += [{"set": name, **record} for record in records]
    if not models:
        between = compare_kinds(sets, draws=draws, seed=seed, metric=metric)
        found += [{"set": "", **record} for record in between]
    click.echo(json.dumps(found, indent=1) if as_json else compare_table(found))


def errors_of(
    runs: Sequence[Path], metric: str | None, *, baselines: bool = False
) -> tuple[str, dict[Path, dict[str, xr.Dataset]]]:
    """Reduce the cubes of runs to CGL and one metric of every query.

    With `baselines`, these stand beside the models of each identifier kind.

    Returns
    -------
    tuple
        The metric, by default the main one of the runs; and by run and identifier kind the values.

    Raises
    ------
    InputError
        No metric is named, and the runs have different ones.
    """
    from genret_dask.cube.open import kinds, open_cube
    from genret_dask.metrics.baselines import beside_models, reduce_baselines
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.reported import main_metric, measure_of

    trees = {run: open_cube(run) for run in runs}
    own = dict.fromkeys(main_metric(tree.attrs) for tree in trees.values())
    names = list(own) if metric is None else [metric]
    if len(names) > 1:
        raise InputError(
            f"the runs are told by different metrics: {', '.join(names)}",
            expected="one metric",
            fix=f"name it, as in --metric {names[0]}",
        )
    found = {}
    for run, tree in trees.items():
        measure = {names[0]: measure_of(tree, names[0])}
        others = reduce_baselines(tree, measure) if baselines else None
        found[run] = {
            kind: beside_models(reduce_queries(search, contrast, measure), others)
            for kind, search, contrast in kinds(tree)
        }
    return names[0], found
