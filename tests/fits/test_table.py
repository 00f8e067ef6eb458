"""First fits find the laws that a cube was made with, and the table shows them."""

from __future__ import annotations

import json

import dask
import numpy as np
import pytest
import xarray as xr

from genret_dask.cli.tables import fits_table
from genret_dask.fits import fit_power_law, fit_power_laws, fit_records, resample_weights
from genret_dask.metrics import cgl, recall

pytestmark = pytest.mark.usefixtures("rough_fits")

QUERIES, BEAMS, NEGATIVES = 12, (1, 4, 16, 64), 4

# name, family, N, D, fraction
MODELS = [
    ("a1", "t5", 1e4, 800, 1.0),
    ("a2", "t5", 4e4, 800, 1.0),
    ("a3", "t5", 4e5, 200, 0.25),
    ("a4", "t5", 4e5, 400, 0.5),
    ("a5", "t5", 4e5, 800, 1.0),
    ("a6", "t5", 4e6, 800, 1.0),
    ("b1", "llama", 2e4, 400, 0.5),
    ("b2", "llama", 6e4, 400, 0.5),
]


def cube(seed=0):
    """Positive losses that follow (1e3/N)^0.4 + 30/D + 0.05, give or take a query's factor."""
    rng = np.random.default_rng(seed)
    names, families, n, d, fraction = (np.array(column) for column in zip(*MODELS, strict=True))
    coordinates = {
        "model": names,
        "family": ("model", families),
        "precision": ("model", ["fp32"] * len(MODELS)),
        "n_params": ("model", n.astype(np.int64)),
        "n_train": ("model", d.astype(np.int64)),
        "train_fraction": ("model", fraction),
        "train_flops": ("model", 600 * n * d),
        "query": [f"q{q}" for q in range(QUERIES)],
    }
    loss = np.full((len(MODELS), QUERIES, 1 + NEGATIVES, 1), 3.0)
    law = (1e3 / n) ** 0.4 + 30 / d + 0.05
    loss[:, :, 0, 0] = law[:, None] * rng.uniform(0.9, 1.1, QUERIES)
    candidate = np.tile(np.arange(1 + NEGATIVES, dtype=np.int32), (QUERIES, 1))
    first = np.arange(1 + NEGATIVES) == 0
    scored = ("model", "query", "candidate", "step")
    contrast = xr.Dataset(
        {
            "logit": (scored, np.zeros(loss.shape, dtype=np.float32)),
            "log_partition": (scored, loss.astype(np.float32)),
            "doc": (("query", "candidate"), candidate),
            "is_positive": (("query", "candidate"), np.tile(first, (QUERIES, 1))),
            "relevance": (("query", "candidate"), np.tile(first.astype(np.int32), (QUERIES, 1))),
        },
        coords=coordinates,
    )
    chance = 1 - np.array(BEAMS) ** -0.5
    hit = rng.random((len(MODELS), QUERIES, 1)) < chance
    doc = np.where(hit, 0, 7).astype(np.int32)[..., None]
    flops = np.array(BEAMS, dtype=float) * 1e6 * rng.uniform(0.9, 1.1, (len(MODELS), QUERIES, 1))
    ranked = ("model", "query", "beam")
    search = xr.Dataset(
        {"doc": ((*ranked, "rank"), doc), "flops": (ranked, flops)},
        coords={**coordinates, "beam": list(BEAMS)},
    )
    return search.chunk(model=1, query=5), contrast.chunk(model=1, query=5)


@pytest.fixture(scope="module")
def fits():
    return fit_records("codes", *cube(), draws=60, seed=2)


def by_series(fits, law):
    return {record["series"]: record for record in fits if record["law"] == law}


def test_the_series_are_those_of_the_design(fits):
    assert {record["identifiers"] for record in fits} == {"codes"}
    assert list(by_series(fits, "L(N)")) == ["t5", "llama"]
    assert list(by_series(fits, "L(D)")) == ["t5 N=400,000"]
    frontiers = ["t5 frontier", "llama frontier", "all frontier"]
    assert list(by_series(fits, "L(C)")) == [name for name, *_ in MODELS] + frontiers
    assert list(by_series(fits, "L(N,D)")) == list(by_series(fits, "L(N,D,C)")) == ["t5"]
    assert list(by_series(fits, "L(N,C)")) == ["llama"]
    assert by_series(fits, "L(N)")["t5"]["n"] == 4
    assert json.loads(json.dumps(fits, allow_nan=False)) == fits


def test_laws_and_intervals_are_those_of_the_points(fits):
    _, contrast = cube()
    points = cgl(contrast).compute()
    weights = resample_weights(QUERIES, 60, 2)
    for law, rows, column in (("L(N)", [0, 1, 4, 5], 2), ("L(D)", [2, 3, 4], 3)):
        x = np.array([MODELS[row][column] for row in rows], dtype=float)
        record = next(iter(by_series(fits, law).values()))
        values = points.isel(model=rows).transpose("query", "model").values
        expected = fit_power_law(x, values.mean(axis=0), draws=0)
        resampled = fit_power_laws(x, weights @ values)
        for name in ("exponent", "asymptote"):
            low, high = np.percentile(getattr(resampled, name), [2.5, 97.5])
            wanted = {**expected.record()[name], "low": low, "high": high}
            assert record[name] == pytest.approx(wanted, rel=1e-6), (law, name)
        assert record["scale"] == pytest.approx(expected.scales["x"].value, rel=1e-6)
        assert record["r2"] == pytest.approx(expected.r2)
        assert record["metric"] == "cgl"
        own = [one.replace("X", law[2], 1) for one in expected.warnings if "interval" not in one]
        assert record["warnings"][: len(own)] == own
    assert by_series(fits, "L(N)")["t5"]["r2"] > 0.999
    assert by_series(fits, "L(N)")["t5"]["exponent"]["value"] == pytest.approx(0.4, abs=0.03)


def test_inference_is_error_against_flops(fits):
    search, contrast = cube()
    error = 1 - recall(search, contrast, 10).mean("query").compute()
    flops = search["flops"].mean("query").compute()
    for name, *_ in MODELS:
        record = by_series(fits, "L(C)")[name]
        expected = fit_power_law(flops.sel(model=name), error.sel(model=name), draws=0)
        assert record["metric"] == "1 - recall@10"
        assert record["n"] == len(BEAMS)
        assert record["exponent"]["value"] == pytest.approx(expected.exponents["x"].value, rel=1e-6)


def test_a_series_is_of_one_precision(fits):
    both = []
    for dataset in cube():
        other = dataset.assign_coords(
            model=[f"{name}.int8" for name in dataset["model"].values],
            precision=("model", ["int8"] * len(MODELS)),
        )
        both.append(xr.concat([dataset, other], "model", data_vars="minimal"))
    found = fit_records("codes", *both, draws=60, seed=2)
    assert list(by_series(found, "L(N)")) == ["t5", "t5 int8", "llama", "llama int8"]
    assert list(by_series(found, "L(D)")) == ["t5 N=400,000", "t5 int8 N=400,000"]

    def of(records, precision):
        return [
            {**record, "precision": "", "series": record["series"].replace(" int8", "")}
            for record in records
            if record["precision"] == precision
            and record["law"] in ("L(N)", "L(C)")
            and record["family"]
        ]

    exact, twins = of(found, "fp32"), of(found, "int8")
    assert exact == of(fits, "fp32")
    for record, twin in zip(exact, twins, strict=True):
        twin["series"] = record["series"] = ""
    assert twins == exact


def test_too_few_points_are_said(fits):
    llama = by_series(fits, "L(N)")["llama"]
    assert llama["exponent"] == {"value": None, "low": None, "high": None}
    assert llama["scale"] is None
    assert any("2 distinct N" in warning for warning in llama["warnings"])


def test_resamples_without_a_law_are_counted(fits):
    search, contrast = cube()
    found = fit_records("codes", search.isel(query=slice(3)), contrast.isel(query=slice(3)), 60)
    counted = [w for record in found for w in record["warnings"] if "of 60 resamples" in w]
    assert counted


def test_one_pass_over_the_cube():
    passes = []

    def scheduler(graph, keys, **kwargs):
        passes.append(keys)
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=scheduler):
        fit_records("codes", *cube(), draws=5)
    assert len(passes) == 1


def test_a_model_without_values_is_left_out():
    search, contrast = cube()
    gone = contrast["model"] == "a2"
    for name in ("logit", "log_partition"):
        contrast[name] = contrast[name].where(~gone)
    found = fit_records("codes", search, contrast, draws=10)
    assert by_series(found, "L(N)")["t5"]["n"] == 3


def test_the_table_shows_every_law_and_its_warnings(fits):
    text = fits_table(fits)
    lines = text.splitlines()
    rule = lines[1]
    assert set(rule) == {"-", " "}
    assert lines[0].split() == [
        "law",
        "series",
        "metric",
        "axis",
        "exponent",
        "asymptote",
        "scale",
        "R2",
        "n",
    ]
    assert lines[2].split()[:4] == ["L(N)", "t5", "cgl", "N"] and "[0." in lines[2]
    assert lines[sum(len(record["axes"]) for record in fits) + 2] == ""
    assert any(line.startswith("L(N) llama: 2 distinct N") for line in lines)
