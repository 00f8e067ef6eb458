"""Laws of many y at once: what they are, and the fit over one axis.

``L(x) = (x0 / x)^a + d`` is linear in ``x0^a`` and ``d`` once the exponent is given: the search is
over the exponent alone, and the rest is solved exactly (variable projection; Golub and Pereyra,
1973). y is a loss or an error rate, so d is not below 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genret_dask.fits.projection import EXPONENTS, linear_part, log_sum

_GRID = np.geomspace(*EXPONENTS, 241)
_HALVINGS = 60
_VALUES = 100_000  # of all rows and exponents that are tried at once


@dataclass(frozen=True)
class Surfaces:
    """Laws of many y over the same points, of one axis or of several.

    Attributes
    ----------
    exponent : float64[rows, K]
        NaN where there is no law.
    log_scale : float64[rows, K]
        Natural logarithms of x0, which itself can be too small for a float.
    asymptote : float64[rows]
        d, in the units of y; the mean of y where there is no law.
    r2 : float64[rows]
        Share of the variance of y that the law explains; NaN where y does not vary.
    power_axis : int
        The axis p of the formula of `genret_dask.fits.surface`.
    """

    exponent: np.ndarray
    log_scale: np.ndarray
    asymptote: np.ndarray
    r2: np.ndarray
    power_axis: int

    @property
    def fitted(self) -> np.ndarray:
        """bool[rows]: there is a law."""
        return np.isfinite(self.exponent).all(axis=1)

    def rows(self, chosen: np.ndarray | slice) -> Surfaces:
        """Choose the laws of some rows."""
        arrays = {name: value for name, value in vars(self).items() if name != "power_axis"}
        return replace(self, **{name: value[chosen] for name, value in arrays.items()})

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Give L at each point.

        Parameters
        ----------
        x : float64[n, K]
            Above 0; infinity for an axis that is to cost nothing.

        Returns
        -------
        float64[rows, n]
            The asymptote alone where there is no law.
        """
        power = self.exponent[:, self.power_axis, None]
        with np.errstate(all="ignore"):
            ratio = (self.exponent / power)[:, None]
            terms = ratio * (self.log_scale[:, None] - np.log(np.asarray(x, dtype=np.float64)))
            excess = np.exp(power * log_sum(terms))
        return np.where(self.fitted[:, None], excess, 0.0) + self.asymptote[:, None]


def parameters(axes: int) -> int:
    """Count the free parameters of a law: an exponent and a scale for each axis, the asymptote."""
    return 2 * axes + 1


def unit_scale(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring every row of y to the range from 0 to 1: the scaled rows, their starts and extents."""
    start, extent = y.min(axis=1), np.ptp(y, axis=1)
    extent = np.where(extent > 0, extent, 1.0)
    return (y - start[:, None]) / extent[:, None], start, extent


def fit_power_laws(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Surfaces:
    """Fit every row of y over the same values of one axis, by weighted least squares.

    The exponent is searched on a grid, and from its best place by halving the bracket at the sign
    of the error's derivative: a root of the derivative is found to rounding, a minimum by its
    values only to half the digits.

    Parameters
    ----------
    x, weights : float64[n]
        Above 0; values are not checked.
    y : float64[rows, n]
        Not below 0.

    Returns
    -------
    Surfaces
        Of one axis.
    """
    weights = np.ones_like(x) if weights is None else weights
    weights = weights / weights.sum()
    log_x = np.log(x / x.min())
    scaled, start, extent = unit_scale(y)
    floor = -start / extent

    def solve(exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coefficient, the asymptote and the squared error at each row's exponent."""
        return linear_part(np.expm1(-exponent[..., None] * log_x), scaled, weights, floor)

    def rises(exponent: np.ndarray) -> np.ndarray:
        """Whether the error grows with the exponent, the linear part being at its optimum."""
        coefficient, asymptote, _ = solve(exponent)
        basis = np.exp(-exponent[:, None] * log_x)
        residual = coefficient[:, None] * basis + asymptote[:, None] - scaled
        return -coefficient * ((residual * basis * log_x) @ weights) > 0

    at_once = max(1, _VALUES // y.size)
    parts = range(0, len(_GRID), at_once)
    errors = np.concatenate([solve(_GRID[at : at + at_once, None])[2] for at in parts])
    best = errors.argmin(axis=0)
    low = np.log(_GRID[np.maximum(best - 1, 0)])
    high = np.log(_GRID[np.minimum(best + 1, len(_GRID) - 1)])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rising = rises(np.exp(middle))
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    exponent = np.clip(np.exp((low + high) / 2), *EXPONENTS)
    exponent = np.where(solve(exponent)[2] > errors.min(axis=0), _GRID[best], exponent)
    coefficient, asymptote, error = solve(exponent)

    mean = scaled @ weights
    total = ((scaled - mean[:, None]) ** 2) @ weights
    none = (coefficient <= 0) | (len(np.unique(x)) < parameters(1))
    asymptote = np.where(none, mean, asymptote)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scale = np.log(x.min()) + np.log(coefficient * extent) / exponent
        r2 = np.where(total > 0, np.where(none, 0.0, 1 - error / total), np.nan)
    return Surfaces(
        exponent=np.where(none, np.nan, exponent)[:, None],
        log_scale=np.where(none, -np.inf, log_scale)[:, None],
        asymptote=np.where(asymptote <= floor, 0.0, start + asymptote * extent),
        r2=r2,
        power_axis=0,
    )
