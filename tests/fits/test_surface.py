"""Laws over several axes: the formula, units, resamples, and Huber's loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genret_dask.errors import InputError
from genret_dask.fits import fit_power_law, fit_surfaces

SIDES = np.geomspace(1e6, 1e9, 5), np.geomspace(1e4, 1e6, 4), np.geomspace(1e2, 1e4, 3)


def points(axes):
    return np.stack([side.ravel() for side in np.meshgrid(*SIDES[:axes])], axis=1)


def joint(x, exponents=(0.4, 0.6), scales=(1e3, 30), asymptote=0.05):
    """DESIGN's ((N0/N)^(aN/aD) + D0/D)^aD + d."""
    (a_n, a_d), (n0, d0) = exponents, scales
    return ((n0 / x[:, 0]) ** (a_n / a_d) + d0 / x[:, 1]) ** a_d + asymptote


@settings(max_examples=25, deadline=None)
@given(
    a_n=st.floats(0.2, 1.2),
    a_d=st.floats(0.2, 1.2),
    log_n0=st.floats(6, 11),
    log_d0=st.floats(2, 6),
    asymptote=st.floats(0.05, 0.5),
)
def test_an_exact_joint_law_is_recovered(a_n, a_d, log_n0, log_d0, asymptote):
    x, scales = points(2), np.exp([log_n0, log_d0])
    y = joint(x, (a_n, a_d), scales, asymptote)
    corners = y.reshape(4, 5)
    effects = np.ptp(corners, axis=1).max(), np.ptp(corners, axis=0).max()
    assume(min(effects) > 0.02 * np.ptp(y))
    law = fit_surfaces(x, y[None])
    np.testing.assert_allclose(law.predict(x)[0], y, rtol=1e-6)
    np.testing.assert_allclose(law.exponent[0], [a_n, a_d], rtol=1e-4)
    assert law.asymptote[0] == pytest.approx(asymptote, rel=1e-3)
    np.testing.assert_allclose(law.log_scale[0], [log_n0, log_d0], atol=1e-3)


def test_three_axes():
    x = points(3)
    y = (
        (1e4 / x[:, 0]) ** (0.4 / 0.6) + 30 / x[:, 1] + (0.5 / x[:, 2]) ** (0.5 / 0.6)
    ) ** 0.6 + 0.05
    law = fit_surfaces(x, y[None], power_axis=1)
    np.testing.assert_allclose(law.exponent[0], [0.4, 0.6, 0.5], rtol=1e-5)
    np.testing.assert_allclose(np.exp(law.log_scale[0]), [1e4, 30, 0.5], rtol=1e-4)
    assert law.r2[0] == pytest.approx(1)
    far = np.array([[1e7, np.inf, np.inf]])
    assert law.predict(far)[0, 0] == pytest.approx((1e4 / 1e7) ** 0.4 + 0.05)


@pytest.mark.parametrize("loss", ["squares", "huber"])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(("x_unit", "y_unit"), [(1e9, 1.0), (1.0, 1e-6), (7e-3, 1e4)])
def test_units_change_no_exponent(loss, axes, x_unit, y_unit):
    rng = np.random.default_rng(axes)
    x = points(2)[:, :axes]
    y = joint(points(2)) if axes == 2 else (1e3 / x[:, 0]) ** 0.4 + 0.05
    y = y * np.exp(rng.normal(0, 0.01, len(y)))
    law, scaled = (
        fit_surfaces(a, b[None], loss=loss) for a, b in ((x, y), (x * x_unit, y * y_unit))
    )
    np.testing.assert_allclose(scaled.exponent, law.exponent, atol=1e-6)
    np.testing.assert_allclose(scaled.asymptote, law.asymptote * y_unit, rtol=1e-5)
    np.testing.assert_allclose(scaled.predict(x * x_unit), law.predict(x) * y_unit, rtol=1e-6)


@pytest.mark.parametrize("loss", ["squares", "huber"])
def test_a_row_among_resamples_is_what_it_is_alone(loss):
    rng = np.random.default_rng(3)
    x = points(2)
    y = joint(x) * np.exp(rng.normal(0, 0.005, (12, len(x))))
    together = fit_surfaces(x, y, loss=loss)
    for row in range(0, 12, 4):
        alone = fit_surfaces(x, y[row : row + 1], loss=loss)
        np.testing.assert_allclose(together.exponent[row], alone.exponent[0], rtol=1e-4)
        np.testing.assert_allclose(together.predict(x)[row], alone.predict(x)[0], rtol=1e-6)
    again = fit_surfaces(x, y, loss=loss)
    assert (again.exponent == together.exponent).all()


def test_rows_of_different_laws_each_find_their_own():
    x = points(2)
    laws = [((0.2, 1.2), (1e3, 30)), ((1.2, 0.2), (2e5, 1e-3)), ((0.5, 0.5), (1e4, 300))]
    y = np.stack([joint(x, *law) for law in laws] * 3)
    found = fit_surfaces(x, y)
    np.testing.assert_allclose(found.predict(x), y, rtol=1e-4)


def test_the_order_of_points_does_not_matter():
    rng = np.random.default_rng(5)
    x = points(2)
    y = joint(x) * np.exp(rng.normal(0, 0.01, len(x)))
    order = rng.permutation(len(x))
    law, other = fit_surfaces(x, y[None]), fit_surfaces(x[order], y[None, order])
    np.testing.assert_allclose(other.exponent, law.exponent, rtol=1e-6)


def test_one_axis_is_the_power_law():
    rng = np.random.default_rng(0)
    x, weights = np.geomspace(1, 1e4, 7), rng.uniform(0.5, 2, 7)
    y = x**-0.4 + 0.2 + rng.normal(0, 0.01, 7)
    surface, law = fit_surfaces(x[:, None], y[None], weights), fit_power_law(x, y, weights)
    assert surface.exponent[0, 0] == law.exponents["x"].value
    predicted = [one.value for one in law.predict(x)]
    np.testing.assert_allclose(surface.predict(x[:, None])[0], predicted)


def test_hubers_loss_is_not_bent_by_one_bad_point():
    x = np.geomspace(1e3, 1e6, 8)[:, None]
    y = (50 / x[:, 0]) ** 0.5 + 0.1
    bad = y.copy()
    bad[3] *= 1.2
    robust, squares = (fit_surfaces(x, bad[None], loss=loss) for loss in ("huber", "squares"))
    assert robust.exponent[0, 0] == pytest.approx(0.5, abs=0.005)
    assert abs(squares.exponent[0, 0] - 0.5) > 0.05


def test_weights_are_repetitions():
    rng = np.random.default_rng(2)
    x = points(2)
    y = joint(x) * np.exp(rng.normal(0, 0.01, len(x)))
    counts = rng.integers(1, 4, len(x))
    weighted = fit_surfaces(x, y[None], counts.astype(float))
    repeated = fit_surfaces(np.repeat(x, counts, axis=0), np.repeat(y, counts)[None])
    np.testing.assert_allclose(weighted.exponent, repeated.exponent, rtol=1e-6)


def test_no_law_is_none():
    x = points(2)
    rising = fit_surfaces(x, (x[:, 0] / 1e9 + x[:, 1] / 1e6)[None])
    few = fit_surfaces(x[:4], np.array([[4.0, 3.0, 2.0, 1.0]]))
    for law in (rising, few):
        assert np.isnan(law.exponent).all() and not law.fitted[0]
        assert law.predict(x)[0].tolist() == [law.asymptote[0]] * len(x)
    assert few.asymptote[0] == 2.5


def test_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match="'cubes'[^$]*squares or huber"):
        fit_surfaces(points(2), joint(points(2))[None], loss="cubes")
