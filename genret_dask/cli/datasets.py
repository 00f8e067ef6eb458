"""``genret-dask datasets``: list the kinds of collection, show one, validate one."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import click
import numpy as np

from genret_dask.datasets import SPLITS, Collection, load, summary
from genret_dask.datasets.checks import check_usable, list_remarks
from genret_dask.errors import InputError
from genret_dask.redaction import printable
from genret_dask.specs import BeirDataset, DatasetSpec, PydocDataset, SweepSpec, load_spec

KINDS = {
    "pydoc": (
        "Docstrings of installed libraries: the summary asks, the rest answers.",
        "the libraries installed; nothing to download",
        "dataset:\n  kind: pydoc\n  libraries: [numpy, scipy]   # default: seven libraries\n"
        "  documents: 2000             # keep this many; default: all",
    ),
    "beir": (
        "A BEIR folder, plain or .gz.",
        "corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv; answers.jsonl optional",
        "dataset:\n  kind: beir\n  path: data/scifact\n"
        "  allow_unknown_ids: false    # true drops judgements of unknown ids",
    ),
    "dpr": (
        "DPR's passages and questions; a passage that holds an answer is relevant.",
        "passages as tsv (id, text, title), questions and answers as csv, plain or .gz",
        "dataset:\n  kind: dpr\n  passages: data/psgs_w100.tsv\n  dev: data/nq-dev.qa.csv"
        "     # train and dev are optional\n  test: data/nq-test.qa.csv",
    ),
    "ir_datasets": (
        "Any id of the ir_datasets catalogue, one for each split.",
        "the network at first use, or the files in IR_DATASETS_HOME",
        "dataset:\n  kind: ir_datasets\n  train: beir/scifact/train  # train and dev are optional\n"
        "  test: beir/scifact/test",
    ),
}


@click.group()
def datasets() -> None:
    """List, show and validate collections."""


@datasets.command(name="list")
def list_kinds() -> None:
    """List the kinds of dataset, what each needs, and the YAML that names it."""
    for kind, (what, needs, example) in KINDS.items():
        click.secho(kind, bold=True)
        click.echo(f"  {what}\n  needs: {needs}\n" + textwrap.indent(example, "    ") + "\n")


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


def dataset_of(source: str) -> DatasetSpec:
    """The dataset that a YAML file, a BEIR folder or the word pydoc names."""
    path = Path(source)
    if path.is_dir():
        return BeirDataset(kind="beir", path=path)
    if path.exists():
        return load_spec(path).dataset
    if source == "pydoc":
        return PydocDataset()
    if source in KINDS:
        raise InputError(
            f"a {source} dataset needs more than its kind",
            expected="a YAML file with " + KINDS[source][1],
            fix="write a file such as\n" + textwrap.indent(KINDS[source][2], "      "),
        )
    raise InputError(
        f"{source} is neither a file, nor a folder, nor a kind of dataset",
        expected=f"a sweep's YAML, a BEIR folder, or one of {', '.join(KINDS)}",
    )


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
    return load(spec)


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
    lines.append(f"  {'split':<9}  {'queries':>9}  {'judgements':>10}  {'relevant':>9}  documents")
    lines += [
        f"  {split:<9}  {row['queries']:>9,}  {row['judgements']:>10,}  {row['relevant']:>9,}"
        f"  {row['documents']:>9,}"
        for split, row in facts["splits"].items()
    ]
    return printable("\n".join(lines))


def _short(text: str) -> str:
    return printable(textwrap.shorten(text, width=240, placeholder=" ..."))
