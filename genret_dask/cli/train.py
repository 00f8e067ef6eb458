"""genret-dask train: the stages up to trained checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genret_dask.cli.options import running, spec_of, study_options


@click.command()
@study_options
def train(config_file: Path | None, name: str | None, **where: Any) -> None:
    """Train every model of a study that is not trained yet."""
    from genret_dask.cli.tables import format_table

    with running(spec_of(config_file, name), **where) as study:
        records = study.train()
    rows = [
        {
            "model": record["name"],
            "N": record["n_params"],
            "D": record["n_train"],
            "dev loss": record["dev_loss"],
            "FLOPs": record["train_flops"],
            "seconds": record["seconds"],
        }
        for record in records.values()
    ]
    click.echo(format_table(rows))
    click.echo(f"checkpoints in {study.folder / 'checkpoints'}")
