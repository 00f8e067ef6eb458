"""The identifiers that stand for candidates, by ranges of queries: each a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.datasets import stored
from genret_dask.kinds.base import Kind
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import fetched, is_current, publishing
from genret_dask.storage.fingerprint import Origin

SPANS = "candidates.npy"

RANGE = 32
"""Queries of a task."""


@dataclass(frozen=True)
class SpansTask:
    """The identifiers that stand for the candidates of a range of queries.

    Attributes
    ----------
    first : int
        Row of the range's first query among those that are searched.
    queries : int64[n]
        Their rows in the collection.
    identifiers : Kind
    seed : int
    collection, candidates, tokenizer, folder : Path
        Artefacts to read, and the one to write.
    made_from : Origin
    """

    first: int
    queries: np.ndarray
    identifiers: Kind
    seed: int
    collection: Path
    candidates: Path
    tokenizer: Path
    folder: Path
    made_from: Origin


def spans_tasks(
    queries: np.ndarray,
    identifiers: Kind,
    seed: int,
    *,
    made_from: Origin,
    folder: Path,
    **read: Path,
) -> list[SpansTask]:
    """The tasks that sample for all queries, each into a folder of its own within `folder`.

    Parameters
    ----------
    read : Path
        The artefacts that a task reads, by its attributes.
    """
    return [
        SpansTask(
            first=first,
            queries=queries[first : first + RANGE],
            identifiers=identifiers,
            seed=seed,
            folder=folder / f"{first:08d}",
            made_from=Origin("spans of queries", {**made_from.parts, "first": first}),
            **read,
        )
        for first in range(0, len(queries), RANGE)
    ]


def run_spans(task: SpansTask, report: Callable[[float], None]) -> None:
    """Sample and publish identifiers of candidates, int32 [queries, candidates, choices, 2]."""
    if is_current(task.folder, task.made_from):
        return
    collection = stored.read_artefact(task.collection)
    rows = slice(task.first, task.first + len(task.queries))
    documents = read_array(fetched(task.candidates) / "doc.npy", dims=2)[rows]
    tokenizer = fetched(task.tokenizer) / "tokenizer.json"
    sampler = task.identifiers.sampler(collection, tokenizer, task.seed)
    found = np.full((*documents.shape, task.identifiers.choices, 2), -1, dtype=np.int32)
    for row, query in enumerate(collection.queries.take(task.queries)):
        for column in np.flatnonzero(documents[row] >= 0):
            found[row, column] = sampler.sample(query, int(documents[row, column]))
        report((row + 1) / len(task.queries))
    with publishing(task.folder, task.made_from) as partial:
        np.save(partial / SPANS, found)


def open_spans(tasks: list[SpansTask]) -> np.ndarray:
    """Read what the tasks wrote, in the order of the queries.

    Raises
    ------
    ModelError
        A file is missing or damaged.
    """
    return np.concatenate([read_array(fetched(task.folder) / SPANS, dims=4) for task in tasks])
