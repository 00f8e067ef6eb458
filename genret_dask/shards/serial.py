"""The serial executor: the oracle that the Dask run is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genret_dask.shards.resources import Resources
from genret_dask.shards.task import SweepContext, run_shard
from genret_dask.shards.usage import MemoryUse, by_worker

Progress = Callable[[str, float, float], None]


class SerialExecutor:
    """Runs tasks one after the other in this process."""

    def __init__(self) -> None:
        self.resources = Resources()

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
        for task in tasks:

            def report(share: float, base: float = done, weight: float = cost(task)) -> None:
                if progress:
                    progress(base + share * weight, total)

            results.append(function(task, report))
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
