"""A small study, its serial cube, and the servers that a cluster needs, each for one module."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from genret_dask.clusters.certificates import make_certificates
from genret_dask.specs import load_spec
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.runs import TINY, differing
from tests.servers.servers import wait_for

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@dataclass(frozen=True)
class SmallStudy:
    """Four models to train, export and search, and the cube that they give in one process."""

    config: Path
    cube: Path

    def start(self, cluster: dict[str, Any], folder: Path) -> subprocess.Popen:
        """``genret-dask sweep`` on the cluster that the file describes."""
        file = folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(cluster))
        # SLURM's jobs find the variables of the shell that submits them.
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            return subprocess.Popen(
                [
                    *(sys.executable, "-c", "from genret_dask.cli import main; main()"),
                    *("sweep", "--cluster", str(file), "--config", str(self.config)),
                    *("--runs", str(folder / "runs")),
                ],
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def wait_for_training(self, sweep: subprocess.Popen, folder: Path) -> None:
        """Until one of the models is trained, while others still are."""
        checkpoints = folder / "runs" / "toy" / "checkpoints"

        def happens() -> bool:
            assert sweep.poll() is None, (folder / "err").read_text()
            return any(checkpoints.glob("codes/*/artefact.json"))

        wait_for(happens, "a trained model", 180)

    def finish(self, sweep: subprocess.Popen, folder: Path) -> None:
        """Until the sweep ends well, with the cube of the serial run."""
        try:
            code = sweep.wait(240)
        finally:
            if sweep.poll() is None:
                sweep.kill()
                sweep.wait()
        said = (folder / "err").read_text()
        assert code == 0, said
        assert not differing(self.cube, folder / "runs" / "toy" / "cube.zarr"), said


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> SmallStudy:
    root = tmp_path_factory.mktemp("study")
    write_beir(make_collection(), root / "beir")
    config = root / "config.yaml"
    content = {
        "name": "toy",
        "dataset": {"kind": "beir", "path": str(root / "beir")},
        "identifiers": {"levels": 2, "codes": 6},
        "tokenizer": {"vocab_size": 400},
        "training": {"examples": 1024, "batch_size": 16, "evaluations": 2},
        "models": [
            {"family": family, "config": TINY[family], "name": family, "fractions": [0.5, 1.0]}
            for family in TINY
        ],
        "inference": {"beams": [1, 3, 10], "negatives": 12, "shard_queries": 4},
        "fits": {"bootstrap": 20},
    }
    config.write_text(yaml.safe_dump(content))
    return SmallStudy(config, Study(load_spec(config), runs=root / "serial").search())


@pytest.fixture(scope="session")
def pki(tmp_path_factory) -> dict[str, str]:
    """``security`` of a cluster file, and the pair of another authority beside it."""
    return security(tmp_path_factory.mktemp("pki"))


def security(folder: Path) -> dict[str, str]:
    make_certificates(folder, ["localhost", "127.0.0.1"])
    names = {"ca": "ca.pem", "cert": "node.pem", "key": "node-key.pem"}
    return {key: str(folder / name) for key, name in names.items()}


def _needs_root(*programs: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    if os.geteuid() != 0:
        pytest.skip("starting these servers takes root")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _script(name: str, *arguments: str, check: bool = True) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    # Daemons keep what they inherit open: a pipe would never end.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            ["bash", str(HERE / name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": path},
            timeout=60,
        )
        output.seek(0)
        assert not check or done.returncode == 0, output.read()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """A cluster file's args and kwargs: scheduler and two workers on this host, by SSH."""
    pytest.importorskip("asyncssh")
    _needs_root("sshd", "ssh-keygen")
    folder, port = tmp_path_factory.mktemp("sshd"), _free_port()
    try:
        _script("sshd.sh", "start", str(folder), str(port))
        yield {
            "module": "dask.distributed",
            "class": "SSHCluster",
            "args": [["127.0.0.1"] * 3],
            "kwargs": {
                "connect_options": {
                    "username": "root",
                    "port": port,
                    "client_keys": [str(folder / "user")],
                    "known_hosts": str(folder / "known_hosts"),
                },
                "remote_python": sys.executable,
                "worker_options": {"nthreads": 1, "memory_limit": "2GB", "host": "127.0.0.1"},
                "scheduler_options": {
                    "port": 0,
                    "host": "127.0.0.1",
                    "dashboard_address": "127.0.0.1:0",
                },
            },
        }
    finally:
        _script("sshd.sh", "stop", str(folder), check=False)


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, Any]]:
    """A cluster file's class and kwargs, less the jobs' sizes and numbers."""
    pytest.importorskip("dask_jobqueue")
    _needs_root("slurmctld", "slurmd", "munged", "setpriv")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    before = os.environ.get("SLURM_CONF")
    try:
        _script("slurm.sh", "start", str(folder), str(_free_port()), str(_free_port()))
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield {
            "module": "dask_jobqueue",
            "class": "SLURMCluster",
            "kwargs": {
                "queue": "normal",
                "walltime": "00:10:00",
                "python": sys.executable,
                "interface": "lo",
                "local_directory": str(folder / "scratch"),
                "log_directory": str(folder / "jobs"),
                "job_directives_skip": ["--mem"],
                "death_timeout": 30,
                "scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
            },
        }
    finally:
        _script("slurm.sh", "stop", str(folder), check=False)
        if before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)
