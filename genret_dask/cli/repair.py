"""genret-dask repair: redo what of a run directory is damaged."""

from __future__ import annotations

from pathlib import Path

import click

from genret_dask.cli.options import cluster_option, path, running
from genret_dask.cli.verify import verified


@click.command()
@click.argument("run", type=path)
@cluster_option
@click.pass_context
def repair(ctx: click.Context, run: Path, cluster_file: Path) -> None:
    """Redo just what is damaged in RUN, and remove what writers that died have left."""
    from genret_dask.run.spec import read_run_spec
    from genret_dask.run.verification import verify_run
    from genret_dask.storage.places import place_of
    from genret_dask.study.repair import repair_run

    folder = place_of(run)
    spec = read_run_spec(folder)
    if not verified(run):
        click.echo("all is as it was written")
        return
    spec = spec.model_copy(update={"name": folder.name})
    with running(spec, cluster_file, folder.parent) as study:
        repair_run(study, verify_run(folder))  # again, now that nobody else writes
        study.analyse()
        study.report()
    if damages := verified(run):
        click.echo(f"{len(damages)} are still damaged")
        ctx.exit(1)
    click.echo("repaired: all is as it was written")
