"""genret-dask export: the stages up to exported models."""

from __future__ import annotations

import click

from genret_dask.cli.options import StudyOptions, study_options


@click.command()
@study_options
def export(options: StudyOptions) -> None:
    """Export every model of a study to ONNX, training those that are not trained yet."""
    from genret_dask.cli.tables import format_table

    with options.running() as study:
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
