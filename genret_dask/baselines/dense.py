"""Dense retrieval: the inner product of embeddings of query and document, searched exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from genret_dask.baselines.base import Baseline, Rankings, Report
from genret_dask.datasets.collection import Collection
from genret_dask.errors import ModelError
from genret_dask.identifiers.embedding import CORE_FLOPS, SentenceEmbedding, unit_length
from genret_dask.kinds.base import Making
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.specs import PositiveInt
from genret_dask.storage.sources import contents

_RANGE = 2**14
"""Documents whose vectors are held at the same time."""


class DenseBaseline(Baseline):
    """Embeddings by a sentence embedder, as `identifiers: codes` takes one, compared by cosine."""

    kind: Literal["dense"] = "dense"
    path: Path | None = Field(None, description="a local Hugging Face folder")
    package: str | None = Field(None, description="an installed package that carries the model")
    query_prefix: str = Field("", description='put before each query, as "query: "')
    document_prefix: str = Field("", description='put before each document, as "passage: "')
    max_length: PositiveInt = Field(256, description="tokens read of a text")
    batch_size: PositiveInt = 32

    @model_validator(mode="after")
    def _one_source(self) -> DenseBaseline:
        if (self.path is None) == (self.package is None):
            raise ValueError("give exactly one of path and package")
        return self

    @property
    def default_name(self) -> str:
        """The package's name, or the folder's."""
        return self.package or (self.path.name if self.path is not None else self.kind)

    @property
    def _embedding(self) -> SentenceEmbedding:
        return SentenceEmbedding(
            kind="sentence",
            path=self.path,
            package=self.package,
            max_length=self.max_length,
            batch_size=self.batch_size,
        )

    def settings(self) -> dict[str, Any]:
        """See `Baseline.settings`; the model counts by its bytes."""
        embedding = self._embedding
        try:
            embedding.check()
        except ModelError as error:
            raise ModelError(
                f"baselines {self.label}: {error.found}",
                expected=error.expected,
                fix=error.fix or "correct the baseline's path or package",
            ) from error
        model = embedding.settings()
        return contents(self, "name", "path", "package", bytes=model["bytes"])

    def making(self, collection: Collection, queries: int) -> Making:
        """See `Baseline.making`."""
        cost = self._embedding.cost(len(collection))
        letters = collection.texts.nbytes + collection.titles.nbytes + collection.queries.nbytes
        compared = 2 * cost.dim * len(collection) * queries / CORE_FLOPS
        return Making(
            task_seconds=cost.seconds * letters + compared,
            task_bytes=2 * cost.nbytes + 12 * cost.dim * (_RANGE + queries),
            stage="ranking",
            fix=lambda nbytes: "leave the dense baseline out, or choose a smaller encoder",
        )

    @alone_in_torch(threads=1)
    def rank(
        self, collection: Collection, queries: np.ndarray, into: Rankings, report: Report
    ) -> None:
        """See `Baseline.rank`; ties are broken by document row.

        On one thread, as another number of them may round otherwise.
        """
        import faiss

        texts = (self.query_prefix + text for text in collection.queries.take(queries))
        asked = self._vectors(texts)
        rows = np.arange(len(collection)) if into.within is None else into.within
        for first in range(0, len(rows), _RANGE):
            mine = rows[first : first + _RANGE]
            if into.within is None:
                documents = collection.documents(first, first + _RANGE)
            else:
                documents = (collection.document(row) for row in mine.tolist())
            vectors = self._vectors(self.document_prefix + text for text in documents)
            # One more, as a query's own document is left out.
            near = min(into.depth + 1, len(mine))
            scores, places = faiss.knn(asked, vectors, near, faiss.METRIC_INNER_PRODUCT)
            for query in range(len(queries)):
                order = np.argsort(places[query])
                into.add(query, mine[places[query, order]], scores[query, order])
            report((first + len(mine)) / len(rows))

    def _vectors(self, texts: Any) -> np.ndarray:
        return unit_length(self._embedding.transform(texts, Path()))
