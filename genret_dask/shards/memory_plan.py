"""Plan the memory of a shard: what it takes, and the batches that it is cut into to fit."""

from __future__ import annotations

import logging

import numpy as np
from dask.utils import format_bytes

from genret_dask.errors import BudgetError
from genret_dask.inference.memory import Decoding
from genret_dask.shards.plan import ShardTask, padded_widths
from genret_dask.shards.resources import Resources
from genret_dask.specs import InferenceSpec

logger = logging.getLogger(__name__)

Splits = dict[int, tuple[int, int]]
"""Queries, and candidates of a query, that are decoded together, by padded width."""

_PLENTY = 8
"""Times a batch's estimate, beyond which room is no reason for a worker to have died."""
_REFUSALS = ("Failed to allocate memory", "std::bad_alloc", "bad allocation", "out of memory")


class MemoryPlan:
    """Cut a shard's queries into batches that fit into the memory of a worker.

    Parameters
    ----------
    lengths : int64[queries]
        In tokens.
    candidates : int
        To score for each query.
    """

    def __init__(
        self,
        task: ShardTask,
        decoding: Decoding,
        spec: InferenceSpec,
        lengths: np.ndarray,
        candidates: int,
    ) -> None:
        self._task, self._decoding, self._spec = task, decoding, spec
        self._widths = np.unique(padded_widths(lengths)).tolist()
        self._candidates = candidates
        self._kept = task.queries * decoding.result_bytes(candidates)
        self._batch = spec.batch_queries * decoding.query_bytes(self._widths[-1], candidates)
        self._least = decoding.query_bytes(self._widths[-1], 1)

    def room(self, resources: Resources, died: int) -> int:
        """Bytes that a batch may take.

        Parameters
        ----------
        died : int
            Workers that died with this shard; each halves the room, down to what one query takes.

        Raises
        ------
        BudgetError
            Not even one query fits.
        """
        budget = resources.budget(self._spec.memory_bytes, self._spec.provider)
        room = resources.room(budget, self._kept + self._batch)
        if room - self._kept >= self._least:
            return max(self._least, min(room - self._kept, _PLENTY * self._batch) >> died)
        least = self._kept + self._least
        raise BudgetError(
            f"{self._query} and its shard's results take {format_bytes(least)}; the memory budget "
            f"of {format_bytes(budget or 0)} leaves a task {format_bytes(room)} beside the process "
            "and its models",
            expected=f"a budget of {format_bytes(resources.needed(least))} a worker, or more",
            fix="give a larger --memory (inference.memory), workers with fewer threads, smaller "
            "beams, or a smaller inference.shard_queries",
        )

    def splits(self, room: int, resources: Resources) -> Splits:
        """Queries and candidates that fit into so many bytes at once."""
        most = self._spec.batch_queries
        splits = {
            width: self._decoding.split(width, self._candidates, room, most)
            for width in self._widths
        }
        resources.expect(self._kept + self._taken(splits))
        return splits

    def less(self, splits: Splits, error: BaseException) -> int:
        """The room for smaller batches than these, for which an allocation failed.

        Raises
        ------
        BudgetError
            There are no smaller ones.
        """
        taken = self._taken(splits)
        if taken > self._least:
            logger.warning("%s: an allocation failed; smaller batches are tried", self._task.key)
            return max(self._least, taken // 2)
        raise BudgetError(
            f"{self._query} did not find the memory it needs: {str(error)[:200]}",
            expected=f"{format_bytes(self._kept + self._least)} or more, by estimate",
            fix="give workers more memory, fewer threads, or smaller beams",
        ) from error

    @property
    def _query(self) -> str:
        return (
            f"{self._task.name} with beams up to {max(self._spec.beams)}: one query of "
            f"{self._widths[-1]} tokens"
        )

    def _taken(self, splits: Splits) -> int:
        return max(
            queries * self._decoding.query_bytes(width, candidates)
            for width, (queries, candidates) in splits.items()
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: in Python, NumPy or ONNX Runtime."""
    text = str(error)
    refused = isinstance(error, RuntimeError) and any(words in text for words in _REFUSALS)
    return refused or isinstance(error, MemoryError)
