"""genret-dask explain: what a model generates for a query, and where it leads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from genret_dask.cli.options import path
from genret_dask.errors import listed

_SHOWN = 4  # documents of an n-gram, n-grams of a document


@click.command()
@click.argument("run", type=path)
@click.option("--query", required=True, help="Any text.")
@click.option("--model", required=True, help="A model of the run's cube.")
@click.option("--beam", default=10, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--identifiers",
    "kind",
    help="Kind of identifier; by default the one of which a document has most.",
)
@click.option(
    "--top", default=20, show_default=True, type=click.IntRange(min=1), help="Lines of each table."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def explain(
    run: Path, query: str, model: str, beam: int, kind: str | None, top: int, as_json: bool
) -> None:
    """Show what a model of RUN generates for a query, and the documents it leads to."""
    from genret_dask.cli.tables import format_table
    from genret_dask.redaction import printable, printable_json
    from genret_dask.run.explain import explain as search

    found = search(run, query, model, beam, kind)
    if found.beam < beam:
        click.echo(f"beam {beam} is cut to the {found.beam} documents that there are", err=True)
    if as_json:
        click.echo(printable_json(asdict(found)))
        return
    name, weighed = found.noun, any("weight" in one for one in found.identifiers)
    click.echo(printable(f"{found.model}, {found.kind}, beam {found.beam}: {found.query}"))
    click.echo()
    weights = {"weight": "weight", "count": "occurrences"} if weighed else {}
    columns = {"identifier": name, "score": "log-probability", **weights, "documents": "documents"}
    if weighed:
        used = sum(one["weight"] > 0 for one in found.identifiers)
        click.echo(f"{used} of {len(found.identifiers)} {name}s weigh something; by weight:")
        click.echo()
    click.echo(format_table([_line(one) for one in found.identifiers[:top]], columns))
    click.echo()
    columns = {"rank": "rank", "document": "document", "relevant": "", "score": "score"}
    columns |= {"title": "title"} if any(one["title"] for one in found.documents[:top]) else {}
    columns |= {"evidence": f"{name}s"} if weighed else {}
    click.echo(format_table([_line(one) for one in found.documents[:top]], columns))
    if not found.documents:
        click.echo(f"no document: none of the {name}s is likelier to the model than in the corpus")


def _line(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one line: lists cut to the first few."""
    line = dict(record)
    if "identifier" in line:
        line["identifier"] = repr(line["identifier"])
        line["documents"] = listed(line["documents"], _SHOWN)
    else:
        line["relevant"] = "relevant" if line["relevant"] else ""
        line["evidence"] = listed(
            [f"{text!r} {value:.1f}" for text, value in line["evidence"]], _SHOWN
        )
    return line
