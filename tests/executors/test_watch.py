"""What Dask does not tell: tasks that vanished, results that went with their worker."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from distributed import Client, Future
from distributed.worker_state_machine import FreeKeysEvent

from genret_dask.errors import ClusterError, GenretError
from genret_dask.executors import watch
from genret_dask.executors.dask import DaskExecutor
from genret_dask.executors.failures import FailureLog
from genret_dask.executors.protocol import Hooks


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as one:
        yield one


def linger(folder: Path, report) -> int:
    """Leaves a file for each time that it runs; takes a second the first time."""
    number = len(list(folder.iterdir()))
    (folder / str(number)).touch()
    time.sleep(0 if number else 1)
    return number


def forget(dask_worker, key: str) -> None:
    dask_worker.handle_stimulus(FreeKeysEvent(keys=[key], stimulus_id="test"))


def test_a_task_that_its_worker_forgot_is_submitted_again(client, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.6)

    def interfere() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        client.run(forget, key="forgotten-1")

    thread = threading.Thread(target=interfere)
    thread.start()
    assert DaskExecutor(client).map(linger, [tmp_path], ["forgotten-1"]) == [1]
    thread.join()
    assert "forgotten-1 is submitted again" in caplog.text


def test_a_task_that_takes_long_is_left_alone(client, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.1)
    assert DaskExecutor(client).map(linger, [tmp_path], ["slow-1"]) == [0]
    assert "nothing was heard" not in caplog.text


def test_a_task_that_may_hang_is_told_of(client, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(watch, "HANG_SECONDS", 0.3)
    told, stop = "nothing was heard of any of 1 tasks for 0 minutes", tmp_path / "stop"

    def listen() -> None:
        deadline = time.monotonic() + 30
        while told not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.touch()

    def hangs(file: Path, report) -> None:
        while not file.exists():
            time.sleep(0.05)

    thread = threading.Thread(target=listen)
    thread.start()
    DaskExecutor(client).map(hangs, [stop], ["hangs-1"])
    thread.join()
    assert told in caplog.text


def test_a_future_that_was_cancelled_is_submitted_again(client, tmp_path, caplog):
    def interfere() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        client.cancel([Future("cancelled-1", client)], force=True)

    thread = threading.Thread(target=interfere)
    thread.start()
    assert DaskExecutor(client).map(linger, [tmp_path], ["cancelled-1"]) == [1]
    thread.join()
    assert "its future was cancelled" in caplog.text


def test_an_error_of_the_system_is_tried_again_and_then_reported(client, tmp_path):
    def fails(task, report):
        (tmp_path / f"{task}-{len(list(tmp_path.glob(f'{task}-*')))}").touch()
        if task or len(list(tmp_path.glob("0-*"))) < 3:
            raise ConnectionResetError("reset")
        return "done"

    executor = DaskExecutor(client, Hooks(FailureLog(tmp_path / ".")))
    assert executor.map(fails, [0], ["s-0"]) == ["done"]
    with pytest.raises(GenretError, match="s-1: ConnectionResetError: reset"):
        executor.map(fails, [0, 1], ["s-0", "s-1"])
    assert len(list(tmp_path.glob("1-*"))) == 3


def test_a_closed_client_is_a_loud_end():
    closed = Client(processes=False, n_workers=1, dashboard_address=None)
    closed.close()
    with pytest.raises(ClusterError, match="scheduler at"):
        DaskExecutor(closed).map(lambda task, report: task, [1], ["a"])


def test_progress_of_many_tasks_keeps_nothing_of_each(client):
    seen = []
    done = DaskExecutor(client).map(
        lambda task, report: None,
        range(300),
        (f"many-{n}" for n in range(300)),
        progress=lambda now, total: seen.append(now),
    )
    assert done == [None] * 300 and seen == [float(n) for n in range(1, 301)]
