"""Losses equal plain loops, whatever the chunks, and stay lazy."""

from __future__ import annotations

import math

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import InputError
from genret_dask.metrics import cgl, generation_loss, positive_loss

FUNCTIONS = {
    "generation_loss": generation_loss,
    "positive_loss": positive_loss,
    "ratio": lambda contrast: cgl(contrast, "ratio"),
    "softmax": lambda contrast: cgl(contrast, form="softmax"),
}


def loop_losses(contrast, m, q):
    """[(document, is positive, loss)] of the candidates that are there."""
    found = []
    for c in range(contrast.sizes["candidate"]):
        if contrast["doc"].values[q, c] < 0:
            continue
        terms = []
        for step in range(contrast.sizes["step"]):
            logit = float(contrast["logit"].values[m, q, c, step])
            if not math.isnan(logit):
                terms.append(float(contrast["log_partition"].values[m, q, c, step]) - logit)
        positive = bool(contrast["is_positive"].values[q, c])
        found.append((c, positive, math.fsum(terms) / len(terms)))
    return found


def loop(contrast, name):
    shape = (contrast.sizes["model"], contrast.sizes["query"])
    values = np.full(shape, np.nan)
    for m, q in np.ndindex(shape):
        losses = loop_losses(contrast, m, q)
        best = min(loss for _, positive, loss in losses if positive)
        negatives = [loss for _, positive, loss in losses if not positive]
        if name == "positive_loss":
            values[m, q] = best
        elif name == "ratio":
            total = math.fsum(negatives)
            values[m, q] = -math.log(total / (total + best))
        else:
            weight = math.fsum(math.exp(-loss) for loss in negatives)
            values[m, q] = -math.log(math.exp(-best) / (math.exp(-best) + weight))
    return values


@pytest.mark.parametrize("seed", range(3))
def test_generation_loss_equals_a_loop(random_cube, seed):
    _, contrast = random_cube(seed)
    found = generation_loss(contrast).transpose("model", "query", "candidate").values
    assert found.dtype == np.float64
    expected = np.full(found.shape, np.nan)
    for m, q in np.ndindex(found.shape[:2]):
        for c, _, loss in loop_losses(contrast, m, q):
            expected[m, q, c] = loss
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["positive_loss", "ratio", "softmax"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop(random_cube, name, seed):
    _, contrast = random_cube(seed)
    found = FUNCTIONS[name](contrast).transpose("model", "query").values
    np.testing.assert_allclose(found, loop(contrast, name), rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), name=st.sampled_from(list(FUNCTIONS)))
def test_chunked_equals_eager(random_cube, data, name):
    models, queries, steps = (data.draw(st.integers(1, 4)) for _ in range(3))
    _, contrast = random_cube(data.draw(st.integers(0, 99)), models, queries, steps=steps)
    chunks = {dim: data.draw(st.integers(1, size), dim) for dim, size in contrast.sizes.items()}
    chunked = contrast.chunk(chunks)
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_identical(FUNCTIONS[name](chunked).compute(), FUNCTIONS[name](contrast))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_building_computes_nothing(random_cube, name):
    _, contrast = random_cube()

    def refuse(*args, **kwargs):
        raise AssertionError("computed while building")

    with dask.config.set(scheduler=refuse):
        lazy = FUNCTIONS[name](contrast.chunk(model=1, query=2))
    assert dask.is_dask_collection(lazy)
    assert lazy.chunksizes["query"] == (2, 2, 2)


def one_query(losses, doc=None):
    """A cube of one model and query: the first loss is the positive's."""
    losses = np.asarray(losses, dtype=np.float32)
    dims = ("model", "query", "candidate", "step")
    return xr.Dataset(
        {
            "logit": (dims, np.zeros((1, 1, len(losses), 1), dtype=np.float32)),
            "log_partition": (dims, losses[None, None, :, None]),
            "doc": (("query", "candidate"), [doc or list(range(len(losses)))]),
            "is_positive": (("query", "candidate"), [[True] + [False] * (len(losses) - 1)]),
        }
    )


def test_chance_is_that_of_the_number_of_negatives():
    contrast = one_query([2.5] * 257)
    assert cgl(contrast).item() == pytest.approx(-math.log(256 / 257), rel=1e-12)
    assert cgl(contrast, "softmax").item() == pytest.approx(math.log(257), rel=1e-12)


def test_small_and_large_losses_keep_their_digits():
    assert cgl(one_query([1e-20, 1.0, 3.0])).item() == pytest.approx(2.5e-21, rel=1e-6, abs=0)
    tiny = cgl(one_query([0.0, 60.0]), "softmax").item()
    assert tiny == pytest.approx(math.exp(-60), rel=1e-9, abs=0)
    assert cgl(one_query([5000.0, 10.0]), "softmax").item() == pytest.approx(4990)


def test_a_query_without_negatives_or_positives_is_undefined():
    alone = one_query([1.0])
    unanswered = one_query([1.0, 2.0]).assign(is_positive=alone["is_positive"][:, [0, 0]] & False)
    for form in ("ratio", "softmax"):
        assert np.isnan(cgl(alone, form).item())
        assert np.isnan(cgl(unanswered, form).item())
    assert positive_loss(alone).item() == 1.0
    assert np.isnan(positive_loss(unanswered).item())


def test_padding_counts_for_nothing_but_a_missing_loss_spoils_the_sum():
    whole = one_query([1.0, 2.0, 4.0])
    padded = one_query([1.0, 2.0, 4.0, np.nan], doc=[0, 1, 2, -1])
    missing = one_query([1.0, 2.0, 4.0, np.nan])
    for form in ("ratio", "softmax"):
        assert cgl(padded, form).item() == cgl(whole, form).item()
        assert np.isnan(cgl(missing, form).item())
    assert np.isnan(positive_loss(one_query([np.nan, 1.0])).item())


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="'cosine'[^$]*ratio or softmax"):
        cgl(one_query([1.0, 2.0]), "cosine")


def test_results_say_what_they_are(random_cube):
    _, contrast = random_cube()
    found = cgl(contrast, "softmax")
    assert found.name == "cgl"
    assert found.attrs["units"] == "nat"
    assert "softmax" in found.attrs["long_name"]
    assert list(found["family"].values) == ["t5", "t5"]
