"""What workers tell of themselves: metrics for Dask's dashboard, and for Prometheus.

Both are sums over `Worker.digests_total`, where Dask adds up what tasks told its context meter
(`genret_dask.monitoring.meter`) since the worker started.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from distributed import Worker, WorkerPlugin
from distributed.diagnostics import nvml

from genret_dask.monitoring.log import Event
from genret_dask.monitoring.meter import PHASES, UNITS

NAME = "genret-metrics"
TOPIC = "all"
"""Of Dask's events: what happens to the cluster."""
_WINDOW = 60.0  # seconds that a rate is averaged over
_HELP = {
    "queries": ("genret_queries", "Queries searched, scored and written."),
    "rows": ("genret_rows_decoded", "Prefixes decoded, in searches and in scoring."),
    "tokens": ("genret_tokens", "Tokens that models read: of queries, and one a decoded row."),
    "shards": ("genret_shards", "Shards written."),
}


class MetricsPlugin(WorkerPlugin):
    """Gives every Dask worker our metrics.

    Parameters
    ----------
    session_bytes : callable
        Gets a worker; returns what its open models take.
    """

    name = NAME

    def __init__(self, session_bytes: Callable[[Worker], int]) -> None:
        self._session_bytes = session_bytes

    def setup(self, worker: Worker) -> None:
        for unit in ("queries", "rows", "tokens"):
            worker.metrics[f"genret_{unit}_per_second"] = _Rate(unit, worker)
        worker.metrics["genret_session_bytes"] = self._session_bytes
        if nvml.device_get_count():
            worker.metrics["genret_gpu_memory_bytes"] = gpu_memory
        _collector.add(worker, self._session_bytes)

    def teardown(self, worker: Worker) -> None:
        for name in [name for name in worker.metrics if name.startswith("genret_")]:
            del worker.metrics[name]
        _collector.drop(worker)


class _Rate:
    """Of a unit, a second, over the last minute; work counts when its task ends."""

    def __init__(self, unit: str, worker: Worker) -> None:
        self._unit = unit
        self._seen = deque([(time.monotonic(), total(worker, unit))])

    def __call__(self, worker: Worker) -> float:
        now, done = time.monotonic(), total(worker, self._unit)
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()
        began, before = self._seen[0]
        return round((done - before) / max(now - began, 1e-9), 3)


def total(worker: Worker, unit: str, activity: str | None = None) -> float:
    """What a worker's tasks counted in a unit, or metered in `seconds`, since it started."""
    return sum(
        amount
        for name, amount in worker.digests_total.items()
        if isinstance(name, tuple)
        and name[0] == "execute"
        and name[-1] == unit
        and activity in (None, name[-2])
    )


def gpu_memory(worker: Worker) -> int:
    """Bytes in use on the worker's GPU, by whatever process."""
    return nvml.real_time()["memory-used"]


def workers_heard(event: Event) -> Callable[[tuple[float, Any]], None]:
    """A handler of the scheduler's own topic, `TOPIC`: tells of workers that join or leave."""
    actions = {"add-worker": "worker_joined", "remove-worker": "worker_left"}

    def hear(entry: tuple[float, Any]) -> None:
        message = entry[1]
        name = actions.get(str(message.get("action"))) if isinstance(message, dict) else None
        if name:
            event(name, worker=message["worker"], expected=message.get("expected"))

    return hear


# --- Prometheus -----------------------------------------------------------------------------------


class _Collector:
    """What `prometheus_client`, where it is installed, asks at each scrape.

    The workers of one process have one page, and are shown there as one.
    """

    def __init__(self) -> None:
        self._workers: dict[Worker, Callable[[Worker], int]] = {}

    def add(self, worker: Worker, session_bytes: Callable[[Worker], int]) -> None:
        registry = _registry()
        if registry and not self._workers:
            registry.register(self)
        self._workers[worker] = session_bytes

    def drop(self, worker: Worker) -> None:
        registry = _registry()
        if self._workers.pop(worker, None) and registry and not self._workers:
            registry.unregister(self)

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        workers = list(self._workers)
        for unit in UNITS:
            value = sum(total(worker, unit) for worker in workers)
            yield CounterMetricFamily(*_HELP[unit], value=value)
        phases = CounterMetricFamily(
            "genret_phase_seconds", "Seconds of tasks, by phase.", labels=["phase"]
        )
        for name in PHASES:
            phases.add_metric([name], sum(total(worker, "seconds", name) for worker in workers))
        yield phases
        held = sum(session_bytes(worker) for worker, session_bytes in self._workers.items())
        yield GaugeMetricFamily("genret_session_bytes", "Memory of open models.", value=held)
        if nvml.device_get_count():
            used = gpu_memory(workers[0])
            yield GaugeMetricFamily("genret_gpu_memory_bytes", "In use on the GPU.", value=used)


def _registry() -> Any:
    """What Dask's page /metrics shows; None where `prometheus_client` is not installed."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return None
    return REGISTRY


_collector = _Collector()
