"""genret-dask metrics: one record for each identifier kind, model and beam of a cube."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import path, resample_options

if TYPE_CHECKING:
    import xarray as xr

_COLUMNS = (
    "model; beam; recall@1=R@1; recall@10=R@10; recall@100=R@100; mrr@10=MRR@10; ndcg@10=nDCG@10;"
    "map@10=MAP@10; success@20=S@20; r_precision=R-prec; answer_hits@20; queries; cgl=CGL; chance;"
    "negatives; flops=FLOPs/query"
)


@click.command()
@click.argument("run", type=path)
@click.option(
    "--metric",
    "chosen",
    multiple=True,
    help="Only this measure of rankings, as ndcg@100; give it several times for several.",
)
@click.option(
    "--trec",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write the qrels, and the runs of every model at every beam and of every baseline, there, "
    "for trec tools.",
)
@click.option(
    "--apart",
    "is_apart",
    is_flag=True,
    help="Of a run of `add`: queries for documents that there were, and for added ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print records instead of a table.")
@resample_options
def metrics(
    run: Path,
    chosen: tuple[str, ...],
    trec: Path | None,
    is_apart: bool,
    as_json: bool,
    draws: int,
    seed: int,
) -> None:
    """Print the metrics of RUN's cube, each with its 95 % bootstrap interval.

    A number is the mean over the queries of its line, or over as many as stand behind it.
    """
    from genret_dask.accessor import collection_of
    from genret_dask.cli.tables import columns, metrics_table, with_metric
    from genret_dask.cube.open import kinds, open_cube
    from genret_dask.metrics.apart import BEFORE
    from genret_dask.metrics.baselines import baseline_records, reduce_baselines
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.reported import main_metric, measure_of, measures_of
    from genret_dask.metrics.runs import write_baselines, write_runs
    from genret_dask.metrics.table import records
    from genret_dask.specs.registry import names_of

    tree = open_cube(run)
    measures = {name: measure_of(tree, name) for name in chosen} or measures_of(tree)
    if is_apart:
        found = records_apart(tree, draws, seed, measures)
    else:
        found = [
            record
            for kind, search, contrast in kinds(tree)
            for record in records(kind, reduce_queries(search, contrast, measures), draws, seed)
        ]
        found += baseline_records(reduce_baselines(tree, measures), draws, seed)
    if trec is not None:
        names = collection_of(tree).document_ids
        for kind, search, contrast in kinds(tree):
            write_runs(search, contrast, names, trec / kind)
        write_baselines(tree, names, trec)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    shown = columns(_COLUMNS if not is_apart else f"documents; {_COLUMNS}")
    for name in chosen or [main_metric(tree.attrs), *names_of("metrics")]:
        shown = with_metric(shown, name, before="queries")
    there = {key: heading for key, heading in shown.items() if any(key in one for one in found)}
    click.echo(metrics_table(found, there, intervals=True))
    for line in [*_without_loss(found), *_of_few(found)]:
        click.echo(line)
    if BEFORE in tree.attrs and not is_apart:
        click.echo("note: documents were added to this run's; --apart tells their queries apart")


def _of_few(records: list[dict[str, Any]]) -> list[str]:
    """What stands beside a baseline that has no ranking for some queries, as a run file may."""
    return [
        f"note: the baseline {one['model']} ranks nothing for {one['unanswered']:,} of "
        f"{one['queries']:,} queries, which count as 0"
        for one in records
        if one.get("unanswered")
    ]


def records_apart(
    tree: xr.DataTree, draws: int, seed: int, measures: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the records of queries for documents that there were, and of those for added ones.

    Raises
    ------
    InputError
        Nothing was added to the run's documents.
    """
    from genret_dask.cube.open import kinds
    from genret_dask.metrics.apart import apart
    from genret_dask.metrics.baselines import baseline_records, reduce_baselines
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.reported import measures_of
    from genret_dask.metrics.table import records

    measures = measures or measures_of(tree)
    (_, _, contrast), *_ = kinds(tree)  # queries and their candidates are the same for all
    masks = apart(contrast, tree.attrs)
    of_kinds = {
        kind: reduce_queries(search, contrast, measures).load()
        for kind, search, contrast in kinds(tree)
    }
    baselines, found = reduce_baselines(tree, measures), list[dict[str, Any]]()
    for documents, mask in masks.items():
        if not mask.any():
            continue
        some = [
            record
            for kind, values in of_kinds.items()
            for record in records(kind, values.isel(query=mask), draws, seed)
        ]
        if baselines is not None:
            some += baseline_records(baselines.isel(query=mask), draws, seed)
        found += [{"documents": documents, **one} for one in some]
    return found


def _without_loss(records: list[dict[str, Any]]) -> list[str]:
    """What the CGL of a model leaves out: queries without a negative, or without a positive."""
    counts = {(one["identifiers"], one["model"]): one for one in records}
    return [
        f"note: the CGL of {kind}/{model} is of {one['cgl_queries']:,} of {one['queries']:,} "
        "queries; the others lack a negative, or a relevant document with an identifier"
        for (kind, model), one in counts.items()
        if one["identifiers"] and one["cgl_queries"] < one["queries"]
    ]
