"""Fit a law to any metric of the cube, over coordinates of one's choice."""

from __future__ import annotations

import dask
import numpy as np
import xarray as xr

from genret_dask.errors import InputError
from genret_dask.fits.fitting import Fit, fit_points
from genret_dask.fits.points import Points
from genret_dask.fits.surface import Loss
from genret_dask.metrics.bootstrap import bootstrap_mean
from genret_dask.metrics.reported import is_metric

SHORT = {"n_params": "n", "n_train": "d", "flops": "c"}
"""Coordinates that laws have a letter for; others keep their names."""


def fit_over(
    values: xr.DataArray,
    *axes: str,
    draws: int = 1000,
    seed: int = 0,
    loss: Loss = "squares",
    complement: bool | None = None,
) -> Fit:
    """Fit a law to the means over the queries, with a bootstrap over the queries.

    Parameters
    ----------
    values : xarray.DataArray
        A metric over `query` and any other dimensions; each cell of the others is a point.
        Computed in one pass, together with its resamples.
    *axes : str
        Coordinates above 0: one for L(N), L(D) or L(C), several for a surface. Over ``n_params``
        alone only models at the largest train fraction count.
    draws, seed : int
        Resamples of the queries.
    loss : {"squares", "huber"}
    complement : bool, optional
        Fit one minus the metric, as is done for the measures of a ranking unless told otherwise.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        There is no such coordinate, no query, no point, or the models are of several families or
        precisions.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> n = np.array([1e6, 1e7, 1e8, 1e9, 1e10])
    >>> loss = xr.DataArray(
    ...     ((1e3 / n[:, None]) ** 0.3 + 0.1) * rng.uniform(0.9, 1.1, (5, 200)),
    ...     dims=("model", "query"),
    ...     coords={"n_params": ("model", n)},
    ... )
    >>> fit = fit_over(loss, "n_params")
    >>> fit.exponents["n"].low < 0.3 < fit.exponents["n"].high
    True
    """
    values = _checked(values, axes)
    if complement is None:
        complement = is_metric(str(values.name))
    name = str(values.name or "value")
    if complement:
        values = 1 - values
    mean, resampled = dask.compute(values.mean("query"), bootstrap_mean(values, draws, seed))
    dims = mean.dims
    x = [mean[axis].broadcast_like(mean).transpose(*dims).values.ravel() for axis in axes]
    letters = tuple(SHORT.get(axis, axis) for axis in axes)
    points = Points(
        law=f"L({','.join(letters).upper()})",
        series=_series(values),
        metric=f"1 - {name}" if complement else name,
        axes=letters,
        x=np.stack(x, axis=1).astype(np.float64),
        y=mean.values.ravel(),
        draws=resampled.transpose("draw", *dims).values.reshape(draws, -1),
    )
    return fit_points(points.without_gaps(), loss=loss, seed=seed)


def of_family(
    values: xr.DataArray, family: str | None, precision: str | None = None
) -> xr.DataArray:
    """Choose the models of one family and precision; `InputError` where there are none."""
    for name, wanted in (("family", family), ("precision", precision)):
        if wanted is None:
            continue
        known = _labels(values, name)
        rows = [row for row, text in enumerate(known) if text == wanted]
        if not rows:
            raise InputError(
                f"there is no {name} {wanted!r}",
                expected=f"one of {', '.join(dict.fromkeys(known))}",
            )
        values = values.isel(model=rows)
    return values


def _checked(values: xr.DataArray, axes: tuple[str, ...]) -> xr.DataArray:
    if "query" not in values.dims or not axes:
        raise InputError(
            f"a law of {values.name} over {', '.join(axes) or 'nothing'} and dimensions "
            f"{', '.join(map(str, values.dims))}",
            expected="a metric over query, and at least one coordinate to fit over",
        )
    if missing := [axis for axis in axes if axis not in values.coords]:
        raise InputError(
            f"{values.name} has no coordinate {missing[0]!r}",
            expected=f"some of {', '.join(map(str, values.coords))}",
        )
    for name in ("family", "precision"):
        if name in values.coords and values[name].dims == ("model",):
            found = list(dict.fromkeys(_labels(values, name)))
            if len(found) > 1:
                raise InputError(
                    f"{values.name} is of {', '.join(found)}",
                    expected=f"the models of one {name}",
                    fix=f"choose one: {name}={found[0]!r}",
                )
    if axes == ("n_params",) and "train_fraction" in values.coords and "model" in values.dims:
        fraction = np.atleast_1d(values["train_fraction"].values)
        values = values.isel(model=np.flatnonzero(fraction == fraction.max()))
    return values


def _series(values: xr.DataArray) -> str:
    for name in ("family", "model"):
        if name in values.coords:
            found = set(_labels(values, name))
            if len(found) == 1:
                return found.pop()
    return str(values.name or "value")


def _labels(values: xr.DataArray, name: str) -> list[str]:
    """The texts of a coordinate; a cube's are of a dtype that NumPy does not cast."""
    return [str(text) for text in np.atleast_1d(values[name].values).tolist()]
