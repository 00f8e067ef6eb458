"""The plan of a fan-out: pure arithmetic over models and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ShardTask:
    """One model and one run of queries: one chunk of every array of the cube.

    Attributes
    ----------
    model : int
        Row of the cube's model dimension.
    name : str
        The model's name.
    start, stop : int
        Rows of the cube's query dimension.
    """

    model: int
    name: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Unique in the run; names the Dask task and the marker."""
        return f"search-{self.name}-{self.start:08d}"

    @property
    def queries(self) -> int:
        return self.stop - self.start


def plan_shards(models: Sequence[str], queries: int, shard_queries: int) -> list[ShardTask]:
    """Shards of every model, model by model, so that a worker holds few models at a time."""
    return [
        ShardTask(row, name, start, min(start + shard_queries, queries))
        for row, name in enumerate(models)
        for start in range(0, queries, shard_queries)
    ]
