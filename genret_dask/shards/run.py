"""The Dask executor: a bounded window of tasks in flight, failures gathered, progress reported."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from distributed import Client, Future, as_completed, get_worker

from genret_dask.errors import GenretError
from genret_dask.monitoring.log import Event, silent
from genret_dask.monitoring.meter import measured
from genret_dask.monitoring.spans import TaskSpans
from genret_dask.monitoring.workers import TOPIC, MetricsPlugin, workers_heard
from genret_dask.shards.resources import ResourcesPlugin, session_bytes
from genret_dask.shards.task import SweepContext, run_shard
from genret_dask.shards.usage import MemoryUse, by_worker

logger = logging.getLogger(__name__)

_TOPIC = "genret-progress"
_REPORT_SECONDS = 1.0


class DaskExecutor:
    """Runs tasks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
    event : callable
        Hears of tasks that are done or failed, and of workers that join or leave meanwhile.
    """

    def __init__(self, client: Client, event: Event = silent) -> None:
        self.client, self._event = client, event
        client.register_plugin(ResourcesPlugin())
        client.register_plugin(MetricsPlugin(session_bytes))

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
        window, spans = self._window(), TaskSpans()
        self.client.subscribe_topic(_TOPIC, lambda event: shares.report(event[1]))
        self.client.subscribe_topic(TOPIC, workers_heard(self._event))
        running: set[Future] = set()
        try:
            pool = as_completed()

            def submit_next() -> None:
                row = next(waiting, None)
                if row is not None:
                    with spans.of(keys[row]):
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
                    ran: Ran = future.result()
                    results[rows[future.key]] = ran.result
                    self._event("task_done", key=future.key, worker=ran.worker, **ran.measured)
                else:
                    error = _exception(future)
                    failures.append((future.key, error))
                    kind = type(error).__name__
                    self._event("task_failed", key=future.key, error=kind, text=str(error))
                    if not _same(failures[:-1], failures[-1][1]):
                        logger.error("%s failed: %s", *failures[-1])
                shares.report({"key": future.key, "share": 1.0})
                future.release()
                submit_next()
        finally:
            self.client.cancel(list(running), force=True)
            for topic in (_TOPIC, TOPIC):
                self.client.unsubscribe_topic(topic)
        if failures:
            raise _failure(failures, len(tasks))
        return results

    def search(
        self,
        tasks: Sequence[Any],
        context: SweepContext,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[MemoryUse]:
        """Compute every shard that has no marker; returns what each worker held in memory."""
        uses = self.map(
            _Shard(context),
            tasks,
            [task.key for task in tasks],
            cost=lambda task: task.queries,
            progress=progress,
        )
        return by_worker(uses)

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

    def __call__(self, task: Any, report: Callable[[float], None]) -> MemoryUse:
        return run_shard(task, self.context)


class Ran(NamedTuple):
    """What a task returned, where, and what it took: see `genret_dask.monitoring.meter`."""

    result: Any
    worker: str
    measured: dict[str, float]


def _run(function: Callable[..., Any], task: Any, key: str) -> Ran:
    """On the worker: call `function` with a reporter that speaks at most once a second."""
    worker = get_worker()
    last = time.monotonic()

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            worker.log_event(_TOPIC, {"key": key, "share": share})

    with measured() as found:
        result = function(task, report)
    return Ran(result, worker.address, found)


def _exception(future: Future) -> BaseException:
    try:
        return future.exception() or GenretError(f"{future.key} was {future.status}")
    except Exception as error:  # a cancelled or lost future raises instead of returning
        return error


def _same(failures: list[tuple[str, BaseException]], error: BaseException) -> int:
    """How many failed for the very same reason."""
    return sum(type(one) is type(error) and str(one) == str(error) for _, one in failures)


def _failure(failures: list[tuple[str, BaseException]], tasks: int) -> GenretError:
    first = failures[0][1]
    if isinstance(first, GenretError) and _same(failures, first) == len(failures):
        return first
    lines = [f"{len(failures)} of {tasks} tasks failed:"]
    for key, error in failures[:5]:
        found = error.found if isinstance(error, GenretError) else error
        lines.append(f"  {key}: {type(error).__name__}: {found}")
    one_kind = len({type(error) for _, error in failures}) == 1
    fix = first.fix if isinstance(first, GenretError) and one_kind else None
    again = "run the same command again: finished work is kept"
    return GenretError("\n".join(lines), fix=fix or again)
