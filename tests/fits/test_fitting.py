"""Intervals, forecasts and warnings of one law."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genret_dask.errors import InputError
from genret_dask.fits import Points, fit_points, fit_surfaces, published_points, resample_weights


def noisy(seed=0, x=None, exponent=0.5, asymptote=0.3, noise=0.05, queries=300, draws=400):
    """Points of a law whose queries scatter around it, with their resamples."""
    rng = np.random.default_rng(seed)
    x = np.geomspace(1e3, 1e6, 6) if x is None else np.asarray(x, dtype=float)
    law = (x / x.min()) ** -exponent + asymptote
    difficulty = rng.lognormal(0, 0.4, (queries, 1)) / np.exp(0.08)
    values = law * (difficulty + rng.normal(0, noise, (queries, len(x))))
    y = values.mean(axis=0)
    resamples = resample_weights(queries, draws, seed) @ values
    return Points("L(N)", "made up", "loss", ("n",), x[:, None], y, np.maximum(resamples, 0))


def plain(x, y, **more):
    x = np.asarray(x, dtype=float)
    return Points("L(N)", "made up", "loss", ("n",), x[:, None], np.asarray(y, dtype=float), **more)


def test_the_published_law_with_its_interval_and_forecast():
    t5, llama = (fit_points(points) for points in published_points())
    exponent, forecast = t5.exponents["n"], t5.forecast
    assert exponent.value == pytest.approx(0.402, abs=0.002)
    assert t5.asymptote.value == pytest.approx(0.0035556, abs=2e-7)
    assert t5.scales["n"].value == pytest.approx(0.0225, abs=5e-4)
    assert t5.r2 >= 0.9991
    assert 0.2 < exponent.low < 0.35 and 0.45 < exponent.high < 0.7
    assert forecast.n == 4 and forecast.covered
    assert abs(forecast.error.value) < 2e-6
    assert t5.warnings == ()
    assert np.isnan(llama.exponents["n"].low)
    assert any("3 points for 3 parameters" in warning for warning in llama.warnings)
    assert any("no interval" in warning for warning in llama.warnings)


@pytest.mark.parametrize("level", [1e-6, 1e-3, 0.0036, 50.0])
@pytest.mark.parametrize("depth", [1e-4, 1e-2])
def test_a_shallow_law_is_found_whatever_its_level(level, depth):
    """As the published points: differences far below the values."""
    x = np.geomspace(4e7, 1e10, 6)
    fit = fit_points(plain(x, level * (1 + depth * (x / x[0]) ** -0.4)))
    assert fit.exponents["n"].value == pytest.approx(0.4, abs=1e-6)
    assert fit.asymptote.value == pytest.approx(level, rel=1e-9)
    assert fit.r2 == pytest.approx(1)


def test_intervals_are_percentiles_of_the_resamples_laws():
    points = noisy()
    fit = fit_points(points)
    laws = fit_surfaces(points.x, points.draws)
    bounds = np.percentile(laws.exponent[:, 0], [2.5, 97.5])
    np.testing.assert_allclose([fit.exponents["n"].low, fit.exponents["n"].high], bounds)
    x = np.array([[2e5], [1e8]])
    for place, estimate in enumerate(fit.predict(x)):
        low, high = np.percentile(laws.predict(x)[:, place], [2.5, 97.5])
        assert (estimate.low, estimate.high) == pytest.approx((low, high))
        assert low < estimate.value < high
    assert fit.warnings == ()


def test_without_queries_a_straight_line_has_its_classical_interval():
    """With the exponent all but known, the asymptote's interval is that of linear regression."""
    rng = np.random.default_rng(2)
    x = np.geomspace(1, 1e4, 9)
    y = 5 * x**-1.0 + 3 + rng.normal(0, 0.01, 9)
    fit = fit_points(plain(x, y), draws=4000)
    basis = np.stack([x**-1.0, np.ones(9), np.log(x) * x**-1.0], axis=1)
    coefficients, rest, *_ = np.linalg.lstsq(basis, y, rcond=None)
    covariance = np.linalg.inv(basis.T @ basis) * rest[0] / 6
    half = 2.447 * np.sqrt(covariance[1, 1])  # Student's t with 6 degrees of freedom
    found = fit.asymptote
    assert found.value == pytest.approx(coefficients[1], abs=0.2 * half)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


def test_noisier_points_have_wider_intervals():
    widths = [
        fit_points(noisy(noise=noise)).exponents["n"].high
        - fit_points(noisy(noise=noise)).exponents["n"].low
        for noise in (0.02, 0.2)
    ]
    assert widths[1] > 3 * widths[0]


def test_the_forecast_is_the_law_of_the_others():
    points = noisy()
    found = fit_points(points).forecast
    rest = fit_points(points.only(np.arange(5)))
    (expected,) = rest.predict(points.x[5:], new=True)
    assert found.predicted == expected
    assert found.observed == points.y[5]
    errors = rest.predicted_draws(points.x[5:], new=True)[:, 0] - points.draws[:, 5]
    low, high = np.percentile(errors, [2.5, 97.5])
    assert (found.error.low, found.error.high) == pytest.approx((low, high))
    assert found.covered == (low <= 0 <= high)
    assert fit_points(points.only(np.arange(3))).forecast is None


def test_a_new_point_scatters_as_the_others_do():
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 1e4, 30)
    y = x**-0.5 + 0.2 + rng.normal(0, 0.03, 30)
    fit = fit_points(plain(x, y, draws=np.tile(y, (4000, 1))))
    (law,), (new,) = fit.predict([[1e3]]), fit.predict([[1e3]], new=True)
    assert law.low == pytest.approx(law.high)
    size = np.sqrt(((y - fit.law.predict(x[:, None])[0]) ** 2).sum() / 27)
    assert new.high - new.low == pytest.approx(2 * 2.052 * size, rel=0.1)  # t of 27 degrees
    assert new.value == law.value


def test_the_forecast_of_several_axes_leaves_the_largest_n_out():
    n, d = (side.ravel() for side in np.meshgrid([1e6, 1e7, 1e8, 1e9], [1e4, 1e5, 1e6]))
    y = ((1e3 / n) ** (0.4 / 0.6) + 30 / d) ** 0.6 + 0.05
    y = y * np.exp(np.random.default_rng(0).normal(0, 1e-3, len(y)))
    fit = fit_points(Points("L(N,D)", "s", "y", ("n", "d"), np.stack([n, d], axis=1), y), draws=200)
    assert fit.forecast.x == (1e9, 1e6)
    assert fit.forecast.n == 9
    assert abs(fit.forecast.error.value) < 0.02
    assert list(fit.exponents) == ["n", "d"]


@pytest.mark.parametrize(
    ("points", "warning"),
    [
        (noisy(x=[1e3, 2e3, 3e3, 5e3]), "N spans a factor of 5, below 10"),
        (noisy(noise=2.0), "asymptote not identified: its interval goes from 0 to"),
        (noisy(x=[1e3, 1.2e3, 1.5e3, 2e3], noise=1.0), "exponent not identified"),
        (noisy(x=np.geomspace(1e3, 1e6, 6), exponent=0.001, noise=1.0), "standard errors over N"),
        (noisy(x=np.geomspace(1e3, 1e6, 6), exponent=0.02, noise=1.5), "resamples have no law"),
        (noisy(x=np.geomspace(1, 30, 6), exponent=0.3, asymptote=3, noise=0.05), "times y's"),
    ],
)
def test_what_the_resamples_speak_against_is_said(points, warning):
    found = fit_points(points).warnings
    assert any(warning in item for item in found), found
    assert all(any(character.isdigit() for character in item) for item in found)


def test_an_exponent_at_its_bound_has_an_open_interval():
    x = np.geomspace(1, 100, 5)
    rng = np.random.default_rng(0)
    step = np.array([1.0, 0.2, 0.2, 0.2, 0.2])
    fit = fit_points(plain(x, step, draws=step + rng.normal(0, 0.01, (200, 5))))
    estimate = fit.exponents["n"]
    assert estimate.value == pytest.approx(10) and estimate.high == np.inf
    assert fit.record()["exponent"]["high"] is None
    assert any("its interval is open beyond 10" in warning for warning in fit.warnings)


def test_a_straight_line_in_logarithms_has_no_asymptote():
    x = np.geomspace(1, 1e4, 6)
    y = 5 - np.log10(x)
    fit = fit_points(plain(x, y, draws=y + np.random.default_rng(0).normal(0, 1e-3, (200, 6))))
    assert (fit.asymptote.low, fit.asymptote.high) == (0, 0)
    assert any("at its bound 0 in 97.5%" in warning for warning in fit.warnings)


def test_a_fall_is_judged_by_its_own_error():
    """All points move together from resample to resample; their differences hardly do."""
    points = noisy(noise=0.001)
    common = np.random.default_rng(0).normal(0, 5, (400, 1))
    moved = {"y": points.y + 100, "draws": points.draws + 100 + common}
    found = fit_points(Points(**{**vars(points), **moved})).warnings
    assert not any("standard errors" in text for text in found), found


def test_axes_that_vary_together_are_named():
    x = np.geomspace(1, 1e4, 8)
    both = np.stack([x, x**0.5], axis=1)
    fit = fit_points(Points("L(N,D)", "s", "y", ("n", "d"), both, x**-0.3 + 0.1), draws=50)
    assert any("N and D vary together (correlation 1.000)" in item for item in fit.warnings)


def test_variance_gives_weights_within_bounds():
    points = noisy(draws=200)
    noisy_one = points.draws.copy()
    noisy_one[:, 2] += np.random.default_rng(0).normal(0, 10, 200)
    noisy_one[:, 4] = 1.0
    weights = Points(**{**vars(points), "draws": noisy_one}).weighted_by_variance().weights
    assert weights[2] == pytest.approx(weights.max() / 100**2)
    assert weights[4] == weights.max()
    variance = points.draws.var(axis=0)
    plain_weights = points.weighted_by_variance().weights
    np.testing.assert_allclose(plain_weights * variance, (plain_weights * variance)[0])


def test_a_record_is_json():
    for points in (noisy(), plain([1, 2], [2, 1]), plain([1, 2, 3], [1, 2, 3])):
        record = fit_points(points, draws=20).record()
        assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["exponent"]["value"] is None and record["r2"] == 0


@pytest.mark.parametrize(
    ("points", "loss", "message"),
    [
        (plain([1, 0], [1, 1]), "squares", "x holds 0"),
        (plain([1, 2], [1, -1]), "squares", "y holds -1"),
        (plain([1, 2], [1, 0]), "huber", "y holds 0"),
        (plain([1, 2], [1, 1], weights=np.array([1, 0])), "squares", "weights holds 0"),
        (plain([], []), "squares", "at least one point"),
        (plain([1, 2], [1]), "squares", "shape"),
    ],
)
def test_bad_points_are_refused(points, loss, message):
    with pytest.raises(InputError, match=message):
        fit_points(points, loss=loss)


def test_a_prediction_needs_every_axis():
    with pytest.raises(InputError, match="2 columns"):
        fit_points(noisy()).predict(np.ones((1, 2)))
