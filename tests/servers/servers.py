"""Dask schedulers and workers as processes of their own, on loopback, ended with their test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

SECONDS = 180  # for anything to start


def wait_for(happens: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """What `happens` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := happens():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A process in a group of its own, which is ended as a whole."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(started.pid, number)
                started.wait(seconds)
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


class DaskProcesses:
    """A ``dask scheduler`` and ``dask worker`` processes, with logs in `folder`."""

    def __init__(self, folder: Path, stack: ExitStack, **environment: str) -> None:
        self.folder, self._stack, self._environment = folder, stack, environment
        self._file = folder / "scheduler.json"
        self._workers = 0
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address",
            "127.0.0.1:0", "--scheduler-file", str(self._file),
        )  # fmt: skip
        self.address: str = wait_for(self._address, f"{folder}/scheduler.log")

    def _address(self) -> str | None:
        assert self.scheduler.poll() is None, (self.folder / "scheduler.log").read_text()
        try:
            return json.loads(self._file.read_text())["address"]
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def worker(self, *prefix: str, python: str = sys.executable, **environment: str) -> None:
        """Start a worker with one thread; `prefix` goes before its command."""
        self._workers += 1
        self._start(
            "worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard",
            "--local-directory", str(self.folder / "scratch"), "--memory-limit", "2GB",
            log=f"worker-{self._workers}.log", prefix=prefix, python=python, **environment,
        )  # fmt: skip

    def _start(
        self,
        what: str,
        *options: str,
        log: str | None = None,
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
        **environment: str,
    ) -> subprocess.Popen:
        command = [*prefix, python, "-m", f"distributed.cli.dask_{what}", *options]
        log_file = self.folder / (log or f"{what}.log")
        settings = {**self._environment, **environment}
        return self._stack.enter_context(process(command, log_file, **settings))


@contextmanager
def dask_processes(folder: Path, workers: int = 0, **environment: str) -> Iterator[DaskProcesses]:
    """A scheduler with that many workers started; they may not have joined yet."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        dask = DaskProcesses(folder, stack, **environment)
        for _ in range(workers):
            dask.worker()
        yield dask
