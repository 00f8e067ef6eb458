"""The metrics of a cube as records, with bootstrap intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.metrics.bootstrap import estimate, estimate_record, finite
from genret_dask.metrics.queries import LOSSES

FACTS = ("family", "n_params", "n_train", "train_fraction")
"""Coordinates along `model` that every record repeats."""


def _known(value: Any) -> Any:
    """A coordinate's value; None for NaN, which a checkpoint of unknown training has."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _facts(values: xr.Dataset) -> dict[str, list[Any]]:
    found = {name: [_known(one) for one in values[name].values.tolist()] for name in FACTS}
    # Beside one that is not known, numbers are floats.
    return {**found, "n_train": [one if one is None else int(one) for one in found["n_train"]]}


def counted(cell: xr.Dataset) -> dict[str, Any]:
    """Return one cell of an `estimate` with `n` as JSON values."""
    return {**estimate_record(cell.drop_vars("n")), "n": int(cell["n"])}


def records(
    kind: str, values: xr.Dataset, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """One record for each model and beam size, in the cube's order; plain JSON values.

    Parameters
    ----------
    kind : str
        Identifier kind, the cube's group.
    values : xarray.Dataset
        The metrics of each query, as `genret_dask.metrics.queries.reduce_queries` gives them.
    draws, seed : int
        Resamples of the queries. They are the same ones for every model, beam size and metric,
        so that differences between two records can be judged by the same resamples.

    Returns
    -------
    list of dict
        identifiers, model, the coordinates of `FACTS`, beam, flops (mean per query); queries, and
        cgl_queries, those of them that have a CGL; negatives (mean per query), and chance, the mean
        of ``log(1 + 1/negatives)``, which is the CGL of a model that knows nothing; and for each
        measure of `values`, cgl (ratio form) and generation_loss (the positive's):
        ``{"mean": float, "low": float, "high": float, "n": int}`` with the bounds of the 95 %
        percentile interval, and the number of queries that it is the mean of. Queries without the
        value are left out; a mean over none is None.
    """
    names = [str(name) for name in values.data_vars if name != "flops"]
    order = [name for name in names if name not in LOSSES] + list(LOSSES)
    found = {
        name: estimate(values[name], draws, seed).assign(n=values[name].notnull().sum("query"))
        for name in order
    }
    facts, flops = _facts(values), values["flops"].mean("query").values
    have_cgl = values["cgl"].notnull().sum("query").values
    numbers = values["negatives"].values.astype(np.float64)
    with np.errstate(divide="ignore"):
        chances = np.log1p(1 / numbers)[numbers > 0]
    return [
        {
            "identifiers": kind,
            "model": str(model),
            **{name: facts[name][row] for name in FACTS},
            "beam": int(beam),
            "flops": finite(flops[row, column]),
            "queries": values.sizes["query"],
            "cgl_queries": int(have_cgl[row]),
            "negatives": finite(numbers.mean()) if len(numbers) else None,
            "chance": finite(chances.mean()) if len(chances) else None,
            **{
                # Losses of the candidates have no beam.
                name: counted(cells.isel(model=row, beam=column, missing_dims="ignore"))
                for name, cells in found.items()
            },
        }
        for row, model in enumerate(values["model"].values)
        for column, beam in enumerate(values["beam"].values)
    ]
