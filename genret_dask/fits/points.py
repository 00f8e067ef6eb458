"""Points that a law is fitted to, and estimates: values with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.surface import Loss
from genret_dask.metrics.bootstrap import finite

LEVELS = (0.025, 0.975)
"""Bounds of the intervals, as shares of the draws."""

_WEIGHT_RANGE = 100.0


@dataclass(frozen=True)
class Points:
    """The points that one law is fitted to.

    Attributes
    ----------
    law : str
        As "L(N)" or "L(N,D)".
    series, metric : str
        What the points have in common, and what y is.
    axes : tuple of str
        "n", "d", "c" or "c/n", one for each column of x.
    x : float64[n, K]
        Above 0.
    y : float64[n]
        Not below 0.
    draws : float64[draws, n], optional
        y in each resample of the queries. Without them the scatter around the law itself decides.
    weights : float64[n], optional
        Of the squared residuals; equal by default.
    facts : mapping
        Repeated in the record.
    gaps : tuple of str
        What was left out for want of a finite value, a line each; among the fit's warnings.
    """

    law: str
    series: str
    metric: str
    axes: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    draws: np.ndarray | None = None
    weights: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    @property
    def power_axis(self) -> int:
        """The axis whose exponent is the power of the sum: D where there is D, else the first."""
        return self.axes.index("d") if "d" in self.axes else 0

    @property
    def distinct(self) -> int:
        return len(np.unique(self.x, axis=0))

    @property
    def given_weights(self) -> np.ndarray:
        """The weights, 1 where none are given."""
        return np.ones(len(self.y)) if self.weights is None else self.weights

    def only(self, chosen: np.ndarray) -> Points:
        """Choose the points at some rows."""
        return replace(
            self,
            x=self.x[chosen],
            y=self.y[chosen],
            draws=None if self.draws is None else self.draws[:, chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def without_gaps(self) -> Points:
        """Leave out points and resamples that lack a value, as a cube has that is not sealed."""
        whole = np.isfinite(self.x).all(axis=1) & np.isfinite(self.y)
        there, gaps = self.only(whole), _gaps("points", whole)
        if there.draws is not None:
            whole = np.isfinite(there.draws).all(axis=1)
            there, gaps = replace(there, draws=there.draws[whole]), gaps + _gaps("resamples", whole)
        return replace(there, gaps=gaps)

    def weighted_by_variance(self) -> Points:
        """Weigh each point by one over its variance among the resamples, within a factor of 100."""
        if self.draws is None or len(self.draws) < 2 or not len(self.y):
            return self
        variance = self.draws.var(axis=0)
        middle = float(np.median(variance[variance > 0])) if (variance > 0).any() else 1.0
        floor, ceiling = middle / _WEIGHT_RANGE, middle * _WEIGHT_RANGE
        return replace(self, weights=middle / variance.clip(floor, ceiling))


def _gaps(name: str, whole: np.ndarray) -> tuple[str, ...]:
    left_out = int((~whole).sum())
    text = f"{left_out} of {len(whole)} {name} have no finite value and are left out"
    return (text,) if left_out else ()


class Recorded:
    """A dataclass that can be given as plain JSON values."""

    def record(self) -> dict[str, Any]:
        """Give its fields as plain JSON values; None stands for a number that is not finite."""
        return {name: plain(value) for name, value in vars(self).items()}


def plain(value: Any) -> Any:
    """Give a value, and all that it holds, as JSON can hold it."""
    if isinstance(value, Recorded):
        return value.record()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return finite(value) if isinstance(value, float) else value


@dataclass(frozen=True)
class Estimate(Recorded):
    """A value with the bounds of its 95 % interval: NaN without one, infinite where it is open."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, value: float, draws: np.ndarray) -> Estimate:
        """Take the interval from a value's resamples; those that are NaN do not count."""
        value, draws = float(value), draws[~np.isnan(draws)]
        if not len(draws) or not math.isfinite(value):
            return cls(value)
        # Of two neighbours, as the mean of a number and infinity is infinity.
        low, high = np.quantile(
            draws, LEVELS, method="nearest" if np.isinf(draws).any() else "linear"
        )
        return cls(value, float(low), float(high))

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def check(points: Points, loss: Loss) -> None:
    """Raise `InputError` where a law cannot be fitted to the points at all."""
    x, y, weights = points.x, points.y, points.given_weights
    where = f"{points.law} {points.series}"
    if x.shape != (len(y), len(points.axes)) or not len(y):
        raise InputError(
            f"{where}: x has the shape {x.shape} and y {y.shape}",
            expected=f"x [n, {len(points.axes)}] and y [n], with at least one point",
        )
    if weights.shape != y.shape:
        raise InputError(
            f"{where}: weights have the shape {weights.shape}",
            expected=f"that of y, {y.shape}",
        )
    checks = [
        ("x", x, x > 0, "above 0"),
        ("y", y, y >= 0, "0 or above"),
        ("weights", weights, weights > 0, "above 0"),
    ]
    if loss == "huber":
        checks[1] = ("y", y, y > 0, "above 0 for Huber's loss on log y")
    for name, values, good, wanted in checks:
        bad = ~(good & np.isfinite(values))
        if bad.any():
            raise InputError(
                f"{where}: {name} holds {values[bad][0]}",
                expected=f"finite numbers, {wanted}",
            )
