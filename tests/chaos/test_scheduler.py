"""A scheduler at an address that is killed, and comes back or does not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from genret_dask.clusters import ClusterSpec, connect
from genret_dask.errors import ClusterError
from tests.chaos.conftest import PRELOAD

pytestmark = pytest.mark.chaos


class Servers:
    """A scheduler and its workers, as processes of their own, on loopback."""

    def __init__(self, folder) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = server.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._folder = folder
        self._processes: list[subprocess.Popen] = []

    def start(self, workers: int = 2) -> None:
        port = str(self._port)
        self._spawn("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        for _ in range(workers):
            self._spawn(
                *("worker", self.address, "--nthreads", "1", "--host", "127.0.0.1"),
                *("--no-dashboard", "--preload", str(PRELOAD)),
            )

    def _spawn(self, *words: str) -> None:
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self._folder)}
        with open(self._folder / "servers.log", "a") as log:
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            )

    def kill(self, what: str) -> None:
        """Kill the scheduler, or the nannies of all workers."""
        for process in self._processes[:1] if what == "scheduler" else self._processes[1:]:
            process.kill()

    def stop(self) -> None:
        """End whatever is left."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self._processes.clear()


@pytest.fixture
def servers(tmp_path) -> Iterator[Servers]:
    found = Servers(tmp_path)
    try:
        yield found
    finally:
        found.stop()


@contextmanager
def restarting(servers: Servers, stand, kills: int) -> Iterator[list[float]]:
    """Kill the scheduler and start everything anew, so many times while shards are computed."""
    killed: list[float] = []
    ended = threading.Event()

    def work() -> None:
        while len(killed) < kills and not ended.is_set():
            due = (len(killed) + 1) * stand.shards // (kills + 1)
            done = sum(line.what == "done" for line in stand.lines())
            if done >= due:
                servers.kill("scheduler")
                killed.append(time.monotonic())
                servers.stop()
                servers.start()
            ended.wait(0.05)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("stand", "kills"),
    [("small", 1), pytest.param("full", 5, marks=pytest.mark.slow)],
    indirect=["stand"],
)
def test_a_run_goes_on_with_the_scheduler_that_came_back(
    stand, kills, servers, monkeypatch, record_property
):
    monkeypatch.setenv("CHAOS_SLEEP", "0.1")
    began = time.monotonic()
    servers.start()
    spec = ClusterSpec(address=servers.address, timeout=300)
    with connect(spec) as client, restarting(servers, stand, kills) as killed:
        stand.study(client).search()
    begun = stand.begun()
    record_property("seconds", round(time.monotonic() - began, 1))
    record_property("starts", begun.total())
    assert len(killed) == kills
    assert stand.recomputed() == [] and not stand.differences()
    assert stand.shards <= begun.total() <= stand.shards + 2 * kills


def test_a_scheduler_that_stays_away_is_a_loud_end(stand, servers, monkeypatch):
    monkeypatch.setenv("CHAOS_SLEEP", "0.1")
    servers.start(workers=1)
    killed = []

    def progress(stage, done, total):
        if stage == "search" and done >= 8 and not killed:
            servers.kill("scheduler")
            killed.append(time.monotonic())

    with (
        pytest.raises(ClusterError, match="has been gone for") as caught,
        connect(ClusterSpec(address=servers.address, timeout=300)) as client,
    ):
        stand.study(client, lost_timeout=3, progress=progress).search()
    assert servers.address in str(caught.value)
    assert time.monotonic() - killed[0] < 20
