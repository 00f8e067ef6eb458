"""Fit a law to points, with intervals, a forecast and warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.laws import Surfaces, parameters
from genret_dask.fits.points import Estimate, Points, Recorded, check, plain
from genret_dask.fits.projection import EXPONENTS
from genret_dask.fits.surface import Loss, fit_surfaces
from genret_dask.fits.warnings import warnings_of


@dataclass(frozen=True)
class Forecast(Recorded):
    """The largest point, predicted by the law of the others.

    Attributes
    ----------
    x : tuple of float
        Where it is.
    observed : float
    predicted : Estimate
    relative_error : float
        Predicted less observed, as a share of the observed; NaN where that is 0.
    error : Estimate
        Predicted less observed, both of the same resamples.
    covered : bool or None
        Whether 0 lies in the interval of the error; None where there is no interval.
    n : int
        Points that the prediction was fitted to.
    """

    x: tuple[float, ...]
    observed: float
    predicted: Estimate
    relative_error: float
    error: Estimate
    covered: bool | None
    n: int


@dataclass(frozen=True)
class Fit:
    """A law, the laws of the resamples, and what follows from them.

    Attributes
    ----------
    points : Points
    law : Surfaces
        One row.
    resampled : Surfaces
        A row for each resample; no row where nothing says how y scatters.
    draws : float64[draws, n]
        y in each resample.
    scatter : str
        What the resamples are of.
    loss : {"squares", "huber"}
    seed : int
        Of the noise of points to be measured.
    """

    points: Points
    law: Surfaces
    resampled: Surfaces
    draws: np.ndarray
    scatter: str
    loss: Loss
    seed: int

    def __repr__(self) -> str:
        parts = [f"{axis.upper()} exponent {one}" for axis, one in self.exponents.items()]
        parts += [f"asymptote {self.asymptote}", f"R2 {self.r2:.4g}", f"n {self.n}"]
        parts += [f"{len(self.draws):,} draws"] if len(self.draws) else []
        points = self.points
        return f"<Fit {points.law} of {points.metric}, {points.series}: {', '.join(parts)}>"

    @property
    def n(self) -> int:
        return len(self.points.y)

    @property
    def r2(self) -> float:
        return float(self.law.r2[0])

    @property
    def has_law(self) -> bool:
        return bool(self.law.fitted[0])

    @property
    def exponents(self) -> dict[str, Estimate]:
        """Exponents by axis.

        A resample without a law counts as one of exponent 0, and one whose exponent is at the upper
        bound of the search as one without end.
        """
        draws = self.resampled.exponent
        draws = np.where(draws < EXPONENTS[1] * (1 - 1e-9), draws, np.inf)
        draws = np.where(self.resampled.fitted[:, None], draws, 0.0)
        return self._by_axis(self.law.exponent[0], draws)

    @property
    def scales(self) -> dict[str, Estimate]:
        """x0 by axis, in the units of x."""
        with np.errstate(over="ignore", under="ignore"):
            value = np.where(self.has_law, np.exp(self.law.log_scale[0]), np.nan)
            return self._by_axis(value, np.exp(self.resampled.log_scale))

    @property
    def asymptote(self) -> Estimate:
        return Estimate.of(self.law.asymptote[0], self.resampled.asymptote)

    def _by_axis(self, values: np.ndarray, draws: np.ndarray) -> dict[str, Estimate]:
        columns = zip(self.points.axes, values, draws.T, strict=True)
        return {axis: Estimate.of(value, column) for axis, value, column in columns}

    def predict(self, x: np.ndarray, *, new: bool = False) -> list[Estimate]:
        """Predict y at new points, with its interval.

        Parameters
        ----------
        x : float64[n, K]
            Or numbers, where the law has one axis.
        new : bool
            Give the interval for a point to be measured, which scatters around the law as the
            fitted ones do, and not that of the law alone.

        Raises
        ------
        InputError
            x has not a column for every axis.
        """
        x = np.asarray(x, dtype=np.float64)
        x = x.reshape(-1, 1) if len(self.points.axes) == 1 and x.ndim < 2 else np.atleast_2d(x)
        if x.shape[1] != len(self.points.axes):
            raise InputError(
                f"points to predict have {x.shape[1]} columns",
                expected=f"one for each of {', '.join(self.points.axes)}",
            )
        columns = zip(self.law.predict(x)[0], self.predicted_draws(x, new=new).T, strict=True)
        return [Estimate.of(value, draws) for value, draws in columns]

    def predicted_draws(self, x: np.ndarray, *, new: bool = False) -> np.ndarray:
        """Give `predict` in each resample: float64[draws, n].

        A new point scatters by Student's t noise of the size of the residuals, and not at all where
        no degree of freedom is left to know their size by.
        """
        draws = self.resampled.predict(x)
        squares, left = _residuals(self.points, self.law)
        if not new or left < 1:
            return draws
        size = math.sqrt(squares / self.points.given_weights.mean() / left)
        rng = np.random.default_rng([self.seed, 1])
        return draws + size * rng.standard_t(left, (len(draws), 1))

    @cached_property
    def forecast(self) -> Forecast | None:
        """The largest point as the law of those with a smaller first axis predicts it.

        None where too few are left. The interval is for a point to be measured: it holds what the
        law does not explain of the others, beside the queries' noise.

        With several points at the largest value of the first axis all are left out, and the one
        with the largest other axes is predicted.
        """
        points = self.points
        last = int(np.lexsort(points.x.T[::-1])[-1])
        kept = points.only(points.x[:, 0] < points.x[last, 0])
        if kept.distinct < parameters(len(points.axes)) or (np.ptp(kept.x, axis=0) == 0).any():
            return None
        rest = fit_points(kept, loss=self.loss, draws=1000, seed=self.seed)
        if not rest.has_law:
            return None
        here = points.x[last][None]
        (predicted,) = rest.predict(here, new=True)
        observed = float(points.y[last])
        noise = observed if points.draws is None else points.draws[:, last]
        draws = rest.predicted_draws(here, new=True)[:, 0] - noise
        error = Estimate.of(predicted.value - observed, draws)
        return Forecast(
            x=tuple(map(float, points.x[last])),
            observed=observed,
            predicted=predicted,
            relative_error=error.value / observed if observed else math.nan,
            error=error,
            covered=error.low <= 0 <= error.high if math.isfinite(error.low) else None,
            n=rest.n,
        )

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the law, each with the number that shows it."""
        return warnings_of(self)

    def record(self) -> dict[str, Any]:
        """Give the fit as plain JSON values; None stands for a value that there is not."""
        points, exponents, scales = self.points, self.exponents, self.scales
        one = points.axes[0] if len(points.axes) == 1 else None
        found = {
            **points.facts,
            "law": points.law,
            "series": points.series,
            "metric": points.metric,
            "axes": points.axes,
            "exponent": exponents[one] if one else None,
            "exponents": exponents,
            "asymptote": self.asymptote,
            "scale": scales[one].value if one else None,
            "scales": scales,
            "r2": self.r2,
            "n": self.n,
            "loss": self.loss,
            "intervals": self.scatter,
            "forecast": self.forecast,
            "warnings": self.warnings,
        }
        return {name: plain(value) for name, value in found.items()}


def fit_points(points: Points, *, loss: Loss = "squares", draws: int = 1000, seed: int = 0) -> Fit:
    """Fit a law to points, and to each of their resamples.

    The intervals are percentiles of the laws that are fitted to the resamples of the queries
    (Efron and Tibshirani, 1993). Points without queries are resampled from the law itself: its
    values and Student's t noise of the residuals' size and degrees of freedom, so that for a linear
    law the classical interval comes out, and for few points a wide one.

    Parameters
    ----------
    points : Points
    loss : {"squares", "huber"}
    draws, seed : int
        Of the residuals' noise, for points without resamples.

    Raises
    ------
    InputError
        There is no point, or a value is out of range.

    Examples
    --------
    >>> x = np.geomspace(1, 1000, 7)
    >>> y = 2 * x**-0.5 + 0.3 + [0.01, -0.01, 0, 0.01, -0.01, 0, 0]
    >>> fit = fit_points(Points("L(N)", "mine", "loss", ("n",), x[:, None], y))
    >>> fit.exponents["n"].low < 0.5 < fit.exponents["n"].high
    True
    """
    check(points, loss)
    law = _fit(points, points.y[None], loss)
    resamples, scatter = points.draws, "95 %, bootstrap over queries"
    if resamples is None:
        resamples, scatter = _residual_draws(points, law, draws, seed)
    if not len(resamples):
        scatter = "none"
    if loss == "huber":
        resamples = np.maximum(resamples, 1e-3 * points.y.min())
    together = _fit(points, np.concatenate([points.y[None], resamples]), loss)
    return Fit(points, law, together.rows(slice(1, None)), resamples, scatter, loss, seed)


def fit_power_law(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
    **options: Any,
) -> Fit:
    """Fit ``L(x) = (x0 / x)^a + d`` to a falling y: `fit_points` of an axis that is called x.

    Parameters
    ----------
    x : array_like[n]
        Above 0: parameters, training pairs, floating-point operations.
    y : array_like[n]
        A loss or an error rate, not below 0; a metric that rises is fitted as one minus the metric.
    weights : array_like[n], optional
        Weights of the squared residuals, above 0; equal by default.
    **options
        `loss`, `draws` and `seed` of `fit_points`.

    Examples
    --------
    >>> law = fit_power_law([1, 2, 4, 8, 16], [2.1, 1.1, 0.6, 0.35, 0.225])
    >>> [round(one.value, 6) for one in (law.exponents["x"], law.asymptote, law.scales["x"])]
    [1.0, 0.1, 2.0]
    """
    given = None if weights is None else np.asarray(weights, dtype=np.float64)
    columns = np.asarray(x, dtype=np.float64).reshape(-1, 1)
    found = np.asarray(y, dtype=np.float64)
    return fit_points(
        Points("L(x)", "points", "y", ("x",), columns, found, weights=given), **options
    )


def _residual_draws(points: Points, law: Surfaces, draws: int, seed: int) -> tuple[np.ndarray, str]:
    """The law's values with noise of the residuals' size, float64[draws, n], and what that is.

    No draws where there is no law, or no degree of freedom is left.
    """
    squares, left = _residuals(points, law)
    if left < 1 or not law.fitted[0]:
        return np.empty((0, len(points.y))), "none"
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((draws, len(points.y)))
    heavy = np.sqrt(left / rng.chisquare(left, (draws, 1)))
    size = np.sqrt(squares / left / points.given_weights)
    scatter = f"95 %, residuals as t noise with {left} degrees of freedom"
    return law.predict(points.x)[0] + noise * heavy * size, scatter


def _residuals(points: Points, law: Surfaces) -> tuple[float, int]:
    """The weighted sum of the squared residuals, and their degrees of freedom."""
    residual = points.y - law.predict(points.x)[0]
    left = len(points.y) - parameters(len(points.axes))
    return float((residual**2 * points.given_weights).sum()), left


def _fit(points: Points, y: np.ndarray, loss: Loss) -> Surfaces:
    return fit_surfaces(points.x, y, points.weights, power_axis=points.power_axis, loss=loss)
