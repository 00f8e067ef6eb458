"""genret-dask fit: scaling laws of a cube, or of the points of a CSV file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import metric_option, path, resample_options

if TYPE_CHECKING:
    from genret_dask.fits.surface import Loss
    from genret_dask.fits.table import Weights


@click.command()
@click.argument("run", type=path, required=False)
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
    run: Path | None,
    points_file: Path | None,
    as_json: bool,
    loss: Loss,
    weights: Weights,
    metric: str | None,
    published: bool,
    draws: int,
    seed: int,
) -> None:
    """Fit L(N), L(D), L(N,D), L(C) and L(N,D,C) to RUN's cube, or laws to a table of points."""
    if (run is None) == (points_file is None):
        raise click.UsageError("give a run directory, or --points FILE")
    from genret_dask.cli.tables import fits_table
    from genret_dask.cube.open import kinds, open_cube
    from genret_dask.fits import fit_points, fit_records, published_points, read_points
    from genret_dask.metrics.reported import main_metric, measure_of

    found = []
    if run is not None:
        tree = open_cube(run)
        options: dict[str, Any] = {
            "metric": main_metric(tree.attrs) if metric is None else metric,
            "measure": measure_of(tree, metric),
            "loss": loss,
            "weights": weights,
        }
        for kind, search, contrast in kinds(tree):
            found += fit_records(kind, search, contrast, draws, seed, **options)
    points = [] if points_file is None else read_points(points_file)
    points += published_points() if published else []
    found += [fit_points(item, loss=loss, draws=draws, seed=seed).record() for item in points]
    click.echo(json.dumps(found, indent=1) if as_json else fits_table(found))
