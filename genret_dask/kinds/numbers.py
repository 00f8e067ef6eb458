"""Numbers: the digits of a document's running number, which say nothing of its text."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from genret_dask.identifiers.codes import MOST_CODES
from genret_dask.kinds.base import Source
from genret_dask.kinds.fixed import FixedLength


class NumbersIdentifiers(FixedLength):
    """The digits of a running number, zeros before those of small ones, the highest place first.

    Tay et al. (2022), "Transformer memory as a differentiable search index", call these naively
    structured string identifiers.
    """

    kind: Literal["numbers"] = "numbers"
    base: Annotated[int, Field(ge=2, le=MOST_CODES)] = Field(10, description="digits of a place")
    order: Literal["corpus", "random"] = Field(
        "corpus", description="documents are numbered as they stand, or as the seed shuffles them"
    )

    noun = "number"

    def planned_levels(self, documents: int) -> list[int]:
        """See `FixedLength.planned_levels`; exact, as only the highest place may lack digits."""
        largest, levels = documents - 1, []
        while largest >= self.base:
            largest //= self.base
            levels.append(self.base)
        return [largest + 1, *levels]

    def cells(self, source: Source) -> np.ndarray:
        """See `FixedLength.cells`."""
        documents = len(source.collection)
        numbers = np.arange(documents)
        if self.order == "random":
            numbers = np.random.default_rng(source.seed).permutation(documents)
        places = self.base ** np.arange(len(self.planned_levels(documents)))[::-1]
        return (numbers[:, None] // places % self.base).astype(np.int32)
