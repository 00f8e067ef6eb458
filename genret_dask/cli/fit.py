"""genret-dask fit: scaling laws of a cube."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print records instead of a table.")
@click.option("--draws", default=1000, show_default=True, help="Bootstrap resamples.")
@click.option("--seed", default=0, show_default=True, help="Of the resamples.")
def fit(run: Path, as_json: bool, draws: int, seed: int) -> None:
    """Fit L(N), L(D) and recall against FLOPs to RUN's cube."""
    from genret_dask.cli.tables import fits_table
    from genret_dask.cube import kinds, open_cube
    from genret_dask.fits.table import first_fits

    found = [
        record
        for kind, search, contrast in kinds(open_cube(run))
        for record in first_fits(kind, search, contrast, draws, seed)
    ]
    click.echo(json.dumps(found, indent=1) if as_json else fits_table(found))
