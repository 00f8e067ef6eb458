"""The log of a run: whole lines, whatever happened before; nothing that is secret."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

import pytest

from genret_dask.errors import InputError
from genret_dask.monitoring.log import RunLog, read_log
from genret_dask.storage.layout import RunLayout


def lines(folder) -> list[str]:
    return RunLayout(folder).log.read_text("utf-8").splitlines()


def test_a_line_tells_when_which_run_and_which_stage(tmp_path):
    log = RunLog(tmp_path)
    log("run_started", name="toy", dashboard=None)
    log.stage = "search"
    log("task_done", key="k", rows=3)
    first, second = read_log(tmp_path)
    assert "stage" not in first and "dashboard" not in first
    assert second["stage"] == "search" and second["rows"] == 3
    assert first["run"] == second["run"]
    assert list(second) == ["time", "run", "event", "stage", "key", "rows"]
    written = datetime.fromisoformat(first["time"])
    assert first["time"].endswith("Z") and written <= datetime.now(UTC)


@pytest.mark.parametrize("torn", [b'{"time": "2026', b"\xff\x00{", b"[1]\n", b'{"event": 3}\n'])
def test_a_torn_line_costs_itself_only(tmp_path, torn):
    RunLog(tmp_path)("one")
    with open(RunLayout(tmp_path).log, "ab") as file:
        file.write(torn)
    log = RunLog(tmp_path)
    log("two")
    log("three")
    assert [event["event"] for event in read_log(tmp_path)] == ["one", "two", "three"]


def test_the_tail_is_the_end_in_whole_lines(tmp_path):
    log = RunLog(tmp_path)
    for number in range(1000):
        log("task_done", number=number)
    found = [event["number"] for event in read_log(tmp_path, tail=2000)]
    assert 5 < len(found) < 30 and found == list(range(1000 - len(found), 1000))


def test_threads_write_whole_lines(tmp_path):
    log = RunLog(tmp_path)

    def write(name):
        for number in range(200):
            log("event", name=name, number=number, text="x" * 500)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line) for line in lines(tmp_path)]
    assert {(one["name"], one["number"]) for one in found} == {
        (name, number) for name in range(4) for number in range(200)
    }


def test_credentials_of_addresses_are_left_out_wherever_they_stand(tmp_path):
    log = RunLog(tmp_path)
    log(
        "a",
        text="cannot read s3://key:sEcret@bucket/x, nor tcp://u:sEcret@h:1",
        at=["u://sEcret@h"],
    )
    log("b", machines=[{"where": {"url": "https://user:sEcret@host/path@home"}}])
    assert "sEcret" not in "\n".join(lines(tmp_path))
    assert next(read_log(tmp_path))["text"] == "cannot read s3://***@bucket/x, nor tcp://***@h:1"


def test_how_a_run_ended(tmp_path):
    bad, bug = InputError("bad"), ZeroDivisionError("x")
    for error in (None, bad, KeyboardInterrupt(), SystemExit(143), bug):
        log = RunLog(tmp_path)
        try:
            with log:
                log("run_started")
                if error:
                    raise error
        except BaseException as raised:
            assert raised is error
    found = [event for event in read_log(tmp_path) if event["event"] == "run_ended"]
    assert [(one["outcome"], one["exit"]) for one in found] == [
        ("done", 0), ("failed", 2), ("interrupted", 130), ("failed", 143), ("failed", 1)
    ]  # fmt: skip
    assert (found[1]["error"], found[1]["text"]) == ("InputError", "bad")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    with RunLog(tmp_path / "no folder") as log:
        log("run_started")
    RunLayout(tmp_path).log.mkdir()
    log = RunLog(tmp_path)
    for _ in range(3):
        log("task_done")
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1 and "log.jsonl" in caplog.text
    assert list(read_log(tmp_path)) == []
    RunLayout(tmp_path).log.rmdir()
    log("run_ended")
    assert [event["event"] for event in read_log(tmp_path)] == ["run_ended"]


def test_an_object_store_gets_the_log_at_the_ends_of_stages_and_of_the_run():
    pytest.importorskip("upath")
    from genret_dask.storage.places import place_of

    place = place_of("memory://bucket/logged")
    for number in range(2):
        with RunLog(place) as log:
            log("run_started", number=number)
            log("task_done")
            assert [one["event"] for one in read_log(place)][-1] == "run_started"
            log("stage_ended")
            assert [one["event"] for one in read_log(place)][-2:] == ["task_done", "stage_ended"]
    names = [one["event"] for one in read_log(place)]
    assert names == ["run_started", "task_done", "stage_ended", "run_ended"] * 2
