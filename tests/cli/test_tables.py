"""Tables align, shorten numbers and say what is missing."""

from __future__ import annotations

import re

from genret_dask.cli.tables import (
    fits_table,
    format_table,
    metrics_table,
    precision_table,
    with_metric,
)


def estimate(mean, low=0.25, high=0.75):
    return {"mean": mean, "low": low, "high": high}


def test_numbers_stand_to_the_right_and_texts_to_the_left():
    records = [
        {"name": "t5", "n": 1234567, "loss": estimate(0.5), "note": ["a", "b"]},
        {"name": "llama", "n": 12, "loss": estimate(None, None, None), "note": []},
    ]
    assert format_table(records).splitlines() == [
        "name           n              loss  note",
        "-----  ---------  ----------------  ----",
        "t5     1,234,567  0.5 [0.25, 0.75]  a; b",
        "llama         12                 -",
    ]


def test_kinds_are_told_apart_where_there_are_several():
    records = [{"identifiers": kind, "model": "a", "beam": 1} for kind in ("codes", "ngrams")]
    assert metrics_table(records[:1]).split()[0] == "model"
    lines = metrics_table(records).splitlines()
    assert [line.split()[0] for line in lines] == ["ids", "------", "codes", "ngrams"]
    law = {
        "law": "L(N)", "series": "t5", "metric": "cgl", "axes": ["n"], "forecast": None,
        "exponents": {"n": 1.0}, "scales": {"n": {"value": 2.0}}, "warnings": ["few points"],
    }  # fmt: skip
    found = fits_table([{**law, "identifiers": kind} for kind in ("codes", "ngrams")])
    assert "codes L(N) t5: few points" in found and "ngrams L(N) t5: few points" in found
    assert "\nL(N) t5: few points" in fits_table([{**law, "identifiers": "codes"}])


def test_columns_choose_order_and_heading():
    found = format_table([{"a": 1, "b": 2.0}], {"b": "B", "c": "C"}, intervals=False)
    assert found.split() == ["B", "C", "-", "-", "2", "-"]


def test_small_large_and_missing_numbers():
    records = [{"x": value} for value in (0.0, 1.5e-5, 0.0037393, 123456.0, float("nan"), None)]
    cells = format_table(records).split()
    assert cells[2:] == ["0", "1.500e-05", "0.003739", "1.235e+05", "-", "-"]


def test_no_records_leave_the_heading():
    assert metrics_table([]).splitlines()[0].split() == [
        *("model", "N", "D", "beam", "R@1", "R@10"),
        *("queries", "CGL", "negatives", "FLOPs/query"),
    ]
    assert format_table([]) == "\n"
    assert len(fits_table([]).splitlines()) == 2


def test_the_precision_table_shows_changes_with_their_intervals():
    change = estimate(-1.25e-6, -2e-6, 1e-6)
    record = {"model": "a.int8", "cgl": change, "recall@10": estimate(0.0), "recall@100": change}
    heading, _, line = precision_table([record]).splitlines()
    assert heading.split()[:4] == ["model", "CGL", "less", "fp32's"]
    assert line.startswith("a.int8  -1.250e-06 [-2.000e-06, 1.000e-06]")


def test_a_mean_of_fewer_queries_than_its_line_says_of_how_many():
    found = {"mean": 0.5, "low": 0.25, "high": 0.75}
    record = {"model": "a", "queries": 1200}
    record |= {"recall@10": {**found, "n": 1200}, "cgl": {**found, "n": 1100}}
    shown = with_metric({"model": "model", "cgl": "CGL"}, "recall@10", before="cgl")
    heading, _, line = metrics_table([record], shown, intervals=True).splitlines()
    assert heading.split() == ["model", "R@10", "CGL"]
    assert re.split("  +", line)[1:] == ["0.5 [0.25, 0.75]", "0.5 [0.25, 0.75] of 1,100"]
    assert "0.5 of 1,100" in metrics_table([record], shown)


def test_the_precision_table_has_the_main_metric():
    change = {"mean": -0.5, "low": -1.0, "high": 0.0}
    heading, _, _ = precision_table([{"model": "a.int8", "mrr@10": change}], "mrr@10").splitlines()
    assert heading.endswith("MRR@10 less fp32's")
