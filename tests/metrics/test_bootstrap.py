"""The bootstrap equals resampling by index, is paired, lazy, and blind to chunks."""

from __future__ import annotations

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import InputError
from genret_dask.fits import bootstrap_mean, interval, resample_weights


def values(seed=0, shape=(3, 20, 2), gaps=False):
    rng = np.random.default_rng(seed)
    data = rng.random(shape)
    if gaps:
        data[rng.random(shape) < 0.2] = np.nan
    return xr.DataArray(
        data, dims=("model", "query", "beam"), coords={"model": list("abcdef")[: shape[0]]}
    )


def test_weights_are_counts_of_a_resample():
    weights = resample_weights(7, 2000, 5)
    counts = weights * 7
    assert weights.shape == (2000, 7)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    # Binomial(7, 1/7): mean 1, variance 6/7.
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.12)
    assert (weights == resample_weights(7, 2000, 5)).all()
    assert (weights != resample_weights(7, 2000, 6)).any()


@pytest.mark.parametrize("gaps", [False, True])
def test_a_draw_is_the_mean_of_the_repeated_queries(gaps):
    data = values(gaps=gaps)
    found = bootstrap_mean(data, draws=30, seed=4)
    assert found.dims[0] == "draw"
    counts = np.rint(resample_weights(20, 30, 4) * 20).astype(int)
    for draw in range(30):
        picked = data.isel(query=np.repeat(np.arange(20), counts[draw]))
        np.testing.assert_allclose(
            found.isel(draw=draw).transpose("model", "beam"), picked.mean("query"), rtol=1e-12
        )


def test_the_same_resamples_for_every_model():
    data = values()
    both = xr.concat([data, data + 1], "model")
    found = bootstrap_mean(both, draws=40)
    difference = found.isel(model=slice(3, None)).values - found.isel(model=slice(3)).values
    np.testing.assert_allclose(difference, 1)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), gaps=st.booleans())
def test_chunked_equals_eager(data, gaps):
    shape = tuple(data.draw(st.integers(1, n)) for n in (3, 12, 3))
    array = values(data.draw(st.integers(0, 99)), shape, gaps)
    chunks = {dim: data.draw(st.integers(1, size), dim) for dim, size in array.sizes.items()}
    eager = bootstrap_mean(array, draws=9, seed=1)
    lazy = bootstrap_mean(array.chunk(chunks), draws=9, seed=1)
    bounds = interval(lazy.chunk(draw=4))
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-13)
        xr.testing.assert_allclose(bounds.compute(), interval(eager), rtol=1e-13)


def test_building_computes_nothing_and_carries_no_weights():
    def refuse(*args, **kwargs):
        raise AssertionError("computed while building")

    data = xr.DataArray(da.zeros((3, 2000), chunks=(1, 500)), dims=("model", "query"))
    with dask.config.set(scheduler=refuse):
        lazy = interval(bootstrap_mean(data, draws=1000))
    assert dask.is_dask_collection(lazy)
    assert len(cloudpickle.dumps(dict(lazy.data.dask))) < 1000 * 2000


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_is_of_percentiles(level):
    draws = bootstrap_mean(values(), draws=101)
    found = interval(draws, level)
    assert found["bound"].values.tolist() == ["low", "high"]
    tail = 50 * (1 - level)
    expected = np.percentile(draws.values, [tail, 100 - tail], axis=0)
    np.testing.assert_allclose(found.transpose("bound", *draws.dims[1:]), expected)


def test_interval_leaves_missing_draws_out():
    draws = xr.DataArray(
        [[1.0, np.nan, 5.0], [np.nan, np.nan, 5.0], [3.0, np.nan, 5.0]], dims=("draw", "model")
    )
    found = interval(draws, 0.5)
    np.testing.assert_allclose(found, [[1.5, np.nan, 5], [2.5, np.nan, 5]])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = xr.DataArray(rng.normal(size=(400, 60)), dims=("study", "query"))
    bounds = interval(bootstrap_mean(samples, draws=300))
    covered = (bounds.sel(bound="low") <= 0) & (bounds.sel(bound="high") >= 0)
    assert 0.90 < float(covered.mean()) < 0.98


@pytest.mark.parametrize(("n", "draws"), [(0, 5), (5, 0)])
def test_nothing_to_resample_is_refused(n, draws):
    with pytest.raises(InputError, match="resamples"):
        resample_weights(n, draws, 0)
