"""genret-dask export: the stages up to exported models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genret_dask.cli.options import running, spec_of, study_options


@click.command()
@study_options
def export(config_file: Path | None, name: str | None, **where: Any) -> None:
    """Export every model of a study to ONNX, training those that are not trained yet."""
    from genret_dask.cli.tables import columns, format_table

    with running(spec_of(config_file, name), **where) as study:
        manifests = study.export()
    shown = "model; family; n_params=N; precision; max_difference=max |difference|; tolerance"
    rows = [
        {"model": model, **dict(manifest), **dict(manifest.parity)}
        for model, manifest in manifests.items()
    ]
    click.echo(format_table(rows, columns(shown)))
    click.echo("difference: in log-probability, against PyTorch")
    click.echo(f"models in {study.folder / 'models'}")
