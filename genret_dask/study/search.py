"""The search stage: shards as tasks of an executor, wherever it runs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from genret_dask.executors.protocol import Executor, Progress, Report
from genret_dask.shards.plan import ShardTask
from genret_dask.shards.task import SweepContext, run_shard
from genret_dask.shards.usage import MemoryUse, largest


def search(
    executor: Executor,
    tasks: Sequence[ShardTask],
    context: SweepContext,
    progress: Progress | None = None,
) -> list[MemoryUse]:
    """Compute every shard that has no marker; return what each worker held in memory."""
    uses = executor.map(
        partial(_search_shard, context),
        tasks,
        [task.key for task in tasks],
        cost=lambda task: task.queries,
        progress=progress,
    )
    return largest(uses)


def _search_shard(context: SweepContext, task: ShardTask, report: Report) -> MemoryUse:
    return run_shard(task, context, report)
