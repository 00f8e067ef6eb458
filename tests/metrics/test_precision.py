"""Changes against fp32 twins: a plain loop as the judge."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from genret_dask.metrics import cgl, recall
from genret_dask.metrics.bootstrap import resample_weights
from genret_dask.metrics.precision import precision_changes
from genret_dask.metrics.queries import reduce_queries

DRAWS, SEED = 40, 5
NAMES = ["a", "a.int8", "b.fp16", "b", "c.int8", "a.int8x"]
PRECISIONS = ["fp32", "int8", "fp16", "fp32", "int8", "int8"]


@pytest.fixture
def cube(random_cube):
    search, contrast = random_cube(seed=3, models=len(NAMES), queries=9)
    named = {"model": NAMES, "precision": ("model", PRECISIONS)}
    return search.assign_coords(named), contrast.assign_coords(named)


def test_changes_are_those_of_the_pairs_of_queries(cube):
    search, contrast = cube
    lazy = (part.chunk(model=1, query=4) for part in cube)
    found = precision_changes("codes", reduce_queries(*lazy), DRAWS, SEED)
    assert [(record["model"], record["twin"]) for record in found] == [
        ("a.int8", "a"),
        ("b.fp16", "b"),
    ]
    weights = resample_weights(9, DRAWS, SEED)
    values = {
        "cgl": cgl(contrast),
        "recall@10": recall(search.sel(beam=12), contrast, 10),
        "recall@100": recall(search.sel(beam=12), contrast, 100),
    }
    for record in found:
        assert record["identifiers"] == "codes"
        assert record["beam"] == 12
        assert record["precision"] == record["model"].split(".")[1]
        for name, value in values.items():
            model, twin = (value.sel(model=record[key]).values for key in ("model", "twin"))
            change = model - twin
            low, high = np.percentile(weights @ change, [2.5, 97.5])
            wanted = {"mean": change.mean(), "low": low, "high": high}
            assert record[name] == pytest.approx(wanted, abs=1e-12), name
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_model_equal_to_its_twin_changes_nothing(cube):
    same = [xr.concat([part.isel(model=[0])] * 2, "model", data_vars="minimal") for part in cube]
    named = {"model": ["a", "a.int8"], "precision": ("model", ["fp32", "int8"])}
    values = reduce_queries(*(part.assign_coords(named) for part in same))
    (record,) = precision_changes("codes", values, DRAWS)
    nothing = {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert record["cgl"] == record["recall@10"] == record["recall@100"] == nothing


def test_what_a_cube_lacks_is_none(cube):
    search, contrast = cube
    for name in ("logit", "log_partition"):
        contrast[name] = contrast[name].where(contrast["model"] != "a")
    first, second = precision_changes("codes", reduce_queries(search, contrast), DRAWS)
    assert first["cgl"] == {"mean": None, "low": None, "high": None}
    assert second["cgl"]["mean"] is not None


def test_a_cube_in_fp32_has_no_changes(random_cube):
    search, contrast = (
        part.assign_coords(precision=("model", ["fp32", "fp32"])) for part in random_cube()
    )
    assert precision_changes("codes", reduce_queries(search, contrast)) == []


def test_the_main_metric_is_compared_too(random_cube):
    search, contrast = random_cube(1)
    named = {"model": ["t5", "t5.int8"], "precision": ("model", ["fp32", "int8"])}
    values = reduce_queries(*(part.assign_coords(named) for part in (search, contrast)))
    (plain,), (more,) = (
        precision_changes("codes", values, 20, **chosen) for chosen in ({}, {"metric": "mrr@10"})
    )
    change = values["mrr@10"].isel(beam=-1).mean("query").values
    assert more.pop("mrr@10")["mean"] == pytest.approx(change[1] - change[0])
    assert more == plain
