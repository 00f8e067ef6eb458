"""What work takes, told to Dask's context meter where it is done.

On a worker, Dask adds it up by task name and span, and shows it on the dashboard's page of fine
performance metrics; a task's executor listens as well. Elsewhere nobody does, and nothing happens.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from distributed.metrics import context_meter

PHASES = ("load", "prefill", "step", "constraint", "select", "rank", "write")
"""Of a shard, whose seconds are metered; Dask counts what is left as thread time."""

UNITS = ("queries", "rows", "tokens", "shards")
"""Counted: queries and shards that were written, prefixes that were decoded, tokens read."""

phase = context_meter.meter
"""Context manager, or decorator, that meters seconds under one of `PHASES`."""


def count(activity: str, amount: float, unit: str) -> None:
    """Count some work that was done, in one of `UNITS`."""
    context_meter.digest_metric(activity, float(amount), unit)


def count_decoded(activity: str, rows: int) -> None:
    """Count prefixes that were decoded, each by reading one token."""
    count(activity, rows, "rows")
    count("step", rows, "tokens")


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Give a dict that holds, once left, the `seconds` it took and what was counted, by unit."""
    found: dict[str, float] = {}

    def listen(activity: Hashable, amount: float, unit: str) -> None:
        if unit in UNITS:
            found[unit] = found.get(unit, 0) + int(amount)

    began = time.perf_counter()
    try:
        with context_meter.add_callback(listen):
            yield found
    finally:
        found["seconds"] = round(time.perf_counter() - began, 4)
