"""A baseline: documents by how many different words they share with the query."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from genret_dask.baselines import Baseline, Rankings
from genret_dask.datasets import Collection
from genret_dask.datasets.words import terms


class Overlap(Baseline):
    """How many different words a document shares with the query."""

    kind: Literal["overlap"] = "overlap"

    def rank(
        self,
        collection: Collection,
        queries: np.ndarray,
        into: Rankings,
        report: Callable[[float], None],
    ) -> None:
        asked = [{*terms(text)} for text in collection.queries.take(queries)]
        for row, text in enumerate(collection.documents()):
            words = {*terms(text)}
            for place, query in enumerate(asked):
                if shared := len(query & words):
                    into.add(place, np.array([row]), np.array([shared]))
            report((row + 1) / len(collection))
