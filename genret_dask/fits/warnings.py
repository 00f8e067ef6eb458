"""Warnings of a fitted law: reasons to doubt it, each with the number that shows it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genret_dask.fits.projection import EXPONENTS

if TYPE_CHECKING:
    from genret_dask.fits.fitting import Fit

GOOD_R2 = 0.9
"""Below this a fit has a warning."""

SHORT_SPAN = 10.0
"""Factor between the largest and the smallest x below which a fit has a warning."""

WIDE_EXPONENT = 5.0
"""Factor between the bounds of an exponent's interval above which it is not identified."""

CLEAR_FALL = 2.0
"""Standard errors that y should fall by from the smallest to the largest x."""

RARE = 0.01
"""Share of resamples without a law that says nothing yet."""

_TOGETHER = 0.99


def at_bound(exponent: float) -> bool:
    """Whether a fitted exponent is a bound of the search and not an optimum inside it."""
    return any(abs(np.log(exponent / bound)) < 1e-6 for bound in EXPONENTS)


def warnings_of(fit: Fit) -> tuple[str, ...]:
    """List what speaks against a law: gaps, its points and values, then its resamples."""
    points, law = fit.points, fit.has_law
    axes = [axis.upper() for axis in points.axes]
    found = [*points.gaps, *_of_points(fit, axes), *_together(axes, points.x)]
    if law:
        if fit.law.asymptote[0] == 0:
            found.append("asymptote 0 is at its bound")
        if fit.r2 < GOOD_R2:
            found.append(f"R2 {fit.r2:.3f} is below {GOOD_R2}")
        if len(fit.draws):
            found += [*_of_exponents(fit, axes), *_of_asymptote(fit)]
        else:
            found.append("no interval: no point is left over to show how y scatters")
    return tuple(found)


def _of_points(fit: Fit, axes: Sequence[str]) -> Iterator[str]:
    """What the points and the fitted exponents themselves show."""
    points, x, y = fit.points, fit.points.x, fit.points.y
    count = 2 * len(axes) + 1
    named = axes[0] if len(axes) == 1 else "(" + ", ".join(axes) + ")"
    if points.distinct < count:
        yield f"{points.distinct} distinct {named}: the law has {count} parameters"
    elif not fit.has_law:
        yield f"y does not fall with {named}: no law"
    elif len(y) == count:
        yield f"{count} points for {count} parameters: R2 says nothing"
    for place, axis in enumerate(axes):
        span = x[:, place].max() / x[:, place].min()
        if 1 < span < SHORT_SPAN:
            yield f"{axis} spans a factor of {span:.3g}, below {SHORT_SPAN:g}"
        rises, steps = _rises(x, y, points.given_weights, place)
        if rises:
            yield f"y rises at {rises} of {steps} steps of {axis}"
        exponent = fit.law.exponent[0, place]
        if fit.has_law and at_bound(exponent):
            of = f" of {axis}" if len(axes) > 1 else ""
            yield f"exponent {exponent:.3g}{of} is at a bound of the search"


def _of_exponents(fit: Fit, axes: Sequence[str]) -> Iterator[str]:
    """What the resamples show: exponents that the points do not identify."""
    none = ~fit.resampled.fitted
    if none.mean() > RARE:
        yield f"{int(none.sum())} of {len(none)} resamples have no law"
    for place, (axis, exponent) in enumerate(zip(axes, fit.exponents.values(), strict=True)):
        fall = _fall(fit.points.x, fit.points.y, fit.draws, place)
        if fall is not None and fall < CLEAR_FALL:
            yield f"y falls by {fall:.2g} standard errors over {axis}, below {CLEAR_FALL:g}"
        name = f"exponent of {axis}" if len(axes) > 1 else "exponent"
        if exponent.low <= EXPONENTS[0] * (1 + 1e-6):
            yield f"{name} not identified: its interval reaches down to {exponent.low:.3g}"
        elif np.isinf(exponent.high):
            yield f"{name} not identified: its interval is open beyond {EXPONENTS[1]:g}"
        elif exponent.high / exponent.low > WIDE_EXPONENT:
            factor = exponent.high / exponent.low
            yield f"{name} not identified: its interval spans a factor {factor:.2g}"


def _of_asymptote(fit: Fit) -> Iterator[str]:
    y, low, high = fit.points.y, fit.asymptote.low, fit.asymptote.high
    width, extent = high - low, np.ptp(y)
    if high <= 0:
        yield "asymptote not identified: at its bound 0 in 97.5% of the resamples"
    elif low <= 0:
        share = high / y.min() if y.min() > 0 else None
        end = f"{high:.3g}"
        if share is not None:
            end = (f"{share:.0%}" if share >= 0.01 else "less than 1%") + " of the smallest y"
        yield f"asymptote not identified: its interval goes from 0 to {end}"
    elif extent > 0 and width > extent:
        yield f"asymptote not identified: its interval is {width / extent:.2g} times y's fall"


def _others(x: np.ndarray, place: int) -> list[np.ndarray]:
    """Rows that share the values of all other axes."""
    rest = np.delete(x, place, axis=1)
    _, group = np.unique(rest, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return [np.flatnonzero(group == number) for number in range(group.max() + 1)]


def _rises(x: np.ndarray, y: np.ndarray, weights: np.ndarray, place: int) -> tuple[int, int]:
    rises = steps = 0
    for rows in _others(x, place):
        values = x[rows, place]
        means = [
            np.average(y[rows][values == value], weights=weights[rows][values == value])
            for value in np.unique(values)
        ]
        rises += int((np.diff(means) > 0).sum())
        steps += len(means) - 1
    return rises, steps


def _fall(x: np.ndarray, y: np.ndarray, draws: np.ndarray, place: int) -> float | None:
    """The clearest fall between the ends of an axis, in its standard errors."""
    found = []
    for rows in _others(x, place):
        low, high = rows[x[rows, place].argmin()], rows[x[rows, place].argmax()]
        if x[low, place] < x[high, place]:
            deviation = float((draws[:, low] - draws[:, high]).std())
            if deviation > 0:
                found.append(float(y[low] - y[high]) / deviation)
    return max(found) if found else None


def _together(axes: Sequence[str], x: np.ndarray) -> Iterator[str]:
    varying = [place for place in range(len(axes)) if np.ptp(np.log(x[:, place])) > 0]
    for first, second in itertools.combinations(varying, 2):
        correlation = float(np.corrcoef(np.log(x[:, [first, second]]).T)[0, 1])
        if abs(correlation) > _TOGETHER:
            yield f"{axes[first]} and {axes[second]} vary together (correlation {correlation:.3f})"
