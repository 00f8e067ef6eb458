"""The same sweep on every kind of cluster gives the serial run's cube, byte for byte."""

from __future__ import annotations

import subprocess
import time

import psutil
import pytest

from genret_dask.clusters import ClusterSpec, connect
from tests.servers.servers import dask_processes, wait_for

FACTS = {
    "allowed": lambda dask_scheduler: dask_scheduler.allowed_failures,
    "addresses": lambda dask_scheduler: (dask_scheduler.address, list(dask_scheduler.workers)),
}


def environment(pki):
    """What ``dask scheduler`` and ``dask worker`` read their certificates from."""
    files = {f"{role}__{name}": pki[name] for role in ("SCHEDULER", "WORKER", "CLIENT")
             for name in ("cert", "key")}  # fmt: skip
    settings = {
        "REQUIRE_ENCRYPTION": "True",
        "DEFAULT_SCHEME": "tls",
        "TLS__MIN_VERSION": "1.3",
        "TLS__CA_FILE": pki["ca"],
        **{f"TLS__{name.upper()}": path for name, path in files.items()},
    }
    return {f"DASK_DISTRIBUTED__COMM__{name}": text for name, text in settings.items()}


def test_local_cluster(study, tmp_path):
    kwargs = {"n_workers": 2, "dashboard_address": None}
    cluster = {"module": "dask.distributed", "class": "LocalCluster", "kwargs": kwargs}
    study.finish(study.start(cluster, tmp_path), tmp_path)


def test_address_of_a_scheduler_and_workers_under_tls(study, pki, tmp_path):
    with dask_processes(tmp_path / "dask", workers=2, **environment(pki)) as dask:
        assert dask.address.startswith("tls://127.0.0.1:")
        cluster = {"address": dask.address, "security": pki}
        study.finish(study.start(cluster, tmp_path), tmp_path)
        said = (tmp_path / "err").read_text()
        assert "ALLOWED_FAILURES=10" in said
        # The cluster is not ours: it still runs.
        assert dask.scheduler.poll() is None


# --- SSH ----------------------------------------------------------------------------------------


def test_settings_reach_the_scheduler_and_workers_behind_ssh(ssh, pki):
    options = {**ssh["kwargs"]["worker_options"], "n_workers": 2}
    cluster = {**ssh, "args": [["127.0.0.1"] * 2], "kwargs": {**ssh["kwargs"]}}
    cluster["kwargs"]["worker_options"] = options
    extra = {"security": pki, "environment": {"GENRET_TEST": 1}}
    with connect(ClusterSpec.model_validate({**cluster, **extra})) as client:
        assert client.run_on_scheduler(FACTS["allowed"]) == 10
        scheduler, workers = client.run_on_scheduler(FACTS["addresses"])
        assert len(workers) == 2
        assert all(name.startswith("tls://127.0.0.1:") for name in (scheduler, *workers))
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        found = client.run(lambda: __import__("os").environ["GENRET_TEST"])
        assert list(found.values()) == ["1", "1"]


def test_a_worker_killed_behind_ssh_is_replaced(study, ssh, pki, tmp_path):
    sweep = study.start({**ssh, "security": pki}, tmp_path)
    study.wait_for_training(sweep, tmp_path)
    before = set(_workers())
    victim = min(before, key=lambda process: process.pid)
    victim.kill()
    wait_for(lambda: set(_workers()) - before, "another worker process")
    study.finish(sweep, tmp_path)
    assert not psutil.wait_procs(before, timeout=20)[1]


def _workers():
    """Worker processes of nannies that sshd started, which `dask_spec` names."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        try:
            parent = process.parent()
            if "spawn_main" in " ".join(process.cmdline()) and parent is not None:
                line = " ".join(parent.cmdline())
                if "distributed.cli.dask_spec" in line and "Nanny" in line:
                    found.append(process)
        except psutil.Error:
            continue
    return found


# --- SLURM --------------------------------------------------------------------------------------


def _jobs(*states):
    listed = subprocess.run(
        ["squeue", "--noheader", "--format", "%i", "--states", ",".join(states)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def _kill(job):
    subprocess.run(["scancel", "--signal", "KILL", "--full", job], check=True)


def slurm_cluster(slurm, pki, processes, jobs):
    kwargs = {**slurm["kwargs"], "cores": processes, "processes": processes}
    kwargs["memory"] = f"{2 * processes}GB"
    workers = processes * (jobs - 1) + 1  # they are counted in whole jobs
    adapt = {"minimum": workers, "maximum": workers, "replace_after": 3}
    return {**slurm, "kwargs": kwargs, "adapt": adapt, "security": pki}


def test_a_killed_slurm_job_is_replaced_and_the_run_ends_right(study, slurm, pki, tmp_path):
    sweep = study.start(slurm_cluster(slurm, pki, processes=2, jobs=2), tmp_path)
    study.wait_for_training(sweep, tmp_path)
    before = _jobs("RUNNING")
    assert len(before) == 2
    _kill(min(before))
    wait_for(lambda: _jobs("RUNNING", "PENDING") - before, "another job")
    study.finish(sweep, tmp_path)
    wait_for(lambda: not _jobs("RUNNING", "PENDING", "COMPLETING"), "an empty queue")


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_adapt_keeps_the_number_of_jobs(slurm, pki, processes):
    spec = ClusterSpec.model_validate(slurm_cluster(slurm, pki, processes, jobs=2))
    with connect(spec) as client:
        client.wait_for_workers(2 * processes, timeout=60)
        assert client.run_on_scheduler(FACTS["allowed"]) == 10
        scheduler, workers = client.run_on_scheduler(FACTS["addresses"])
        assert all(name.startswith("tls://127.0.0.1:") for name in (scheduler, *workers))
        before = _jobs("RUNNING")
        assert len(before) == 2
        time.sleep(2.5)  # a job is missed once it was there when adapt looked, every second
        assert _jobs("RUNNING", "PENDING") == before
        _kill(min(before))
        new = wait_for(lambda: _jobs("RUNNING", "PENDING") - before, "another job")
        assert len(new) == 1
        wait_for(
            lambda: (
                len(set(client.run_on_scheduler(FACTS["addresses"])[1]) - set(workers)) == processes
            ),
            "its workers",
        )
        client.wait_for_workers(2 * processes, timeout=60)
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    wait_for(lambda: not _jobs("RUNNING", "PENDING", "COMPLETING"), "an empty queue")
