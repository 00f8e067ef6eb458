"""A run on an object store: the same cube, also where a tenth of the answers are lost."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import xarray as xr
from distributed import Client, LocalCluster

from genret_dask import open_cube
from genret_dask.errors import GenretError, InputError, ModelError
from genret_dask.inference.session import open_session
from genret_dask.run.verification import verify_run
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask
from genret_dask.storage.places import check_writable, create_file, files_in, place_of
from genret_dask.study.repair import repair_run
from genret_dask.study.sweep import Study
from tests.chaos.flaky_proxy import FlakyProxy
from tests.runs import differing, make_spec

s3fs = pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def server():
    """Port of an S3 server in this process."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def reach(server, monkeypatch, tmp_path):
    """A function that sets the port by which the store is reached from then on."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "GENRET_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)

    def by(port: int) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        s3fs.S3FileSystem.clear_instance_cache()

    by(server)
    yield by
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(reach, server) -> str:
    name = f"bucket-{time.monotonic_ns()}"
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}").create_bucket(Bucket=name)
    return name


def download(server: int, bucket: str, prefix: str, folder: Path) -> Path:
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page["Contents"]:
            path = folder / item["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path))
    return folder


def one_model(root: Path):
    spec = make_spec(root)
    return spec.model_copy(update={"identifiers": spec.identifiers[:1], "models": spec.models[:1]})


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory) -> dict[str, Path]:
    """Run directories on a disk, of one model and of the whole toy study."""
    runs = tmp_path_factory.mktemp("whole")
    return {
        "codes": Study(one_model(toy), runs=runs).search().parent,
        "both": toy / "serial" / "toy",
    }


@pytest.mark.parametrize("kind", ["codes", pytest.param("both", marks=pytest.mark.slow)])
def test_a_run_on_a_store_is_that_of_a_disk(bucket, server, toy, whole, tmp_path, kind):
    spec = one_model(toy) if kind == "codes" else make_spec(toy)
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster) as client:
        study = Study(spec, client, runs=f"s3://{bucket}/runs")
        study.search()
    study.analyse()
    page = study.report()
    assert page.read_text().startswith("<!DOCTYPE html>")
    copy = download(server, bucket, "runs/toy/", tmp_path / "copy")
    assert not differing(whole[kind] / "cube.zarr", copy / "cube.zarr")
    assert verify_run(copy) == [] and verify_run(study.folder) == []
    tree = open_cube(f"s3://{bucket}/runs/toy")
    xr.testing.assert_identical(
        tree["codes/search"].to_dataset().load(),
        open_cube(whole[kind])["codes/search"].to_dataset().load(),
    )
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert not [path for path in files if b"very-secret" in path.read_bytes()]
    seen = []
    again = lambda *report: seen.append(report)  # noqa: E731
    Study(spec, runs=f"s3://{bucket}/runs", progress=again).search()
    assert not seen


@pytest.mark.parametrize("kind", ["codes", pytest.param("both", marks=pytest.mark.slow)])
def test_a_tenth_of_the_answers_lost(bucket, server, reach, toy, whole, tmp_path, kind):
    spec = one_model(toy) if kind == "codes" else make_spec(toy)
    with FlakyProxy(server, share=0.1) as proxy:
        reach(proxy.port)
        cube = Study(spec, runs=f"s3://{bucket}/runs").search()
    reach(server)
    assert proxy.lost > 20 and verify_run(cube.parent) == []
    copy = download(server, bucket, "runs/toy/", tmp_path / "copy")
    assert not differing(whole[kind] / "cube.zarr", copy / "cube.zarr")
    assert verify_run(copy) == []


def test_markers_are_created_once_whatever_answers_are_lost(bucket, server, reach):
    """Markers by two writers each, a tenth of the answers lost: one winner, none lost."""
    tasks = [ShardTask("codes", 0, "m", start, start + 1) for start in range(60)]
    place = place_of(f"s3://{bucket}/markers")
    with FlakyProxy(server, share=0.1, seed=1) as proxy:
        reach(proxy.port)
        ledger = Ledger(place_of(str(place)))
        for task in tasks:
            for _ in range(2):
                ledger.mark(task, {"search/score": "00"})
        with pytest.raises(GenretError, match="computed twice, with different results"):
            ledger.mark(tasks[0], {"search/score": "01"})
        done = ledger.read_all(tasks)
    assert proxy.lost > 5
    assert set(done) == {task.key for task in tasks[1:]}


def test_a_host_fetches_a_model_once_and_checks_it(bucket, server, toy, tmp_path):
    study = Study(one_model(toy), runs=f"s3://{bucket}/runs")
    study.search()
    kept = list((tmp_path / "cache" / "fetched").glob("*/manifest.json"))
    assert len(kept) == 1
    place = study.folder / "models" / "codes" / "t5" / "step.onnx"
    content = bytearray(place.read_bytes())
    content[99] ^= 1
    place.write_bytes(bytes(content))
    (damage,) = verify_run(study.folder)
    assert damage.place == "models/codes/t5" and "step.onnx has sha256" in damage.found
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ModelError, match=r"step\.onnx has sha256"):
        open_session(study.folder / "models" / "codes" / "t5")
    repair_run(Study(one_model(toy), runs=f"s3://{bucket}/runs"), [damage])
    assert verify_run(study.folder) == []


def test_a_store_that_ignores_conditions_is_refused(bucket, monkeypatch):
    import genret_dask.storage.places

    folder = place_of(f"s3://{bucket}/runs")
    check_writable(folder)
    assert not files_in(folder)
    monkeypatch.setattr(
        genret_dask.storage.places,
        "_create_object",
        lambda path, content: path.write_bytes(content) or True,
    )
    with pytest.raises(GenretError, match="overwrites where it was asked to create"):
        check_writable(folder)


def test_creating_is_atomic_on_a_store(bucket):
    path = place_of(f"s3://{bucket}/runs") / "one"
    assert create_file(path, b"1") and create_file(path, b"1")  # our own, its answer lost
    assert not create_file(path, b"2")
    assert path.read_bytes() == b"1"


def test_a_store_out_of_reach_is_named(reach):
    reach(1)
    with pytest.raises(GenretError, match="cannot write to s3://bucket/runs"):
        check_writable(place_of("s3://bucket/runs"))


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/runs", "nosuch://bucket/runs"])
def test_urls_that_are_refused(url):
    with pytest.raises(InputError) as error:
        place_of(url)
    assert "secret" not in str(error.value)
