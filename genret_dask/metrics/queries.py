"""Every metric of every query, in one pass over the cube.

The values of queries are small: 3,600 queries, 8 models and 7 beam sizes make a few megabytes.
Records, laws, comparisons and frontiers all start from them, so that the logits of the candidates
and the ranked lists are read once.
"""

from __future__ import annotations

from collections.abc import Mapping

import dask
import numpy as np
import xarray as xr

from genret_dask.cube.open import reading
from genret_dask.errors import InputError
from genret_dask.metrics import ranking
from genret_dask.metrics.contrastive import cgl, negatives, positive_loss
from genret_dask.metrics.ranking import Measure

LOSSES = {"cgl": cgl, "generation_loss": positive_loss}
"""Values of the candidates, by name: (model, query)."""


def per_query(
    search: xr.Dataset, contrast: xr.Dataset, measures: Mapping[str, Measure] | None = None
) -> xr.Dataset:
    """The metrics of each query.

    Parameters
    ----------
    search, contrast : xarray.Dataset
        The two datasets of an identifier kind.
    measures : mapping of name to measure, optional
        All of `ranking.measures` by default.

    Returns
    -------
    xarray.Dataset
        cgl (ratio form) and generation_loss over (model, query), flops and each measure over
        (model, query, beam); the coordinates of the cube along model and query, and `negatives`,
        the number of each query's. Lazy where the cube is. The attribute `extent` has the most
        identifiers of a candidate and the most tokens of one.
    """
    measures = ranking.measures() if measures is None else measures
    values = {
        **{name: loss(contrast) for name, loss in LOSSES.items()},
        "flops": search["flops"],
        **{name: measure(search, contrast) for name, measure in measures.items()},
    }
    facts = {
        name: coordinate.variable
        for name, coordinate in search.coords.items()
        if coordinate.dims in (("model",), ("query",)) and name not in coordinate.dims
    }
    # Coordinates are compared when datasets are joined, which would read them.
    bare = {name: value.reset_coords(drop=True) for name, value in values.items()}
    facts["negatives"] = negatives(contrast).variable
    extent = [contrast.sizes.get(name, 1) for name in ("identifier", "step")]
    found = xr.Dataset(bare, attrs={"extent": extent})
    return found.assign_coords(facts).transpose("model", "query", "beam")


def place_in(labels: np.ndarray, wanted: str | int, dim: str) -> int:
    """Find the place of a label of a dimension; `InputError` where there is no such label."""
    known = labels.tolist()
    if wanted not in known:
        raise InputError(
            f"there is no {dim} {wanted!r}", expected=f"one of {', '.join(map(str, known))}"
        )
    return known.index(wanted)


def reduce_queries(
    search: xr.Dataset, contrast: xr.Dataset, measures: Mapping[str, Measure] | None = None
) -> xr.Dataset:
    """`per_query`, computed in one pass over the cube.

    `token` and the logits of the ranked lists are not read.

    Raises
    ------
    CubeError
        A variable is missing, or a chunk damaged.
    """
    with reading("metrics"):
        (values,) = dask.compute(per_query(search, contrast, measures))
    return values
