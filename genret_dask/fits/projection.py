"""Variable projection for surfaces over several axes, many y at once.

A surface is ``s g(x) + d`` with ``g = (sum of t_k x_k^-r_k)^p``: linear in s and d once the
exponents and the mixture t are given. A grid over those finds where to start, and a
Levenberg-Marquardt search with Kaufman's Jacobian (Kaufman, 1975) goes on from there, for every
row of y at the same time. Axes are scaled to start at 1 and y to lie between 0 and 1, so that units
do not matter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

EXPONENTS = (0.01, 10.0)
"""Exponents that are searched; a fit that ends at one of them has a warning."""

MIXTURE = 30.0
"""Largest logarithm of the ratio between two axes' shares of the excess at the smallest x."""

_START_EXPONENTS = np.geomspace(0.05, 2.5, 8)
_START_SHARES = (0.02, 0.2, 0.5, 0.8, 0.98)
_TOLERANCE = 1e-11
_EXACT = 1e-24
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Effort:
    """When a search ends.

    Attributes
    ----------
    steps : int
        At most.
    gain : float
        Share of its error that a row should lose in a step.
    patience : int
        Steps in a row that may gain less.
    """

    steps: int
    gain: float
    patience: int


PRECISE = Effort(400, 1e-14, 12)
"""For what was measured."""

QUICK = Effort(150, 1e-8, 6)
"""For resamples: far below what they differ by."""


@dataclass(frozen=True)
class Basis:
    """g over n points and K axes, and its derivatives.

    Parameters of a row: the logarithms of the K exponents, then K - 1 mixture logits, those of all
    axes but the power axis.

    Attributes
    ----------
    log_x : float64[n, K]
        From 0.
    power_axis : int
        The axis whose exponent is the power of the sum; inside it its own exponent is 1.
    """

    log_x: np.ndarray
    power_axis: int

    @property
    def axes(self) -> int:
        return self.log_x.shape[1]

    @property
    def size(self) -> int:
        """Parameters of a row."""
        return 2 * self.axes - 1

    def log_shares(self, theta: np.ndarray) -> np.ndarray:
        """log t: float64[rows, K], each row's exponentials sum to 1."""
        logits = np.insert(theta[:, self.axes :], self.power_axis, 0.0, axis=1)
        return logits - log_sum(logits)[:, None]

    def values(self, theta: np.ndarray) -> np.ndarray:
        """log g: float64[rows, n]."""
        return self._parts(theta)[0]

    def jacobian(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log g and its derivatives by the parameters: float64[rows, n] and [rows, n, size]."""
        log_g, total, weight, share = self._parts(theta)
        exponent = np.exp(theta[:, : self.axes])
        power = exponent[:, self.power_axis, None]
        others = [axis for axis in range(self.axes) if axis != self.power_axis]
        by = np.empty((*log_g.shape, self.size))
        by[..., self.power_axis] = power * total
        for axis in others:
            pull = weight[..., axis] * exponent[:, axis, None] * self.log_x[:, axis]
            by[..., axis] = -pull
            by[..., self.power_axis] += pull
        for place, axis in enumerate(others, start=self.axes):
            by[..., place] = power * (weight[..., axis] - share[:, None, axis])
        return log_g, by

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        exponent = np.exp(theta[:, : self.axes])
        power = exponent[:, self.power_axis, None]
        log_share = self.log_shares(theta)
        terms = log_share[:, None] - (exponent / power)[:, None] * self.log_x
        total = log_sum(terms)
        weight = np.exp(terms - total[..., None])
        return power * total, total, weight, np.exp(log_share)

    def clip(self, theta: np.ndarray) -> np.ndarray:
        """Parameters moved to the bounds of the search."""
        exponents, logits = np.split(theta, [self.axes], axis=1)
        exponents = exponents.clip(*np.log(EXPONENTS))
        return np.concatenate([exponents, logits.clip(-MIXTURE, MIXTURE)], axis=1)

    def starts(self) -> np.ndarray:
        """A grid of parameters: float64[starts, size]."""
        rows = []
        for mix in itertools.product(_START_SHARES, repeat=self.axes - 1):
            if sum(mix) < 1 or self.axes == 2:
                rest = max(1 - sum(mix), 0.02)
                logits = [np.log(share / rest) for share in mix]
                for exponents in itertools.product(np.log(_START_EXPONENTS), repeat=self.axes):
                    rows.append([*exponents, *logits])
        return np.array(rows)


def linear_part(
    shape: np.ndarray, y: np.ndarray, weights: np.ndarray, floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best s >= 0 and d >= floor for ``y = s (shape + 1) + d``, and the squared error.

    The exact minimum: the free solution, or the minimum on the one bound that it violates (it
    cannot violate both).

    Parameters
    ----------
    shape : float64[..., rows, n]
        g - 1, which `expm1` gives without cancellation; rows may be 1, of one shape for all.
    y : float64[rows, n]
    weights : float64[n]
        Sum to 1.
    floor : float64[rows]

    Returns
    -------
    tuple of float64[..., rows]
        s, d and the weighted mean of the squared residuals.
    """
    shape_mean, y_mean = shape @ weights, y @ weights
    centred = shape - shape_mean[..., None]
    spread = (centred * centred) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        free = ((centred * (y - y_mean[..., None])) @ weights) / spread
    s = np.where(spread > 0, np.maximum(free, 0.0), 0.0)
    d = y_mean - s * (shape_mean + 1)

    low = d < floor
    basis = shape + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        pure = ((basis * (y - floor[..., None])) @ weights) / ((basis * basis) @ weights)
    s = np.where(low, np.where(pure > 0, pure, 0.0), s)
    d = np.where(low, floor, d)
    residual = s[..., None] * basis + d[..., None] - y
    return s, d, (residual * residual) @ weights


def search(
    basis: Basis,
    y: np.ndarray,
    weights: np.ndarray,
    floor: np.ndarray,
    starts: np.ndarray,
    effort: Effort = PRECISE,
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt over the exponents and the mixture, the linear part always exact.

    Rows are searched in blocks, so that many points take no more memory than few.

    Parameters
    ----------
    y : float64[rows, n]
    weights : float64[n]
    floor : float64[rows]
    starts : float64[rows, size]
    effort : Effort

    Returns
    -------
    theta : float64[rows, size]
    error : float64[rows]
        Never above the error at the start.
    """
    blocks = _blocks(len(y), basis.log_x.shape[0] * basis.size)
    if len(blocks) > 1:
        parts = [
            search(basis, y[part], weights, floor[part], starts[part], effort) for part in blocks
        ]
        theta, error = zip(*parts, strict=True)
        return np.concatenate(theta), np.concatenate(error)
    size, root = basis.size, np.sqrt(weights)

    def move(
        here: np.ndarray, step: np.ndarray, rows: np.ndarray | slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """The parameters after a step with their s and d, and the error there."""
        theta = basis.clip(here[:, :size] + step)
        s, d, error = linear_part(np.expm1(basis.values(theta)), y[rows], weights, floor[rows])
        return np.column_stack([theta, s, d]), error

    def linearise(here: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_g, by = basis.jacobian(here[:, :size])
        g, (s, d) = np.exp(log_g), here[:, size:].T
        residual = (y[rows] - s[:, None] * g - d[:, None]) * root
        tangent = s[:, None, None] * (g[..., None] * by) * root[:, None]
        return _without_linear(tangent, g, d > floor[rows], root), residual

    start, error = move(starts, np.zeros(1), slice(None))
    found, error = descend(start, error, linearise, move, effort)
    return found[:, :size], error


def descend(
    state: np.ndarray,
    loss: np.ndarray,
    linearise: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    move: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    effort: Effort,
) -> tuple[np.ndarray, np.ndarray]:
    """Search every row by Levenberg and Marquardt, each with a damping of its own.

    Parameters
    ----------
    state : float64[rows, size]
        Where the rows start: the parameters that are searched, then what depends on them.
    loss : float64[rows]
        There.
    linearise : callable
        Of the states of some rows and their numbers, the tangent, float64[rows, n, parameters], and
        the residuals, float64[rows, n].
    move : callable
        Of those and a step, the states after it and their losses.
    effort : Effort

    Returns
    -------
    state : float64[rows, size]
    loss : float64[rows]
        Never above the one at the start.
    """
    active, idle = np.arange(len(state)), np.zeros(len(state), dtype=int)
    damping = np.full(len(state), 1e-3)
    for _ in range(effort.steps):
        here = state[active]
        step = _damped_step(*linearise(here, active), damping[active])
        trial, new = move(here, step, active)
        moved = np.abs(trial - here)[:, : step.shape[1]].max(axis=1)
        better = new <= loss[active]
        gained = loss[active] - new > effort.gain * loss[active]
        idle[active] = np.where(better & gained, 0, idle[active] + 1)
        state[active[better]], loss[active[better]] = trial[better], new[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 6.0), 1e-12, 1e12)
        going = (moved > _TOLERANCE) & (idle[active] < effort.patience) & (loss[active] > _EXACT)
        active = active[going]
        if not len(active):
            break
    return state, loss


def _blocks(rows: int, size: int) -> list[slice]:
    """Slices of rows of which each takes `size` numbers."""
    step = max(1, _BLOCK // size)
    return [slice(start, start + step) for start in range(0, rows, step)]


def grid_errors(
    basis: Basis, starts: np.ndarray, y: np.ndarray, weights: np.ndarray, floor: np.ndarray
) -> np.ndarray:
    """Squared error of every start for every row of y: float64[starts, rows]."""
    shape = np.concatenate(
        [np.expm1(basis.values(starts[part])) for part in _blocks(len(starts), basis.log_x.size)]
    )
    centred = shape - (shape @ weights)[:, None]
    spread = (centred * centred) @ weights
    y_mean = y @ weights
    product = (centred * weights) @ (y - y_mean[:, None]).T
    total = ((y - y_mean[:, None]) ** 2) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(spread[:, None] > 0, np.maximum(product / spread[:, None], 0.0), 0.0)
    free = total - 2 * s * product + s * s * spread[:, None]
    low = y_mean - s * (shape @ weights + 1)[:, None] < floor
    above = y - floor[:, None]
    raised = shape + 1
    cross = (raised * weights) @ above.T
    square = ((raised * raised) @ weights)[:, None]
    pure = (above * above) @ weights - np.maximum(cross, 0.0) ** 2 / square
    return np.where(low, pure, free)


def _without_linear(
    tangent: np.ndarray, g: np.ndarray, free: np.ndarray, root: np.ndarray
) -> np.ndarray:
    """Remove from each column what s, and d where it is free, would make up for."""
    one = np.broadcast_to(root, g.shape) * free[:, None]
    one = one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-300)
    shape = g * root
    shape = shape - one * (one * shape).sum(axis=1, keepdims=True)
    norm = np.linalg.norm(shape, axis=1, keepdims=True)
    shape = np.where(norm > 1e-14, shape / np.maximum(norm, 1e-300), 0.0)
    for direction in (one, shape):
        tangent = tangent - direction[..., None] * np.einsum(
            "rn,rnp->rp", direction, tangent
        ).reshape(len(tangent), 1, -1)
    return tangent


def _damped_step(tangent: np.ndarray, residual: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Marquardt's step of every row: float64[rows, size]."""
    normal = np.einsum("rnp,rnq->rpq", tangent, tangent)
    slope = np.einsum("rnp,rn->rp", tangent, residual)
    diagonal = np.einsum("rpp->rp", normal)
    size = np.arange(normal.shape[1])
    scale = np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300)
    normal[:, size, size] += damping[:, None] * scale + 1e-290
    step = np.linalg.solve(normal, slope[..., None])[..., 0]
    return np.clip(np.nan_to_num(step), -2.0, 2.0)


def log_sum(values: np.ndarray) -> np.ndarray:
    """log of the sum of exponentials over the last axis; -inf where all are."""
    top = np.maximum(values.max(axis=-1), -1e300)
    return top + np.log(np.exp(values - top[..., None]).sum(axis=-1))
