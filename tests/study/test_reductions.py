"""A cube reduced by the workers of a cluster gives what threads of the client give."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from distributed import Client, LocalCluster

from genret_dask import open_cube
from genret_dask.cube.open import kinds
from genret_dask.errors import ClusterError, CubeError
from genret_dask.executors.serial import SerialExecutor
from genret_dask.metrics.queries import reduce_queries
from genret_dask.monitoring.log import read_log
from genret_dask.specs import FitSpec
from genret_dask.study import reductions, sweep
from genret_dask.study.reductions import Reductions, exceeds_workers
from genret_dask.study.sweep import Study
from tests.runs import differing, make_spec


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def small_workers(monkeypatch) -> None:
    """The toy cube is larger than what a worker may hold, and more than one task a model."""
    monkeypatch.setattr(reductions, "SHARDS", 2)
    monkeypatch.setattr(sweep, "exceeds_workers", lambda nbytes, client: nbytes > 100)


def study_of(toy: Path, runs: Path, client: Client | None) -> Study:
    shutil.copytree(toy / "serial", runs)
    return Study(make_spec(toy, fits=FitSpec(bootstrap=20)), client, runs=runs)


class _Client:
    """Knows of workers with these memory limits."""

    def __init__(self, *limits: int | None, status: str = "running") -> None:
        self._limits, self.status = limits, status

    def scheduler_info(self, n_workers: int) -> dict:
        workers = {f"w{row}": {"memory_limit": limit} for row, limit in enumerate(self._limits)}
        return {"workers": workers}


@pytest.mark.parametrize(
    ("limits", "hosts", "smallest"),
    [((3, 2, None), [1], 2), ((None, 0), [9, 7], 7), ((None,), [], None), ((), [], None)],
)
def test_a_cube_is_for_the_cluster_if_a_worker_cannot_hold_it(monkeypatch, limits, hosts, smallest):
    machines = [{"memory_bytes": memory} for memory in hosts]
    monkeypatch.setattr(reductions, "machines_of", lambda client: machines)
    client = _Client(*limits)
    assert not exceeds_workers(smallest or 10**15, client)
    assert exceeds_workers((smallest or 0) + 1, client) == (smallest is not None)
    assert not exceeds_workers(10**15, _Client(*limits, status="closed"))


@pytest.mark.usefixtures("small_workers")
def test_results_of_the_cluster_are_those_of_threads_byte_for_byte(toy, tmp_path, client):
    here, there = (
        study_of(toy, tmp_path / name, one) for name, one in (("here", None), ("there", client))
    )
    assert here.analyse() == there.analyse()
    results = [study.layout.results for study in (here, there)]
    names = {path.relative_to(results[0]).as_posix() for path in results[0].rglob("*.*")}
    assert {"metrics.json", "fits.json", "trec/ngrams/t5.beam10.run"} <= names
    assert differing(*results) == []
    for study, where in ((here, "threads"), (there, "cluster")):
        (event,) = [one for one in read_log(study.folder) if one["event"] == "analysis"]
        assert event["where"] == where and event["cube_bytes"] > 10_000
    done = [
        one["key"]
        for one in read_log(there.folder)
        if one["event"] == "task_done" and one.get("stage") == "results"
    ]
    assert len(set(done)) == len(done) == 16  # two kinds, models, parts and functions
    assert {key.partition(".")[0] for key in done} == {"metrics", "rankings"}


@pytest.mark.usefixtures("small_workers")
def test_values_put_together_are_those_of_one_pass(toy):
    cube, seen = toy / "serial" / "toy" / "cube.zarr", []
    tree = open_cube(cube)
    found = Reductions(cube, tree, SerialExecutor(), seen.append).values
    for kind, search, contrast in kinds(tree):
        xr.testing.assert_identical(found[kind], reduce_queries(search, contrast))
        assert all(variable.chunks is None for variable in found[kind].variables.values())
    assert seen == sorted(seen) and 0.4 < seen[-1] < 0.6  # the rankings are still to be read


@pytest.mark.usefixtures("small_workers")
@pytest.mark.parametrize(
    ("chunk", "damage"),
    [
        ("codes/contrast/logit/c/1/1/0/0", Path.unlink),
        ("codes/contrast/doc/c/0/0", Path.unlink),
        ("codes/search/score/c/0/0/0/0", lambda path: path.write_bytes(b"x" * 40)),
    ],
)
def test_a_chunk_that_cannot_be_read_is_told_of_as_by_threads(toy, tmp_path, client, chunk, damage):
    found = []
    for name, one in (("here", None), ("there", client)):
        study = study_of(toy, tmp_path / name, one)
        damage(study.cube / chunk)
        with pytest.raises(CubeError) as caught:
            study.analyse()
        assert not study.layout.results.exists()
        found.append(str(caught.value).replace(str(tmp_path / name), ""))
    assert found[0] == found[1]


@pytest.mark.usefixtures("small_workers")
def test_a_cluster_that_is_gone_is_a_loud_end(toy, tmp_path):
    gone = Client(processes=False, n_workers=1, dashboard_address=None)
    gone.close()
    with pytest.raises(ClusterError, match="scheduler at"):
        study_of(toy, tmp_path / "runs", gone).analyse()


def test_a_worker_that_sees_another_cube_says_so(toy):
    cube = toy / "serial" / "toy" / "cube.zarr"
    with pytest.raises(CubeError, match="a worker finds another cube"):
        reductions._opened(cube, "of another")
