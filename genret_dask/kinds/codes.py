"""Codes: residual-quantised cells of a document embedding, made unique by a last level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import RULES
from genret_dask.identifiers.codes import build_cells
from genret_dask.identifiers.embedding import EmbeddingSpec, TfidfEmbedding
from genret_dask.kinds.fixed import FixedLength
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.sources import contents


class CodesIdentifiers(FixedLength):
    """Residual-quantised codes of a document embedding, made unique by a last level."""

    kind: Literal["codes"] = "codes"
    levels: Annotated[int, Field(gt=0, le=64)] = Field(
        3, description="quantised levels, before the unique one"
    )
    codes: Annotated[int, Field(ge=2, le=65536)] = Field(32, description="codes a level")
    embedding: EmbeddingSpec = TfidfEmbedding()

    def problems(self) -> Iterator[str]:
        """See `Kind.problems`."""
        yield from self.embedding.problems()

    def settings(self) -> dict[str, Any]:
        """See `Kind.settings`."""
        return contents(self, "embedding", embedding=self.embedding.settings())

    def made_from(self, corpus: str, seed: int, tokenizer: str | None) -> Origin:
        """See `Kind.made_from`."""
        parts = super().made_from(corpus, seed, tokenizer).parts
        return Origin(self.kind, {**parts, "words": RULES})

    def planned_levels(self, documents: int) -> list[int]:
        """See `FixedLength.planned_levels`; how many share every cell only the documents tell."""
        return [*[self.codes] * self.levels, 1]

    def cells(self, collection: Collection, seed: int) -> np.ndarray:
        """See `FixedLength.cells`."""
        return build_cells(collection, self.embedding, self.levels, self.codes, seed)
