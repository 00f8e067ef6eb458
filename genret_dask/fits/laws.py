"""Power laws by variable projection.

``L(x) = (x0 / x)^a + d`` is linear in ``x0^a`` and ``d`` once the exponent is given: the search is
over the exponent alone, and the rest is solved exactly (Golub and Pereyra, 1973). It is a first
fit, by least squares on L itself; y is a loss or an error rate, so d is not below 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.doubts import doubts_of_points
from genret_dask.fits.projection import EXPONENTS, linear_part

_GRID = np.geomspace(*EXPONENTS, 241)
_HALVINGS = 60


@dataclass(frozen=True)
class PowerLaw:
    """``L(x) = (scale / x)^exponent + asymptote``.

    Attributes
    ----------
    exponent : float
        a; NaN where y does not fall with x, or has too few points to tell.
    asymptote : float
        d, in the units of y; the mean of y where there is no law.
    log_scale : float
        Natural logarithm of x0, which itself can be too small for a float.
    r2 : float
        Share of the variance of y that the law explains; NaN where y does not vary.
    n : int
        Points.
    warnings : tuple of str
        What speaks against the law, each with its number.
    """

    exponent: float
    asymptote: float
    log_scale: float
    r2: float
    n: int
    warnings: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """x0, in the units of x: where the law is 1 above its asymptote."""
        with np.errstate(over="ignore", under="ignore"):
            return float(np.exp(self.log_scale))

    def predict(self, x: np.ndarray | float) -> np.ndarray:
        """L at each x above 0; the asymptote alone where there is no law."""
        x = np.asarray(x, dtype=np.float64)
        if not np.isfinite(self.exponent):
            return np.full(x.shape, self.asymptote)
        return np.exp(self.exponent * (self.log_scale - np.log(x))) + self.asymptote


@dataclass(frozen=True)
class PowerLaws:
    """Laws of many y over the same x, as arrays; see `PowerLaw`."""

    exponent: np.ndarray
    asymptote: np.ndarray
    log_scale: np.ndarray
    r2: np.ndarray


def fit_power_law(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
) -> PowerLaw:
    """Fit ``L(x) = (x0 / x)^a + d`` to a falling y, by weighted least squares.

    The units of x and y do not change the exponent. A metric that rises is fitted as one minus
    the metric.

    Parameters
    ----------
    x : array_like[n]
        Above 0: parameters, training pairs, floating-point operations.
    y : array_like[n]
        A loss or an error rate, not below 0.
    weights : array_like[n], optional
        Weights of the squared residuals, above 0; equal by default.

    Returns
    -------
    PowerLaw
        With warnings where fewer than three x differ, three points leave nothing over, y rises
        on the way, the exponent or the asymptote is at a bound, or R2 is low.

    Raises
    ------
    InputError
        Lengths differ, there is no point, or a value is outside what is given above.

    Examples
    --------
    >>> law = fit_power_law([1, 2, 4, 8, 16], [2.1, 1.1, 0.6, 0.35, 0.225])
    >>> round(law.exponent, 6), round(law.asymptote, 6), round(law.scale, 6)
    (1.0, 0.1, 2.0)
    """
    points = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    weight = np.ones_like(points[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(*points, weight)
    laws = fit_power_laws(points[0], points[1][None], weight)
    law = PowerLaw(
        exponent=float(laws.exponent[0]),
        asymptote=float(laws.asymptote[0]),
        log_scale=float(laws.log_scale[0]),
        r2=float(laws.r2[0]),
        n=len(points[0]),
    )
    return replace(law, warnings=_doubts(law, *points, weight))


def fit_power_laws(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> PowerLaws:
    """The kernel: fit every row of y over the same x; values are not checked.

    Parameters
    ----------
    x, weights : float64[n]
    y : float64[draws, n]

    Returns
    -------
    PowerLaws
        Arrays over draws.
    """
    problem = _Problem.of(x, y, np.ones_like(x) if weights is None else weights)
    loss = np.stack([problem.solve(np.full(len(y), a))[2] for a in _GRID], axis=1)
    best = loss.argmin(axis=1)
    exponent = problem.refine(best)
    coefficient, asymptote, sse = problem.solve(exponent)
    grid_sse = loss[np.arange(len(y)), best]
    worse = sse > grid_sse
    if worse.any():
        exponent = np.where(worse, _GRID[best], exponent)
        coefficient, asymptote, sse = problem.solve(exponent)
    return problem.in_units(exponent, coefficient, asymptote, sse)


@dataclass(frozen=True)
class _Problem:
    """Normalised data, ``y = c exp(-a log_x) + e`` with log_x from 0 and y from 0 to 1."""

    log_x: np.ndarray
    log_x_start: float
    y: np.ndarray
    y_start: np.ndarray
    y_range: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> _Problem:
        start = float(np.log(x.min()))
        y_start = y.min(axis=1)
        y_range = y.max(axis=1) - y_start
        divisor = np.where(y_range > 0, y_range, 1.0)
        return cls(
            log_x=np.log(x / x.min()),
            log_x_start=start,
            y=(y - y_start[:, None]) / divisor[:, None],
            y_start=y_start,
            y_range=divisor,
            weights=weights / weights.sum(),
        )

    @property
    def floor(self) -> np.ndarray:
        """The asymptote 0 in these units."""
        return -self.y_start / self.y_range

    def solve(self, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coefficient, the asymptote and the squared error at each draw's exponent."""
        shape = np.expm1(-exponent[:, None] * self.log_x)
        return linear_part(shape, self.y, self.weights, self.floor)

    def slope(self, exponent: np.ndarray) -> np.ndarray:
        """Sign of the squared error's derivative: with the linear part at its optimum, only the
        basis varies."""
        coefficient, asymptote, _ = self.solve(exponent)
        basis = np.exp(-exponent[:, None] * self.log_x)
        residual = coefficient[:, None] * basis + asymptote[:, None] - self.y
        return -coefficient * ((residual * basis * self.log_x) @ self.weights)

    def refine(self, best: np.ndarray) -> np.ndarray:
        """Halve the bracket around each draw's best grid point at the sign of the slope.

        A root of the derivative is found to rounding; a minimum by its values only to half the
        digits.
        """
        low = np.log(_GRID[np.maximum(best - 1, 0)])
        high = np.log(_GRID[np.minimum(best + 1, len(_GRID) - 1)])
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            rising = self.slope(np.exp(middle)) > 0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        return np.clip(np.exp((low + high) / 2), *EXPONENTS)

    def in_units(
        self, exponent: np.ndarray, coefficient: np.ndarray, asymptote: np.ndarray, sse: np.ndarray
    ) -> PowerLaws:
        total = ((self.y - (self.y @ self.weights)[:, None]) ** 2) @ self.weights
        none = (coefficient <= 0) | (len(np.unique(self.log_x)) < 3)
        exponent = np.where(none, np.nan, exponent)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_scale = self.log_x_start + np.log(coefficient * self.y_range) / exponent
            r2 = np.where(none, 0.0, 1 - sse / total)
        asymptote = np.where(none, self.y @ self.weights, asymptote)
        return PowerLaws(
            exponent=exponent,
            asymptote=np.where(
                asymptote <= self.floor, 0.0, self.y_start + asymptote * self.y_range
            ),
            log_scale=np.where(none, -np.inf, log_scale),
            r2=np.where(total > 0, r2, np.nan),
        )


def _doubts(law: PowerLaw, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[str, ...]:
    exponent = np.array([law.exponent])
    return tuple(doubts_of_points(("x",), x[:, None], y, weights, exponent, law.asymptote, law.r2))


def _check(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    if x.ndim != 1 or not x.shape == y.shape == weights.shape or not len(x):
        raise InputError(
            f"x, y and weights have the shapes {x.shape}, {y.shape} and {weights.shape}",
            expected="as many of each, and at least one",
        )
    for name, values, good in (
        ("x", x, x > 0),
        ("y", y, y >= 0),
        ("weights", weights, weights > 0),
    ):
        bad = ~(good & np.isfinite(values))
        if bad.any():
            sign = "0 or above" if name == "y" else "above 0"
            raise InputError(f"{name} holds {values[bad][0]}", expected=f"finite numbers, {sign}")
