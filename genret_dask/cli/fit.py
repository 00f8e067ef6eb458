"""genret-dask fit: scaling laws of a cube, or of the points of a CSV file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import metric_option, path, resample_options
from genret_dask.errors import InputError

if TYPE_CHECKING:
    from genret_dask.fits.surface import Loss
    from genret_dask.fits.table import Weights


@click.command()
@click.argument("runs", nargs=-1, type=path)
@click.option(
    "--over",
    type=click.Choice(["documents"]),
    help="Fit laws over the number of documents, of RUNS that differ in dataset.documents.",
)
@click.option(
    "--points",
    "points_file",
    type=click.Path(path_type=Path),
    help="Fit this CSV file instead: columns series, n and/or d and/or c, y, optionally weight.",
)
@click.option("--json", "as_json", is_flag=True, help="Print records instead of a table.")
@click.option(
    "--loss",
    type=click.Choice(["squares", "huber"]),
    default="squares",
    show_default=True,
    help="Least squares on y, or Huber's loss on log y.",
)
@click.option(
    "--weights",
    type=click.Choice(["equal", "variance"]),
    default="equal",
    show_default=True,
    help="Of a run's points: equal, or one over each one's variance.",
)
@metric_option
@click.option("--published", is_flag=True, help="Add the points that the study published.")
@resample_options
def fit(
    runs: tuple[Path, ...],
    over: str | None,
    points_file: Path | None,
    as_json: bool,
    loss: Loss,
    weights: Weights,
    metric: str | None,
    published: bool,
    draws: int,
    seed: int,
) -> None:
    """Fit L(N), L(D), L(N,D), L(C) and L(N,D,C) to a run's cube, or laws to a table of points.

    Of several runs, --over documents fits L(M) to each model: M is the size of the corpus.
    """
    if bool(runs) == (points_file is not None):
        raise click.UsageError("give a run directory, or --points FILE")
    if (over is None) == (len(runs) > 1):
        raise click.UsageError("several runs and --over documents go together")
    from genret_dask.cli.tables import fits_table
    from genret_dask.fits import fit_points, published_points, read_points

    found = []
    if over is not None:
        options: dict[str, Any] = {"loss": loss, "weights": weights, "draws": draws, "seed": seed}
        found += _over_documents(runs, metric, **options)
    elif runs:
        found += _of_run(runs[0], metric, draws, seed, loss=loss, weights=weights)
    points = [] if points_file is None else read_points(points_file)
    points += published_points() if published else []
    found += [fit_points(item, loss=loss, draws=draws, seed=seed).record() for item in points]
    click.echo(json.dumps(found, indent=1) if as_json else fits_table(found))


def _of_run(
    run: Path, metric: str | None, draws: int, seed: int, **options: Any
) -> list[dict[str, Any]]:
    """The records of every law of a run's cube."""
    from genret_dask.cube.open import kinds, open_cube
    from genret_dask.fits import fit_records
    from genret_dask.metrics.reported import main_metric, measure_of

    tree = open_cube(run)
    options["metric"] = main_metric(tree.attrs) if metric is None else metric
    options["measure"] = measure_of(tree, metric)
    return [
        record
        for kind, search, contrast in kinds(tree)
        for record in fit_records(kind, search, contrast, draws, seed, **options)
    ]


def _over_documents(
    runs: tuple[Path, ...], metric: str | None, **options: Any
) -> list[dict[str, Any]]:
    """The records of the laws over the number of documents of several runs."""
    from genret_dask.cli.compare import errors_of
    from genret_dask.cube.open import open_cube
    from genret_dask.fits.over_documents import Run, fit_over_documents

    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("a run is named twice", expected="runs of different numbers of documents")
    metric, reduced = errors_of(runs, metric)
    corpora = []
    for run, values in reduced.items():
        facts = open_cube(run).attrs
        if not {"documents", "spec"} <= {*facts}:
            raise InputError(
                f"the cube of {run} does not tell how many documents it is of",
                expected="cubes that genret-dask sweep wrote",
            )
        corpora.append(Run(int(facts["documents"]), values, facts["spec"]))
    return [fit.record() for fit in fit_over_documents(corpora, metric=metric, **options)]
