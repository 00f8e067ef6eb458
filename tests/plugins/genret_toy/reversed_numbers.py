"""Identifiers that are a document's running number, its last digit first."""

from typing import Literal

import numpy as np

from genret_dask.kinds import FixedLength, Source


class ReversedNumbers(FixedLength):
    """The digits of a document's number, the last one first."""

    kind: Literal["reversed"] = "reversed"

    noun = "number"

    def planned_levels(self, documents: int) -> list[int]:
        return [10] * len(str(documents - 1))

    def cells(self, source: Source) -> np.ndarray:
        documents = len(source.collection)
        numbers = np.arange(documents)
        return np.stack(
            [numbers // 10**place % 10 for place in range(len(str(documents - 1)))], axis=1
        )
