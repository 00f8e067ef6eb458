"""genret-dask export: the stages up to exported models."""

from __future__ import annotations

from pathlib import Path

import click

from genret_dask.cli.options import running_study, study_options


@click.command()
@study_options
def export(
    cluster_file: Path, config_file: Path | None, name: str | None, runs: Path, page: Path | None
) -> None:
    """Export every model of a study to ONNX, training those that are not trained yet."""
    from genret_dask.cli.tables import format_table

    with running_study(cluster_file, config_file, name, runs, page) as study:
        manifests = study.export()
    rows = [
        {
            "model": model,
            "family": manifest.family,
            "N": manifest.n_params,
            "precision": manifest.precision,
            "max |difference|": manifest.parity.max_difference,
            "tolerance": manifest.parity.tolerance,
        }
        for model, manifest in manifests.items()
    ]
    click.echo(format_table(rows))
    click.echo("difference: in log-probability, against PyTorch")
    click.echo(f"models in {study.folder / 'models'}")
