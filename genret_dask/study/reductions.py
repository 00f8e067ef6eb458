"""Reduce a sealed cube to small datasets: with threads of this process, or on the cluster.

Threads are faster for a cube that fits a worker, of which each shard takes a few milliseconds. A
larger cube is reduced by tasks of the executor, a few shards each: the cube goes through the
memories of all workers, a shard at a time, and this process gets the values of queries alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr

from genret_dask.cube.open import kinds, open_cube, reading
from genret_dask.errors import CubeError
from genret_dask.executors.protocol import Executor, Report
from genret_dask.metrics.baselines import reduce_baselines
from genret_dask.metrics.queries import per_query
from genret_dask.metrics.reported import main_metric, measures_of
from genret_dask.monitoring.timing import machines_of
from genret_dask.shards.plan import ShardTask, plan_shards, task_key

if TYPE_CHECKING:
    from distributed import Client

SHARDS = 8
"""Shards of a task, which takes a tenth of a second to begin."""

Function = Callable[[xr.Dataset, xr.Dataset], xr.Dataset]
"""Gets the search and contrast datasets of some models and queries; returns a lazy dataset.

A query's values depend on that query alone.
"""


def exceeds_workers(cube_bytes: int, client: Client) -> bool:
    """Tell whether a cube is larger, before compression, than the smallest worker's memory.

    That is its memory limit; where no worker has one, the memory of its host. Without workers that
    tell of either, as those of a client that was closed, no cube is.
    """
    if client.status != "running":
        return False
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    sizes = limits or [machine["memory_bytes"] for machine in machines_of(client)]
    return bool(sizes) and cube_bytes > min(sizes)


class Reductions:
    """The values of a sealed cube that results are made from.

    Parameters
    ----------
    cube : path
    tree : xarray.DataTree
        The cube as `open_cube` opens it.
    executor : Executor, optional
        Reduces the cube by tasks; threads of this process do when left out.
    progress : callable, optional
        Gets the share of the cube that the executor has read; less than 1.

    Attributes
    ----------
    tree : xarray.DataTree
    kinds : dict of str to (search, contrast)
        The lazy datasets of each identifier kind.
    metric : str
        The main metric of the cube.
    """

    def __init__(
        self,
        cube: Path,
        tree: xr.DataTree,
        executor: Executor | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        self.digest: str = tree.attrs["digest"]
        self.metric = main_metric(tree.attrs)
        self.tree, self._measures = tree, measures_of(tree)
        self._per_query = partial(per_query, measures=self._measures)
        self.kinds = {kind: (search, contrast) for kind, search, contrast in kinds(tree)}
        self._cube, self._executor, self._progress = cube, executor, progress
        self._done, self._total = 0, 1 + 2 * sum(len(self._tasks(kind)) for kind in self.kinds)

    @cached_property
    def values(self) -> dict[str, xr.Dataset]:
        """The metrics of each query, by identifier kind; see `genret_dask.metrics.queries`."""
        return {kind: self._reduce("metrics", kind, self._per_query) for kind in self.kinds}

    @cached_property
    def baselines(self) -> xr.Dataset | None:
        """The measures of each query of the baselines, by threads of this process."""
        return reduce_baselines(self.tree, self._measures)

    def rankings(self, kind: str, model: int) -> xr.Dataset:
        """Read the ranked lists of a model at the largest beam: doc and score."""
        return self._reduce("rankings", kind, widest_rankings, model)

    def _reduce(
        self, name: str, kind: str, function: Function, model: int | None = None
    ) -> xr.Dataset:
        rows = slice(None) if model is None else [model]
        lazy = function(*(dataset.isel(model=rows) for dataset in self.kinds[kind]))
        if self._executor is None:
            with reading(name):
                (computed,) = dask.compute(lazy, scheduler="threads")
            return computed
        tasks = [task for task in self._tasks(kind) if model in (None, task.model)]
        found = self._executor.map(
            partial(_reduce_part, self._cube, self.digest, name, function, _lazy_names(lazy)),
            tasks,
            [task_key(name, kind, task.name, task.model, task.start) for task in tasks],
            progress=lambda done, total: self._progress((self._done + done) / self._total),
        )
        self._done += len(tasks)
        return _joined(lazy, tasks, found)

    def _tasks(self, kind: str) -> list[ShardTask]:
        search, _ = self.kinds[kind]
        names = [str(name) for name in search["model"].values]
        shard = max(search["doc"].chunksizes["query"], default=1)
        return plan_shards(kind, names, search.sizes["query"], SHARDS * shard)


def widest_rankings(search: xr.Dataset, contrast: xr.Dataset) -> xr.Dataset:
    """Return doc and score at the largest beam, which stays a dimension."""
    return search[["doc", "score"]].isel(beam=[int(np.argmax(search["beam"].values))])


def _lazy_names(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name, one in dataset.variables.items() if one.chunks is not None]


def _reduce_part(
    cube: Path,
    digest: str,
    name: str,
    function: Function,
    variables: Sequence[str],
    task: ShardTask,
    report: Report,
) -> dict[str, np.ndarray]:
    """On the worker: compute some variables of a function of a few shards."""
    with reading(name):
        rows: Any = {"model": [task.model], "query": slice(task.start, task.stop)}
        parts = [dataset.isel(rows) for dataset in _opened(cube, digest)[task.kind]]
        found = function(*parts).compute(scheduler="sync")
    return {variable: found[variable].values for variable in variables}


@lru_cache(maxsize=1)
def _opened(cube: Path, digest: str) -> dict[str, tuple[xr.Dataset, xr.Dataset]]:
    """Open a cube once in a process; read its candidates, a single chunk of all queries."""
    tree = open_cube(cube)
    if tree.attrs["digest"] != digest:
        raise CubeError(
            f"a worker finds another cube at {cube}",
            expected="the cube that the study wrote",
            fix="have all machines mount the same run directory",
        )
    found = {}
    for kind, search, contrast in kinds(tree):
        for name, values in contrast.data_vars.items():
            if "model" not in values.dims:
                contrast.variables[name].load(scheduler="sync")
        found[kind] = search, contrast
    return found


def _joined(
    lazy: xr.Dataset, tasks: Sequence[ShardTask], found: Sequence[dict[str, np.ndarray]]
) -> xr.Dataset:
    """Put the variables that tasks computed into a dataset, in place of its lazy ones."""
    first = tasks[0].model
    whole = {
        name: lazy.variables[name].copy(data=np.empty(lazy.variables[name].shape, values.dtype))
        for name, values in found[0].items()
    }
    for task, values in zip(tasks, found, strict=True):
        row = task.model - first
        place = {"model": slice(row, row + 1), "query": slice(task.start, task.stop)}
        for name, variable in whole.items():
            rows = {dim: one for dim, one in place.items() if dim in variable.dims}
            variable[rows] = values[name]
    facts = {name: variable for name, variable in whole.items() if name in lazy.coords}
    return lazy.assign_coords(facts).assign(
        {name: variable for name, variable in whole.items() if name not in facts}
    )
