"""Atomic identifiers: a token for each document, its own row of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from dask.utils import format_bytes
from pydantic import Field

from genret_dask.datasets.collection import Collection
from genret_dask.kinds.base import Source
from genret_dask.kinds.fixed import FixedLength

_WIDTH = 512  # of the model that an error's bytes are of
_FLOAT = 4


class AtomicIdentifiers(FixedLength):
    """One token a document: a level with as many cells as there are documents.

    Tay et al. (2022), "Transformer memory as a differentiable search index", call these
    unstructured atomic identifiers. A model holds a row of weights for every document.
    """

    kind: Literal["atomic"] = "atomic"
    most_documents: Annotated[int, Field(gt=0, lt=2**31)] = Field(
        1_000_000, description="more are refused: each is a row of every model's vocabulary"
    )

    noun = "document token"

    def settings(self) -> dict[str, Any]:
        """See `Kind.settings`; what is refused changes nothing of what is not."""
        return self.model_dump(mode="json", exclude={"name", "most_documents"})

    def planned_levels(self, documents: int) -> list[int]:
        """See `FixedLength.planned_levels`."""
        return [documents]

    def refusals(self, collection: Collection) -> Iterator[str]:
        """See `Kind.refusals`: more documents than the settings allow."""
        if (documents := len(collection)) > self.most_documents:
            weights = _FLOAT * _WIDTH * documents
            yield (
                f"{documents:,} documents are as many rows of every model's vocabulary: at a width "
                f"of {_WIDTH}, {format_bytes(weights)} of weights, and {format_bytes(4 * weights)} "
                f"in training; identifiers.most_documents allows {self.most_documents:,}: raise it "
                "where workers hold that, or choose codes, which share their rows"
            )

    def cells(self, source: Source) -> np.ndarray:
        """See `FixedLength.cells`."""
        return np.arange(*self.planned_levels(len(source.collection)), dtype=np.int32)[:, None]
