"""The Dask executor: a bounded window of tasks in flight, through any fault of the cluster.

These faults Dask alone does not survive, or does not tell of. What deals with each, and the test
in ``tests/`` that shows it:

- A worker dies, and Dask blames every task that it held. `Backlog.died` counts deaths only while a
  task gets no further (``chaos/test_workers.py::test_killed_workers_lose_nothing``).
- A task kills every worker that it runs on, and takes the tasks that wait beside it along.
  `Backlog.suspect` has it run alone, then gives up this one (``chaos/test_poison.py::
  test_a_shard_that_kills_its_worker_is_found_out_and_no_other_is_condemned``).
- A worker forgets a task, and nobody says so. `ClusterWatch.missing` compares what the cluster has
  (``executors/test_watch.py::test_a_task_that_its_worker_forgot_is_submitted_again``).
- A future is cancelled, as those of a worker that leaves may be. `Backlog.lost` has the task run
  again (``executors/test_watch.py::test_a_future_that_was_cancelled_is_submitted_again``).
- A result goes with the worker that holds it, between the task's end and the client's request.
  `InFlight` has it run again (``chaos/test_workers.py::
  test_all_workers_killed_at_once_are_replaced``).
- The operating system breaks a connection. `Backlog.refused` tries twice more (``executors/
  test_watch.py::test_an_error_of_the_system_is_tried_again_and_then_reported``).
- The scheduler restarts at its address, without plugins, topics and tasks. `ClusterWatch` sets it
  up again, `missing` finds the tasks (``chaos/test_scheduler.py::
  test_a_run_goes_on_with_the_scheduler_that_came_back``).
- The scheduler, or every worker, stays away, and Dask waits for ever. `ClusterWatch.is_well` ends
  the run (``chaos/test_scheduler.py::test_a_scheduler_that_stays_away_is_a_loud_end``,
  ``chaos/test_workers.py::test_no_worker_that_comes_back_is_a_loud_end``).
- A task hangs. `ClusterWatch.missing` warns (``executors/test_watch.py::
  test_a_task_that_may_hang_is_told_of``).
- Many tasks fail, and each tells of it. `summary` is one error for all (``executors/
  test_contract.py::test_an_error_names_its_task_and_the_others_are_done``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from genret_dask.executors.backlog import Backlog
from genret_dask.executors.failures import summary
from genret_dask.executors.in_flight import CLUSTER, TOPIC, InFlight
from genret_dask.executors.protocol import Hooks, Progress, Report, Result, Task
from genret_dask.executors.watch import LOST_TIMEOUT, ClusterWatch
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
        self._watch = ClusterWatch(client, plugins, lost_timeout)

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
        in_flight = InFlight(
            self._client, function, backlog, results.__setitem__, progress, self._hooks
        )
        topics = {TOPIC: in_flight.on_report, CLUSTER: in_flight.on_cluster}
        with in_flight, self._watch.hearing(topics) as watch:
            while in_flight.running or backlog:
                self._hooks.check()
                if watch.is_well():
                    in_flight.put_back(watch.missing(in_flight.running))
                    in_flight.fill(window=max(4, 3 * watch.threads))
                if in_flight.listen(_LISTEN_SECONDS):
                    watch.heard()
        if in_flight.failed:
            raise summary(in_flight.failed, backlog.size) from in_flight.failed[0][1]
        return results
