"""Options that commands share, and the study that they describe."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.progress import ProgressBars, echo
from genret_dask.cli.tables import labelled
from genret_dask.errors import ClusterError, SpecError

if TYPE_CHECKING:
    from distributed import Client

    from genret_dask.specs import SweepSpec
    from genret_dask.study.sweep import Study

logger = logging.getLogger(__name__)


def path(value: str | Path) -> Path:
    """A path as it was given, or an object store's folder by its URL: a type of options.

    Raises
    ------
    InputError
        The URL cannot be taken.
    """
    from genret_dask.storage.places import place_of

    return place_of(value) if "://" in str(value) else Path(value)


cluster_option = click.option(
    "--cluster",
    "cluster_file",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML of the Dask cluster to run on; see cluster_specs/.",
)
_OPTIONS = (
    cluster_option,
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="YAML of the study; without it, the pydoc study with small models.",
    ),
    click.option("--name", help="Name of the run directory, instead of the config's."),
    click.option(
        "--runs",
        type=path,
        default=Path("runs"),
        show_default=True,
        help="Where run directories are: a folder that all workers share, or s3://bucket/folder.",
    ),
    click.option(
        "--performance-report",
        "page",
        metavar="FILE.html",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write Dask's performance report, one page that loads nothing, when the run ends.",
    ),
)


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `spec_of` takes, and --cluster, --runs and --performance-report.

    The latter are named as the parameters of `running`.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def resample_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --draws and --seed."""
    shown = partial(click.option, show_default=True)
    least = click.IntRange(min=1)
    command = shown("--seed", default=0, help="Of the resamples.")(command)
    return shown("--draws", type=least, default=1000, help="Bootstrap resamples.")(command)


metric_option = click.option(
    "--metric",
    help="A measure of rankings, as ndcg@10 or success@20; by default the one that the run's "
    "collection names, else recall@10.",
)


def spec_of(
    config_file: Path | None,
    name: str | None,
    memory: str | None = None,
    models_from: Path | None = None,
) -> SweepSpec:
    """The study of a file, or the pydoc study, with the values of the options in it."""
    from genret_dask.specs import SweepSpec, load_spec
    from genret_dask.specs.sweep import spec_of as built
    from genret_dask.specs.validation import validate

    given: dict[str, Any] = {} if name is None else {"name": name}
    if models_from is not None:
        given["models_from"] = models_from
    if config_file is None:
        spec = built(given, source="--name" if models_from is None else "--models-from")
    elif models_from is not None:
        spec = load_spec(config_file, **given)
    else:
        spec = load_spec(config_file)
        if name is not None:
            spec = validate(SweepSpec, {**spec.model_dump(), "name": name}, source="--name")
    if memory is not None:
        inference = {**spec.inference.model_dump(), "memory": memory}
        content = {**spec.model_dump(), "inference": inference}
        spec = validate(SweepSpec, content, source="--memory")
    return spec


@contextmanager
def running(
    spec: SweepSpec,
    cluster_file: Path,
    runs: Path,
    page: Path | None = None,
    redo: bool = False,
) -> Iterator[Study]:
    """A study connected to its cluster, with progress on the terminal.

    Parameters
    ----------
    cluster_file : Path
    runs : Path
        Where run directories are.
    page : Path or None
        Where Dask's performance report goes.
    redo : bool
        Make stale results anew.
    """
    if page and not page.absolute().parent.is_dir():
        raise SpecError(f"--performance-report {page}: there is no folder {page.parent}")
    from genret_dask.clusters import connect, load_cluster_spec
    from genret_dask.clusters.keywords import memory_limit
    from genret_dask.run.lease import Lease

    cluster = load_cluster_spec(cluster_file)
    from genret_dask.clusters.preflight import check_cluster
    from genret_dask.storage.places import place_of
    from genret_dask.study.sweep import Study

    place = place_of(runs) / spec.name
    lease, bars = Lease(place), ProgressBars()
    limits = {str(cluster_file): memory_limit(cluster)}
    timeout = cluster.lost_timeout
    _hush_dask()
    study = Study(
        spec, runs=runs, progress=bars, lost_timeout=timeout, lease=lease, redo=redo, limits=limits
    )
    with ExitStack() as stack:
        stack.enter_context(_noting_what_is_done(place, spec))
        study.check()  # whatever is refused is refused before anything is written or started
        stack.enter_context(lease)
        stack.enter_context(bars)
        client = study.client = stack.enter_context(connect(cluster))
        if page:
            stack.enter_context(_reported(client, page))
        check_cluster(client, spec, place, newcomers=cluster.address is None)
        workers = client.nthreads()
        rows = {
            "run": runs / spec.name,
            "dashboard": client.dashboard_link or "none",
            "workers": f"{len(workers)} with {sum(workers.values())} threads in all",
        }
        echo(labelled(rows))
        with study.log:
            yield study


@contextmanager
def _noting_what_is_done(run: Path, spec: SweepSpec) -> Iterator[None]:
    """Add to what ends a run before its end, Ctrl-C or a lost cluster, how far the run is."""
    try:
        yield
    except (KeyboardInterrupt, ClusterError) as error:
        from genret_dask.run.status import what_is_done

        error.add_note(what_is_done(run, spec))
        raise


@contextmanager
def _reported(client: Client, page: Path) -> Iterator[None]:
    """Have Dask write its performance report at the end; a run is worth more than its report."""
    from distributed import performance_report

    report: Any = performance_report(filename=str(page), mode="inline")
    with client.as_current():
        report.__enter__()
        try:
            yield
        finally:
            try:
                report.__exit__(None, None, None)
                html = page.read_text(encoding="utf-8")  # Dask's template asks the web for an icon
                page.write_text(re.sub('<link rel="shortcut icon"[^>]*>', "", html), "utf-8")
                echo(f"performance report  {page}")
            except Exception as error:
                logger.info("the performance report failed", exc_info=True)
                reason = f"{type(error).__name__}: {error}"
                echo(f"the performance report {page} could not be written: {reason}")


def _hush_dask() -> None:
    """Leave a cluster's end to our own messages: Dask tells of it in tracebacks. Not with -vv.

    For good: tasks that Dask leaves behind are told of when the process ends.
    """
    from genret_dask.monitoring.quiet import quieten

    if logging.getLogger("genret_dask").level <= logging.DEBUG:
        return
    for name in ("distributed.client", "asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quieten()
