"""genret-dask sweep: a whole study, and what came of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import running, spec_of, study_options
from genret_dask.cli.progress import echo
from genret_dask.cli.tables import (
    METRIC_COLUMNS,
    fits_table,
    labelled,
    metrics_table,
    precision_table,
    with_metric,
)

if TYPE_CHECKING:
    from genret_dask.specs import SweepSpec
    from genret_dask.study.preparation import Preparation
    from genret_dask.study.sweep import Study

logger = logging.getLogger(__name__)


@click.command()
@study_options
@click.option(
    "--models-from",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN",
    help="Search a finished run's models with the queries, data and beams of --config; --name "
    "names the new run.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="What a worker process may hold while it searches, as 4GB; by default 60 % of its limit.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option(
    "--redo",
    is_flag=True,
    help="Make anew just what was made from other inputs or settings, instead of refusing it.",
)
def sweep(
    config_file: Path | None,
    name: str | None,
    models_from: Path | None,
    memory: str | None,
    dry_run: bool,
    redo: bool,
    **where: Any,
) -> None:
    """Train, export, search and score every model of a study, into one cube.

    Finished work is kept: the same command goes on where it was stopped, and with more models,
    queries or beams it adds to what is there.
    """
    spec = spec_of(config_file, name, memory, models_from)
    if dry_run:
        _print_plan(spec, where["cluster_file"], where["runs"], redo)
        return
    with running(spec, redo=redo, **where) as study:
        cube = study.search()
        results = study.analyse()
        report = _write_report(study)
        for use in study.memory:
            echo(f"peak memory  {use}")
        _print_results(study, cube, results)
        if report:
            click.echo(f"\nread about it in:\n  {_relative(report)}")


def _write_report(study: Study) -> Path | None:
    """The page, or None: what was computed is worth more than a page about it."""
    try:
        return study.report()
    except Exception as error:
        logger.info("the report failed", exc_info=True)
        echo(
            f"the report could not be written ({type(error).__name__}: {error}); the cube and the "
            f"results are complete, and genret-dask report {_relative(study.folder)} tries again"
        )
        return None


def _print_results(study: Study, cube: Path, results: dict[str, list[dict[str, Any]]]) -> None:
    from genret_dask.cube.store import read_attributes
    from genret_dask.metrics.reported import main_metric

    metric = main_metric(read_attributes(cube))
    shown = with_metric(METRIC_COLUMNS, metric, before="queries")
    parts = [metrics_table(results["metrics"], shown), fits_table(results["fits"])]
    if "precision" in results:
        parts.append(precision_table(results["precision"], metric))
    files = [
        f"\n  {path.name}{'/' if path.is_dir() else ''}"
        for path in sorted(study.folder.iterdir())
        if not path.name.startswith(".")
    ]
    parts.append(f"{_relative(study.folder)}/" + "".join(files))
    opened = f'xr.open_datatree("{_relative(cube)}", engine="zarr", chunks={{}})'
    click.echo("\n\n".join([*parts, f"open it with:\n  {opened}"]))


def _print_plan(spec: SweepSpec, cluster_file: Path, runs: Path, redo: bool) -> None:
    from dask.system import cpu_count
    from dask.utils import format_bytes

    from genret_dask.clusters import load_cluster_spec
    from genret_dask.clusters.keywords import memory_limit
    from genret_dask.storage.places import place_of
    from genret_dask.study.estimate import duration
    from genret_dask.study.origins import Origins
    from genret_dask.study.preview import preview
    from genret_dask.study.survey import cost_of, lines_of, shares_left
    from genret_dask.training.memory import summary

    limit = memory_limit(load_cluster_spec(cluster_file))
    click.echo(f"loading {spec.dataset.kind} ...", err=True)
    origins = Origins(spec, place_of(runs) / spec.name)
    seen = preview(origins, redo=redo, limits={str(cluster_file): limit})
    click.echo("\n".join(lines_of(seen.steps)))
    seen.check()
    stale = [step for step in seen.steps if step.state == "stale"]
    plan, cores, search = seen.estimate, cpu_count(), spec.inference
    prepared = seen.preparation
    left = duration(prepared.seconds(cores) + plan.seconds(cores, shares_left(seen.steps)))
    rows = {
        "anew": cost_of(stale) if stale else None,
        "run": runs / spec.name,
        "documents": f"{plan.documents:,}",
        "queries": f"{plan.queries:,} of the {search.split} split",
        "generating": ", ".join(identifiers.label for identifiers in spec.identifiers),
        "models": f"{len(plan.models)}: {', '.join(plan.models)}",
        "beams": ", ".join(map(str, search.beams)),
        "baselines": ", ".join(one.label for one in origins.baselines) or None,
        "tasks": f"{plan.train_tasks} train, {plan.export_tasks} export, {plan.shards} shards",
        "prepare": _preparation_line(prepared, cores),
        "cube": f"{plan.cube_bytes / 1e6:,.1f} MB before compression",
        "memory": f"{format_bytes(plan.task_bytes)} to decode {search.batch_queries} queries at "
        f"once, {format_bytes(plan.query_bytes)} for one, beside the process and its models; "
        f"budget {search.memory or '60 % of the memory limit'} a worker",
        "FLOPs": f"{plan.train_flops:.2e} to train, {plan.search_flops:.2e} to search",
        "workers": summary(seen.memory) or "nothing is left to be prepared, trained or exported",
        "time": f"about {left} on this machine's {cores} cores (a rough guess; a GPU is far "
        "faster)",
    }
    click.echo(labelled(rows))


def _preparation_line(prepared: Preparation, cores: int) -> str | None:
    """What the preparation takes, in words; None where nothing is left of it."""
    from dask.utils import format_bytes

    from genret_dask.study.estimate import duration

    if not prepared.parts:
        return None
    disk, working = f"{format_bytes(prepared.nbytes)} on disk", prepared.bytes_working
    parts = [
        f"about {duration(prepared.seconds(cores))}",
        f"{disk} ({format_bytes(working)} of it for a while)" if working else disk,
    ]
    if widest := max(part.task_bytes for part in prepared.parts.values()):
        parts.append(f"a task up to {format_bytes(widest)}")
    if prepared.client_bytes > 10**9:
        parts.append(f"this process up to {format_bytes(prepared.client_bytes)}")
    return ", ".join(parts)


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
