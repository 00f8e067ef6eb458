"""Laws over one or several axes, many y at once: L(N), L(D), L(C), L(N, D), L(N, D, C).

Over one axis ``L(x) = (x0 / x)^a + d``. Over several, with p for the power axis,

    L(x) = (sum over axes k of (x0_k / x_k)^(a_k / a_p))^a_p + d

which for N and D with the power axis D is ``((N0/N)^(aN/aD) + D0/D)^aD + d`` (Kaplan et al., 2020,
arXiv 2001.08361, eq. 1.5, with an asymptote), and becomes the law of one axis where the others
grow without bound.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.laws import Surfaces, fit_power_laws, parameters, unit_scale
from genret_dask.fits.projection import (
    EXPONENTS,
    PRECISE,
    QUICK,
    Basis,
    grid_errors,
    linear_part,
    search,
)
from genret_dask.fits.robust import search_robust

Loss = Literal["squares", "huber"]

_Laws = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The parameters of the basis, s and d of every row."""

_POINT_STARTS = 12
_ROBUST_STARTS = (0.1, 0.2, 0.4, 0.8, 1.6)


def fit_surfaces(
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    power_axis: int | None = None,
    loss: Loss = "squares",
) -> Surfaces:
    """Fit every row of y over the same points.

    The first row is searched from the best starts of a grid, every other row from the grid's best
    and from the first row's law, whichever ends lower: first comes what was measured, then its
    resamples. The result does not depend on the units of x and y, nor on chance.

    Parameters
    ----------
    x : float64[n, K]
        Above 0.
    y : float64[rows, n]
        For Huber's loss above 0.
    weights : float64[n], optional
        Of the residuals, above 0; equal by default.
    power_axis : int, optional
        The axis p of the formula; the last by default.
    loss : {"squares", "huber"}
        Least squares on y, or Huber's loss on the logarithm of y
        (`genret_dask.fits.robust.DELTA`).

    Raises
    ------
    InputError
        There is no such loss.

    Examples
    --------
    >>> n, d = np.meshgrid([1e6, 1e7, 1e8], [1e3, 1e4, 1e5])
    >>> x = np.stack([n.ravel(), d.ravel()], axis=1)
    >>> y = ((1e3 / x[:, 0]) ** (0.3 / 0.5) + 10 / x[:, 1]) ** 0.5 + 0.2
    >>> fit_surfaces(x, y[None]).exponent.round(6).tolist()
    [[0.3, 0.5]]
    """
    if loss not in get_args(Loss):
        raise InputError(f"no loss is called {loss!r}", expected=" or ".join(get_args(Loss)))
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    power_axis = x.shape[1] - 1 if power_axis is None else power_axis
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    weights = weights / weights.sum()
    if x.shape[1] == 1 and loss == "squares":
        return fit_power_laws(x[:, 0], y, weights)
    basis = Basis(np.log(x / x.min(axis=0)), power_axis)
    found = _squares(basis, y, weights)
    if loss == "huber":
        found = _huber(basis, y, weights, found)
    return _in_units(basis, x, y, weights, found)


def _squares(basis: Basis, y: np.ndarray, weights: np.ndarray) -> _Laws:
    scaled, start, extent = unit_scale(y)
    floor = -start / extent
    grid = basis.starts()
    errors = grid_errors(basis, grid, scaled, weights, floor)

    best = np.argsort(errors[:, 0], kind="stable")[:_POINT_STARTS]
    point = np.zeros(len(best), dtype=int)
    found, error = search(basis, scaled[point], weights, floor[point], grid[best], QUICK)
    nearest = found[error.argmin()][None]
    (first,), _ = search(basis, scaled[:1], weights, floor[:1], nearest, PRECISE)

    own, own_error = search(basis, scaled, weights, floor, grid[errors.argmin(axis=0)], QUICK)
    shared, shared_error = search(basis, scaled, weights, floor, np.tile(first, (len(y), 1)), QUICK)
    theta = np.where((shared_error <= own_error)[:, None], shared, own)
    theta[0] = first
    s, d, _ = linear_part(np.expm1(basis.values(theta)), scaled, weights, floor)
    return theta, s * extent, np.where(d <= floor, 0.0, start + d * extent)


def _huber(basis: Basis, y: np.ndarray, weights: np.ndarray, squares: _Laws) -> _Laws:
    """From the least squares' end, from fixed exponents, and from the first row's best."""
    theta, s, d = squares
    lowest, extent = y.min(axis=1), np.maximum(np.ptp(y, axis=1), 1e-12 * y.max(axis=1))
    s, d = np.where(s > 0, s, 1e-9 * extent), np.where(d > 0, d, 1e-6 * lowest)
    own = search_robust(basis, y, weights, (theta, s, d))

    def from_here(rows: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
        shape = np.expm1(basis.values(start))
        first_s, first_d, _ = linear_part(shape, y[rows], weights, np.zeros(len(rows)))
        first_s = np.where(first_s > 0, first_s, 1e-6 * extent[rows])
        first_d = np.where(first_d > 0, first_d, 1e-6 * lowest[rows])
        return search_robust(basis, y[rows], weights, (start, first_s, first_d))

    point = [tuple(part[:1] for part in own)]
    for exponent in _ROBUST_STARTS:
        start = np.zeros((1, basis.size))
        start[:, : basis.axes] = np.log(exponent)
        point.append(from_here(np.zeros(1, dtype=int), start))
    best = min(point, key=lambda ends: float(ends[3][0]))
    shared = from_here(np.arange(len(y)), np.tile(best[0], (len(y), 1)))
    theta, s, d, loss = (
        np.concatenate([ours, rest[1:]]) for ours, rest in zip(best, shared, strict=True)
    )
    better = loss <= own[3]
    return (
        np.where(better[:, None], theta, own[0]),
        np.where(better, s, own[1]),
        np.where(better, d, own[2]),
    )


def _in_units(
    basis: Basis, x: np.ndarray, y: np.ndarray, weights: np.ndarray, found: _Laws
) -> Surfaces:
    theta, s, d = found
    predicted = s[:, None] * np.exp(basis.values(theta)) + d[:, None]
    mean = y @ weights
    total = ((y - mean[:, None]) ** 2) @ weights
    error = ((y - predicted) ** 2) @ weights
    few = len(np.unique(x, axis=0)) < parameters(basis.axes)
    none = (s <= 1e-8 * np.ptp(y, axis=1)) | few
    exponent = np.exp(theta[:, : basis.axes]).clip(*EXPONENTS)
    power = exponent[:, basis.power_axis, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scale = np.log(x.min(axis=0)) + (
            basis.log_shares(theta) + np.log(s)[:, None] / power
        ) / (exponent / power)
        r2 = np.where(none, 0.0, 1 - error / total)
    return Surfaces(
        exponent=np.where(none[:, None], np.nan, exponent),
        log_scale=np.where(none[:, None], -np.inf, log_scale),
        asymptote=np.where(none, mean, d),
        r2=np.where(total > 0, r2, np.nan),
        power_axis=basis.power_axis,
    )
