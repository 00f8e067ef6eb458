"""Times of a study's stages survive its runs; a run without work leaves none."""

from __future__ import annotations

import pytest
from distributed import Client

from genret_dask.monitoring import timing as stages
from genret_dask.monitoring.log import RunLog, read_log
from genret_dask.monitoring.timing import StageLog, machine, machines_of, read_stages


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stages, "time", clock)
    return clock


def test_each_run_adds_its_stages_and_machines(tmp_path, clock):
    for _ in range(2):
        log = RunLog(tmp_path)
        log("machines", machines=machines_of(None))
        progress = StageLog(log)
        for done in (0, 4, 10):
            progress("train", done, 10)
            clock.now += 3
        progress("search", 0, 5)
    runs = read_stages(tmp_path)
    assert [run["stages"] for run in runs] == [
        {"train": {"seconds": 6.0, "done": 10, "total": 10}}
    ] * 2
    (one,) = runs[0]["machines"]
    assert one["workers"] == one["threads"] == 1 and one["cores"] >= 1 and one["processor"]
    assert runs[0]["began"] <= runs[1]["began"]


def test_of_a_run_that_was_killed_the_part_that_was_done_counts(tmp_path, clock):
    progress = StageLog(RunLog(tmp_path))
    for done in range(0, 60, 7):
        progress("search", done, 60)
        clock.now += 4
    (run,) = read_stages(tmp_path)
    assert run["stages"]["search"] == {"seconds": 24.0, "done": 42, "total": 60}


def test_a_stage_that_a_run_comes_to_again_adds_its_seconds(tmp_path, clock):
    progress = StageLog(RunLog(tmp_path))
    for _ in range(2):
        for stage in ("spans", "train"):
            progress(stage, 0, 1)
            clock.now += 5
            progress(stage, 1, 1)
    (run,) = read_stages(tmp_path)
    assert {stage: one["seconds"] for stage, one in run["stages"].items()} == {
        "spans": 10.0, "train": 10.0
    }  # fmt: skip


def test_nothing_to_do_leaves_no_stages_and_damage_is_no_error(tmp_path):
    assert read_stages(tmp_path) == []
    log = RunLog(tmp_path)
    log("run_started")
    log("stage_ended", seconds=1.0)
    log("machines", machines=None)
    assert read_stages(tmp_path) == [] and len(list(read_log(tmp_path))) == 3
    StageLog(RunLog(tmp_path / "none"))("train", 1, 1)


def test_alike_workers_are_one_machine():
    with Client(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None
    ) as client:
        (one,) = machines_of(client)
    assert one["workers"] == 2 and one["threads"] == 4
    assert {key: one[key] for key in machine()} == machine()
