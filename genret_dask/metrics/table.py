"""The metrics of a cube as records, with bootstrap intervals."""

from __future__ import annotations

import math
from typing import Any

import dask
import numpy as np
import xarray as xr

from genret_dask.metrics.bootstrap import bootstrap_mean, interval
from genret_dask.metrics.contrastive import cgl, positive_loss
from genret_dask.metrics.ranking import MEASURES

FACTS = ("family", "n_params", "n_train", "train_fraction")
"""Coordinates along `model` that every record repeats."""


def records(
    kind: str, search: xr.Dataset, contrast: xr.Dataset, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """One record for each model and beam size, in the cube's order; plain JSON values.

    Everything is reduced in one pass over the cube, of which `token` and the logits of the
    ranked lists are not read.

    Parameters
    ----------
    kind : str
        Identifier kind, the cube's group.
    search, contrast : xarray.Dataset
        The two datasets of that group.
    draws, seed : int
        Resamples of the queries. They are the same ones for every model, beam size and metric,
        so that differences between two records can be judged by the same resamples.

    Returns
    -------
    list of dict
        identifiers, model, the coordinates of `FACTS`, beam, flops (mean per query), and for each
        name of `ranking.MEASURES`, cgl (ratio form) and generation_loss (the positive's):
        ``{"mean": float, "low": float, "high": float}`` with the bounds of the 95 % percentile
        interval. Queries without the value are left out; a mean over none is None.
    """
    values = {
        **{name: measure(search, contrast) for name, measure in MEASURES.items()},
        "cgl": cgl(contrast),
        "generation_loss": positive_loss(contrast),
    }
    lazy = {
        name: (value.mean("query"), interval(bootstrap_mean(value, draws=draws, seed=seed)))
        for name, value in values.items()
    }
    facts = {name: search[name].variable for name in FACTS}
    flops = search["flops"].mean("query").transpose("model", "beam")
    lazy, facts, flops = dask.compute(lazy, facts, flops)
    return [
        {
            "identifiers": kind,
            "model": str(model),
            **{name: np.asarray(facts[name]).tolist()[row] for name in FACTS},
            "beam": int(beam),
            "flops": _number(flops[row, column]),
            **{
                name: _estimate(mean, bounds, {"model": row, "beam": column})
                for name, (mean, bounds) in lazy.items()
            },
        }
        for row, model in enumerate(search["model"].values)
        for column, beam in enumerate(search["beam"].values)
    ]


def _estimate(
    mean: xr.DataArray, bounds: xr.DataArray, place: dict[str, int]
) -> dict[str, float | None]:
    """One cell; metrics of the candidates have no beam."""
    here = {dim: index for dim, index in place.items() if dim in mean.dims}
    low, high = bounds.isel(here).transpose("bound").values
    return {"mean": _number(mean.isel(here)), "low": _number(low), "high": _number(high)}


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
