"""genret-dask report: one page that shows a run."""

from __future__ import annotations

from pathlib import Path

import click

from genret_dask.cli.options import metric_option, path


@click.command()
@click.argument("run", type=path)
@metric_option
@click.option("--published", is_flag=True, help="Add the points that the study published.")
@click.option(
    "--draws", type=click.IntRange(min=1), help="Bootstrap resamples; the run's own by default."
)
@click.option("--seed", type=int, help="Of the resamples; the run's own by default.")
def report(
    run: Path, metric: str | None, published: bool, draws: int | None, seed: int | None
) -> None:
    """Write RUN/report/index.html, with the figures as SVG files beside it.

    Laws with their points, intervals and asymptotes, families and identifier kinds compared, the
    frontier, the table of laws, worst and best queries, and where it all comes from. The page
    loads nothing from anywhere.
    """
    from genret_dask.report import write_report

    click.echo(write_report(run, metric=metric, published=published, draws=draws, seed=seed))
