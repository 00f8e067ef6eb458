"""The serial executor: the oracle that the Dask run is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genret_dask.executors.failures import FailureLog, summary
from genret_dask.monitoring.log import Event, silent
from genret_dask.monitoring.meter import measured
from genret_dask.shards.resources import Resources
from genret_dask.shards.task import SweepContext, run_shard
from genret_dask.shards.usage import MemoryUse, Peaks


class SerialExecutor:
    """Runs tasks one after the other in this process.

    Parameters
    ----------
    failures, check, event
        As `DaskExecutor` takes them.
    """

    def __init__(
        self,
        failures: FailureLog | None = None,
        check: Callable[[], None] = lambda: None,
        event: Event = silent,
    ) -> None:
        self.resources, self._event = Resources(), event
        self._failures, self._check = failures or FailureLog(), check

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
        failed: list[tuple[str, BaseException]] = []
        for task, key in zip(tasks, keys, strict=True):
            self._check()

            def report(share: float, base: float = done, weight: float = cost(task)) -> None:
                if progress:
                    progress(base + share * weight, total)

            try:
                with measured() as found:
                    results.append(function(task, report))
                self._failures.discard(key)
                self._event("task_done", key=key, **found)
                done += cost(task)
            except Exception as error:
                failed.append((key, error))
                self._failures.add(key, error, "this process", 1)
                self._event("task_failed", key=key, error=type(error).__name__, text=str(error))
            if progress:
                progress(done, total)
        if failed:
            raise summary(failed, len(tasks)) from failed[0][1]
        return results

    def search(
        self,
        tasks: Sequence[Any],
        context: SweepContext,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[MemoryUse]:
        """Compute every shard that has no marker; see `DaskExecutor.search`."""
        peaks = Peaks()
        self.map(
            lambda task, report: peaks.add(run_shard(task, context, self.resources, report)),
            tasks,
            [task.key for task in tasks],
            cost=lambda task: task.queries,
            progress=progress,
        )
        return peaks.by_worker()
