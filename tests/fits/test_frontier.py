"""Frontier, choice and outlook: loops over everything are the judge."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.cli import main
from genret_dask.errors import InputError
from genret_dask.fits import Budget, best, cheapest, frontier, means_of, pareto, plan_record
from genret_dask.fits.frontier import rivals
from genret_dask.fits.outlook import REACH, outlooks
from tests.fits.conftest import BEAMS, MODELS, true_error


@pytest.fixture(scope="module")
def means(law_values):
    return means_of(law_values, draws=80, seed=1)


def searches(means):
    for row, column in itertools.product(range(len(MODELS)), range(len(BEAMS))):
        yield (
            (str(means.model[row]), int(means.beam[column])),
            means.flops[row, column],
            means.error[row, column],
            means.error_draws[:, row, column],
            means.train_flops[row],
        )


@settings(max_examples=100, deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=0, max_size=12))
def test_no_other_point_is_as_cheap_and_as_good(points):
    cost, error = (
        (np.array(column, dtype=float) for column in zip(*points, strict=True))
        if (points)
        else (np.empty(0), np.empty(0))
    )
    found = pareto(cost, error).tolist()
    beaten = [
        any(
            (cost[b] <= cost[a] and error[b] <= error[a])
            and (cost[b] < cost[a] or error[b] < error[a] or b < a)
            for b in range(len(points))
        )
        for a in range(len(points))
    ]
    assert sorted(found) == [row for row, is_beaten in enumerate(beaten) if not is_beaten]
    assert (np.diff(cost[found]) > 0).all() and (np.diff(error[found]) < 0).all()


def test_what_lacks_a_value_is_not_on_the_frontier():
    cost, error = np.array([1.0, np.nan, 2.0, 3.0]), np.array([np.nan, 0.1, 0.5, 0.4])
    assert pareto(cost, error).tolist() == [2, 3]


@pytest.mark.parametrize("budget", [Budget(), Budget(flops=3e6), Budget(train_flops=3e11)])
def test_the_best_and_the_frontier_are_those_of_a_loop(means, budget):
    within = [
        item
        for item in searches(means)
        if item[1] <= budget.flops and item[4] <= budget.train_flops
    ]
    choice = best(means, budget)
    lowest = min(error for _, _, error, _, _ in within)
    cheapest_best = min((item for item in within if item[2] == lowest), key=lambda item: item[1])
    assert (choice.model, choice.beam) == cheapest_best[0]
    assert choice.recall.value == pytest.approx(1 - lowest)
    low, high = np.percentile(1 - cheapest_best[3], [2.5, 97.5])
    assert (choice.recall.low, choice.recall.high) == pytest.approx((low, high))

    found = frontier(means, budget)
    assert all(item.train_flops <= budget.train_flops for item in found)
    for item in found:
        error = 1 - item.recall.value
        assert not any(
            cost <= item.flops and other < error - 1e-12 for _, cost, other, _, _ in within
        )
    assert (found[-1].model, found[-1].beam) == cheapest_best[0]
    assert all(0 <= item.stable <= 1 for item in found)


@pytest.mark.parametrize("target", [0.2, 0.5, 0.7])
def test_the_cheapest_that_reaches_a_recall_is_that_of_a_loop(means, target):
    reach = [item for item in searches(means) if 1 - item[2] >= target - 1e-12]
    choice = cheapest(means, Budget(target=target))
    assert choice.flops == min(item[1] for item in reach)
    draws = next(item[3] for item in reach if item[0] == (choice.model, choice.beam))
    assert choice.stable == pytest.approx((1 - draws >= target - 1e-12).mean())
    assert cheapest(means, Budget(target=1.0)) is None
    assert best(means, Budget(flops=1.0)) is None


def test_no_recall_leaves_0_to_1_by_rounding(law_values):
    nothing = law_values.assign({"recall@10": 0 * law_values["recall@10"]})
    means = means_of(nothing, draws=200)
    assert means.error_draws.max() == means.error_draws.min() == 1


def test_rivals_are_cheaper_and_not_surely_worse(means):
    choice = best(means, Budget())
    found = rivals(means, Budget(), choice)
    all_draws = {name: draws for name, _, _, draws, _ in searches(means)}
    names = {(item.model, item.beam) for item in found}
    for item in frontier(means):
        if item.flops < choice.flops:
            change = all_draws[choice.model, choice.beam] - all_draws[item.model, item.beam]
            assert ((item.model, item.beam) in names) == (np.percentile(change, 97.5) >= 0)
    assert all(item.flops < choice.flops for item in found)


def exact(means):
    """The same study without noise in recall."""
    ratio = means.flops / means.n[:, None]
    error = true_error(means.n[:, None], means.d[:, None], ratio)
    draws = error * np.random.default_rng(0).uniform(0.999, 1.001, (60, *error.shape))
    return type(means)(**{**vars(means), "error": error, "error_draws": draws})


@pytest.mark.parametrize("budget", [Budget(flops=1e8), Budget(flops=2e9, train_flops=5e12)])
def test_the_outlook_is_the_true_surface_within_the_budget(means, budget):
    found = outlooks(exact(means), budget)
    assert [item.family for item in found] == ["t5", "llama"]
    for item in found:
        truth = 1 - true_error(item.n, item.d, item.flops / item.n)
        assert item.recall.value == pytest.approx(truth, abs=2e-3)
        assert item.recall.low <= truth <= item.recall.high
        assert item.flops <= budget.flops
        assert item.train_flops <= budget.train_flops
        assert item.train_flops == pytest.approx(600 * item.n * item.d, rel=1e-6)
        assert item.flops / item.n >= 10 * (1 - 1e-9), "no search is cheaper than beam 1"
        assert item.beam == pytest.approx(item.flops / item.n / 10, rel=0.01)
        sizes = [n for _, family, n, *_ in MODELS if family == item.family]
        n = np.geomspace(min(sizes), REACH * max(sizes), 400)
        n = n[(600 * n * 8000 <= budget.train_flops) & (10 * n <= budget.flops)]
        judge = 1 - true_error(n, 8000, np.minimum(budget.flops / n, 300 * REACH)).min()
        assert item.recall.value == pytest.approx(judge, abs=3e-3)


def test_the_flops_that_a_recall_needs_give_that_recall(means):
    for item in outlooks(exact(means), Budget(target=0.75)):
        error = true_error(item.n, item.d, item.needed.value / item.n)
        assert error == pytest.approx(0.25, abs=1e-3)
        assert item.needed.low <= item.needed.value <= item.needed.high
        assert item.flops == pytest.approx(item.needed.value, rel=0.1)
        assert item.recall.value == pytest.approx(0.75, abs=0.01)
    for item in outlooks(exact(means), Budget(target=0.95)):
        assert item.needed.value == np.inf
        assert item.record()["needed"]["value"] is None


def test_what_lies_beyond_the_measured_is_said(means):
    (t5, _) = outlooks(exact(means), Budget(flops=1e12))
    assert any(text.startswith("N 10 times beyond") for text in t5.beyond)
    assert outlooks(exact(means), Budget(flops=1.0)) == []


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(flops=0), "budget of FLOPs is 0"),
        (Budget(flops=float("nan")), "budget of FLOPs is nan"),
        (Budget(train_flops=-1), "training FLOPs is -1"),
        (Budget(target=1.5), "target is 1.5"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(means, budget, message):
    with pytest.raises(InputError, match=message):
        plan_record("codes", means, budget)
    with pytest.raises(InputError, match="no target"):
        cheapest(means, Budget())


def plan(*arguments):
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


def test_the_command_prints_and_gives_records(law_cube):
    result = plan(law_cube, "--flops", "1e8", "--draws", 40)
    assert result.exit_code == 0, result.output
    for words in ("frontier of what was measured", "best R@10 within 1e+08 FLOPs a query", "t5"):
        assert words in result.stdout
    result = plan(law_cube, "--target-recall", 0.5, "--draws", 40)
    assert "fewest FLOPs for R@10 0.5, measured" in result.stdout
    assert "FLOPs for the target" in result.stdout
    result = plan(law_cube, "--target-recall", 1, "--train-flops", 1e12, "--draws", 40, "--json")
    (record,) = json.loads(result.stdout)
    assert record["measured"] is None and record["rivals"] == []
    assert record["budget"] == {"flops": None, "train_flops": 1e12, "target_recall": 1.0}
    assert record["frontier"][0]["recall"]["low"] >= 0
    assert "nothing that was measured does" in plan(law_cube, "--flops", 1, "--draws", 5).stdout


def test_wrong_figures_are_refused(law_cube, tmp_path):
    for arguments in ([law_cube, "--flops", 0], [law_cube, "--target-recall", 2]):
        result = plan(*arguments)
        assert result.exit_code == 2 and "expected" in result.output
    result = plan(tmp_path)
    assert result.exit_code == 2 and "there is no cube" in result.output
