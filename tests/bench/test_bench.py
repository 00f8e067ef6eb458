"""The benchmarks at a tiny scale: what they report, and when they refuse to."""

from __future__ import annotations

import json
import math
import os
import time

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from scipy.optimize import curve_fit

from genret_dask.bench import corpus, coverage, engine, laws, ngrams, run, searching
from genret_dask.bench.measure import compare, quantity
from genret_dask.bench.workload import LEVELS, Scale, random_codes, workload
from genret_dask.cli import main
from genret_dask.datasets.beir import write_folder
from genret_dask.fits import Surfaces
from tests.conftest import make_collection

TINY = Scale("femto", 256, 300, 2, 6, (1, 5, 20), 20, 400, 3000, 50_000, 30, 8)
FIELDS = {"measure", "case", "ours", "peer", "unit", "ratio", "target", "equal"}


@pytest.fixture(autouse=True)
def tiny_scale(monkeypatch):
    monkeypatch.setattr(run, "QUICK", TINY)


def bench(*arguments: str):
    return CliRunner().invoke(main, ["bench", "--quick", *arguments])


def test_every_benchmark_agrees_with_its_peer(monkeypatch):
    # Docstrings of every library, and large products, take as long as all else.
    monkeypatch.setattr(engine, "SQUARES", (64,))
    monkeypatch.setattr(ngrams.PydocDataset, "load", lambda self: make_collection(500))
    apart = ("growth", "scaling", "corpus", "laws", "coverage")  # of tests of their own
    cases = [name for name in run.CASES if name not in apart]
    found = list(run.run(cases, ["t5", "llama"], quick=True, runs=1))
    for item in found:
        assert set(item.record()) == FIELDS
        assert item.equal and item.target is None
        assert item.ratio > 0 and math.isfinite(item.ratio)
    assert {item.measure.partition(":")[0] for item in found} == {
        "search",
        "grid",
        "grid against its largest beam",
        "scoring",
        "outside the model",
        "share of the sgemm peak",
        "exact log-partition",
        "int8",
        "constraint",
        "negatives",
        "n-grams",
        "queries through a Retriever",
        "first answer",
    }


@pytest.mark.slow
def test_two_workers_give_the_cube_of_one_and_a_task_has_a_cost():
    found = {item.measure: item for item in run.run(["scaling"], [], quick=True, runs=1)}
    assert list(found) == [
        "2 workers against 1", "cost of a task", "memory of the client and scheduler"
    ]  # fmt: skip
    assert all(item.equal and item.ratio > 0 for item in found.values())


@pytest.mark.slow
def test_a_corpus_gives_the_cube_of_one_worker_and_each_stage_has_a_cost(tmp_path):
    write_folder(make_collection(200), tmp_path / "beir")
    found = list(run.run(["corpus"], [], quick=True, runs=1, text=tmp_path / "beir"))
    names = [item.measure for item in found]
    assert names[0] == "reading" and {"tokenizer", "index", "search"} < {*names}
    assert all(item.equal and item.ratio > 0 for item in found)


def test_a_corpus_is_compared_with_a_tenth_and_a_bound(tmp_path, monkeypatch):
    def sweep(text, documents, workers):
        stages = {"reading": documents / 1e5, "index": documents / 1e4 / workers, "train": 7.0}
        digest = "one" if documents < 30_000 else str(workers)
        return corpus._Swept(stages, 1.0 + documents / 1e5, documents * 10**4, 10**9, digest)

    monkeypatch.setattr(corpus, "_sweep", sweep)
    found = {item.measure: item for item in corpus.run_corpus(TINY, 1, 20_000, tmp_path)}
    assert found["index"].ours == found["index"].peer == pytest.approx(100)
    assert found["train"].ratio == pytest.approx(10)
    sped = found["preparation by 2 workers against 1"]
    assert (sped.ours, sped.peer) == pytest.approx((1.2, 2.2)) and sped.ratio > 1.8
    assert found["memory of the client"].ratio == pytest.approx(1.5 / 0.2)
    assert found["memory of a worker"].ratio == pytest.approx(4)
    assert found["a run with nothing to do"].ratio == pytest.approx(1.01 / 1.2)
    differing = list(corpus.run_corpus(TINY, 1, 30_000, tmp_path))
    assert [item.measure for item in differing if item.ratio is None] == [
        "preparation by 2 workers against 1", "all by 2 workers against 1"
    ]  # fmt: skip


def test_the_most_that_a_process_holds_is_seen():
    with corpus._watched([os.getpid(), 2**22 - 1]) as peaks:
        held = np.ones(2**24)
        time.sleep(3 * corpus._POLL)
    assert peaks[0] > held.nbytes and peaks[1] == 0


def test_the_command_prints_a_table_and_writes_records(tmp_path):
    path = tmp_path / "bench.json"
    result = bench("negatives", "--json", str(path))
    assert result.exit_code == 0, result.output
    records = json.loads(path.read_text())
    assert [record["measure"] for record in records] == ["negatives", "negatives: memory"]
    assert all(set(record) == FIELDS for record in records)
    assert "20 of 3,000 documents" in result.output


def test_a_result_that_differs_is_not_reported_as_a_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "same_ranking", lambda ours, theirs: False)
    path = tmp_path / "bench.json"
    result = bench("--case", "search", "--family", "t5", "--json", str(path))
    assert result.exit_code == 1
    assert "results differ: search, t5, beam 10" in result.output
    for record in json.loads(path.read_text()):
        assert record["equal"] is False
        assert record["ours"] is record["peer"] is record["ratio"] is None


def test_rankings_agree_up_to_ties():
    doc, score = np.array([[4, 2, 9]]), np.array([[-1.0, -2.0, -2.00001]])
    same = searching.same_ranking
    assert same((doc, score), (doc, score))
    assert same((doc, score), (np.array([[4, 9, 2]]), score))
    assert same((doc, score), (np.array([[4, 2, 7]]), score))  # ties at the last rank
    assert not same((doc, score), (np.array([[5, 2, 9]]), score))
    assert not same((doc, score), (doc, score - 0.1))
    assert not same((doc, score), (doc[:, :2], score[:, :2]))
    assert same((doc, score), (doc, np.full((1, 3), np.nan)))
    assert not same((doc, score), (doc[:, ::-1], np.full((1, 3), np.nan)))


def test_a_comparison_times_both_after_seeing_that_they_agree():
    calls: list[str] = []

    def work(name: str):
        return lambda: calls.append(name) or 1

    found = compare("m", "c", work("a"), work("b"), equal=lambda x, y: x == y, target=2.0, runs=5)
    assert calls == ["a", "b"] * 6
    assert found.equal and found.ratio == pytest.approx(found.peer / found.ours)
    assert quantity("m", "c", 2.0, 6.0, "MB", target=None).ratio == 3
    assert quantity("m", "c", 2.0, 6.0, "1", target=None, larger_is_better=True).ratio == 1 / 3


def test_random_codes_are_unique_and_seeded():
    codes = random_codes(500)
    assert codes.codes.shape == (500, LEVELS)
    assert len(np.unique(codes.codes, axis=0)) == 500
    np.testing.assert_array_equal(codes.codes, random_codes(500).codes)


def test_laws_are_compared_where_our_errors_are_no_higher(monkeypatch):
    monkeypatch.setattr(laws, "PEER_DRAWS", 3)
    found = list(run.CASES["laws"][0](TINY, 1))
    assert [item.measure for item in found] == ["laws: L(N)", "laws: L(N,D)"]
    assert all(item.equal and item.ratio == item.peer / item.ours for item in found)
    assert laws.no_higher(np.array([1.0]), np.array([1.0]))
    assert not laws.no_higher(np.array([1.0, 1.1]), np.array([1.0, 1.0]))
    monkeypatch.setattr(laws, "_error", lambda x, y: np.full(len(y), 1e9))
    assert [item.ratio for item in run.CASES["laws"][0](TINY, 1)] == [None, None]


def test_the_peer_of_the_laws_is_scipys_minimum():
    x = np.geomspace(1, 100, 6)[:, None]
    y = (x[:, 0] ** -0.5 + 0.2)[None] + np.random.default_rng(0).normal(0, 0.01, (3, 6))
    for row, error in zip(y, laws._lbfgs(x, y), strict=True):
        best, _ = curve_fit(lambda x, s, a, d: s * x**-a + d, x[:, 0], row, p0=(1, 0.5, 0.2))
        residual = (best[0] * x[:, 0] ** -best[1] + best[2] - row) / np.ptp(row)
        assert error == pytest.approx((residual**2).mean(), rel=1e-3)


@pytest.mark.parametrize("axes", [("n",), ("n", "d")])
def test_a_trial_of_coverage_is_of_its_own_law(axes):
    trial = coverage.make_trial(axes, 3, 50)
    assert set(trial.truth) == set(trial.estimates) == set(trial.covered())
    fit = trial.fit
    assert np.ptp(np.log10(fit.points.x), axis=0).min() >= 2
    exponent = np.array([[trial.truth[f"exponent of {axis.upper()}"] for axis in axes]])
    log_scale = np.log([[trial.truth[f"scale of {axis.upper()}"] for axis in axes]])
    truth = Surfaces(
        exponent, log_scale, np.array([trial.truth["asymptote"]]), np.ones(1), len(axes) - 1
    )
    beyond = fit.points.x.max(axis=0) * coverage.BEYOND
    assert truth.predict(beyond[None])[0, 0] == pytest.approx(trial.truth["prediction"])
    np.testing.assert_allclose(truth.predict(fit.points.x)[0], fit.points.y, rtol=0.15)


def test_coverage_is_accepted_near_95_percent():
    assert coverage.accepted(0.92, 500) and coverage.accepted(0.98, 500)
    assert not coverage.accepted(0.915, 500) and not coverage.accepted(0.985, 500)
    assert coverage.accepted(1.0, 500, hard=True) and not coverage.accepted(0.9, 500, hard=True)
    assert coverage.accepted(0.9, 40) and not coverage.accepted(0.8, 40)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    found = list(run.CASES["coverage"][0](run.FULL, 1))
    assert len(found) == 4 + 4 + 6 + 4
    for item in found:
        assert item.equal, item


def test_growth_compares_searches_of_several_sizes(monkeypatch):
    with workload("t5", TINY, "cpu", 1) as made:
        found = list(run.CASES["growth"][0](made, 1, documents=(50, 100, 200)))
    assert [item.measure for item in found].count("growth in documents") == 2
    assert all(item.ratio > 0 for item in found)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_the_graph_of_a_block_leaves_the_other_rows_out(family):
    with workload(family, TINY, "cpu", 1) as made:
        folder = made.folder.parent / "block"
        folder.mkdir()
        engine._without_partition(made.folder, folder)
        name = "step.onnx" if family == "t5" else "head.onnx"
        graphs = [
            onnx.load(f / name, load_external_data=False).graph for f in (made.folder, folder)
        ]
    heads = [sum(node.op_type == "Gemm" for node in graph.node) for graph in graphs]
    assert heads[1] == 1 < heads[0]


def test_cases_are_listed_and_unknown_ones_refused(tmp_path):
    listed = bench("--case", "list").output
    assert all(name in listed for name in run.CASES)
    result = bench("--case", "serach")
    assert result.exit_code == 2
    assert "serach" in result.output and "search" in result.output
    result = bench("--json", str(tmp_path / "missing" / "bench.json"))
    assert result.exit_code == 2 and "not a folder" in result.output
    result = bench("--runs", "2")
    assert result.exit_code == 2


def test_a_provider_that_is_not_there_is_refused():
    result = bench("--provider", "tpu")
    assert result.exit_code == 2
