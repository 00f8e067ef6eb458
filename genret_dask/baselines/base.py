"""What every kind of baseline brings: its settings, and how it ranks documents for queries.

A kind is one file: a record with the method `rank`. `genret_dask.baselines.bm25` is such a file,
and docs/extending.md shows a shorter one.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from genret_dask.datasets.collection import Collection
from genret_dask.errors import NumericError
from genret_dask.kinds.base import Making
from genret_dask.specs import Name
from genret_dask.specs.validation import Record
from genret_dask.storage.sources import contents

Report = Callable[[float], None]
"""Gets the share of the queries that is done."""

_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Rankings:
    """The best documents of each query, while they are found.

    Parameters
    ----------
    depth : int
        Documents of a query, at most.
    own : int32[queries]
        A document of each query that is left out, -1 being none.
    within : int64[n], optional
        Rows of the documents that are searched; all when left out.

    Attributes
    ----------
    doc : int32[queries, depth]
        Rows of the collection, the best first; -1 where there is none.
    score : float32[queries, depth]
        NaN where there is none.

    Examples
    --------
    >>> found = Rankings(depth=2, own=np.array([-1]))
    >>> found.add(0, np.array([3, 5, 7]), np.array([0.5, 2.0, 0.5]))
    >>> found.doc.tolist()
    [[5, 3]]
    """

    def __init__(self, depth: int, own: np.ndarray, within: np.ndarray | None = None) -> None:
        self.doc = np.full((len(own), depth), -1, dtype=np.int32)
        self.score = np.full((len(own), depth), np.nan, dtype=np.float32)
        self.within = within
        self._own = own

    @property
    def depth(self) -> int:
        """Documents of a query, at most."""
        return self.doc.shape[1]

    def add(self, place: int, rows: np.ndarray, scores: np.ndarray) -> None:
        """Rank documents of a query among those that it has.

        Of equal scores the one that came first ranks first. To break ties by document row, give
        rows in ascending order.

        Parameters
        ----------
        place : int
            Of the query.
        rows : int[n]
            Documents; none twice.
        scores : float[n]
            The higher the better; compared in single precision.

        Raises
        ------
        NumericError
            A score is not a number.
        """
        scores = np.asarray(scores, dtype=np.float32)
        if np.isnan(scores).any():
            raise NumericError(f"{np.isnan(scores).sum()} scores of query {place} are NaN")
        kept = rows != self._own[place]
        if self.within is not None:
            kept &= np.isin(rows, self.within)
        had = self.doc[place] >= 0
        rows = np.concatenate([self.doc[place][had], rows[kept]])
        scores = np.concatenate([self.score[place][had], scores[kept]])
        if len(rows) > self.depth:
            least = np.partition(scores, -self.depth)[-self.depth]
            rows, scores = rows[scores >= least], scores[scores >= least]
        order = np.argsort(-scores, kind="stable")[: self.depth]
        self.doc[place, : len(order)] = rows[order]
        self.score[place, : len(order)] = scores[order]


class Baseline(Record):
    """A kind of baseline: an entry of `baselines:` of a study, by its `kind`.

    A subclass is an entry of `genret_dask.baselines` under the value of its field `kind`.
    """

    kind: str
    name: Name | None = Field(None, description="of its row; by default its kind, file or model")

    @property
    def label(self) -> str:
        """Its name in the study, which is a folder's too."""
        return self.name or re.sub(r"[^A-Za-z0-9._-]+", "-", self.default_name)

    @property
    def default_name(self) -> str:
        """What it is called where the study gives it no name."""
        return self.kind

    @model_validator(mode="after")
    def _nameable(self) -> Self:
        if not _LABEL.fullmatch(self.label):
            raise ValueError(f"{self.label!r} names no folder; give the baseline a name")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what its rankings depend on, beside the collection; sources count by their bytes.

        Raises
        ------
        InputError
            A source is not there.
        """
        return contents(self, "name")

    def refusals(self, collection: Collection) -> Iterator[str]:
        """Tell why it cannot rank documents of the collection, before any work."""
        yield from ()

    def remarks(self, collection: Collection, queries: np.ndarray) -> Iterator[str]:
        """Tell what a reader of its rows should know of these queries, before any work."""
        yield from ()

    def making(self, collection: Collection, queries: int) -> Making:
        """Estimate what ranking takes."""
        return Making()

    @abstractmethod
    def rank(
        self, collection: Collection, queries: np.ndarray, into: Rankings, report: Report
    ) -> None:
        """Give the documents of each query, with their scores, to `into`.

        It runs as one task, and gives the same rankings wherever it runs.

        Parameters
        ----------
        collection : Collection
        queries : int64[queries]
            Rows of the collection's queries.
        into : Rankings
        report : callable
            Gets the share of the work that is done.
        """
