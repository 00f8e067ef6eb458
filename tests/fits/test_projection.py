"""The search over surfaces: derivatives, the grid, and no worse an end than SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares, minimize, nnls

from genret_dask.fits.projection import EXPONENTS, Basis, grid_errors, linear_part, search
from genret_dask.fits.robust import DELTA, huber, search_robust


def grid_of(axes, rng, per_axis=4):
    sides = [np.sort(rng.uniform(0, 7, per_axis)) for _ in range(axes)]
    points = np.stack([side.ravel() for side in np.meshgrid(*sides)], axis=1)
    return points - points.min(axis=0)


def loop_basis(log_x, power_axis, exponents, logits):
    """The formula of the module, one point at a time."""
    logits = np.insert(logits, power_axis, 0.0)
    shares = np.exp(logits) / np.exp(logits).sum()
    power = exponents[power_axis]
    return np.array(
        [
            sum(
                share * np.exp(point) ** -(a / power)
                for share, point, a in zip(shares, row, exponents, strict=True)
            )
            ** power
            for row in log_x
        ]
    )


@pytest.mark.parametrize(("axes", "power_axis"), [(1, 0), (2, 0), (2, 1), (3, 1)])
def test_the_basis_and_its_derivatives(axes, power_axis):
    rng = np.random.default_rng(axes)
    basis = Basis(grid_of(axes, rng), power_axis)
    theta = rng.normal(-0.5, 0.4, (5, basis.size))
    log_g, by = basis.jacobian(theta)
    for row in range(5):
        expected = loop_basis(basis.log_x, power_axis, np.exp(theta[row, :axes]), theta[row, axes:])
        np.testing.assert_allclose(np.exp(log_g[row]), expected, rtol=1e-12)
    for place in range(basis.size):
        step = np.zeros(basis.size)
        step[place] = 1e-6
        slope = (basis.values(theta + step) - basis.values(theta - step)) / 2e-6
        np.testing.assert_allclose(by[..., place], slope, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axes=st.integers(1, 3))
def test_the_grid_and_the_linear_part_are_scipys(seed, axes):
    rng = np.random.default_rng(seed)
    basis = Basis(grid_of(axes, rng, 3), 0)
    starts = basis.starts()[rng.integers(0, len(basis.starts()), 6)]
    y = rng.random((4, len(basis.log_x))) + rng.choice([0, 1])
    weights = rng.uniform(0.1, 1, y.shape[1])
    weights /= weights.sum()
    floor = np.array([0.0, -0.5, -2.0, 0.0])
    found = grid_errors(basis, starts, y, weights, floor)
    root = np.sqrt(weights)
    for place, start in enumerate(starts):
        g = np.exp(basis.values(start[None])[0])
        columns = np.stack([g, np.ones_like(g)], axis=1) * root[:, None]
        for row in range(4):
            _, rest = nnls(columns, (y[row] - floor[row]) * root)
            assert found[place, row] == pytest.approx(rest**2, rel=1e-7, abs=1e-12)
            *_, error = linear_part(
                np.expm1(basis.values(start[None])), y[row : row + 1], weights, floor[row : row + 1]
            )
            assert error[0] == pytest.approx(rest**2, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_no_start_of_scipys_search_ends_lower(seed):
    """The judge: scipy's bounded least squares over all five parameters, from many starts."""
    rng = np.random.default_rng(seed)
    basis = Basis(grid_of(2, rng), 1)
    truth = np.array([[np.log(rng.uniform(0.2, 1)), np.log(rng.uniform(0.2, 1)), 0.3]])
    y = np.exp(basis.values(truth)) + 0.2 + rng.normal(0, 0.01, (1, len(basis.log_x)))
    weights = rng.uniform(0.5, 2, y.shape[1])
    weights /= weights.sum()
    starts = basis.starts()
    best = starts[grid_errors(basis, starts, y, weights, np.zeros(1)).argmin()]
    _, error = search(basis, y, weights, np.zeros(1), best[None])

    low, high = np.log(EXPONENTS)
    bounds = ([low, low, -12, 0, 0], [high, high, 12, 10, 10])

    def residual(p):
        g = np.exp(basis.values(p[None, :3])[0])
        return np.sqrt(weights) * (p[3] * g + p[4] - y[0])

    ends = [
        2 * least_squares(residual, [*start, 0.8, 0.1], bounds=bounds, xtol=1e-12, ftol=1e-12).cost
        for start in starts[rng.integers(0, len(starts), 12)]
    ]
    assert error[0] <= min(ends) * (1 + 1e-7)


def test_a_search_never_ends_above_its_start():
    rng = np.random.default_rng(0)
    basis = Basis(grid_of(2, rng, 3), 0)
    y = rng.random((50, 9))
    weights, floor = np.full(9, 1 / 9), np.zeros(50)
    starts = basis.starts()[rng.integers(0, 320, 50)]
    *_, before = linear_part(np.expm1(basis.values(starts)), y, weights, floor)
    theta, after = search(basis, y, weights, floor, starts)
    assert (after <= before).all()
    np.testing.assert_array_equal(theta, basis.clip(theta))


@pytest.mark.parametrize("seed", range(4))
def test_huber_ends_no_higher_than_nelder_mead(seed):
    rng = np.random.default_rng(seed)
    basis = Basis(np.linspace(0, 7, 8)[:, None], 0)
    y = np.exp(-0.5 * basis.log_x[:, 0])[None] + 0.1
    y = y * np.exp(rng.normal(0, 0.01, y.shape))
    y[0, 3] *= 1.3
    weights = np.full(8, 1 / 8)
    start = np.log([[0.4]]), np.array([1.0]), np.array([0.1])
    theta, s, d, loss = search_robust(basis, y, weights, start)
    assert loss[0] == pytest.approx(
        huber(np.log(y) - np.log(s * np.exp(basis.values(theta)) + d), weights)[0]
    )

    def objective(p):
        return huber(
            np.log(y[0]) - np.logaddexp(p[1] - np.exp(p[0]) * basis.log_x[:, 0], p[2]), weights
        )

    peer = min(
        minimize(
            objective,
            np.log([a, 1.0, 0.1]),
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000},
        ).fun
        for a in (0.3, 0.5, 0.8)
    )
    assert loss[0] <= peer * (1 + 1e-5)


def test_hubers_loss_is_a_square_near_0_and_a_line_beyond():
    weights = np.ones(1)
    assert huber(np.array([DELTA / 2]), weights) == pytest.approx(DELTA**2 / 8)
    rise = huber(np.array([3 * DELTA]), weights) - huber(np.array([2 * DELTA]), weights)
    assert rise == pytest.approx(DELTA**2)


def test_blocks_of_rows_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    basis = Basis(grid_of(2, rng, 3), 0)
    y, weights, floor = rng.random((7, 9)), np.full(9, 1 / 9), np.zeros(7)
    starts = basis.starts()[:7]
    whole = search(basis, y, weights, floor, starts), grid_errors(basis, starts, y, weights, floor)
    monkeypatch.setattr("genret_dask.fits.projection._BLOCK", 60)
    parts = search(basis, y, weights, floor, starts), grid_errors(basis, starts, y, weights, floor)
    np.testing.assert_allclose(parts[0][1], whole[0][1], rtol=1e-9)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-9)
