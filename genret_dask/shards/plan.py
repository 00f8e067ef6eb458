"""The plan of a fan-out: pure arithmetic over models and queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_WIDTH = 8  # queries are padded to a multiple of this many tokens


@dataclass(frozen=True)
class ShardTask:
    """One model and one run of queries: one chunk of every array of the cube.

    Attributes
    ----------
    kind : str
        Of identifier; the cube's group.
    model : int
        Row of the group's model dimension.
    name : str
        The model's name.
    start, stop : int
        Rows of the cube's query dimension.
    fingerprints : tuple of (dataset, str)
        All that the shard's values depend on, for each dataset of the group; empty where any will
        do, as for who only reads.
    """

    kind: str
    model: int
    name: str
    start: int
    stop: int
    fingerprints: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Unique in the run; names the Dask task and the marker."""
        return task_key("search", self.kind, self.name, self.model, self.start)

    @property
    def queries(self) -> int:
        return self.stop - self.start


def task_key(stage: str, kind: str, name: str, row: int, start: int | None = None) -> str:
    """The name of a task; also a file's.

    Dask groups and colours tasks by what stands before the first dash: here stage, identifier kind
    and model.

    Parameters
    ----------
    row : int
        Tells apart models whose names differ in a dash only.

    Examples
    --------
    >>> task_key("search", "codes", "t5-micro", 3, 128)
    'search.codes.t5_micro-03-00000128'
    """
    prefix = f"{stage}.{kind}.{name.replace('-', '_')}"
    return f"{prefix}-{row:02d}" if start is None else f"{prefix}-{row:02d}-{start:08d}"


def plan_shards(
    kind: str, models: Sequence[str], queries: int, shard_queries: int
) -> list[ShardTask]:
    """Shards of every model, model by model, so that a worker holds few models at a time."""
    return [
        ShardTask(kind, row, name, start, stop)
        for row, name in enumerate(models)
        for start, stop in runs(queries, shard_queries)
    ]


def padded_widths(lengths: np.ndarray) -> np.ndarray:
    """What each query is padded to.

    It depends on the query's own length alone, so that its batch mates change nothing.
    """
    return -(-lengths // _WIDTH) * _WIDTH


def batches(lengths: np.ndarray, most: Callable[[int], int]) -> list[tuple[np.ndarray, int]]:
    """Queries decoded together, as rows of `lengths`, and their padded width; the widest first.

    Parameters
    ----------
    lengths : int64[queries]
    most : callable
        Gets a width; returns how many queries of it a batch may have.
    """
    widths = padded_widths(lengths)
    found = []
    for width in np.unique(widths)[::-1].tolist():
        rows = np.flatnonzero(widths == width)
        pieces = math.ceil(len(rows) / most(width))
        found += [(piece, width) for piece in np.array_split(rows, pieces)]
    return found


def runs(size: int, most: int) -> list[tuple[int, int]]:
    """Half-open ranges that cover `size` items in order, `most` in each but the last."""
    return [(first, min(first + most, size)) for first in range(0, size, most)]
