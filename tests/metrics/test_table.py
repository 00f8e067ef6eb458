"""Records hold each metric's mean and paired bootstrap interval."""

from __future__ import annotations

import json
import warnings

import dask
import numpy as np
import pytest

from genret_dask.fits import resample_weights
from genret_dask.metrics import MEASURES, cgl, mrr, positive_loss
from genret_dask.metrics.queries import reduce_queries
from genret_dask.metrics.table import records

KEYS = [
    "identifiers",
    "model",
    "family",
    "n_params",
    "n_train",
    "train_fraction",
    "beam",
    "flops",
    *("queries", "cgl_queries", "negatives", "chance"),
    *("recall@1", "recall@5", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@10"),
    *("ndcg_exp@10", "success@1", "success@5", "success@20", "success@100", "r_precision"),
    "cgl",
    "generation_loss",
]


def chunked(cube):
    return [part.chunk(model=1, query=2) for part in cube]


def test_one_record_for_each_model_and_beam(random_cube):
    search, contrast = chunked(random_cube(1))
    found = records("codes", reduce_queries(search, contrast), draws=50)
    assert [list(record) for record in found] == [KEYS] * 6
    assert [(record["model"], record["beam"]) for record in found] == [
        (model, beam) for model in ("t5-0", "t5-1") for beam in (1, 3, 12)
    ]
    assert found[4]["n_params"] == 4000
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_means_and_bounds_are_those_of_the_metrics(random_cube):
    search, contrast = random_cube(1)
    found = records("codes", reduce_queries(*chunked((search, contrast))), draws=200, seed=3)
    weights = resample_weights(6, 200, 3)
    for record in found:
        place = {"model": record["model"], "beam": record["beam"]}
        assert record["flops"] == pytest.approx(search["flops"].sel(place).mean().item())
        values = {
            "mrr@10": mrr(search, contrast, 10).sel(place),
            "cgl": cgl(contrast).sel(model=record["model"]),
            "generation_loss": positive_loss(contrast).sel(model=record["model"]),
        }
        for name, value in values.items():
            resampled = weights @ value.values
            low, high = np.percentile(resampled, [2.5, 97.5])
            expected = {"mean": value.mean().item(), "low": low, "high": high, "n": 6}
            assert record[name] == pytest.approx(expected, rel=1e-9), name


def test_one_pass_over_the_cube(random_cube):
    search, contrast = chunked(random_cube(1))
    passes = []

    def scheduler(graph, keys, **kwargs):
        passes.append(keys)
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=scheduler):
        records("codes", reduce_queries(search, contrast), draws=5)
    assert len(passes) == 1


def test_only_what_the_metrics_need_is_read(random_cube):
    search, contrast = random_cube(1)
    lazy = search.chunk(model=1, query=2)
    unread = lazy["score"].data.map_blocks(lambda block: 1 / 0, dtype="f4", meta=np.empty(0, "f4"))
    lazy = lazy.assign(score=lazy["score"].copy(data=unread))
    assert (
        len(records("codes", reduce_queries(lazy, contrast.chunk(model=1, query=2)), draws=5)) == 6
    )


def test_an_empty_model_has_none_and_no_warning(random_cube):
    search, contrast = random_cube(1)
    gone = contrast["model"] == "t5-0"
    contrast = contrast.assign(
        {name: contrast[name].where(~gone) for name in ("logit", "log_partition")}
    )
    search = search.assign(flops=search["flops"].where(~gone))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = records("codes", reduce_queries(*chunked((search, contrast))), draws=20)
    assert found[0]["cgl"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert found[0]["flops"] is None
    assert found[3]["cgl"]["low"] <= found[3]["cgl"]["mean"] <= found[3]["cgl"]["high"]
    json.dumps(found, allow_nan=False)


def test_every_registered_measure_is_reported(random_cube, monkeypatch):
    monkeypatch.setitem(MEASURES, "mrr@2", lambda search, contrast: mrr(search, contrast, 2))
    assert "mrr@2" in records("codes", reduce_queries(*random_cube(1)), draws=5)[0]


def test_each_number_says_of_how_many_queries_it_is(random_cube):
    search, contrast = random_cube(1)
    judged = contrast["relevance"].where(contrast["query"] != "q2", 0)
    silent = contrast["logit"].where(contrast["query"] != "q4")
    values = reduce_queries(search, contrast.assign(relevance=judged, logit=silent))
    for record in records("codes", values, draws=5):
        assert record["queries"] == 6
        assert {record[name]["n"] for name in MEASURES} == {5}
        assert record["cgl"]["n"] == record["cgl_queries"] == 5
