"""Fit every law of a cube."""

from __future__ import annotations

from typing import Any, Literal, get_args

import xarray as xr

from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.errors import InputError
from genret_dask.fits.fitting import Fit, fit_points
from genret_dask.fits.series import means_of, points_of
from genret_dask.fits.surface import Loss
from genret_dask.metrics.queries import reduce_queries
from genret_dask.metrics.ranking import Measure, measures

Weights = Literal["equal", "variance"]


def fit_records(
    kind: str,
    search: xr.Dataset,
    contrast: xr.Dataset,
    draws: int = 1000,
    seed: int = 0,
    *,
    metric: str = MAIN_METRIC,
    measure: Measure | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Fit a law to each series of a cube (`genret_dask.fits.series.points_of`); plain JSON values.

    Parameters
    ----------
    kind : str
        Identifier kind, the cube's group.
    search, contrast : xarray.Dataset
        The two datasets of that group, reduced in one pass.
    draws, seed : int
        Resamples of the queries, the same ones for every model, beam size and metric. FLOPs stay
        those of all queries.
    metric : str
        The measure of a ranking whose complement is fitted over FLOPs.
    measure : callable, optional
        That measure; by default the one of `genret_dask.metrics.ranking.measures`.
    **options
        `loss` and `weights` of `fits_of`.

    Returns
    -------
    list of dict
        identifiers, family, precision, law, series, metric, axes; exponents and scales by axis, and
        the asymptote, as ``{"value": float, "low": float, "high": float}`` with 95 % percentile
        bounds; exponent and scale, those of a single axis; r2, n, loss, intervals, forecast,
        warnings. None stands for a value that there is not, and for the end of an open interval.
    """
    values = reduce_queries(search, contrast, {metric: measure or measures()[metric]})
    return [fit.record() for fit in fits_of(kind, values, draws, seed, metric=metric, **options)]


def fits_of(
    kind: str,
    values: xr.Dataset,
    draws: int = 1000,
    seed: int = 0,
    *,
    loss: Loss = "squares",
    weights: Weights = "equal",
    metric: str = MAIN_METRIC,
) -> list[Fit]:
    """Fit a law to each series of a cube, from the metrics of each query.

    Parameters
    ----------
    kind : str
        Identifier kind.
    values : xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    draws, seed : int
        Resamples of the queries.
    loss : {"squares", "huber"}
        On y, or Huber's on the logarithm of y.
    weights : {"equal", "variance"}
        Of the points: all alike, or one over their variance among the resamples.
    metric : str
        The measure of a ranking, one of the values, whose complement is fitted over FLOPs.

    Raises
    ------
    InputError
        There are no such weights, no such loss, or no such metric.
    """
    if weights not in get_args(Weights):
        raise InputError(f"no weights are called {weights!r}", expected="equal or variance")
    found = points_of(means_of(values, draws, seed, metric=metric), kind)
    if weights == "variance":
        found = [points.weighted_by_variance() for points in found]
    return [fit_points(points, loss=loss, seed=seed) for points in found]
