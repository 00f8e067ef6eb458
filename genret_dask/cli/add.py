"""genret-dask add: documents that came after the training."""

from __future__ import annotations

from pathlib import Path

import click

from genret_dask.cli.options import cluster_option, path, running


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.argument("added", metavar="FILE", type=path)
@cluster_option
@click.option("--name", help="Of the new run's directory; RUN-grown by default.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the new run's directory is; beside RUN by default.",
)
def add(run: Path, added: Path, cluster_file: Path, name: str | None, runs: Path | None) -> None:
    """Search RUN's models over its documents and those of FILE, and tell both apart.

    FILE has documents like a BEIR folder's corpus.jsonl, or is such a folder, whose queries and
    qrels are added too. Nothing is trained: new documents get codes by the centroids of the old
    ones, and n-grams and titles by their text. RUN stays as it is; the result is a run of its own.
    """
    from genret_dask.cli.metrics import records_apart
    from genret_dask.cli.tables import METRIC_COLUMNS, metrics_table
    from genret_dask.cube.open import open_cube
    from genret_dask.run.spec import read_run_spec
    from genret_dask.specs.sweep import spec_of

    known = read_run_spec(run).baselines
    kept = None if known is None else [one for one in known if one.kind != "run"]
    content = {
        "name": name or f"{run.resolve().name}-grown",
        "models_from": run,
        "dataset": {"kind": "grown", "run": run, "path": added},
        "baselines": kept,
    }
    spec = spec_of(content, source="genret-dask add")
    with running(spec, cluster_file, runs or run.resolve().parent) as study:
        cube = study.search()
        study.analyse()
        page = study.report()
        found = records_apart(open_cube(cube), spec.fits.bootstrap, spec.seed)
    click.echo(metrics_table(found, {"documents": "documents", **METRIC_COLUMNS}))
    if {one["documents"] for one in found} == {"before"}:
        click.echo("\nno query asks for an added document: give a folder with queries and qrels")
    click.echo(
        f"\nthe run is {study.folder}; genret-dask metrics --apart prints this again, and "
        f"{page} shows all queries together"
    )
