"""What a reduced precision changes: each model against its fp32 twin, query by query."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.metrics.bootstrap import estimate, estimate_record
from genret_dask.specs import precise_name

METRICS = ("cgl", "recall@10", "recall@100")
"""What is compared, beside the main metric."""


def precision_changes(
    kind: str,
    values: xr.Dataset,
    draws: int = 1000,
    seed: int = 0,
    *,
    metric: str = MAIN_METRIC,
) -> list[dict[str, Any]]:
    """Mean paired differences of every model that has an fp32 twin, the same cell, in the cube.

    Parameters
    ----------
    kind : str
        Identifier kind, the cube's group.
    values : xarray.Dataset
        The metrics of each query, as `genret_dask.metrics.queries.reduce_queries` gives them.
    draws, seed : int
        Resamples of the queries, the same ones for every model.
    metric : str
        The cube's main metric, which is compared too.

    Returns
    -------
    list of dict
        identifiers, model, twin, precision, beam (the largest), and for cgl (ratio form),
        recall@10, recall@100 and the main metric (at that beam) the model's mean less its twin's:
        ``{"mean": float, "low": float, "high": float}`` with the bounds of the 95 % percentile
        interval of the paired bootstrap. Queries without the value are left out; a mean over none
        is None. Empty where all models are fp32.
    """
    names, labels = ([str(one) for one in values[name].values] for name in ("model", "precision"))
    precisions = dict(zip(names, labels, strict=True))
    twins = _twins(precisions)
    if not twins:
        return []
    widest = values.isel(beam=int(np.argmax(values["beam"].values)))
    changes = {}
    for name in dict.fromkeys((*METRICS, metric)):
        plain = widest[name].reset_coords(drop=True)
        theirs = plain.sel(model=list(twins.values())).assign_coords(model=list(twins))
        change = plain.sel(model=list(twins)) - theirs
        changes[name] = estimate(change, draws, seed)
    return [
        {
            "identifiers": kind,
            "model": model,
            "twin": twin,
            "precision": precisions[model],
            "beam": int(widest["beam"]),
            **{name: estimate_record(cells.sel(model=model)) for name, cells in changes.items()},
        }
        for model, twin in twins.items()
    ]


def _twins(of: dict[str, str]) -> dict[str, str]:
    """The fp32 model of the same cell, by the name of each model in another precision."""
    return {
        name: twin
        for name, precision in of.items()
        for twin in of
        if precision != "fp32" == of[twin] and name == precise_name(twin, precision)
    }
