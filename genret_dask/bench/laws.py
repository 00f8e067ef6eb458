"""Fitting a law to every resample, against L-BFGS from several starts for each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.optimize import minimize

from genret_dask.bench.measure import Measurement, median_seconds, quantity
from genret_dask.bench.workload import Scale
from genret_dask.fits.projection import EXPONENTS, MIXTURE, Basis
from genret_dask.fits.surface import fit_surfaces

STARTS = 8
"""Starts of the peer for each resample."""

PEER_DRAWS = 25
"""Resamples that the peer is timed on; a thousand would take minutes."""


def run_laws(scale: Scale, runs: int) -> Iterator[Measurement]:
    """Laws of one and of two axes, least squares, each resample of noisy points."""
    rng = np.random.default_rng(0)
    n, d = np.geomspace(1e6, 1e9, 8), np.geomspace(1e4, 1e6, 4)
    one = n[:, None]
    two = np.stack([side.ravel() for side in np.meshgrid(n[::2], d)], axis=1)
    for name, x, power_axis in (("L(N)", one, 0), ("L(N,D)", two, 1)):
        law = (
            np.exp(Basis(np.log(x / x.min(axis=0)), power_axis).values(_truth(x.shape[1])))[0] + 0.3
        )
        y = law * np.exp(rng.normal(0, 0.005, (scale.draws, len(x))))
        few = y[: min(PEER_DRAWS, len(y))]
        times = median_seconds([partial(fit_surfaces, x, y), partial(_lbfgs, x, few)], runs)
        case = (
            f"{len(y):,} resamples of {len(x)} points, peer: L-BFGS-B from {STARTS} starts, "
            f"timed on {len(few)}"
        )
        ours, peer = 1e3 * times[0] / len(y), 1e3 * times[1] / len(few)
        equal = no_higher(_error(x, few), _lbfgs(x, few))
        yield quantity(f"laws: {name}", case, ours, peer, "ms/resample", target=10.0, equal=equal)


def no_higher(ours: np.ndarray, peer: np.ndarray) -> bool:
    """Whether each of our squared errors is the peer's or below, to its tolerance."""
    return bool((ours <= peer * (1 + 1e-6)).all())


def _truth(axes: int) -> np.ndarray:
    return np.array([[*np.log([0.4, 0.6][:axes]), *([0.2] * (axes - 1))]])


def _error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Our squared errors, in the units that the peer minimises."""
    residual = (fit_surfaces(x, y).predict(x) - y) / np.ptp(y, axis=1, keepdims=True)
    return (residual**2).mean(axis=1)


def _lbfgs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Lowest squared error that L-BFGS-B finds for each row, with exact gradients.

    It gets what helps it: axes that start at 1, y between 0 and 1, logarithms of the exponents
    and of the scale.
    """
    basis = Basis(np.log(x / x.min(axis=0)), x.shape[1] - 1)
    grid = basis.starts()
    chosen = grid[np.linspace(0, len(grid) - 1, STARTS).astype(int)]
    low, high = np.log(EXPONENTS)
    mixtures = [(-MIXTURE, MIXTURE)] * (basis.axes - 1)
    found = np.empty(len(y))
    for row, values in enumerate(y):
        extent = np.ptp(values)
        target, floor = (values - values.min()) / extent, -values.min() / extent

        def objective(p: np.ndarray, target: np.ndarray = target) -> tuple[float, np.ndarray]:
            log_g, by = basis.jacobian(p[None, :-2])
            excess = np.exp(log_g[0] + p[-2])
            residual = excess + p[-1] - target
            pull = 2 * residual / len(target)
            gradient = np.concatenate([(pull * excess) @ by[0], [pull @ excess, pull.sum()]])
            return float((residual**2).mean()), gradient

        bounds = [*[(low, high)] * basis.axes, *mixtures, (-20.0, 20.0), (floor, 1.0)]
        found[row] = min(
            minimize(objective, [*start, 0.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).fun
            for start in chosen
        )
    return found
