"""Options that the commands which run a study share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genret_dask.cli.progress import ProgressBars
from genret_dask.specs import SweepSpec, load_spec, validate

if TYPE_CHECKING:
    from genret_dask.study import Study

_OPTIONS = (
    click.option(
        "--cluster",
        "cluster_file",
        required=True,
        type=click.Path(path_type=Path),
        help="YAML of the Dask cluster to run on; see cluster_specs/.",
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="YAML of the study; without it, the pydoc study with small models.",
    ),
    click.option("--name", help="Name of the run directory, instead of the config's."),
    click.option(
        "--runs",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        show_default=True,
        help="Where run directories are.",
    ),
)


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --cluster, --config, --name and --runs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def resample_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --draws and --seed."""
    draws = click.option(
        "--draws",
        type=click.IntRange(min=1),
        default=1000,
        show_default=True,
        help="Bootstrap resamples.",
    )
    seed = click.option("--seed", default=0, show_default=True, help="Of the resamples.")
    return draws(seed(command))


def read_spec(config_file: Path | None, name: str | None, memory: str | None = None) -> SweepSpec:
    """The study that the options describe."""
    spec = load_spec(config_file) if config_file else SweepSpec()
    if name is not None:
        spec = validate(SweepSpec, {**spec.model_dump(), "name": name}, source="--name")
    if memory is not None:
        inference = {**spec.inference.model_dump(), "memory": memory}
        content = {**spec.model_dump(), "inference": inference}
        spec = validate(SweepSpec, content, source="--memory")
    return spec


@contextmanager
def running_study(
    cluster_file: Path,
    config_file: Path | None,
    name: str | None,
    runs: Path,
    memory: str | None = None,
) -> Iterator[Study]:
    """A study connected to its cluster, with progress on the terminal."""
    spec = read_spec(config_file, name, memory)
    from genret_dask.clusters import connect, load_cluster_spec
    from genret_dask.lease import Lease

    cluster = load_cluster_spec(cluster_file)
    from genret_dask.study import Study

    lease = Lease(runs / spec.name)
    with lease, _dask_hushed(), connect(cluster) as client, ProgressBars() as progress:
        workers = client.nthreads()
        click.echo(f"run        {runs / spec.name}", err=True)
        click.echo(f"dashboard  {client.dashboard_link or 'none'}", err=True)
        click.echo(
            f"workers    {len(workers)} with {sum(workers.values())} threads in all", err=True
        )
        yield Study(
            spec,
            client,
            runs=runs,
            progress=progress,
            lost_timeout=cluster.lost_timeout,
            lease=lease,
        )


@contextmanager
def _dask_hushed() -> Iterator[None]:
    """Leave a cluster's end to our own messages: Dask tells of it in tracebacks. Not with -vv."""
    import distributed  # noqa: F401 - sets levels of its own when it is imported

    names = ("distributed.client", "asyncio", "tornado.application")
    loggers = [logging.getLogger(name) for name in names]
    if logging.getLogger("genret_dask").level <= logging.DEBUG:
        loggers = []
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
