"""What a real cluster shows of a search: spans, fine metrics, worker metrics, /metrics."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import distributed
import pytest
from distributed import Client, LocalCluster
from distributed.utils import key_split
from prometheus_client.parser import text_string_to_metric_families

from genret_dask import open_cube
from genret_dask.executors.dask import DaskExecutor
from genret_dask.executors.protocol import Hooks
from genret_dask.monitoring.log import read_log
from genret_dask.monitoring.meter import PHASES, UNITS
from genret_dask.shards.plan import task_key
from genret_dask.specs import InferenceSpec
from genret_dask.study.sweep import Study
from tests.runs import copy_models, make_spec

NEXT_HEARTBEAT = 5.0


class Seen(NamedTuple):
    run: Path
    spans: dict[tuple[str, ...], dict[tuple[str, ...], float]]
    prefixes: set[str]
    metrics: list[dict[str, Any]]
    scraped: Counter


def on_scheduler(dask_scheduler) -> tuple:
    spans = dask_scheduler.extensions["spans"].spans.values()
    return (
        {span.name: dict(span.cumulative_worker_metrics) for span in spans},
        set(dask_scheduler.task_prefixes),
        [dict(worker.metrics) for worker in dask_scheduler.workers.values()],
    )


def scrape(client: Client) -> Counter:
    """Our samples, summed over the workers' pages."""
    found: Counter = Counter()
    for worker in client.scheduler_info()["workers"].values():
        url = f"http://127.0.0.1:{worker['services']['dashboard']}/metrics"
        with urllib.request.urlopen(url) as page:
            for family in text_string_to_metric_families(page.read().decode()):
                for sample in family.samples:
                    if sample.name.startswith("genret_"):
                        found[sample.name, sample.labels.get("phase")] += sample.value
    return found


@pytest.fixture(scope="module")
def seen(toy, tmp_path_factory) -> Seen:
    """After the search of a run whose models were there."""
    runs = tmp_path_factory.mktemp("dask")
    copy_models(toy, runs)
    (runs / "toy" / "log.jsonl").unlink()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        # Of several beams, those that share a row's decoding count it once.
        inference = InferenceSpec(beams=(3,), negatives=12, shard_queries=8, batch_queries=3)
        study = Study(make_spec(toy, inference=inference), client, runs=runs)
        with study.log:
            study.search()
        shards = open_cube(runs / "toy").attrs["shards"]
        deadline = time.monotonic() + NEXT_HEARTBEAT
        while True:
            spans, prefixes, metrics = client.run_on_scheduler(on_scheduler)
            told = sum(
                amount
                for name, amount in spans["toy", "search"].items()
                if name[-2:] == ("write", "shards")
            )
            if told == shards or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return Seen(runs / "toy", spans, prefixes, metrics, scrape(client))


@pytest.mark.parametrize("stage", ["train", "export", "search"])
@pytest.mark.parametrize("name", ["t5-micro", "llama", "a-d0.25.int8", "x-1", "abcdefab", "_-2_"])
def test_dask_tells_tasks_apart_by_stage_kind_and_model(stage, name):
    start = 128 if stage == "search" else None
    key = task_key(stage, "ngrams", name, 3, start)
    prefix = key_split(key)
    assert prefix == f"{stage}.ngrams.{name.replace('-', '_')}"
    assert key_split(task_key(stage, "ngrams", name, 4, start)) == prefix
    assert not set('/\\:*?"<>|') & set(key)


def test_every_stage_and_model_has_a_span_and_a_prefix(seen):
    models = {(kind, name) for kind in ("codes", "ngrams") for name in ("t5", "llama")}
    assert set(seen.spans) == {
        ("toy",),
        ("toy", "search"),
        *(("toy", "search", f"{kind}.{name}") for kind, name in models),
    }
    assert {f"search.{kind}.{name}" for kind, name in models} <= seen.prefixes


def test_fine_metrics_tell_where_the_time_of_tasks_went(seen):
    seconds: Counter = Counter()
    for (context, _, activity, unit), amount in seen.spans["toy", "search"].items():
        if (context, unit) == ("execute", "seconds") and activity != "idle or other spans":
            seconds[activity] += amount
    assert set(PHASES) <= set(seconds)
    took = sum(event["seconds"] for event in done(seen))
    phases = sum(seconds[phase] for phase in PHASES)
    # Additive: phases are parts of the tasks, and with Dask's own activities make up all of them.
    assert 0 < phases <= took + 1e-3 * len(done(seen))
    assert sum(seconds.values()) >= took - 1e-3 * len(done(seen))


def test_counters_agree_with_the_cube_with_each_other_and_with_the_log(seen):
    tree = open_cube(seen.run)
    spans: Counter = Counter()
    for (_, _, activity, unit), amount in seen.spans["toy", "search"].items():
        spans[activity, unit] += amount
    decoded = sum(int(tree[f"{kind}/search"]["rows_decoded"].sum()) for kind in ("codes", "ngrams"))
    assert spans["search", "rows"] == decoded
    assert spans["write", "shards"] == tree.attrs["shards"] == 16
    assert spans["write", "queries"] == 4 * tree["codes/search"].sizes["query"]
    assert spans["step", "tokens"] == spans["search", "rows"] + spans["score", "rows"]
    logged: Counter = Counter()
    for event in done(seen):
        logged.update({unit: event[unit] for unit in UNITS})
    scraped = {
        "queries": "genret_queries_total",
        "rows": "genret_rows_decoded_total",
        "tokens": "genret_tokens_total",
        "shards": "genret_shards_total",
    }
    for unit, name in scraped.items():
        total = sum(amount for (_, of), amount in spans.items() if of == unit)
        assert seen.scraped[name, None] == logged[unit] == total > 0
    for phase in PHASES:
        found = seen.scraped["genret_phase_seconds_total", phase]
        assert found == pytest.approx(spans[phase, "seconds"]) and found > 0


def test_workers_tell_rates_and_what_their_models_take_and_no_gpu_that_is_not_there(seen):
    for metrics in seen.metrics:
        mine = {name for name in metrics if name.startswith("genret_")}
        assert mine == {
            "genret_queries_per_second",
            "genret_rows_per_second",
            "genret_tokens_per_second",
            "genret_session_bytes",
        }
        assert metrics["genret_rows_per_second"] > metrics["genret_queries_per_second"] > 0
        assert metrics["genret_session_bytes"] > 0
    assert seen.scraped["genret_session_bytes", None] == sum(
        metrics["genret_session_bytes"] for metrics in seen.metrics
    )
    assert ("genret_gpu_memory_bytes", None) not in seen.scraped


def test_the_log_tells_of_the_run_from_start_to_end(seen):
    events = list(read_log(seen.run))
    names = [event["event"] for event in events]
    assert names[0] == "run_started" and names[-1] == "run_ended"
    assert events[0]["workers"] == 2 and events[0]["dashboard"].startswith("http://127.0.0.1")
    assert {"genret-dask", "torch", "zarr"} <= set(events[0]["versions"])
    assert len(done(seen)) == 16
    assert {event["worker"] for event in done(seen)} == {
        event["worker"] for event in done(seen) if event["worker"].startswith("tcp://127.0.0.1:")
    }
    began = names.index("stage_began")
    assert events[began]["stage"] == "search" == events[names.index("stage_ended")]["stage"]
    assert began < names.index("task_done") < names.index("stage_ended")


def done(seen: Seen) -> list[dict[str, Any]]:
    return [event for event in read_log(seen.run) if event["event"] == "task_done"]


def waits(task, report):
    distributed.Event("begun").set()
    distributed.Event("go").wait(30)
    if task == 1:
        raise ValueError("one is bad")
    return task


def test_an_executor_tells_of_workers_that_come_and_go_and_of_failures():
    events: list[dict[str, Any]] = []
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        hooks = Hooks(event=lambda event, **fields: events.append({event: fields}))
        executor = DaskExecutor(client, hooks)

        def run():
            with pytest.raises(Exception, match="one is bad"):
                executor.map(waits, [0, 1], ["w-0", "w-1"])

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert distributed.Event("begun", client=client).wait(30)
            for count, name in ((2, "worker_joined"), (1, "worker_left")):
                cluster.scale(count)
                deadline = time.monotonic() + 30
                while not any(name in event for event in events) and time.monotonic() < deadline:
                    time.sleep(0.05)
        finally:
            distributed.Event("go", client=client).set()
            thread.join()
    (joined,) = [event["worker_joined"] for event in events if "worker_joined" in event]
    left = [event["worker_left"]["worker"] for event in events if "worker_left" in event]
    assert len(left) == 1 and joined["worker"].startswith("inproc://")
    (failed,) = [event["task_failed"] for event in events if "task_failed" in event]
    assert failed.pop("worker").startswith("inproc://")
    assert failed == {"key": "w-1", "error": "ValueError", "text": "one is bad"}
    assert [event["task_done"]["key"] for event in events if "task_done" in event] == ["w-0"]
