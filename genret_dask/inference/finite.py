"""The one check of what a model computed: nothing that is not finite enters a search or a score."""

from __future__ import annotations

import numpy as np

from genret_dask.errors import NumericError

FIX = (
    "export the model in fp32 or bf16 if it is in fp16, whose numbers end at 65,504; "
    "otherwise train it again with a lower training.learning_rate"
)


def check_finite(values: np.ndarray, query: np.ndarray, step: int, what: str) -> None:
    """Raise where a model gave NaN or infinity to a row that counts.

    Padding is no row: it may hold anything.

    Parameters
    ----------
    values : float[n]
        Log-partitions of live rows, or logits of tokens that may follow them.
    query : int64[n]
        The row of the batch that each belongs to.
    step : int
        Counted from 0.
    what : str
        Their name in the message.

    Raises
    ------
    NumericError
        With the row and the step; who knows the model and the query's id adds them.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    first = int(np.flatnonzero(~finite)[0])
    raise not_finite(int(query[first]), step, f"{what} is {values[first]}")


def not_finite(row: int, step: int, found: str) -> NumericError:
    """The error for a row of a batch at a step, both counted from 0."""
    return NumericError(
        f"step {step + 1}: {found} (row {row} of the batch)",
        expected="finite numbers from the model",
        fix=FIX,
        row=row,
        step=step,
    )
