"""What speaks against a fitted law, each with the number that shows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genret_dask.fits.projection import EXPONENTS

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


def doubts_of_points(
    axes: Sequence[str],
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    exponent: np.ndarray,
    asymptote: float,
    r2: float,
) -> list[str]:
    """What the points and the fitted values themselves show.

    Parameters
    ----------
    axes : sequence of str
        Names of the K axes, as they are to be printed.
    x : float64[n, K]
    y, weights : float64[n]
    exponent : float64[K]
        NaN where there is no law.
    asymptote, r2 : float
    """
    found = []
    count = 2 * len(axes) + 1
    distinct = len(np.unique(x, axis=0))
    named = axes[0] if len(axes) == 1 else "(" + ", ".join(axes) + ")"
    law = bool(np.isfinite(exponent).all())
    if distinct < count:
        found.append(f"{distinct} distinct {named}: the law has {count} parameters")
    elif not law:
        found.append(f"y does not fall with {named}: no law")
    elif len(y) == count:
        found.append(f"{count} points for {count} parameters: R2 says nothing")
    for place, axis in enumerate(axes):
        span = x[:, place].max() / x[:, place].min()
        if 1 < span < SHORT_SPAN:
            found.append(f"{axis} spans a factor of {span:.3g}, below {SHORT_SPAN:g}")
        rises, steps = _rises(x, y, weights, place)
        if rises:
            found.append(f"y rises at {rises} of {steps} steps of {axis}")
        if law and at_bound(exponent[place]):
            of = f" of {axis}" if len(axes) > 1 else ""
            found.append(f"exponent {exponent[place]:.3g}{of} is at a bound of the search")
    found += _together(axes, x)
    if law:
        if asymptote == 0:
            found.append("asymptote 0 is at its bound")
        if r2 < GOOD_R2:
            found.append(f"R2 {r2:.3f} is below {GOOD_R2}")
    return found


def doubts_of_draws(
    axes: Sequence[str],
    x: np.ndarray,
    y: np.ndarray,
    draws: np.ndarray,
    fitted: np.ndarray,
    exponent: np.ndarray,
    asymptote: np.ndarray,
) -> list[str]:
    """What the resamples show: parameters that the points do not identify.

    Parameters
    ----------
    draws : float64[draws, n]
        y in each resample.
    fitted : bool[draws]
        The resample has a law.
    exponent : float64[2, K]
        Bounds of the exponents' intervals.
    asymptote : float64[2]
        Bounds of the asymptote's interval.
    """
    found = []
    if (~fitted).mean() > RARE:
        found.append(f"{int((~fitted).sum())} of {len(fitted)} resamples have no law")
    for place, axis in enumerate(axes):
        fall = _fall(x, y, draws, place)
        if fall is not None and fall < CLEAR_FALL:
            found.append(f"y falls by {fall:.2g} standard errors over {axis}, below {CLEAR_FALL:g}")
        low, high = exponent[:, place]
        of = f" of {axis}" if len(axes) > 1 else ""
        if low <= EXPONENTS[0] * (1 + 1e-6):
            found.append(f"exponent{of} not identified: its interval reaches down to {low:.3g}")
        elif np.isinf(high):
            found.append(
                f"exponent{of} not identified: its interval is open beyond {EXPONENTS[1]:g}"
            )
        elif high / low > WIDE_EXPONENT:
            found.append(
                f"exponent{of} not identified: its interval spans a factor {high / low:.2g}"
            )
    width, extent = asymptote[1] - asymptote[0], np.ptp(y)
    if asymptote[1] <= 0:
        found.append("asymptote not identified: at its bound 0 in 97.5% of the resamples")
    elif asymptote[0] <= 0:
        smallest = y.min()
        end = f"{asymptote[1]:.3g}"
        if smallest > 0:
            share = asymptote[1] / smallest
            end = f"{share:.0%}" if share >= 0.01 else "less than 1%"
            end += " of the smallest y"
        found.append(f"asymptote not identified: its interval goes from 0 to {end}")
    elif extent > 0 and width > extent:
        found.append(
            f"asymptote not identified: its interval is {width / extent:.2g} times y's fall"
        )
    return found


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


def _together(axes: Sequence[str], x: np.ndarray) -> list[str]:
    found = []
    logs = np.log(x)
    for first in range(len(axes)):
        for second in range(first + 1, len(axes)):
            pair = logs[:, [first, second]]
            if (np.ptp(pair, axis=0) > 0).all():
                correlation = float(np.corrcoef(pair.T)[0, 1])
                if abs(correlation) > _TOGETHER:
                    found.append(
                        f"{axes[first]} and {axes[second]} vary together "
                        f"(correlation {correlation:.3f})"
                    )
    return found
