"""``genret-dask datasets``: list the kinds of collection, show one, validate one."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydantic import ValidationError

from genret_dask.cli.tables import columns, format_table
from genret_dask.datasets import SPLITS, BeirDataset, Collection, Dataset, summary
from genret_dask.datasets.checks import check_usable, list_remarks
from genret_dask.errors import InputError
from genret_dask.redaction import printable
from genret_dask.specs import SweepSpec, load_spec
from genret_dask.specs.registry import entry, names_of


@click.group()
def datasets() -> None:
    """List, show and validate collections."""


@datasets.command(name="list")
def list_kinds() -> None:
    """List the kinds of dataset, what each needs, and the YAML that names it."""
    for kind in names_of("datasets"):
        dataset: type[Dataset] = entry("datasets", kind)
        what = (dataset.__doc__ or "").partition("\n")[0]
        click.secho(kind, bold=True)
        click.echo(f"  {what}\n  needs: {dataset.needs}\n{_indented(dataset.example)}")


@datasets.command()
@click.argument("config_or_kind")
@click.option("--samples", default=3, show_default=True, type=click.IntRange(0))
def show(config_or_kind: str, samples: int) -> None:
    """Summarise a collection and print sample pairs of query and document.

    CONFIG_OR_KIND is a sweep's YAML, a BEIR folder, or pydoc.
    """
    collection = _load(config_or_kind)
    click.echo(_counts(summary(collection)))
    for query, document in sample_pairs(collection, samples):
        click.echo()
        pair = f"{collection.query_ids[query]} -> {collection.document_ids[document]}"
        click.secho(printable(pair), bold=True)
        click.echo("  query:    " + _short(collection.queries[query]))
        click.echo("  document: " + _short(collection.document(document)))


@datasets.command()
@click.argument("config")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def validate(config: str, as_json: bool) -> None:
    """Load a collection; report its counts and what is wrong with it.

    CONFIG is a sweep's YAML, a BEIR folder, or pydoc. Exits with 2 when a sweep can't use it.
    """
    collection = _load(config)
    facts = summary(collection)
    remarks = list_remarks(facts)
    if as_json:
        click.echo(json.dumps(facts | {"remarks": remarks}, indent=2))
    else:
        click.echo(_counts(facts))
        for remark in remarks:
            click.echo(f"note: {remark}")
    spec = load_spec(config) if Path(config).is_file() else SweepSpec()
    check_usable(collection, spec.inference.split, spec.training.pairs)
    if not as_json:
        click.echo("valid")


def dataset_of(source: str) -> Dataset:
    """Return the dataset that a YAML file, a BEIR folder or the word pydoc names."""
    path = Path(source)
    if path.is_dir():
        return BeirDataset(path=path)
    if path.exists():
        return load_spec(path).dataset
    kinds = names_of("datasets")
    if source not in kinds:
        raise InputError(
            f"{source} is neither a file, nor a folder, nor a kind of dataset",
            expected=f"a sweep's YAML, a BEIR folder, or one of {', '.join(kinds)}",
        )
    dataset = entry("datasets", source)
    try:
        found: Dataset = dataset()
    except ValidationError:
        raise InputError(
            f"a {source} dataset needs more than its kind",
            expected=f"a YAML file with {dataset.needs}",
            fix=f"write a file such as\n{_indented(dataset.example, 6).rstrip()}",
        ) from None
    return found


def _indented(text: str, blanks: int = 4) -> str:
    return textwrap.indent(text, " " * blanks) + "\n"


def sample_pairs(collection: Collection, count: int) -> list[tuple[int, int]]:
    """Relevant (query row, document row) pairs, evenly spaced, of the test split if it has any."""
    for split in reversed(SPLITS):
        qrels = collection.qrels[split].relevant()
        if len(qrels):
            rows = np.unique(np.linspace(0, len(qrels) - 1, min(count, len(qrels))).astype(int))
            return [(int(qrels.query[row]), int(qrels.document[row])) for row in rows]
    return []


def _load(source: str) -> Collection:
    spec = dataset_of(source)
    click.echo(f"loading {spec.kind} ...", err=True)
    return spec.load()


def _counts(facts: dict[str, Any]) -> str:
    lines = [
        f"{facts['name']}  content {facts['content_hash']}",
        f"  version    {facts['version']}",
        f"  documents  {facts['documents']:>9,}   {facts['words']['document']:,} words each",
        f"  queries    {facts['queries']:>9,}   {facts['words']['query']:,} words each",
    ]
    if facts["queries_with_answers"]:
        lines.append(
            f"  answered   {facts['queries_with_answers']:>9,}   queries have answer strings"
        )
    splits = [{"split": split, **row} for split, row in facts["splits"].items()]
    table = format_table(splits, columns("split; queries; judgements; relevant; documents"))
    return printable("\n".join([*lines, textwrap.indent(table, "  ")]))


def _short(text: str) -> str:
    return printable(textwrap.shorten(text, width=240, placeholder=" ..."))
