"""A baseline's rankings as an artefact of the run directory: doc.npy and score.npy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.baselines.base import Baseline, Rankings
from genret_dask.datasets import stored
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import Artefact, fetched, publishing
from genret_dask.storage.layout import ROWS

_DOC, _SCORE = "doc.npy", "score.npy"


@dataclass(frozen=True)
class BaselineTask:
    """The rankings of one baseline for all queries.

    Attributes
    ----------
    baseline : Baseline
    collection : Path
        The artefact of the corpus.
    queries : int64[queries]
        Rows of the collection's queries.
    own : int32[queries]
        The document of each query that is left out, -1 being none.
    within : Path or None
        The artefact of the documents that are searched; None for all.
    depth : int
        Documents of a query, at most.
    made : Artefact
    """

    baseline: Baseline
    collection: Path
    queries: np.ndarray
    own: np.ndarray
    within: Path | None
    depth: int
    made: Artefact


def run_baseline(task: BaselineTask, report: Callable[[float], None]) -> None:
    """Rank and publish, unless the rankings are there."""
    if task.made.is_current:
        return
    within = None
    if task.within is not None:
        within = read_array(fetched(task.within) / ROWS, dims=1, mapped=False)
    found = Rankings(task.depth, task.own, within)
    task.baseline.rank(stored.read_artefact(task.collection), task.queries, found, report)
    with publishing(task.made.folder, task.made.made_from) as partial:
        np.save(partial / _DOC, found.doc)
        np.save(partial / _SCORE, found.score)


def read_rankings(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read doc and score, each [queries, depth].

    Raises
    ------
    ModelError
        A file is missing or damaged.
    """
    folder = fetched(folder)
    doc, score = (read_array(folder / name, dims=2) for name in (_DOC, _SCORE))
    return doc, score
