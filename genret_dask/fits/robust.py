"""Huber's loss on the logarithms of y: one bad point does not bend the law.

The objective of Hoffmann et al. (2022, arXiv 2203.15556), minimised by a Levenberg-Marquardt search
with iteratively reweighted residuals, for every row of y at once. The linear part is not linear in
the logarithm, so all parameters are searched.
"""

from __future__ import annotations

import numpy as np

from genret_dask.fits.projection import Basis, damped_step

DELTA = 1e-3
"""Residuals of log y up to here count as squares, beyond by their size; of the paper above."""

_STEPS = 300
_TOLERANCE = 1e-11
_PATIENCE = 12
_LOWEST = -40.0


def huber(residual: np.ndarray, weights: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """Weighted mean of Huber's loss over the last axis; weights sum to 1."""
    size = np.abs(residual)
    loss = np.where(size <= delta, size * size / 2, delta * (size - delta / 2))
    return loss @ weights


def search_robust(
    basis: Basis,
    y: np.ndarray,
    weights: np.ndarray,
    start: tuple[np.ndarray, np.ndarray, np.ndarray],
    delta: float = DELTA,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Minimise Huber's loss of ``log y - log(s g + d)`` from where another search ended.

    Parameters
    ----------
    y : float64[rows, n]
        Above 0.
    weights : float64[n]
        Sum to 1.
    start : tuple of float64[rows, size], float64[rows], float64[rows]
        The basis's parameters, s above 0 and d not below 0, in the units of y.
    delta : float

    Returns
    -------
    theta, s, d, loss
        Of each row; the loss is never above the one at the start.
    """
    theta, s, d = start
    lowest = y.min(axis=1)
    log_y = np.log(y)
    full = np.concatenate(
        [
            basis.clip(theta),
            np.log(np.maximum(s / lowest, np.exp(_LOWEST)))[:, None],
            np.log(np.maximum(d / lowest, np.exp(_LOWEST)))[:, None],
        ],
        axis=1,
    )

    def clip(full: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [basis.clip(full[:, : basis.size]), full[:, basis.size :].clip(_LOWEST, -2 * _LOWEST)],
            axis=1,
        )

    def residuals(full: np.ndarray, rows: np.ndarray) -> np.ndarray:
        log_s, log_d = full[:, basis.size, None], full[:, basis.size + 1, None]
        log_f = np.logaddexp(basis.values(full[:, : basis.size]) + log_s, log_d)
        return log_y[rows] - np.log(lowest[rows])[:, None] - log_f

    active = np.arange(len(y))
    loss = huber(residuals(full, active), weights, delta)
    damping, idle = np.full(len(y), 1e-3), np.zeros(len(y), dtype=int)
    for _ in range(_STEPS):
        here = full[active]
        log_g, by = basis.jacobian(here[:, : basis.size])
        log_s, log_d = here[:, basis.size, None], here[:, basis.size + 1, None]
        log_f = np.logaddexp(log_g + log_s, log_d)
        excess = np.exp(log_g + log_s - log_f)
        tangent = np.concatenate(
            [excess[..., None] * by, excess[..., None], np.exp(log_d - log_f)[..., None]], axis=2
        )
        residual = residuals(here, active)
        root = np.sqrt(weights * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300)))
        step = damped_step(tangent * root[..., None], residual * root, damping[active])
        trial = clip(here + step)
        moved = np.abs(trial - here).max(axis=1)
        new = huber(residuals(trial, active), weights, delta)
        better = new <= loss[active]
        gain = loss[active] - new
        full[active[better]] = trial[better]
        idle[active] = np.where(better & (gain > 1e-14 * loss[active]), 0, idle[active] + 1)
        loss[active[better]] = new[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 6.0), 1e-12, 1e12)
        active = active[(moved > _TOLERANCE) & (idle[active] < _PATIENCE)]
        if not len(active):
            break
    s, d = (lowest * np.exp(full[:, basis.size + place]) for place in (0, 1))
    return full[:, : basis.size], s, np.where(d > lowest * np.exp(_LOWEST / 2), d, 0.0), loss
