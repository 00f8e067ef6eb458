"""genret-dask train: the stages up to trained checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from genret_dask.cli.options import running_study, study_options


@click.command()
@study_options
def train(
    cluster_file: Path, config_file: Path | None, name: str | None, runs: Path, page: Path | None
) -> None:
    """Train every model of a study that is not trained yet."""
    from genret_dask.cli.tables import format_table

    with running_study(cluster_file, config_file, name, runs, page) as study:
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
