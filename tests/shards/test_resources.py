"""Memory and cores of the search: what a worker may use, and what it reports to have used."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask.errors import BudgetError, GenretError, SpecError
from genret_dask.inference.memory import Decoding
from genret_dask.kinds import CodesIdentifiers
from genret_dask.shards.plan import ShardTask, batches, runs
from genret_dask.shards.resources import Host, Resources
from genret_dask.shards.task import Exported, SweepContext, compute_shard
from genret_dask.shards.usage import MemoryUse, Peak, largest, resident, write_memory
from genret_dask.storage.layout import RunLayout
from genret_dask.study.sweep import Study
from tests.runs import copy_models, make_spec


@pytest.fixture
def root(toy) -> Path:
    return toy


# --- threads ------------------------------------------------------------------------------------


@given(st.integers(1, 256), st.integers(1, 300), st.integers(1, 300))
def test_threads_never_oversubscribe(cores, threads, asked):
    host = Host(cores=cores, threads=threads)
    each = host.threads_each(None)
    assert each >= 1 and (each == 1 or each * threads <= cores)
    assert (each + 1) * threads > cores
    if asked == 1 or asked * threads <= cores:
        assert host.threads_each(asked) == asked
    else:
        with pytest.raises(SpecError, match=f"inference.threads {asked}") as error:
            host.threads_each(asked)
        assert error.value.expected == f"at most {each}"


def test_too_many_threads_are_refused_before_anything_is_searched(root, tmp_path):
    copy_models(root, tmp_path)
    inference = make_spec(root).inference.model_copy(update={"threads": Host().cores + 1})
    with pytest.raises(SpecError, match="inference.threads"):
        Study(make_spec(root, inference=inference), runs=tmp_path).search()


# --- splitting ----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.lists(st.integers(1, 16), min_size=6, max_size=6),
)
def test_batches_hold_every_query_once_and_no_more_than_fit_their_width(lengths, most):
    lengths = np.array(lengths)
    seen = np.zeros(len(lengths), dtype=int)
    for rows, width in batches(lengths, lambda width: most[width // 8]):
        assert 1 <= len(rows) <= most[width // 8]
        assert (lengths[rows] <= width).all() and (lengths[rows] > width - 8).all()
        seen[rows] += 1
    assert (seen == 1).all()


@given(st.integers(0, 100), st.integers(1, 30))
def test_runs_cover_everything_once_in_order(size, most):
    covered = [item for first, last in runs(size, most) for item in range(first, last)]
    assert covered == list(range(size))
    assert all(0 < last - first <= most for first, last in runs(size, most))


class Workbench:
    """A shard of the finished run, to compute again under any budget."""

    def __init__(self, root: Path, model: str, beams: tuple[int, ...] = (1, 3, 10)) -> None:
        run = root / "serial" / "toy"
        self.spec = make_spec(root).inference.model_copy(update={"beams": beams})
        self.task = ShardTask("codes", 0, model, 0, 8)
        folder, space = run / "models" / "codes" / model, run / "identifiers" / "codes"
        exported = Exported(folder, space, CodesIdentifiers())
        self.context = SweepContext(
            run=RunLayout(run),
            models={("codes", model): exported},
            inference=self.spec,
            max_tokens=32,
            fingerprint="f",
            corpus="",
        )
        self.resources = Resources()
        session = self.resources.session(folder, "cpu", Host().threads_each(None))
        codes = self.resources.space(CodesIdentifiers(), space)
        self.decoding = Decoding(
            session.manifest.architecture,
            "beam",
            (1, *map(len, codes.trie.codes)),
            codes.level_sizes,
            self.spec.beams,
        )
        self.candidates = 13
        self.kept = self.task.queries * self.decoding.result_bytes(self.candidates)

    def compute(self, room: int, **changes) -> dict[str, dict[str, np.ndarray]]:
        """The shard's arrays when a task has so many bytes to decode in."""
        memory = f"{self.resources.needed(self.kept + room)}B"
        inference = self.spec.model_copy(update={"memory": memory, **changes})
        context = dataclasses.replace(self.context, inference=inference)
        return compute_shard(self.task, context, self.resources)


@pytest.mark.parametrize("model", ["t5", "llama"])
@pytest.mark.parametrize(("beams", "parts"), [((1, 3, 10), False), ((1,), True)])
def test_however_memory_splits_a_shard_the_results_are_the_same(root, model, beams, parts):
    bench = Workbench(root, model, beams)
    decoding, candidates = bench.decoding, bench.candidates
    whole = bench.compute(10**9, batch_queries=64)
    three, least = 3 * decoding.query_bytes(16, candidates), decoding.query_bytes(16, 1)
    assert decoding.split(16, candidates, three, 64)[0] == 3
    queries, together = decoding.split(16, candidates, least, 64)
    assert queries == 1 and (together < candidates) == parts
    for room in (three, least):
        split = bench.compute(room)
        for dataset, variables in whole.items():
            for name, values in variables.items():
                found = split[dataset][name]
                if values.dtype.kind == "f":
                    np.testing.assert_allclose(found, values, atol=1e-5, rtol=1e-6)
                else:
                    np.testing.assert_array_equal(found, values)


def test_what_is_taken_is_within_the_budget_and_expected(root):
    bench = Workbench(root, "t5")
    bench.compute(bench.decoding.query_bytes(40, bench.candidates))
    budget = bench.resources.needed(bench.kept + bench.decoding.query_bytes(40, bench.candidates))
    use = bench.resources.use(budget, "cpu")
    assert bench.resources.needed(bench.kept) < use.estimated_bytes <= budget


def test_a_query_that_does_not_fit_alone_is_an_error_that_says_what_would(root):
    bench = Workbench(root, "t5")
    with pytest.raises(BudgetError, match="t5 with beams up to 10") as error:
        bench.compute(1000)
    assert "one query of" in error.value.found and "memory budget of" in error.value.found
    assert "a budget of" in error.value.expected
    assert "--memory" in error.value.fix


def test_a_budget_below_the_process_itself_is_an_error(root, tmp_path):
    copy_models(root, tmp_path)
    inference = make_spec(root).inference.model_copy(update={"memory": "1MiB"})
    with pytest.raises(BudgetError, match="does not hold a worker process and one query"):
        Study(make_spec(root, inference=inference), runs=tmp_path).search()


def test_idle_models_are_closed_when_room_is_short(root):
    bench = Workbench(root, "t5")
    folder = bench.context.models["codes", "t5"].folder
    for threads in (3, 4):
        bench.resources.session(folder, "cpu", threads)
    budget = bench.resources.needed(0)
    assert bench.resources.room(budget, 0) == 0
    assert len(bench.resources._sessions) == 3
    assert bench.resources.room(budget, 10**9) > 0
    assert len(bench.resources._sessions) == 1


def test_budgets_are_asked_for_or_a_share_of_the_limit():
    resources = Resources(memory_limit=10**9)
    assert resources.budget(None, "cpu") == 6 * 10**8
    assert resources.budget(123, "cpu") == 123
    assert resources.budget(None, "cuda") is None
    halved = Resources(memory_limit=10**9, tasks=2)
    budget = halved.needed(0) + 10**8
    assert halved.room(budget, 0) == 10**8 // 2


# --- what was used ------------------------------------------------------------------------------


def test_the_peak_outlives_what_was_freed():
    peak, before = Peak(), resident()
    assert peak.read() >= 0.9 * before
    array = np.ones(2**27, dtype=np.uint8)
    del array
    assert peak.read() >= before + 0.9 * 2**27
    if Peak().since == "search":
        assert peak.read() < before + 0.9 * 2**27


def use(worker="a", peak=5, since="search", estimated=None, budget=10) -> MemoryUse:
    return MemoryUse(worker, peak, since, estimated, budget)


def test_the_largest_use_of_each_worker_counts():
    found = largest([use("b", 7), use("a", 3), use("b", 9), use("a", 1)])
    assert [(one.worker, one.peak_bytes) for one in found] == [("a", 3), ("b", 9)]


def test_going_over_the_budget_is_a_warning(tmp_path, caplog):
    assert not use(peak=10).is_over and use(peak=11).is_over
    assert not use(peak=11, since="start").is_over and not use(peak=11, budget=None).is_over
    with caplog.at_level(logging.INFO, logger="genret_dask"):
        write_memory([use("low", 10), use("high", 11)], tmp_path / "resources.json")
    levels = {record.getMessage().split()[2]: record.levelname for record in caplog.records}
    assert levels == {"low": "INFO", "high": "WARNING"}
    assert "OVER THE BUDGET" in str(use(peak=11))


def test_a_run_leaves_what_each_process_held(root):
    (one,) = json.loads((root / "serial" / "toy" / "resources.json").read_text())["memory"]
    assert one["worker"] == "this process"
    assert 0 < one["estimated_bytes"] < one["budget_bytes"]
    assert one["peak_bytes"] > 2**20


def test_a_worker_knows_its_host_and_reports(root, tmp_path):
    from distributed import Client, LocalCluster

    copy_models(root, tmp_path)
    codes = make_spec(root).identifiers[:1]
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        study = Study(make_spec(root, identifiers=codes), client, runs=tmp_path)
        study.search()
        hosts = client.run(
            lambda dask_worker: dask_worker.plugins["genret-resources"].resources.host
        )
        assert {use.worker for use in study.memory} <= set(hosts)
        limits = client.run(lambda dask_worker: dask_worker.memory_manager.memory_limit)
        many = make_spec(root, name="many").inference.model_copy(
            update={"threads": Host().cores + 1}
        )
        copied = tmp_path / "again"
        copy_models(root, copied)
        with pytest.raises(SpecError, match="with 2 tasks at once"):
            Study(make_spec(root, inference=many), client, runs=copied).search()
        little = many.model_copy(update={"threads": None, "memory": "1MiB"})
        with pytest.raises(GenretError, match="--memory"):
            Study(make_spec(root, inference=little), client, runs=copied).search()
    assert {(host.workers, host.threads) for host in hosts.values()} == {(2, 2)}
    for use in study.memory:
        assert use.budget_bytes == int(0.6 * limits[use.worker])
        assert 0 < use.estimated_bytes < use.budget_bytes
        assert use.peak_bytes > 2**20


def test_memory_threads_and_batches_do_not_make_another_cube(root, tmp_path):
    shutil.copytree(root / "serial", tmp_path / "runs")
    inference = make_spec(root).inference.model_copy(
        update={"memory": "20GB", "threads": 1, "batch_queries": 5}
    )
    study = Study(make_spec(root, inference=inference), runs=tmp_path / "runs")
    study.search()
    assert study.memory == []
