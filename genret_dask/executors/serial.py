"""The serial executor: the oracle that the Dask run is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genret_dask.executors.failures import summary
from genret_dask.executors.protocol import Hooks, Progress, Report, Result, Task
from genret_dask.monitoring.meter import measured
from genret_dask.shards.resources import Resources, provided


class SerialExecutor:
    """Runs tasks one after the other in this process."""

    def __init__(self, hooks: Hooks | None = None) -> None:
        self._hooks = hooks or Hooks()
        self._resources = Resources()

    def map(
        self,
        function: Callable[[Task, Report], Result],
        tasks: Sequence[Task],
        keys: Sequence[str],
        *,
        cost: Callable[[Task], float] = lambda task: 1.0,
        progress: Progress | None = None,
    ) -> list[Result]:
        """See `Executor.map`."""
        total = sum(cost(task) for task in tasks)
        done, results, hooks = 0.0, [], self._hooks
        failed: list[tuple[str, BaseException]] = []
        for task, key in zip(tasks, keys, strict=True):
            hooks.check()

            def report(share: float, base: float = done, weight: float = cost(task)) -> None:
                if progress:
                    progress(base + share * weight, total)

            try:
                with provided(self._resources), measured() as found:
                    results.append(function(task, report))
                hooks.failures.discard(key)
                hooks.event("task_done", key=key, **found)
                done += cost(task)
            except Exception as error:
                failed.append((key, error))
                hooks.failures.add(key, error, "this process", 1)
                hooks.event("task_failed", key=key, error=type(error).__name__, text=str(error))
            if progress:
                progress(done, total)
        if failed:
            raise summary(failed, len(tasks)) from failed[0][1]
        return results
