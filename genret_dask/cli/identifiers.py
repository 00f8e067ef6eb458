"""genret-dask identifiers: what the identifiers of a run are like, whatever model uses them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from genret_dask.cli.options import path


@click.command()
@click.argument("run", type=path)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def identifiers(run: Path, as_json: bool) -> None:
    """Describe the identifiers of RUN: lengths, entropies, unused codes, shared prefixes."""
    from genret_dask.cli.tables import columns, facts_table, format_table
    from genret_dask.kinds.diagnosing import diagnose
    from genret_dask.redaction import printable, printable_json
    from genret_dask.run.spec import read_run_spec
    from genret_dask.storage.layout import RunLayout
    from genret_dask.storage.places import place_of

    found = diagnose(RunLayout(place_of(run)), read_run_spec(run))
    if as_json:
        spaces = [
            {"identifiers": one.identifiers, "tokenizer": one.tokenizer, **asdict(one.diagnosis)}
            for one in found
        ]
        click.echo(printable_json(spaces))
        return
    headings = columns(
        "level; cells; dead; entropy=entropy, bits; entropy_of_equals=at most; prefixes;"
        "group_mean=documents each; group_median=median; group_largest=most"
    )
    parts = []
    for one in found:
        parts.append(f"{printable(one.title)}\n{facts_table(one.diagnosis.facts)}")
        if one.diagnosis.levels:
            parts.append(format_table(one.diagnosis.levels, headings))
    click.echo("\n\n".join(parts))
