"""Queries told apart by whether what answers them was added to the corpus after the training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.errors import InputError

BEFORE = "documents_before"
"""The attribute of a cube that tells how many documents there were; those behind were added."""


def apart(contrast: xr.Dataset, attributes: Mapping[Hashable, Any]) -> dict[str, np.ndarray]:
    """Tell which queries ask for documents that there were, and which for added ones.

    Parameters
    ----------
    contrast : xarray.Dataset
        Candidates of each query: `doc` and `is_positive` over (query, candidate).
    attributes : mapping
        Of the cube.

    Returns
    -------
    dict of str to bool[queries]
        "before", whose relevant documents were all there, and "added", of which one was added.

    Raises
    ------
    InputError
        Nothing was added to the run's corpus.
    """
    if BEFORE not in attributes:
        raise InputError(
            "nothing was added to the documents of this run",
            expected="a run of genret-dask add",
        )
    is_new = (contrast["doc"] >= attributes[BEFORE]) & contrast["is_positive"]
    added = is_new.any("candidate").values
    return {"before": ~added, "added": added}
