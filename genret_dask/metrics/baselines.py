"""Measures of a cube's baselines: of the same queries, judgements and resamples as the models'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import xarray as xr

from genret_dask.cube.baselines import rankings_of
from genret_dask.cube.open import kinds, reading
from genret_dask.metrics.bootstrap import estimate
from genret_dask.metrics.queries import LOSSES
from genret_dask.metrics.ranking import Measure
from genret_dask.metrics.table import FACTS, counted

_LACKED = ("beam", "flops")
_OF_CANDIDATES = ("cgl_queries", "negatives", "chance")


def baseline_queries(tree: xr.DataTree, measures: Mapping[str, Measure]) -> xr.Dataset | None:
    """Measure every query of a cube's baselines; None where it has none.

    Returns
    -------
    xarray.Dataset
        Each measure over (baseline, query), lazy; `kind` is along `baseline`, and `unanswered`,
        along both, tells where nothing was ranked.
    """
    search = rankings_of(tree)
    if search is None:
        return None
    _, _, contrast = next(kinds(tree.root))
    found = {name: measure(search, contrast) for name, measure in measures.items()}
    bare = {name: one.reset_coords(drop=True).isel(beam=0) for name, one in found.items()}
    nothing = (search["doc"].isel(rank=0, beam=0, drop=True) < 0).reset_coords(drop=True)
    values = xr.Dataset(bare).drop_vars("beam")
    values = values.assign_coords(kind=search["kind"], unanswered=nothing)
    return values.rename(model="baseline").transpose("baseline", "query")


def reduce_baselines(tree: xr.DataTree, measures: Mapping[str, Measure]) -> xr.Dataset | None:
    """`baseline_queries`, computed on threads of this process.

    Raises
    ------
    CubeError
        A variable is missing, or a chunk damaged.
    """
    with reading("baselines"):
        values = baseline_queries(tree, measures)
        return None if values is None else dask.compute(values, scheduler="threads")[0]


def baseline_records(
    values: xr.Dataset | None, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """One record for each baseline; plain JSON values.

    Parameters
    ----------
    values : xarray.Dataset or None
        As `reduce_baselines` gives them.
    draws, seed : int
        Resamples of the queries, the same ones as those of models.

    Returns
    -------
    list of dict
        As `genret_dask.metrics.table.records` has them of models, and `baseline`, its kind, and
        `unanswered`, the queries that it ranks nothing for. What a
        baseline does not have is None: identifiers, facts of the model, beam, flops, and the losses
        of candidates.
    """
    if values is None:
        return []
    found = {
        str(name): estimate(one, draws, seed).assign(n=one.notnull().sum("query"))
        for name, one in values.items()
    }
    return [
        {
            "identifiers": None,
            "model": str(name),
            "baseline": str(kind),
            **dict.fromkeys((*FACTS, *_LACKED)),
            "queries": values.sizes["query"],
            "unanswered": int(values["unanswered"].isel(baseline=row).sum()),
            **dict.fromkeys(_OF_CANDIDATES),
            **{metric: counted(cells.isel(baseline=row)) for metric, cells in found.items()},
            **dict.fromkeys(LOSSES),
        }
        for row, (name, kind) in enumerate(
            zip(values["baseline"].values, values["kind"].values, strict=True)
        )
    ]


def beside_models(values: xr.Dataset, baselines: xr.Dataset | None) -> xr.Dataset:
    """Put baselines beside the models of an identifier kind, to compare them query by query.

    Parameters
    ----------
    values : xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    baselines : xarray.Dataset or None
        The same measures, as `reduce_baselines` gives them. They are alike at every beam.
    """
    if baselines is None:
        return values
    names = [str(name) for name in baselines["baseline"].values]
    facts = {
        name: ("model", np.full(len(names), np.nan if one.dtype.kind in "fiu" else ""))
        for name, one in values.coords.items()
        if one.dims == ("model",)
    }
    found = {name: one.variable for name, one in baselines.items()}
    rows = xr.Dataset(
        {
            name: (one.dims, np.full((len(names), *one.shape[1:]), np.nan))
            if name not in found
            else (one.dims, np.repeat(found[name].values[..., None], one.sizes["beam"], axis=-1))
            for name, one in values.items()
        },
        coords={**facts, "model": names, "query": values["query"], "beam": values["beam"]},
    )
    return xr.concat([values, rows], "model")
