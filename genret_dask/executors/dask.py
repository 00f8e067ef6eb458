"""The Dask executor: a bounded window of tasks in flight, through any fault of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from genret_dask.executors.backlog import Backlog
from genret_dask.executors.failures import summary
from genret_dask.executors.in_flight import CLUSTER, TOPIC, Flight
from genret_dask.executors.protocol import Hooks, Progress, Report, Result, Task
from genret_dask.executors.watch import LOST_TIMEOUT, Watch
from genret_dask.monitoring.quiet import QuietPlugin
from genret_dask.monitoring.workers import MetricsPlugin
from genret_dask.shards.resources import ResourcesPlugin, session_bytes

_LISTEN_SECONDS = 1.0


class DaskExecutor:
    """Runs tasks on the workers of a Dask cluster, and again where the cluster lost them.

    A task may run more than once, even twice at the same time: it must look for what is done, and
    leave the same result.

    Parameters
    ----------
    client : distributed.Client
    hooks : Hooks, optional
    lost_timeout : float
        Seconds without scheduler, or without any worker, before it is an error.
    """

    def __init__(
        self, client: Client, hooks: Hooks | None = None, lost_timeout: float = LOST_TIMEOUT
    ) -> None:
        self._client, self._hooks = client, hooks or Hooks()
        plugins = (ResourcesPlugin(), MetricsPlugin(session_bytes), QuietPlugin())
        self._watch = Watch(client, plugins, lost_timeout)

    def map(
        self,
        function: Callable[[Task, Report], Result],
        tasks: Sequence[Task],
        keys: Sequence[str],
        *,
        cost: Callable[[Task], float] = lambda task: 1.0,
        progress: Progress | None = None,
    ) -> list[Result]:
        """See `Executor.map`; the keys name the Dask tasks."""
        results: list[Any] = [None] * len(tasks)
        backlog = Backlog(tasks, keys, cost)
        flight = Flight(self._client, function, backlog, results.__setitem__, progress, self._hooks)
        topics = {TOPIC: flight.on_report, CLUSTER: flight.on_cluster}
        with flight, self._watch.hearing(topics) as watch:
            while flight.running or backlog:
                self._hooks.check()
                if watch.is_well():
                    flight.put_back(watch.missing(flight.running))
                    flight.fill(window=max(4, 3 * watch.threads))
                if flight.listen(_LISTEN_SECONDS):
                    watch.heard()
        if flight.failed:
            raise summary(flight.failed, backlog.size) from flight.failed[0][1]
        return results
