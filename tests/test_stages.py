"""Times of a study's stages survive its runs; a run without work leaves none."""

from __future__ import annotations

import json

from distributed import Client

from genret_dask.stages import FILE, StageLog, machine, machines_of, read_stages


def test_each_run_adds_its_stages_and_machines(tmp_path):
    for _ in range(2):
        log = StageLog(tmp_path)
        log.look_at_machines()
        log("train", 0, 10)
        log("train", 10, 10)
        log("search", 0, 5)
    runs = read_stages(tmp_path)
    assert [set(run["stages"]) for run in runs] == [{"train"}, {"train"}]
    assert runs[0]["stages"]["train"] == {
        "seconds": runs[0]["stages"]["train"]["seconds"], "done": 10, "total": 10
    }  # fmt: skip
    (one,) = runs[0]["machines"]
    assert one["workers"] == one["threads"] == 1 and one["cores"] >= 1 and one["processor"]


def test_nothing_to_do_writes_nothing_and_damage_is_no_error(tmp_path):
    StageLog(tmp_path).look_at_machines()
    assert not (tmp_path / FILE).exists() and read_stages(tmp_path) == []
    for text in ("{", "[]", json.dumps({"runs": [{}]})):
        (tmp_path / FILE).write_text(text)
        assert read_stages(tmp_path) == []
    StageLog(tmp_path / "none")("train", 1, 1)


def test_alike_workers_are_one_machine():
    with Client(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None
    ) as client:
        (one,) = machines_of(client)
    assert one["workers"] == 2 and one["threads"] == 4
    assert {key: one[key] for key in machine()} == machine()
