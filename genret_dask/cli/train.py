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
    from genret_dask.cli.tables import columns, format_table

    with running(spec_of(config_file, name), **where) as study:
        records = study.train()
    shown = "name=model; n_params=N; n_train=D; dev_loss=dev loss; train_flops=FLOPs; seconds"
    click.echo(format_table(list(records.values()), columns(shown)))
    click.echo(f"checkpoints in {study.folder / 'checkpoints'}")
