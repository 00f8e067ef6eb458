"""Workers that are killed, lost or run out of memory; and tasks that are executed twice."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from genret_dask.errors import ClusterError
from genret_dask.executors.dask import DaskExecutor
from genret_dask.study import sweep
from genret_dask.study.search import search
from genret_dask.study.sweep import _train
from genret_dask.training.task import finished
from tests.chaos.conftest import Killer, cluster, kill

pytestmark = pytest.mark.chaos
FULL = pytest.param("full", 6, 50, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("stand", "every", "kills"), [("small", 6, 6), FULL, FULL, FULL], indirect=["stand"]
)
def test_killed_workers_lose_nothing(stand, every, kills, monkeypatch, record_property):
    monkeypatch.setenv("CHAOS_SLEEP", "0.1")
    began = time.monotonic()
    with cluster() as client, Killer(stand, every, kills) as killer:
        stand.study(client).search()
    begun = stand.begun()
    record_property("seconds", round(time.monotonic() - began, 1))
    record_property("kills", len(killer.killed))
    record_property("starts", begun.total())
    assert len(killer.killed) == kills
    assert stand.recomputed() == []
    assert not stand.differences()
    assert len(begun) == stand.shards
    assert stand.shards <= begun.total() <= stand.shards + kills
    assert not list(stand.run.rglob("*.attempts")) and not (stand.run / "failures.json").exists()


def test_all_workers_killed_at_once_are_replaced(stand, monkeypatch):
    monkeypatch.setenv("CHAOS_SLEEP", "0.2")
    with cluster() as client:
        study, killed = stand.study(client), []

        def progress(stage, done, total):
            if stage == "search" and done >= 8 and not killed:
                killed.extend(client.run(lambda dask_worker: os.getpid()).values())
                assert all(map(kill, killed))

        study._progress = progress
        study.search()
    assert len(killed) == 2
    assert stand.recomputed() == [] and not stand.differences()


def test_no_worker_that_comes_back_is_a_loud_end(stand, monkeypatch):
    monkeypatch.setenv("CHAOS_SLEEP", "0.2")
    with cluster() as client:
        retired = []

        def progress(stage, done, total):
            if stage == "search" and done >= 8 and not retired:
                client.cluster.scale(0)
                retired.append(time.monotonic())

        with pytest.raises(ClusterError, match="no worker for") as caught:
            stand.study(client, lost_timeout=3, progress=progress).search()
        assert "lost_timeout" in str(caught.value)
    with cluster() as client:
        stand.study(client).search()
    assert stand.recomputed() == [] and not stand.differences()


def test_training_and_export_survive_killed_workers(stand, monkeypatch):
    for folder in ("checkpoints", "models"):
        shutil.rmtree(stand.run / folder)
    killed = []
    with cluster() as client:

        def progress(stage, done, total):
            if (stage, len(killed)) in [("train", 0), ("export", 2)] and 0 <= done < total:
                pids = client.run(lambda dask_worker: os.getpid()).values()
                killed.extend(pid for pid in pids if kill(pid))

        stand.study(client, progress=progress).search()
    assert len(killed) == 4
    records = [
        json.loads((stand.run / folder / "training.json").read_text())
        for folder in ("checkpoints/codes/t5", "checkpoints/codes/llama")
    ]
    assert all(record["examples"] == 256 for record in records)
    assert not stand.differences()


def test_every_shard_executed_twice_at_once_is_the_same(stand, monkeypatch):
    monkeypatch.setenv("CHAOS_SLEEP", "0.2")

    def search_twice(executor, tasks, context, progress=None):
        twins = [
            threading.Thread(target=search, args=(DaskExecutor(client), tasks, context))
            for client in (one, other)
        ]
        for twin in twins:
            twin.start()
        for twin in twins:
            twin.join()
        return []

    with cluster(workers=1) as one, cluster(workers=1) as other:
        monkeypatch.setattr(sweep, "search", search_twice)
        stand.study(one).search()
    begun = stand.begun()
    assert sum(count == 2 for count in begun.values()) > stand.shards // 2
    assert not stand.differences()


def test_a_training_executed_twice_at_once_is_the_same(stand):
    with cluster(workers=1) as one, cluster(workers=1) as other:
        tasks = stand.study(one).training_tasks()
        shutil.rmtree(stand.run / "checkpoints")
        twins = [
            threading.Thread(
                target=DaskExecutor(client).map, args=(_train, tasks, [one.name for one in tasks])
            )
            for client in (one, other)
        ]
        for twin in twins:
            twin.start()
        for twin in twins:
            twin.join()
    for task in tasks:
        assert finished(task)
        path = Path("checkpoints", task.name, "model.safetensors")
        assert (stand.run / path).read_bytes() == (stand.oracle / path).read_bytes()
    assert not list((stand.run / "checkpoints").rglob("*.partial"))


def test_a_worker_killed_at_its_memory_limit_leads_to_smaller_batches(stand, monkeypatch):
    hungry = "search.codes.t5-00-00000004"
    monkeypatch.setenv("CHAOS_HUNGER", f"{hungry}={450 * 10**6}")
    restarts = []
    with cluster(workers=1, memory_limit="1.2GB") as client:
        client.subscribe_topic("worker-restart-memory", lambda event: restarts.append(event[1]))
        stand.study(client).search()
    assert 1 <= len({restart["pid"] for restart in restarts}) <= 2
    assert stand.begun()[hungry] == 1 + len({restart["pid"] for restart in restarts})
    assert stand.begun().total() == stand.shards + len({one["pid"] for one in restarts})
    stand.compare()
