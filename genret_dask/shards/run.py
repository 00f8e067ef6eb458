"""The Dask executor: a bounded window of tasks in flight, failures gathered, progress reported."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client, Future, as_completed, get_worker

from genret_dask.errors import GenretError
from genret_dask.shards.resources import ResourcesPlugin
from genret_dask.shards.task import SweepContext, run_shard

logger = logging.getLogger(__name__)

_TOPIC = "genret-progress"
_REPORT_SECONDS = 1.0


class DaskExecutor:
    """Runs tasks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        client.register_plugin(ResourcesPlugin())

    def map(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Any],
        keys: Sequence[str],
        *,
        cost: Callable[[Any], float] = lambda task: 1.0,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[Any]:
        """Results of ``function(task, report)`` in the order of the tasks.

        Parameters
        ----------
        function : callable
            Gets a task and a callable that takes the share of the task that is done.
        keys : sequence of str
            Names of the Dask tasks.
        cost : callable
            A task's weight in the progress; costly tasks are best given first.
        progress : callable
            Gets the weight done and the total weight.

        Raises
        ------
        GenretError
            Tasks failed; all others were finished first.
        """
        costs = [float(cost(task)) for task in tasks]
        shares = _Shares(dict(zip(keys, costs, strict=True)), progress)
        results: list[Any] = [None] * len(tasks)
        failures: list[tuple[str, BaseException]] = []
        rows = {key: row for row, key in enumerate(keys)}
        waiting = iter(range(len(tasks)))
        window = self._window()
        self.client.subscribe_topic(_TOPIC, lambda event: shares.report(event[1]))
        running: set[Future] = set()
        try:
            pool = as_completed()

            def submit_next() -> None:
                row = next(waiting, None)
                if row is not None:
                    future = self.client.submit(
                        _run, function, tasks[row], keys[row], key=keys[row], pure=False
                    )
                    running.add(future)
                    pool.add(future)

            for _ in range(window):
                submit_next()
            for future in pool:
                running.discard(future)
                if future.status == "finished":
                    results[rows[future.key]] = future.result()
                else:
                    failures.append((future.key, _exception(future)))
                    logger.error("%s failed: %s", *failures[-1])
                shares.report({"key": future.key, "share": 1.0})
                future.release()
                submit_next()
        finally:
            self.client.cancel(list(running), force=True)
            self.client.unsubscribe_topic(_TOPIC)
        if failures:
            raise _failure(failures, len(tasks))
        return results

    def search(
        self,
        tasks: Sequence[Any],
        context: SweepContext,
        progress: Callable[[float, float], None] | None = None,
    ) -> None:
        """Compute every shard that has no marker."""
        self.map(
            _Shard(context),
            tasks,
            [task.key for task in tasks],
            cost=lambda task: task.queries,
            progress=progress,
        )

    def _window(self) -> int:
        threads = sum(self.client.nthreads().values())
        return max(4, 3 * threads)


class _Shares:
    """Progress of many tasks at once, by the latest share of each.

    Reports come from the client's event loop and from the thread that gathers results.
    """

    def __init__(
        self, costs: dict[str, float], progress: Callable[[float, float], None] | None
    ) -> None:
        self._costs, self._progress = costs, progress
        self._total = sum(costs.values())
        self._shares: dict[str, float] = {}
        self._lock = threading.Lock()

    def report(self, event: dict[str, Any]) -> None:
        key, share = event["key"], event["share"]
        with self._lock:
            if key not in self._costs or share <= self._shares.get(key, 0.0):
                return
            self._shares[key] = share
            if self._progress:
                done = sum(self._costs[key] * share for key, share in self._shares.items())
                self._progress(done, self._total)


class _Shard:
    """`run_shard` as a task function; a class, so that Dask shows its name."""

    def __init__(self, context: SweepContext) -> None:
        self.context = context

    def __call__(self, task: Any, report: Callable[[float], None]) -> dict[str, Any]:
        return run_shard(task, self.context)


def _run(function: Callable[..., Any], task: Any, key: str) -> Any:
    """On the worker: call `function` with a reporter that speaks at most once a second."""
    worker = get_worker()
    last = time.monotonic()

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            worker.log_event(_TOPIC, {"key": key, "share": share})

    return function(task, report)


def _exception(future: Future) -> BaseException:
    try:
        return future.exception() or GenretError(f"{future.key} was {future.status}")
    except Exception as error:  # a cancelled or lost future raises instead of returning
        return error


def _failure(failures: list[tuple[str, BaseException]], tasks: int) -> GenretError:
    known = [error for _, error in failures if isinstance(error, GenretError)]
    if len(failures) == 1 and known:
        return known[0]
    lines = [f"{len(failures)} of {tasks} tasks failed:"]
    lines += [f"  {key}: {type(error).__name__}: {error}" for key, error in failures[:5]]
    return GenretError("\n".join(lines), fix="run the same command again: finished work is kept")
