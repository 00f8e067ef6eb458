"""Huber's loss on the logarithms of y: one bad point does not bend the law.

The objective of Hoffmann et al. (2022, arXiv 2203.15556), minimised by a Levenberg-Marquardt search
with iteratively reweighted residuals, for every row of y at once. The linear part is not linear in
the logarithm, so all parameters are searched.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from genret_dask.fits.projection import PRECISE, Basis, descend

DELTA = 1e-3
"""Residuals of log y up to here count as squares, beyond by their size; of the paper above."""

_EFFORT = replace(PRECISE, steps=300)
_LOWEST = -40.0


def huber(residual: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of Huber's loss over the last axis; weights sum to 1."""
    size = np.abs(residual)
    loss = np.where(size <= DELTA, size * size / 2, DELTA * (size - DELTA / 2))
    return loss @ weights


def search_robust(
    basis: Basis,
    y: np.ndarray,
    weights: np.ndarray,
    start: tuple[np.ndarray, np.ndarray, np.ndarray],
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

    Returns
    -------
    theta, s, d, loss
        Of each row; the loss is never above the one at the start.
    """
    theta, s, d = start
    lowest = y.min(axis=1)
    log_y = np.log(y) - np.log(lowest)[:, None]
    logs = [np.log(np.maximum(part / lowest, np.exp(_LOWEST))) for part in (s, d)]

    def predicted(full: np.ndarray, log_g: np.ndarray) -> tuple[np.ndarray, ...]:
        """log s g, log d, and the logarithm of their sum."""
        log_s, log_d = full[:, basis.size, None], full[:, basis.size + 1, None]
        return log_g + log_s, log_d, np.logaddexp(log_g + log_s, log_d)

    def linearise(here: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_g, by = basis.jacobian(here[:, : basis.size])
        log_sg, log_d, log_f = predicted(here, log_g)
        excess = np.exp(log_sg - log_f)[..., None]
        tangent = np.concatenate([excess * by, excess, np.exp(log_d - log_f)[..., None]], axis=2)
        residual = log_y[rows] - log_f
        root = np.sqrt(weights * np.minimum(1.0, DELTA / np.maximum(np.abs(residual), 1e-300)))
        return tangent * root[..., None], residual * root

    def move(here: np.ndarray, step: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        full, linear = np.split(here + step, [basis.size], axis=1)
        trial = np.concatenate([basis.clip(full), linear.clip(_LOWEST, -2 * _LOWEST)], axis=1)
        *_, log_f = predicted(trial, basis.values(trial[:, : basis.size]))
        return trial, huber(log_y[rows] - log_f, weights)

    full, loss = move(np.column_stack([theta, *logs]), np.zeros(1), np.arange(len(y)))
    full, loss = descend(full, loss, linearise, move, _EFFORT)
    s, d = (lowest * np.exp(full[:, basis.size + place]) for place in (0, 1))
    return full[:, : basis.size], s, np.where(d > lowest * np.exp(_LOWEST / 2), d, 0.0), loss
