"""genret-dask models: the sizes that a study can name."""

from __future__ import annotations

import json

import click

from genret_dask.cli.tables import columns, format_table

_COLUMNS = columns(
    "family; size; n_params=N; parameters=with embeddings; layers; d_model=width; heads; d_ff;"
    "memory=float32"
)


@click.command()
@click.argument("family", required=False)
@click.option(
    "--vocabulary",
    default=4096,
    show_default=True,
    type=click.IntRange(min=3),
    help="Rows of the embeddings: of the tokeniser, the start token and the codes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def models(family: str | None, vocabulary: int, as_json: bool) -> None:
    """List the presets of a FAMILY, or of all, with N: parameters without the embeddings."""
    from dask.utils import format_bytes

    from genret_dask.models.sizes import preset_sizes

    found = preset_sizes(vocabulary, family)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        format_table([{**one, "memory": format_bytes(one["bytes"])} for one in found], _COLUMNS)
    )
