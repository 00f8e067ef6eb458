"""Power laws: the published one, exact ones, brute force, invariance, and what is not a law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit, nnls

from genret_dask.errors import InputError
from genret_dask.fits import Fit, fit_power_laws
from genret_dask.fits import fit_power_law as fit_with_intervals
from genret_dask.fits.projection import EXPONENTS

# MINDER with T5: non-embedding parameters and CGL, from the released scripts of arXiv 2503.18941.
PARAMETERS = np.array([44057088, 198229248, 704769024, 2818699264, 11274422272], dtype=float)
CGL = np.array(
    [
        0.003739327519766013,
        0.00365354820880983,
        0.003618691318817766,
        0.0035889147738936734,
        0.003575122915571207,
    ]
)


def fit_power_law(x, y, weights=None) -> Fit:
    """Without resamples, which these tests do not look at."""
    return fit_with_intervals(x, y, weights, draws=0)


def exponent_of(law: Fit) -> float:
    return law.exponents["x"].value


def values_of(law: Fit, x) -> np.ndarray:
    return law.law.predict(np.reshape(x, (-1, 1)))[0]


def test_the_published_law():
    law = fit_power_law(PARAMETERS, CGL)
    assert exponent_of(law) == pytest.approx(0.402, abs=0.002)
    assert law.asymptote.value == pytest.approx(0.0035556, abs=2e-7)
    assert law.scales["x"].value == pytest.approx(0.0225, abs=5e-4)
    assert law.r2 >= 0.9991
    assert law.n == 5
    assert fit_with_intervals(PARAMETERS, CGL).warnings == ()
    residual = CGL - values_of(law, PARAMETERS)
    assert 1 - (residual**2).sum() / ((CGL - CGL.mean()) ** 2).sum() == pytest.approx(law.r2)


@st.composite
def noisy_laws(draw):
    exponent = draw(st.floats(0.2, 1.5))
    asymptote = draw(st.floats(0, 2))
    n = draw(st.integers(5, 9))
    x = np.geomspace(1, draw(st.floats(20, 1e4)), n)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return x, x**-exponent + asymptote + rng.uniform(0, draw(st.floats(0, 0.01)), n)


@settings(max_examples=60, deadline=None)
@given(
    points=noisy_laws(), x_unit=st.sampled_from([1e9, 1e-3, 7]), y_unit=st.sampled_from([1e-6, 1e5])
)
def test_units_change_no_exponent(points, x_unit, y_unit):
    x, y = points
    law, scaled = fit_power_law(x, y), fit_power_law(x * x_unit, y * y_unit)
    assert exponent_of(scaled) == pytest.approx(exponent_of(law), abs=1e-6)
    assert scaled.asymptote.value == pytest.approx(
        law.asymptote.value * y_unit, rel=1e-6, abs=1e-9 * y_unit
    )
    assert scaled.r2 == pytest.approx(law.r2, abs=1e-9)
    np.testing.assert_allclose(values_of(scaled, x * x_unit), values_of(law, x) * y_unit, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(exponent=st.floats(0.05, 3), asymptote=st.floats(0.001, 10), log_x0=st.floats(-3, 10))
def test_an_exact_law_is_recovered(exponent, asymptote, log_x0):
    x = np.geomspace(1e3, 1e5, 6)
    y = (np.exp(log_x0) / 1e3) ** exponent * (x / 1e3) ** -exponent + asymptote
    signal = np.ptp(y) / y.max()
    if signal < 1e-6:
        return
    law = fit_power_law(x, y)
    assert exponent_of(law) == pytest.approx(exponent, rel=1e-9 / signal)
    assert law.asymptote.value == pytest.approx(asymptote, rel=1e-7 / signal)
    assert law.law.log_scale[0, 0] == pytest.approx(log_x0, abs=1e-7 / signal)
    assert law.r2 == pytest.approx(1, abs=1e-9)


def best_of_grid(x, y, weights):
    """The judge: SciPy's non-negative least squares at each of many exponents."""
    root = np.sqrt(weights)
    return min(
        nnls(np.stack([(x / x[0]) ** -a, np.ones(len(x))], axis=1) * root[:, None], y * root)[1]
        ** 2
        for a in np.geomspace(*EXPONENTS, 400)
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 8))
def test_no_exponent_of_a_fine_grid_does_better(seed, n):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.lognormal(0, 2, n))
    y = np.sort(rng.random(n))[::-1] + rng.choice([0, 1]) + rng.normal(0, 0.05, n).clip(-0.1)
    y, weights = np.maximum(y, 0), rng.uniform(0.2, 2, n)
    best = best_of_grid(x, y, weights)
    law = fit_power_law(x, y, weights)
    found = (weights * (y - values_of(law, x)) ** 2).sum()
    assert found <= best * (1 + 1e-9) + 1e-15
    if np.isfinite(exponent_of(law)):
        assert exponent_of(law) >= EXPONENTS[0] and exponent_of(law) <= EXPONENTS[1]
        assert law.asymptote.value >= 0


def test_a_fall_followed_by_a_rise_is_fitted_as_a_fall():
    """A rising law would fit better, and is not one of ours."""
    x, y = 2.0 ** np.arange(10), np.array([0.6, *np.arange(9) / 10])
    law = fit_power_law(x, y)
    assert exponent_of(law) > 1
    assert values_of(law, 1) > values_of(law, 2)
    assert ((y - values_of(law, x)) ** 2).sum() <= best_of_grid(x, y, np.ones(10)) * (1 + 1e-9)
    assert "y rises at 8 of 9 steps of X" in law.warnings


def test_weights_are_those_of_curve_fit():
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 1000, 8)
    y = 2 * x**-0.5 + 0.3 + rng.normal(0, 0.01, 8)
    sigma = rng.uniform(0.5, 3, 8)
    peer, _ = curve_fit(lambda x, c, a, d: c * x**-a + d, x, y, p0=(1, 1, 0), sigma=sigma)
    law = fit_power_law(x, y, 1 / sigma**2)
    assert exponent_of(law) == pytest.approx(peer[1], rel=1e-4)
    assert law.asymptote.value == pytest.approx(peer[2], rel=1e-4)
    assert exponent_of(law) != pytest.approx(exponent_of(fit_power_law(x, y)), rel=1e-4)


def test_many_laws_at_once_are_the_same_laws():
    rng = np.random.default_rng(0)
    y = CGL + rng.normal(0, 2e-5, (20, 5))
    laws = fit_power_laws(PARAMETERS, y)
    for row in range(20):
        law = fit_power_law(PARAMETERS, y[row])
        found = [laws.exponent[row, 0], laws.asymptote[row], laws.log_scale[row, 0], laws.r2[row]]
        expected = [exponent_of(law), law.asymptote.value, law.law.log_scale[0, 0], law.r2]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_order_of_points_does_not_matter():
    order = [3, 0, 4, 2, 1]
    law, other = fit_power_law(PARAMETERS, CGL), fit_power_law(PARAMETERS[order], CGL[order])
    assert exponent_of(other) == pytest.approx(exponent_of(law), rel=1e-9)
    assert other.warnings == law.warnings


@pytest.mark.parametrize(
    ("x", "y", "warning"),
    [
        ([1, 2], [2, 1], "2 distinct X"),
        ([1, 2, 2, 1], [2, 1, 1, 2], "2 distinct X"),
        ([5], [1], "1 distinct X"),
        ([1, 2, 4], [4, 2.5, 2], "3 points for 3 parameters"),
        ([1, 2, 3, 4], [1, 1, 1, 1], "y does not fall"),
        ([1, 2, 3, 4], [1, 2, 3, 4], "y rises at 3 of 3 steps"),
        ([4, 3, 2, 1], [0.2, 0.5, 0.3, 1], "y rises at 1 of 3 steps"),
        ([1, 2, 3, 4], [1, 0, 0, 0], "exponent 10 is at a bound"),
        ([1, 10, 100, 1000], [4.0, 3.0, 2.0, 1.0], "asymptote 0 is at its bound"),
        ([1, 2, 3, 4, 5], [3, 0.1, 2.5, 0.2, 1], "is below 0.9"),
    ],
)
def test_what_speaks_against_a_law_is_said(x, y, warning):
    law = fit_power_law(x, y)
    assert any(warning in found for found in law.warnings), law.warnings


@pytest.mark.parametrize(("x", "y"), [([1, 2], [2, 1]), ([1, 2, 3], [1, 2, 3])])
def test_no_law_predicts_the_mean(x, y):
    law = fit_power_law(x, y)
    assert np.isnan(exponent_of(law))
    assert np.isnan(law.scales["x"].value)
    assert [one.value for one in law.predict([10, 20])] == [np.mean(y)] * 2


@pytest.mark.parametrize(
    ("x", "y", "weights", "message"),
    [
        ([0, 1], [1, 1], None, "x holds 0"),
        ([1, np.inf], [1, 1], None, "x holds inf"),
        ([1, 2], [1, -1], None, "y holds -1"),
        ([1, 2], [1, np.nan], None, "y holds nan"),
        ([1, 2], [1, 1], [1, 0], "weights holds 0"),
        ([1, 2], [1, 1, 1], None, "shape"),
        ([1, 2], [1, 1], [1], "shape"),
        ([], [], None, "at least one"),
    ],
)
def test_bad_points_are_refused(x, y, weights, message):
    with pytest.raises(InputError, match=message):
        fit_power_law(x, y, weights)
