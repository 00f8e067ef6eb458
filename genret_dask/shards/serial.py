"""The serial executor: the oracle that the Dask run is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genret_dask.monitoring.log import Event, silent
from genret_dask.monitoring.meter import measured
from genret_dask.shards.resources import Resources
from genret_dask.shards.task import SweepContext, run_shard
from genret_dask.shards.usage import MemoryUse, by_worker

Progress = Callable[[str, float, float], None]


class SerialExecutor:
    """Runs tasks one after the other in this process.

    Parameters
    ----------
    event : callable
        Hears of tasks that are done.
    """

    def __init__(self, event: Event = silent) -> None:
        self.resources = Resources()
        self._event = event

    def map(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Any],
        keys: Sequence[str],
        *,
        cost: Callable[[Any], float] = lambda task: 1.0,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[Any]:
        """Results of `function(task, report)` in the order of the tasks; see `DaskExecutor.map`."""
        total = sum(cost(task) for task in tasks)
        done, results = 0.0, []
        for task, key in zip(tasks, keys, strict=True):

            def report(share: float, base: float = done, weight: float = cost(task)) -> None:
                if progress:
                    progress(base + share * weight, total)

            with measured() as found:
                results.append(function(task, report))
            self._event("task_done", key=key, **found)
            done += cost(task)
            if progress:
                progress(done, total)
        return results

    def search(
        self,
        tasks: Sequence[Any],
        context: SweepContext,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[MemoryUse]:
        """Compute every shard that has no marker; see `DaskExecutor.search`."""
        uses = self.map(
            lambda task, report: run_shard(task, context, self.resources),
            tasks,
            [task.key for task in tasks],
            cost=lambda task: task.queries,
            progress=progress,
        )
        return by_worker(uses)
