"""Comparisons: paired resamples by index are the judge."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.errors import InputError
from genret_dask.fits import (
    better,
    compare_families,
    compare_kinds,
    means_of,
    resample_weights,
)
from tests.fits.conftest import write_law_cube


def paired(first, second, draws=60, seed=2):
    """Difference of means, its percentiles, and that of each resample, one at a time."""
    counts = np.rint(resample_weights(len(first), draws, seed) * len(first)).astype(int)
    changes = [np.repeat(first, count).mean() - np.repeat(second, count).mean() for count in counts]
    return first.mean() - second.mean(), *np.percentile(changes, [2.5, 97.5]), np.array(changes)


@pytest.mark.parametrize("beam", [None, 3])
def test_two_models_on_the_same_queries(law_values, beam):
    loss, recall = better(law_values, "t5-c", "llama-b", beam=beam, draws=60, seed=2)
    values = {
        "cgl": law_values["cgl"],
        "recall@10": law_values["recall@10"].sel(beam=beam or 30),
    }
    for record, sign in ((loss, -1), (recall, 1)):
        sides = [values[record["metric"]].sel(model=name).values for name in ("t5-c", "llama-b")]
        value, low, high, changes = paired(*sides)
        expected = {"value": value, "low": low, "high": high}
        assert record["difference"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert record["sides"] == ["t5-c", "llama-b"]
        wins, ties = sign * changes > 1e-12, np.abs(changes) <= 1e-12
        assert record["share"] == pytest.approx(wins.mean() + ties.mean() / 2)
    assert recall["beam"] == (beam or 30)
    below, above = loss["difference"]["high"] < 0, loss["difference"]["low"] > 0
    assert loss["better"] == ("t5-c" if below else "llama-b" if above else None)


def test_a_model_is_not_better_than_itself(law_values):
    for record in better(law_values, "t5-c", "t5-c", draws=20):
        assert record["better"] is None and record["share"] == 0.5
        assert record["difference"] == {"value": 0, "low": 0, "high": 0}


def test_higher_recall_and_lower_loss_are_better(law_values):
    loss, recall = better(law_values, "t5-a", "t5-d", draws=50)
    assert loss["better"] == recall["better"] == "t5-d"
    assert loss["difference"]["value"] > 0 > recall["difference"]["value"]
    assert loss["share"] == 0


def test_families_at_matched_n(law_values):
    means = means_of(law_values, draws=30)
    records = [r for r in compare_families(means) if r["by"] == "n" and r["metric"] == "cgl"]
    assert [record["x"] for record in records] == [2e4, 1e5, 2e5, 1e6, 2e6]
    rows = {"t5": [0, 1, 4, 5], "llama": [6, 9, 10]}
    for record in records:
        for side, name in (("first", "t5"), ("second", "llama")):
            known = np.log(means.n[rows[name]])
            expected = np.interp(np.log(record["x"]), known, means.cgl[rows[name]])
            assert record[side]["value"] == pytest.approx(expected)
        at = [
            np.array(
                [np.interp(np.log(record["x"]), np.log(means.n[r]), y[r]) for y in means.cgl_draws]
            )
            for r in rows.values()
        ]
        low, high = np.percentile(at[0] - at[1], [2.5, 97.5])
        assert record["difference"]["low"] == pytest.approx(low)
        assert record["difference"]["high"] == pytest.approx(high)
        assert record["better"] == "llama"


def test_families_at_matched_d_name_their_n(law_values):
    records = [r for r in compare_families(means_of(law_values, draws=20)) if r["by"] == "d"]
    assert [record["x"] for record in records if record["metric"] == "cgl"] == [800, 2400, 8000]
    assert records[0]["of"] == ["t5 N=1,000,000", "llama N=200,000"]


def test_families_at_matched_flops_buy_the_best_within_them(law_values):
    means = means_of(law_values, draws=20)
    records = [record for record in compare_families(means) if record["by"] == "flops"]
    for record in records:
        for side, name in (("first", "t5"), ("second", "llama")):
            rows = means.family == name
            within = means.error[rows][means.flops[rows] <= record["x"]]
            assert record[side]["value"] == pytest.approx(1 - within.min())
    costs = [record["x"] for record in records]
    assert costs == sorted(costs) and len(costs) > 3


def test_kinds_are_compared_on_the_queries_that_both_have(law_values):
    other = law_values.isel(query=slice(5, None)).copy(deep=True)
    other["cgl"] = other["cgl"] * 0.5
    other = other.sel(beam=[1, 10])
    found = compare_kinds({"codes": law_values, "ngrams": other}, draws=30)
    assert len(found) == 2 * law_values.sizes["model"]
    for record in found:
        assert record["queries"] == 35 and record["by"] == "identifiers"
        if record["metric"] == "cgl":
            assert record["better"] == "ngrams"
            assert record["second"]["value"] == pytest.approx(record["first"]["value"] / 2)
        else:
            assert record["beam"] == 10
            assert record["difference"] == {"value": 0, "low": 0, "high": 0}
    assert compare_kinds({"codes": law_values}) == []
    longer = other.assign_attrs(extent=[10, 10])
    for record in compare_kinds({"codes": law_values, "ngrams": longer}, draws=30):
        assert record["better"] is None and record["first"]["value"] > 0


def test_what_cannot_be_compared_is_refused(law_values):
    with pytest.raises(InputError, match="no model 't6'[^$]*t5-a"):
        better(law_values, "t6", "t5-a")
    with pytest.raises(InputError, match="no beam 4"):
        better(law_values, "t5-a", "t5-b", beam=4)
    renamed = law_values.assign_coords(query=[f"other {q}" for q in law_values["query"].values])
    with pytest.raises(InputError, match="no query in common"):
        compare_kinds({"a": law_values, "b": renamed})


def compare(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_the_command_prints_and_gives_records(law_cube, tmp_path):
    write_law_cube(tmp_path / "other" / "cube.zarr", queries=20, kind="ngrams")
    table = compare(law_cube, tmp_path / "other", "--draws", 20)
    assert table.exit_code == 0, table.output
    for words in ("matched by", "t5 N=1,000,000", "flops", f"{law_cube.name}/codes, other/ngrams"):
        assert words in table.stdout
    result = compare(law_cube, "--model", "t5-a", "--model", "t5-d", "--draws", 20, "--json")
    loss, recall = json.loads(result.stdout)
    assert loss["set"] == "codes" and loss["better"] == recall["better"] == "t5-d"
    result = compare(law_cube, "--model", "t5-a")
    assert result.exit_code == 2 and "twice" in result.output
