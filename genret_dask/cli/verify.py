"""genret-dask verify: what of a run directory is not as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genret_dask.cli.options import path

if TYPE_CHECKING:
    from genret_dask.run.verification import Damage


@click.command()
@click.argument("run", type=path)
@click.pass_context
def verify(ctx: click.Context, run: Path) -> None:
    """Check every chunk of RUN's cube, and every artefact, model and index against its hash.

    Prints a line for each damage and exits with 1 when there is any. RUN may be a URL.
    """
    from genret_dask.run.lease import read_holder

    holder = read_holder(run)
    if holder and not holder.released and not holder.is_gone():
        click.echo(f"in use by {holder}: what it is writing counts as left over", err=True)
    if damages := verified(run):
        click.echo(f"{len(damages)} damaged or left over; genret-dask repair {run} redoes them")
        ctx.exit(1)
    click.echo("all is as it was written")


def verified(run: Path) -> list[Damage]:
    """Verify with progress on the terminal, and print a line for each damage."""
    from genret_dask.cli.progress import ProgressBars
    from genret_dask.run.verification import verify_run

    with ProgressBars() as progress:
        damages = verify_run(run, lambda done, total: progress("verify", done, total))
    for damage in damages:
        click.echo(str(damage))
    return damages
