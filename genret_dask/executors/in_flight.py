"""Submit tasks to a Dask cluster, follow them, and put back or give up those that fail."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import dask
from distributed import Client, Future, KilledWorker, Status, get_worker, span
from distributed.scheduler import NoValidWorkerError
from distributed.utils import key_split

from genret_dask.errors import ClusterError, TaskError
from genret_dask.executors.backlog import DEATHS, LOSSES, Backlog, Work
from genret_dask.executors.protocol import Hooks
from genret_dask.monitoring.meter import measured
from genret_dask.monitoring.workers import workers_heard

logger = logging.getLogger(__name__)

TOPIC = "genret-progress"
"""Of Dask's events: how far tasks are."""
CLUSTER = "all"
"""Of Dask's events: what happens to the cluster."""

_CLOSED = (Status.closing, Status.closed, Status.failed)
_REPORT_SECONDS = 1.0
_RESULT_SECONDS = 3.0

Message = tuple[float, dict[str, Any]]


class Ran(NamedTuple):
    """A task's result, its worker, and what `genret_dask.monitoring.meter` measured of it."""

    result: Any
    worker: str
    measured: dict[str, float]


class InFlight:
    """Hold the tasks in flight, and react to what Dask reports of them.

    Dask calls back in other threads. Their reports wait in a queue until the executor's own thread
    calls `listen`.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Gets a task and a callable that takes the share of the task that is done.
    backlog : Backlog
        Where tasks come from, and go back to.
    keep : callable
        Gets a task's row and result.
    progress : callable, optional
        Gets the weight done and the total weight.
    hooks : Hooks

    Attributes
    ----------
    running : dict of str to (Work, Future)
        By the name of the Dask task.
    failed : list of (key, error)
    """

    def __init__(
        self,
        client: Client,
        function: Callable[..., Any],
        backlog: Backlog,
        keep: Callable[[int, Any], None],
        progress: Callable[[float, float], None] | None,
        hooks: Hooks,
    ) -> None:
        self.running: dict[str, tuple[Work, Future]] = {}
        self.failed: list[tuple[str, BaseException]] = []
        self._client, self._function, self._backlog = client, function, backlog
        self._keep, self._progress, self._hooks = keep, progress, hooks
        self._hear_of_workers = workers_heard(hooks.event)
        self._spans: dict[str, Any] = {}  # annotations, by prefix of the names of tasks
        self._heard: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def __enter__(self) -> InFlight:
        return self

    def __exit__(self, *error: object) -> None:
        if self._client.status == "running":
            self._cancel(*(future for _, future in self.running.values()))

    def fill(self, window: int) -> None:
        """Submit tasks until `window` are in flight."""
        while len(self.running) < window:
            work = self._backlog.take(len(self.running))
            if work is None:
                return
            # Never a key twice: what the scheduler says of the first would count for the second.
            key = work.key if work.attempts == 1 else f"{work.key}-{work.attempts}"
            with self._span(work.key):
                future = self._client.submit(
                    run_reporting, self._function, work.task, key, key=key, pure=False
                )
            self.running[key] = work, future
            future.add_done_callback(self._hear_of_end)

    @contextmanager
    def _span(self, key: str) -> Iterator[None]:
        """Put what is submitted into a span of its kind and model, again after a failure too."""
        prefix = key_split(key)
        if prefix not in self._spans:
            _, _, model = prefix.partition(".")
            with span(model or prefix):
                self._spans[prefix] = dask.get_annotations()["span"]
        with dask.annotate(span=self._spans[prefix]):
            yield

    def listen(self, seconds: float) -> bool:
        """Handle one report, waiting up to `seconds` for it; return whether there was one."""
        try:
            deal_with_it = self._heard.get(timeout=seconds)
        except queue.Empty:
            return False
        deal_with_it()
        return True

    def put_back(self, keys: Iterable[str]) -> None:
        """Put back tasks that the cluster does not know any more."""
        for key in keys:
            work, future = self.running.pop(key)
            self._cancel(future)
            self._lose(work, "the cluster does not know it any more")

    # --- callbacks, in other threads ----------------------------------------------------------

    def _hear_of_end(self, future: Future) -> None:
        self._heard.put(partial(self._on_finished, future))

    def on_report(self, message: Message) -> None:
        """Handle a task's report of its worker and share done."""
        self._heard.put(partial(self._on_progress, **message[1]))

    def on_cluster(self, message: Message) -> None:
        """Handle the scheduler's report of a worker that joined or left."""
        self._hear_of_workers(message)
        told = message[1]
        if told.get("action") == "remove-worker" and not told.get("expected"):
            self._heard.put(partial(self._on_worker_lost, told["worker"], told["processing-tasks"]))

    # --- reports, in the executor's thread ----------------------------------------------------

    def _on_progress(self, key: str, worker: str, share: float) -> None:
        if key in self.running:
            work, _ = self.running[key]
            work.worker = worker
            self._advance(work, share)

    def _on_worker_lost(self, worker: str, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self.running and self._backlog.died(self.running[key][0], worker):
                work, future = self.running.pop(key)
                self._cancel(future)
                self._retry_alone(work)

    def _on_finished(self, future: Future) -> None:
        work, _ = self.running.pop(str(future.key), (None, None))
        if work is None:  # given up meanwhile
            return
        if future.status == "error":
            self._on_error(work, future.exception(timeout=_RESULT_SECONDS))
            future.release()
        elif future.status != "finished":
            self._lose(work, f"its future was {future.status}")
        else:
            self._collect(work, future)

    def _collect(self, work: Work, future: Future) -> None:
        try:
            ran: Ran = future.result(timeout=_RESULT_SECONDS)
        except Exception as error:  # its worker, or the scheduler, died in between
            self._cancel(future)
            self._lose(work, f"its result was lost: {type(error).__name__}: {error}")
            return
        future.release()
        self._keep(work.row, ran.result)
        self._hooks.failures.discard(work.key)
        self._hooks.event("task_done", key=work.key, worker=ran.worker, **ran.measured)
        self._advance(work, 1.0)

    def _on_error(self, work: Work, error: BaseException) -> None:
        if isinstance(error, KilledWorker):
            self._retry_alone(work)
        elif isinstance(error, NoValidWorkerError):
            self._lose(work, "there was no worker for it")
        elif isinstance(error, OSError) and self._backlog.refused(work):
            self._again(work, f"{type(error).__name__}: {error}")
        else:
            self._fail(work, error)

    # --- consequences -------------------------------------------------------------------------

    def _advance(self, work: Work, share: float) -> None:
        if self._backlog.progressed(work, share) and self._progress:
            self._progress(self._backlog.done, self._backlog.total)

    def _cancel(self, *futures: Future) -> None:
        if futures:
            self._client.cancel(list(futures), force=True)

    def _lose(self, work: Work, reason: str) -> None:
        if self._backlog.lost(work):
            self._again(work, reason)
        else:
            self._fail(
                work,
                TaskError(
                    f"{work.key} was lost {LOSSES + 1} times, the last time as {reason}",
                    fix="look at the logs of scheduler and workers, and run the same command again",
                ),
            )

    def _retry_alone(self, work: Work) -> None:
        if self._backlog.suspect(work):
            self._again(work, "workers kept dying with it; it will run alone")
        else:
            self._fail(
                work,
                TaskError(
                    f"{work.key}: {DEATHS} workers in a row died with it while nothing else ran",
                    expected="workers that outlive it",
                    fix="look at the workers' logs for a crash or memory: a larger memory_limit "
                    "gives them more; searches need less with a smaller inference.batch_queries or "
                    "--memory, trainings with a smaller batch_size",
                ),
            )

    def _again(self, work: Work, reason: str) -> None:
        logger.warning("%s is submitted again: %s", work.key, reason)
        self._hooks.event("task_retried", key=work.key, worker=work.worker, text=reason)

    def _fail(self, work: Work, error: BaseException) -> None:
        kind = type(error).__name__
        self._hooks.event(
            "task_failed", key=work.key, worker=work.worker, error=kind, text=str(error)
        )
        self.failed.append((work.key, error))
        self._hooks.failures.add(work.key, error, work.worker, work.attempts)
        self._backlog.given_up(work)
        if self._progress:
            self._progress(self._backlog.done, self._backlog.total)


def run_reporting(function: Callable[..., Any], task: Any, key: str) -> Ran:
    """On the worker: call `function` with a reporter that speaks at most once a second.

    Where the worker closes meanwhile, the reporter raises, so that a long task ends with it.
    """
    worker = get_worker()
    last, done = time.monotonic(), 0.0

    def report(share: float) -> None:
        nonlocal last, done
        if worker.status in _CLOSED:
            raise ClusterError(f"{key} was stopped: its worker closes")
        done = share
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            tell()

    def tell() -> None:
        worker.log_event(TOPIC, {"key": key, "worker": worker.address, "share": done})

    try:
        with measured() as found:
            result = function(task, report)
    except Exception:
        if worker.status not in _CLOSED:
            tell()
        raise
    return Ran(result, worker.address, found)
