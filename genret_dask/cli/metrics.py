"""genret-dask metrics: one record for each identifier kind, model and beam of a cube."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from genret_dask.cli.options import path, resample_options

_COLUMNS = (
    "model; beam; recall@1=R@1; recall@10=R@10; recall@100=R@100; mrr@10=MRR@10; ndcg@10=nDCG@10;"
    "map@10=MAP@10; queries; cgl=CGL; chance; negatives; flops=FLOPs/query"
)


@click.command()
@click.argument("run", type=path)
@click.option("--json", "as_json", is_flag=True, help="Print records instead of a table.")
@resample_options
def metrics(run: Path, as_json: bool, draws: int, seed: int) -> None:
    """Print the metrics of RUN's cube, each with its 95 % bootstrap interval."""
    from genret_dask.cli.tables import columns, format_table, kinds_told_apart
    from genret_dask.cube.open import kinds, open_cube
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.table import records
    from genret_dask.specs.registry import names_of

    found = [
        record
        for kind, search, contrast in kinds(open_cube(run))
        for record in records(kind, reduce_queries(search, contrast), draws, seed)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    shown = columns(_COLUMNS) | {name: name for name in names_of("metrics")}
    click.echo(format_table(found, kinds_told_apart(found, shown)))
    for line in _without_loss(found):
        click.echo(line)


def _without_loss(records: list[dict[str, Any]]) -> list[str]:
    """What the CGL of a model leaves out: queries without a negative, or without a positive."""
    counts = {(one["identifiers"], one["model"]): one for one in records}
    return [
        f"note: the CGL of {kind}/{model} is of {one['cgl_queries']:,} of {one['queries']:,} "
        "queries; the others lack a negative, or a relevant document with an identifier"
        for (kind, model), one in counts.items()
        if one["cgl_queries"] < one["queries"]
    ]
