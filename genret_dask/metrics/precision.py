"""What a reduced precision changes: each model against its fp32 twin, query by query."""

from __future__ import annotations

import math
from typing import Any

import dask
import numpy as np
import xarray as xr

from genret_dask.metrics.bootstrap import bootstrap_mean, interval
from genret_dask.metrics.contrastive import cgl
from genret_dask.metrics.ranking import recall
from genret_dask.specs import precise_name

CUT_OFFS = (10, 100)


def precision_changes(
    kind: str, search: xr.Dataset, contrast: xr.Dataset, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Mean paired differences of every model that has an fp32 twin, the same cell, in the cube.

    Parameters
    ----------
    kind : str
        Identifier kind, the cube's group.
    search, contrast : xarray.Dataset
        The two datasets of that group, with the coordinate `precision` along `model`.
    draws, seed : int
        Resamples of the queries, the same ones for every model.

    Returns
    -------
    list of dict
        identifiers, model, twin, precision, beam (the largest), and for cgl (ratio form),
        recall@10 and recall@100 (at that beam) the model's mean less its twin's:
        ``{"mean": float, "low": float, "high": float}`` with the bounds of the 95 % percentile
        interval of the paired bootstrap. Queries without the value are left out; a mean over none
        is None. Empty where all models are fp32.
    """
    names = [str(name) for name in search["model"].values]
    precisions = dict(zip(names, map(str, search["precision"].values), strict=True))
    twins = {
        name: twin
        for name, precision in precisions.items()
        for twin in names
        if precision != "fp32" == precisions[twin] and name == precise_name(twin, precision)
    }
    if not twins:
        return []
    widest = search.isel(beam=int(np.argmax(search["beam"].values)))
    values = {
        "cgl": cgl(contrast),
        **{f"recall@{k}": recall(widest, contrast, k) for k in CUT_OFFS},
    }
    lazy = {}
    for name, value in values.items():
        plain = value.drop_vars([c for c in value.coords if c not in ("model", "query")])
        theirs = plain.sel(model=list(twins.values())).assign_coords(model=list(twins))
        change = plain.sel(model=list(twins)) - theirs
        lazy[name] = (change.mean("query"), interval(bootstrap_mean(change, draws, seed)))
    (computed,) = dask.compute(lazy)
    return [
        {
            "identifiers": kind,
            "model": model,
            "twin": twin,
            "precision": precisions[model],
            "beam": int(widest["beam"]),
            **{
                name: _estimate(mean.sel(model=model), bounds.sel(model=model))
                for name, (mean, bounds) in computed.items()
            },
        }
        for model, twin in twins.items()
    ]


def _estimate(mean: xr.DataArray, bounds: xr.DataArray) -> dict[str, float | None]:
    numbers = {"mean": mean, "low": bounds.sel(bound="low"), "high": bounds.sel(bound="high")}
    return {
        name: number if math.isfinite(number := float(np.asarray(value))) else None
        for name, value in numbers.items()
    }
