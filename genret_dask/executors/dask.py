"""The Dask executor: a bounded window of tasks in flight, through any fault of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from genret_dask.executors.backlog import Backlog
from genret_dask.executors.failures import FailureLog, summary
from genret_dask.executors.in_flight import CLUSTER, TOPIC, Flight
from genret_dask.executors.watch import LOST_TIMEOUT, Watch
from genret_dask.monitoring.log import Event, silent
from genret_dask.monitoring.quiet import QuietPlugin
from genret_dask.monitoring.workers import MetricsPlugin
from genret_dask.shards.resources import ResourcesPlugin, session_bytes
from genret_dask.shards.task import SweepContext, run_shard
from genret_dask.shards.usage import MemoryUse, Peaks

_LISTEN_SECONDS = 1.0

Progress = Callable[[float, float], None]


class DaskExecutor:
    """Runs tasks on the workers of a Dask cluster, and again where the cluster lost them.

    A task may run more than once, even twice at the same time: it must look for what is done, and
    leave the same result.

    Parameters
    ----------
    client : distributed.Client
    failures : FailureLog, optional
        Where tasks that failed are recorded.
    lost_timeout : float
        Seconds without scheduler, or without any worker, before it is an error.
    check : callable
        Called all the time; raises where the run must stop.
    event : callable
        Hears of tasks that are done, tried again or failed, and of workers that join or leave.
    """

    def __init__(
        self,
        client: Client,
        failures: FailureLog | None = None,
        *,
        lost_timeout: float = LOST_TIMEOUT,
        check: Callable[[], None] = lambda: None,
        event: Event = silent,
    ) -> None:
        self.client, self._event = client, event
        self._failures, self._check = failures or FailureLog(), check
        plugins = (ResourcesPlugin(), MetricsPlugin(session_bytes), QuietPlugin())
        self._watch = Watch(client, plugins, lost_timeout)

    def map(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Any],
        keys: Sequence[str],
        *,
        cost: Callable[[Any], float] = lambda task: 1.0,
        progress: Progress | None = None,
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
        ClusterError
            The cluster lost its scheduler or all its workers and did not get them back.
        """
        results: list[Any] = [None] * len(tasks)
        backlog = Backlog(tasks, keys, cost)
        self._run(function, backlog, results.__setitem__, progress)
        return results

    def search(
        self, tasks: Sequence[Any], context: SweepContext, progress: Progress | None = None
    ) -> list[MemoryUse]:
        """Compute every shard that has no marker; returns what each worker held in memory."""
        peaks = Peaks()
        backlog = Backlog(tasks, (task.key for task in tasks), lambda task: task.queries)
        self._run(_Shard(context), backlog, lambda row, use: peaks.add(use), progress)
        return peaks.by_worker()

    def _run(
        self,
        function: Callable[..., Any],
        backlog: Backlog,
        keep: Callable[[int, Any], None],
        progress: Progress | None,
    ) -> None:
        flight = Flight(self.client, function, backlog, keep, progress, self._failures, self._event)
        topics = {TOPIC: flight.on_report, CLUSTER: flight.on_cluster}
        with flight, self._watch.hearing(topics) as watch:
            while flight.running or backlog:
                self._check()
                if watch.is_well():
                    flight.put_back(watch.missing(flight.running))
                    flight.fill(window=max(4, 3 * watch.threads))
                if flight.listen(_LISTEN_SECONDS):
                    watch.heard()
        if flight.failed:
            raise summary(flight.failed, backlog.size) from flight.failed[0][1]


class _Shard:
    """`run_shard` as a task function; a class, so that Dask shows its name."""

    def __init__(self, context: SweepContext) -> None:
        self.context = context

    def __call__(self, task: Any, report: Callable[[float], None]) -> MemoryUse:
        return run_shard(task, self.context, report=report)
