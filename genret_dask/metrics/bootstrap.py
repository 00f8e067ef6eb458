"""The bootstrap over queries, as a matrix product.

A resample of n queries with replacement is a row of multinomial counts; the resample's mean is
that row's product with the values. One matrix of counts serves every model and metric, so that
all intervals are of the same resamples (a paired bootstrap; Efron and Tibshirani, 1993).
"""

from __future__ import annotations

import math
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from genret_dask.errors import InputError

PARALLELIZED: dict[str, Any] = {
    "dask": "parallelized",
    "output_dtypes": [np.float64],
    "dask_gufunc_kwargs": {"allow_rechunk": True},
}
"""How `xarray.apply_ufunc` runs a kernel: chunk by chunk, lazily where its arrays are."""


def resample_weights(n: int, draws: int, seed: int) -> np.ndarray:
    """Weights of n observations in each resample.

    Returns
    -------
    float64[draws, n]
        Counts over n; every row sums to 1.

    Raises
    ------
    InputError
        There is nothing to resample, or no draw to make.
    """
    if n < 1 or draws < 1:
        raise InputError(f"{draws} resamples of {n} queries", expected="at least one of each")
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    return counts / n


def bootstrap_mean(values: xr.DataArray, draws: int = 1000, seed: int = 0) -> xr.DataArray:
    """Mean over the queries in each resample.

    Parameters
    ----------
    values : xarray.DataArray
        Has the dimension `query`. NaN values are left out of a resample's mean.
    draws, seed : int

    Returns
    -------
    xarray.DataArray
        (draw, ...), float64; lazy where `values` are. NaN where a resample has no value at all.

    Examples
    --------
    >>> values = xr.DataArray([0.0, 1.0, 2.0, 3.0], dims="query")
    >>> bootstrap_mean(values, draws=8).sizes["draw"]
    8
    """
    n = values.sizes["query"]
    if dask.is_dask_collection(values):
        # Whole along query first: left to apply_ufunc, other dimensions are split in return.
        values = values.chunk(query=-1)
        # One task makes the weights where they are needed; none travels with the graph.
        lazy = dask.delayed(resample_weights, pure=True)(n, draws, seed)
        weights = da.from_delayed(lazy, shape=(draws, n), dtype=np.float64)
    else:
        weights = resample_weights(n, draws, seed)
    means = xr.apply_ufunc(
        _weighted_mean,
        values,
        xr.DataArray(weights, dims=("draw", "query")),
        input_core_dims=[["query"], ["draw", "query"]],
        output_core_dims=[["draw"]],
        keep_attrs=True,
        **PARALLELIZED,
    )
    return means.transpose("draw", ...)


def interval(draws: xr.DataArray, level: float = 0.95) -> xr.DataArray:
    """Percentile interval over the dimension `draw`.

    Parameters
    ----------
    draws : xarray.DataArray
        (draw, ...); NaN draws are left out.
    level : float
        Share of the draws between the bounds.

    Returns
    -------
    xarray.DataArray
        (bound, ...) with the coordinate ``bound = ["low", "high"]``.
    """
    bounds = xr.apply_ufunc(
        _percentiles,
        draws,
        input_core_dims=[["draw"]],
        output_core_dims=[["bound"]],
        kwargs={"level": level},
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"bound": 2}},
        keep_attrs=True,
    )
    return bounds.assign_coords(bound=["low", "high"]).transpose("bound", ...)


def estimate(values: xr.DataArray, draws: int, seed: int) -> xr.Dataset:
    """Return the mean over the queries and its 95 % interval: `mean`, `low` and `high`."""
    bounds = interval(bootstrap_mean(values, draws, seed))
    found = {name: bounds.sel(bound=name, drop=True) for name in ("low", "high")}
    return xr.Dataset({"mean": values.mean("query"), **found})


def estimate_record(cell: xr.Dataset) -> dict[str, float | None]:
    """Return one cell of an `estimate` as JSON values; None where there is no number."""
    return {str(name): finite(value) for name, value in cell.items()}


def finite(value: Any) -> float | None:
    """Return a number as JSON can hold it: None where it is not finite."""
    return number if math.isfinite(number := float(value)) else None


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """values[..., query] and weights[draw, query] to [..., draw]."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0) @ weights.T
    if present.all():
        # No mean lies outside its values, as rounding would have it: of equal ones it is theirs.
        low, high = values.min(axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
        return np.clip(total / weights.sum(axis=-1), low, high)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / (present.astype(np.float64) @ weights.T)


def _percentiles(draws: np.ndarray, level: float) -> np.ndarray:
    """draws[..., draw] to [..., 2]."""
    bounds = np.full((*draws.shape[:-1], 2), np.nan)
    for place in np.ndindex(draws.shape[:-1]):
        present = draws[place][~np.isnan(draws[place])]
        if len(present):
            bounds[place] = np.quantile(present, [(1 - level) / 2, (1 + level) / 2])
    return bounds
