"""The preflight against real workers that are not what they should be."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from contextlib import contextmanager

import numpy
import pytest
from click.testing import CliRunner
from distributed import Client
from distributed.versions import get_versions

from genret_dask.cli import main
from genret_dask.clusters.preflight import Gate, check_cluster
from genret_dask.errors import GenretError
from genret_dask.specs import InferenceSpec, ModelSpec, PretrainedSpec, SweepSpec
from tests.servers.servers import SECONDS, dask_processes, wait_for

SPEC = SweepSpec()

pytestmark = pytest.mark.cluster


@contextmanager
def client_of(dask, workers):
    with Client(dask.address) as client:
        client.wait_for_workers(workers, timeout=SECONDS)
        yield client


needs_mounts = pytest.mark.skipif(
    os.name != "posix" or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode,
    reason="needs unshare and the right to mount",
)


def lines(client, folder, spec=SPEC):
    """The problems that the preflight names, without their indent."""
    with pytest.raises(GenretError) as caught:
        check_cluster(client, spec, folder)
    assert caught.value.exit_code == 1
    return [line.strip() for line in caught.value.found.splitlines()[1:]]


def package(folder, name, version):
    """A search path on which another version of a package is found first."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(folder)


def bare_python(folder):
    """An interpreter with every package of this one but those installed as editable."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    code = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    paths = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    with open(f"{site.strip()}/packages.pth", "w") as file:
        file.write("\n".join([*paths, sysconfig.get_path("purelib")]))
    return str(python)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    with dask_processes(root / "dask", workers=2) as dask, client_of(dask, 2) as client:
        yield client


def test_a_healthy_cluster_passes_and_nothing_is_left_behind(healthy, tmp_path):
    check_cluster(healthy, SPEC, tmp_path / "runs" / "toy")
    assert list((tmp_path / "runs" / "toy").iterdir()) == []


def test_what_the_study_asks_of_the_workers(healthy, tmp_path):
    inference = InferenceSpec(provider="cuda")
    first, second = lines(healthy, tmp_path, SPEC.model_copy(update={"inference": inference}))
    assert first.startswith("2 of 2 workers (tcp://127.0.0.1:")
    assert "inference.provider cuda is not in its onnxruntime (" in first
    assert "no GPU is visible" in second
    inference = InferenceSpec(memory="3GB")
    (line,) = lines(healthy, tmp_path, SPEC.model_copy(update={"inference": inference}))
    assert "limit of 1.86 GiB, less than the 2.79 GiB that inference.memory asks for" in line
    model = ModelSpec(family="t5", name="x", pretrained=PretrainedSpec(path="elsewhere"))
    (line,) = lines(healthy, tmp_path, SPEC.model_copy(update={"models": (model,)}))
    assert "the pretrained weights elsewhere are not there" in line
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_that_cannot_be_made(healthy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenretError, match="cannot write to"):
        check_cluster(healthy, SPEC, tmp_path / "file" / "toy")


def test_dasks_own_setting_for_dying_workers_gets_a_warning(healthy, tmp_path, caplog):
    check_cluster(healthy, SPEC, tmp_path)
    assert "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=10" in caplog.text


def test_a_build_for_a_gpu_is_the_same_version(tmp_path):
    gate = Gate(SPEC, tmp_path, "token")
    here = get_versions(gate.packages)
    version = {name: here["packages"][name].partition("+")[0] for name in ("torch", "onnxruntime")}
    changes = {"onnxruntime": None, "onnxruntime-gpu": version["onnxruntime"]}
    changes["torch"] = version["torch"] + "+cu128"
    assert gate.differences({**here, "packages": {**here["packages"], **changes}}) == []
    changes |= {"onnxruntime-gpu": "1.2", "torch": "2.1+cu128"}
    other = {**here["host"], "python": "3.99.1.final.0"}
    assert gate.differences({"host": other, "packages": {**here["packages"], **changes}}) == [
        f"Python 3.99, here {sys.version_info[0]}.{sys.version_info[1]}",
        f"torch 2.1, here {version['torch']}",
        f"onnxruntime 1.2, here {version['onnxruntime']}",
    ]


def test_other_versions_and_a_missing_package_are_all_named_at_once(tmp_path, caplog):
    older = package(tmp_path / "older", "numpy", "1.0")
    with dask_processes(
        tmp_path / "dask", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="10"
    ) as dask:
        dask.worker()
        for _ in range(4):
            dask.worker(PYTHONPATH=older)
        dask.worker(python=bare_python(tmp_path / "bare"))
        with client_of(dask, 6) as client:
            found = lines(client, tmp_path / "run")
    (numpy_line,) = [line for line in found if "numpy" in line]
    assert numpy_line.startswith("4 of 6 workers (tcp://") and ", and 1 more)" in numpy_line
    assert numpy_line.endswith(f": numpy 1.0, here {numpy.__version__}")
    (missing,) = [line for line in found if "No module named 'genret_dask" in line]
    assert missing.startswith("1 of 6 workers (tcp://")
    assert len(found) == 2
    assert "ALLOWED_FAILURES" not in caplog.text


@needs_mounts
def test_a_run_directory_that_is_not_the_same_one(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    mount = f'mount --bind {elsewhere} {run} && exec "$@"'
    read_only = f'mount --bind {run} {run} && mount -o remount,bind,ro {run} && exec "$@"'
    with dask_processes(tmp_path / "dask") as dask:
        dask.worker("unshare", "-m", "sh", "-c", mount, "sh")
        dask.worker("unshare", "-m", "sh", "-c", read_only, "sh")
        with client_of(dask, 2) as client:
            found = lines(client, run)
    assert any("not the run directory seen from here" in line for line in found)
    assert any("cannot be read or written to: Read-only file system" in line for line in found)
    assert len(found) == 2 and all(line.startswith("1 of 2 workers") for line in found)
    assert list(run.iterdir()) == []


def _statuses(client):
    return [info["status"] for info in client.scheduler_info()["workers"].values()]


@needs_mounts
def test_a_worker_with_another_run_directory_that_joins_later_is_sent_away(tmp_path, caplog):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    mount = f'mount --bind {elsewhere} {run} && exec "$@"'
    with dask_processes(tmp_path / "dask", workers=1) as dask, client_of(dask, 1) as client:
        check_cluster(client, SPEC, run, newcomers=True)
        dask.worker("unshare", "-m", "sh", "-c", mount, "sh")
        wait_for(lambda: "was sent away" in caplog.text, "a word about it")
        assert "not the run directory seen from here" in caplog.text
        assert len(client.scheduler_info()["workers"]) <= 2
        dask.worker()
        wait_for(lambda: _statuses(client) == ["running"] * 2, "a good one")


def test_a_wrong_worker_that_joins_later_is_sent_away(tmp_path, caplog):
    older = package(tmp_path / "older", "numpy", "1.0")
    with dask_processes(tmp_path / "dask", workers=1) as dask, client_of(dask, 1) as client:
        check_cluster(client, SPEC, tmp_path / "run", newcomers=True)
        (first,) = client.scheduler_info()["workers"]
        dask.worker(PYTHONPATH=older)
        wait_for(lambda: "was sent away" in caplog.text, "a word about it")
        assert "numpy 1.0, here " in caplog.text
        log = dask.folder / "worker-2.log"
        wait_for(lambda: "Closing Nanny" in log.read_text(), "its end")
        dask.worker(python=bare_python(tmp_path / "bare"))
        wait_for(lambda: "No module named 'genret_dask'" in caplog.text, "a word about it")
        dask.worker()
        wait_for(lambda: _statuses(client) == ["running"] * 2, "a good one")
        workers = client.scheduler_info()["workers"]
        assert first in workers
        version = client.run(lambda: __import__("importlib.metadata").metadata.version("numpy"))
        assert version == dict.fromkeys(workers, numpy.__version__)


def test_a_command_on_workers_that_are_not_ready_ends_with_the_lines(tmp_path):
    cluster = tmp_path / "cluster.yaml"
    with dask_processes(tmp_path / "dask") as dask:
        dask.worker(PYTHONPATH=package(tmp_path / "older", "zarr", "1.0"))
        cluster.write_text(f"address: {dask.address}\n")
        runs = tmp_path / "runs"
        result = CliRunner().invoke(main, ["train", "--cluster", str(cluster), "--runs", str(runs)])
    assert result.exit_code == 1
    problem = next(line for line in result.stderr.splitlines() if "zarr 1.0, here" in line)
    assert problem.startswith("  1 of 1 workers (tcp://127.0.0.1:")
    assert "Traceback" not in result.output and "docs/clusters.md" in result.stderr
    left = {path.parent.name for path in runs.rglob("*") if path.is_file()}
    assert left == {".lease"}
