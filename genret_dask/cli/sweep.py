"""genret-dask sweep: a whole study, and what came of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.options import read_spec, running_study, study_options
from genret_dask.cli.progress import say

if TYPE_CHECKING:
    from genret_dask.specs import SweepSpec
    from genret_dask.study.sweep import Study

logger = logging.getLogger(__name__)


@click.command()
@study_options
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
    cluster_file: Path,
    config_file: Path | None,
    name: str | None,
    runs: Path,
    page: Path | None,
    memory: str | None,
    dry_run: bool,
    redo: bool,
) -> None:
    """Train, export, search and score every model of a study, into one cube.

    Finished work is kept: the same command goes on where it was stopped, and with more models,
    queries or beams it adds to what is there.
    """
    if dry_run:
        _print_plan(cluster_file, read_spec(config_file, name, memory), runs, redo)
        return
    with running_study(cluster_file, config_file, name, runs, page, memory, redo) as study:
        cube = study.search()
        results = study.analyse()
        report = _write_report(study)
        for use in study.memory:
            say(f"peak memory  {use}")
        _print_results(study, cube, results)
        if report:
            click.echo(f"\nread about it in:\n  {_relative(report)}")


def _write_report(study: Study) -> Path | None:
    """The page, or None: what was computed is worth more than a page about it."""
    try:
        return study.report()
    except Exception as error:
        logger.info("the report failed", exc_info=True)
        say(
            f"the report could not be written ({type(error).__name__}: {error}); the cube and the "
            f"results are complete, and genret-dask report {_relative(study.folder)} tries again"
        )
        return None


def _print_results(study: Study, cube: Path, results: dict[str, list[dict[str, Any]]]) -> None:
    from genret_dask.cli.tables import fits_table, metrics_table, precision_table

    click.echo(metrics_table(results["metrics"]))
    click.echo()
    click.echo(fits_table(results["fits"]))
    click.echo()
    if "precision" in results:
        click.echo(precision_table(results["precision"]))
        click.echo()
    click.echo(f"{_relative(study.folder)}/")
    for path in sorted(study.folder.iterdir()):
        if not path.name.startswith("."):
            click.echo(f"  {path.name}{'/' if path.is_dir() else ''}")
    click.echo()
    click.echo("open it with:")
    click.echo(f'  xr.open_datatree("{_relative(cube)}", engine="zarr", chunks={{}})')


def _print_plan(cluster_file: Path, spec: SweepSpec, runs: Path, redo: bool) -> None:
    from dask.utils import format_bytes

    from genret_dask.clusters import load_cluster_spec
    from genret_dask.clusters.keywords import memory_limit, usable_cores
    from genret_dask.storage.places import place_of
    from genret_dask.study.estimate import duration
    from genret_dask.study.origins import Origins
    from genret_dask.study.preview import preview
    from genret_dask.study.survey import cost_of, lines_of, shares_left
    from genret_dask.training.memory import summary

    cluster = load_cluster_spec(cluster_file)
    click.echo(f"loading {spec.dataset.kind} ...", err=True)
    origins = Origins(spec, place_of(runs) / spec.name)
    seen = preview(origins, redo=redo, limits={str(cluster_file): memory_limit(cluster)})
    steps = seen.steps
    for line in lines_of(steps):
        click.echo(line)
    seen.check()
    stale = [step for step in steps if step.state == "stale"]
    if stale:
        click.echo(f"anew       {cost_of(stale)}")
    plan, cores = seen.estimate, usable_cores()
    click.echo(f"run        {runs / spec.name}")
    click.echo(f"documents  {plan.documents:,}")
    click.echo(f"queries    {plan.queries:,} of the {spec.inference.split} split")
    kinds = ", ".join(identifiers.kind for identifiers in spec.identifiers)
    click.echo(f"generating {kinds}")
    click.echo(f"models     {len(plan.models)}: {', '.join(plan.models)}")
    click.echo(f"beams      {', '.join(map(str, spec.inference.beams))}")
    click.echo(
        f"tasks      {plan.train_tasks} train, {plan.export_tasks} export, {plan.shards} shards"
    )
    click.echo(f"cube       {plan.cube_bytes / 1e6:,.1f} MB before compression")
    click.echo(
        f"memory     {format_bytes(plan.task_bytes)} to decode {spec.inference.batch_queries} "
        f"queries at once, {format_bytes(plan.query_bytes)} for one, beside the process and its "
        f"models; budget {spec.inference.memory or '60 % of the memory limit'} a worker"
    )
    click.echo(f"FLOPs      {plan.train_flops:.2e} to train, {plan.search_flops:.2e} to search")
    click.echo(f"workers    {summary(seen.memory) or 'no model is left to be made'}")
    left = duration(plan.seconds(cores, shares_left(steps)))
    click.echo(
        f"time       about {left} on this machine's {cores} cores"
        " (a rough guess; a GPU is far faster)"
    )


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
