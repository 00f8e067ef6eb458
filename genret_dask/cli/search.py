"""genret-dask search: ask a model, of a run or by its folder, any queries."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import path
from genret_dask.cli.progress import ProgressBars

if TYPE_CHECKING:
    from genret_dask.datasets.asked import Asked
    from genret_dask.run.retriever import Found

_SHOWN = 5  # documents of a query on a terminal


@click.command()
@click.argument("place", metavar="RUN_OR_MODEL", type=path)
@click.option(
    "--queries",
    "source",
    required=True,
    metavar="FILE|-",
    help="JSON lines of _id and text, lines of id, tab and text, or a query a line; - is typed.",
)
@click.option("--model", help="Of a run with several.")
@click.option("--identifiers", metavar="NAME", help="Of a model that generates several.")
@click.option("--beam", default=20, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--top", type=click.IntRange(min=1), help="Documents of a query; all that the beam finds."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE|-",
    help="A trec run, or with the ending .jsonl a record a query, which - prints; by default a few "
    "are shown.",
)
@click.option("--provider", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--threads", type=click.IntRange(min=1), help="Of ONNX Runtime; all cores.")
@click.option("--memory", metavar="SIZE", help="What a process may hold, as 4GB; 60 % of it.")
@click.option(
    "--cluster",
    "cluster_file",
    type=click.Path(path_type=Path),
    help="YAML of a Dask cluster whose workers search, where they see RUN_OR_MODEL.",
)
def search(
    place: Path,
    source: str,
    model: str | None,
    identifiers: str | None,
    beam: int,
    top: int | None,
    output: Path | None,
    cluster_file: Path | None,
    **how: Any,
) -> None:
    """Search with a model of a run, or with a model's folder wherever it was copied to."""
    from genret_dask.datasets.asked import read_queries
    from genret_dask.run.carried import Place
    from genret_dask.run.searching import Search, json_lines, write_found

    asked = read_queries(sys.stdin if source == "-" else Path(source))
    searching = Search(Place.of(place, model, identifiers), beam, top, how)
    searching.check(asked.texts, output)
    with ExitStack() as stack:
        bars, client = stack.enter_context(ProgressBars()), None
        if cluster_file is not None:
            from genret_dask.clusters import connect, load_cluster_spec

            client = stack.enter_context(connect(load_cluster_spec(cluster_file)))
        found = searching.run(asked.texts, client, partial(bars, "search"))
    if output is None:
        click.echo(_shown(asked, found))
    elif str(output) == "-":
        for line in json_lines(asked, found):
            click.echo(line)
    else:
        write_found(asked, found, output, beam)
        click.echo(f"{len(asked.ids)} queries: {output}", err=True)


def _shown(asked: Asked, found: Found) -> str:
    from genret_dask.datasets.words import one_line
    from genret_dask.redaction import printable

    lines = []
    for name, text, hits in zip(*asked, found, strict=True):
        lines.append(printable(f"{name}  {text}"))
        for rank, hit in enumerate(hits[:_SHOWN], start=1):
            title = hit.title or one_line(hit.text)[:60]
            lines.append(printable(f"  {rank:3}  {hit.score:9.4f}  {hit.id}  {title}"))
        if not hits:
            lines.append("  nothing was found")
    return "\n".join(lines)
