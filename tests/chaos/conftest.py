"""Faults that really happen: a run to repeat, workers that tell what they do, and killers."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import yaml
from distributed import Client

from genret_dask import open_cube
from genret_dask.clusters import ClusterSpec, connect
from genret_dask.kinds import CodesIdentifiers
from genret_dask.specs import InferenceSpec, SweepSpec
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.runs import differing, make_spec

PRELOAD = Path(__file__).with_name("preload.py")
LOCAL = {
    "module": "distributed",
    "class": "LocalCluster",
    "kwargs": {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None},
}


@dataclass(frozen=True)
class Line:
    """One thing that a worker told: a shard that it has begun or done."""

    what: str
    key: str
    pid: int


class Stand:
    """A finished serial run, and a second run directory that lacks its cube.

    Attributes
    ----------
    spec : SweepSpec
    oracle, run : Path
        The run directories.
    shards : int
    """

    def __init__(self, root: Path, documents: int) -> None:
        self.root, self.log = root, root / "chaos.log"
        write_beir(make_collection(documents), root / "beir")
        self.spec: SweepSpec = make_spec(
            root,
            identifiers=(CodesIdentifiers(levels=2, codes=6),),
            inference=InferenceSpec(beams=(1, 3), negatives=6, shard_queries=2, batch_queries=2),
        )
        self.oracle = Study(self.spec, runs=root / "serial").search().parent
        self.shards = len(list((self.oracle / "markers").rglob("*.json")))

    @property
    def run(self) -> Path:
        return self.root / "runs" / self.spec.name

    def clear(self) -> None:
        """Start over, with the models there and the cube not."""
        shutil.rmtree(self.run, ignore_errors=True)
        self.log.write_text("")
        left_out = shutil.ignore_patterns("cube.zarr", "markers", ".lease")
        shutil.copytree(self.oracle, self.run, ignore=left_out)

    def study(self, client: Client, **options) -> Study:
        return Study(self.spec, client, runs=self.root / "runs", **options)

    def lines(self) -> list[Line]:
        """What the workers told so far."""
        told = self.log.read_text().splitlines() if self.log.exists() else []
        return [Line(what, key, int(pid)) for what, key, pid in (line.split() for line in told)]

    def begun(self) -> Counter[str]:
        return Counter(line.key for line in self.lines() if line.what == "begun")

    def recomputed(self) -> list[str]:
        """Shards that were begun after they had been done."""
        done: set[str] = set()
        again = []
        for line in self.lines():
            if line.what == "done":
                done.add(line.key)
            elif line.key in done:
                again.append(line.key)
        return again

    def differences(self) -> list[str]:
        """Files of the cube that are not the serial run's, byte for byte."""
        return differing(self.oracle / "cube.zarr", self.run / "cube.zarr")

    def compare(self) -> None:
        """Assert the serial run's rankings, and its numbers within what a batch of one changes."""
        oracle, found = open_cube(self.oracle), open_cube(self.run)
        for dataset in ("codes/search", "codes/contrast"):
            first, second = oracle[dataset].to_dataset(), found[dataset].to_dataset()
            for name in first.data_vars:
                compare = np.testing.assert_array_equal
                if first[name].dtype.kind == "f":
                    compare = partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
                compare(second[name].values, first[name].values)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Stand:
    return Stand(tmp_path_factory.mktemp("small"), documents=60)


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Stand:
    stand = Stand(tmp_path_factory.mktemp("full"), documents=450)
    assert stand.shards == 300
    return stand


@pytest.fixture
def stand(request, monkeypatch) -> Stand:
    """The stand named by the test's parameter, cleared."""
    found: Stand = request.getfixturevalue(getattr(request, "param", "small"))
    found.clear()
    monkeypatch.setenv("CHAOS_LOG", str(found.log))
    return found


@contextmanager
def cluster(workers: int = 2, **kwargs) -> Iterator[Client]:
    """A local cluster whose workers tell what they do."""
    kwargs = LOCAL["kwargs"] | {"n_workers": workers} | kwargs
    spec = ClusterSpec.model_validate(LOCAL | {"kwargs": kwargs})
    with dask.config.set({"distributed.worker.preload": [str(PRELOAD)]}), connect(spec) as client:
        yield client


def write_configs(stand: Stand, cluster: dict) -> list[str]:
    """Files for the command line; returns its options."""
    spec = stand.spec.model_dump(mode="json")
    (stand.root / "sweep.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    (stand.root / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    files = {"--cluster": "cluster.yaml", "--config": "sweep.yaml", "--runs": "runs"}
    return [word for name, file in files.items() for word in (name, str(stand.root / file))]


class Killer(threading.Thread):
    """Kills workers in the middle of a shard, every so many shards.

    Parameters
    ----------
    every : int
        Shards that are begun between two kills.
    kills : int
        In all.
    """

    def __init__(self, stand: Stand, every: int, kills: int) -> None:
        super().__init__(daemon=True)
        self._stand, self._every, self._kills = stand, every, kills
        self._ended = threading.Event()
        self.killed: list[int] = []

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        due = self._every
        while len(self.killed) < self._kills and not self._ended.wait(0.01):
            begun = [line for line in self._stand.lines() if line.what == "begun"]
            if len(begun) >= due and kill(begun[-1].pid):
                self.killed.append(begun[-1].pid)
                due = len(begun) + self._every


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; whether there was a process to get it."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Wait until a condition holds; fail where it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(0.02)


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    """Whether these processes end."""
    return not psutil.wait_procs(processes, timeout=seconds)[1]
