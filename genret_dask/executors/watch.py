"""Watch a Dask cluster: whether it is there, and whether it still has our tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from distributed import Client, Worker, WorkerPlugin
from distributed.client import ClosedClientError

from genret_dask.errors import ClusterError

logger = logging.getLogger(__name__)

LOST_TIMEOUT = 50.0
"""Seconds without scheduler or workers before a run gives up, by default."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at the cluster."""
QUIET_SECONDS = 10.0
"""Seconds without a report of any task before the cluster is asked whether it has them."""
HANG_SECONDS = 900.0
"""Seconds without a report of tasks that the cluster does have before a warning: one may hang."""

_ANSWER_SECONDS = 10.0
_WAITING = {"waiting", "queued", "no-worker"}
Handler = Callable[[Any], None]


class ClusterWatch:
    """Keep a client able to submit tasks, and notice faults that Dask does not report.

    A scheduler that comes back at its address has lost everything, so plugins are registered and
    topics subscribed to again.

    Parameters
    ----------
    client : distributed.Client
    plugins : sequence of WorkerPlugin
        Plugins that every worker must have.
    lost_timeout : float
        Seconds without scheduler, or without any worker, before it is an error.

    Attributes
    ----------
    threads : int
        Threads of all workers at the last look; 0 if there are none, or no scheduler answers.
    """

    def __init__(
        self,
        client: Client,
        plugins: Sequence[WorkerPlugin],
        lost_timeout: float = LOST_TIMEOUT,
    ) -> None:
        self.threads, self._answers = 0, False
        self._client, self._plugins, self._lost_timeout = client, plugins, lost_timeout
        self._topics: Mapping[str, Handler] = {}
        self._registered: Any = None  # the connections that plugins and topics went over
        self._subscribed: Any = None
        self._well = self._looked = self._heard = 0.0
        self._sign = self._told = 0.0
        self._absent: set[str] = set()

    @contextmanager
    def hearing(self, topics: Mapping[str, Handler]) -> Iterator[ClusterWatch]:
        """Watch, and pass messages of these topics to their handlers on the client's event loop."""
        self._topics, self._subscribed = topics, None
        self._well, self._looked = time.monotonic(), 0.0
        self.heard()
        try:
            yield self
        finally:
            if self._client.status == "running" and self._subscribed is not None:
                for topic in topics:
                    self._client.unsubscribe_topic(topic)

    def heard(self) -> None:
        """Note that some task reported."""
        self._heard = self._sign = self._told = time.monotonic()
        self._absent = set()

    def is_well(self) -> bool:
        """Return whether the cluster can take tasks now; look at it once a second.

        A cluster without workers can: an adaptive one starts its first worker for a waiting task.

        Raises
        ------
        ClusterError
            It has had no scheduler, or no worker, for too long.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS or not self._is_connected():
            self._looked = now
            found = self._look()
            self.threads, self._answers = found or 0, found is not None
        if self.threads:
            self._well = now
        elif now - self._well > self._lost_timeout or self._client.status == "closed":
            raise self._gone(now - self._well)
        return self._answers

    def _is_connected(self) -> bool:
        comm = self._client.scheduler_comm
        return self._client.status == "running" and comm is self._subscribed is not None

    def _look(self) -> int | None:
        """Return the threads of all workers; None if no scheduler answers."""
        if self._client.status != "running":
            return None
        try:
            self._set_up(self._client.scheduler_comm)
            ask = self._client.scheduler.ncores
            return sum(self._client.sync(ask, callback_timeout=_ANSWER_SECONDS).values())
        except (OSError, TimeoutError, ClosedClientError) as error:
            logger.debug("the scheduler does not answer: %s", error)
            return None

    def _set_up(self, comm: Any) -> None:
        if comm is not self._registered:
            for plugin in self._plugins:
                self._client.register_plugin(plugin)
            self._registered = comm
        if comm is not self._subscribed:
            for topic, handler in self._topics.items():
                self._client.subscribe_topic(topic, handler)
            self._subscribed = comm

    def _gone(self, seconds: float) -> ClusterError:
        if self._is_connected():
            return ClusterError(
                f"the cluster has had no worker for {seconds:.0f} s",
                expected=f"one to come back within {self._lost_timeout:g} s",
                fix="look at the workers' logs, start some, and run the same command again: "
                "finished work is kept; a longer wait is lost_timeout: SECONDS",
            )
        address = getattr(self._client.scheduler, "address", "its address")
        return ClusterError(
            f"the scheduler at {address} has been gone for {seconds:.0f} s",
            expected=f"one to answer there within {self._lost_timeout:g} s",
            fix="start it and its workers, and run the same command again: finished work is "
            "kept; a longer wait is lost_timeout: SECONDS",
        )

    def missing(self, keys: Collection[str]) -> set[str]:
        """Return those tasks that the cluster does not have any more, though it never said so.

        The cluster is asked only after `QUIET_SECONDS` without a report. A task is missing if it
        was absent twice in a row.
        """
        now = time.monotonic()
        if not keys or now - self._heard < QUIET_SECONDS:
            return set()
        self._heard = now - QUIET_SECONDS / 2
        try:
            absent = self._absentees(keys)
        except (OSError, TimeoutError) as error:
            logger.debug("the scheduler does not answer: %s", error)
            return set()
        missing, self._absent = absent & self._absent, absent
        if len(absent) < len(keys) and now - self._told >= HANG_SECONDS:
            self._told = now
            logger.warning(
                "nothing was heard of any of %d tasks for %.0f minutes, though the cluster has "
                "them: look at their call stacks on the dashboard, and kill a worker that hangs; "
                "its tasks are run again",
                len(keys),
                (now - self._sign) / 60,
            )
        return missing

    def _absentees(self, keys: Collection[str]) -> set[str]:
        ask = self._client.scheduler.get_task_status
        states = self._client.sync(ask, keys=list(keys), callback_timeout=_ANSWER_SECONDS)
        found = self._client.run(_held, on_error="ignore", callback_timeout=_ANSWER_SECONDS)
        held = {key for kept in found.values() for key in kept}
        return {
            key
            for key in keys
            if states[key] not in _WAITING and not (states[key] == "processing" and key in held)
        }


def _held(dask_worker: Worker) -> list[str]:
    """Return the keys of the tasks that a worker knows."""
    return [str(key) for key in dask_worker.state.tasks]
