"""Cluster files: the shipped parse, bad ones are refused, a local one runs and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import dask
import psutil
import pytest
import yaml

from genret_dask.clusters import ClusterSpec, cluster_class, connect, load_cluster_spec
from genret_dask.clusters import client as clusters
from genret_dask.clusters import keywords as arguments
from genret_dask.clusters.certificates import make_certificates
from genret_dask.clusters.keywords import keywords
from genret_dask.clusters.security import ROLES, ClusterSecurity, tls_settings
from genret_dask.errors import GenretError, SpecError

# Workers cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SHIPPED = sorted((Path(__file__).parents[2] / "cluster_specs").glob("*.yaml"))
LOCAL = {"module": "dask.distributed", "class": "LocalCluster"}
SLURM = {"module": "dask_jobqueue", "class": "SLURMCluster"}
SSH = {"module": "dask.distributed", "class": "SSHCluster"}
PEM = {"ca": "ca.pem", "cert": "node.pem", "key": "node-key.pem"}
KUBE = {"module": "dask_kubernetes.operator", "class": "KubeCluster"}


@pytest.fixture
def load(tmp_path):
    def write(content):
        path = tmp_path / "cluster.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return load_cluster_spec(path)

    return write


@pytest.fixture
def interruptible():
    """Undo an inherited SIG_IGN, which a shell gives to what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def spec(base, **keys):
    return ClusterSpec.model_validate(base | keys)


# --- files ------------------------------------------------------------------------------------


def test_files_for_every_place_are_shipped():
    assert {path.stem for path in SHIPPED} == {
        "local",
        "local-cuda",
        "ssh",
        "slurm",
        "slurm-gpu",
        "kubernetes",
        "address",
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_file_is_valid_and_its_class_is_there_or_named(path):
    loaded = load_cluster_spec(path)
    if not path.stem.startswith("local"):
        pki = path.parent / "pki"
        assert loaded.security.ca == pki / "ca.pem"
        assert loaded.security.pair("client").key == pki / "node-key.pem"
    if loaded.address:
        assert loaded.address.startswith("tls://")
        return
    options = loaded.kwargs.get("scheduler_options", loaded.kwargs)
    assert options["dashboard_address"].startswith("127.0.0.1:")
    try:
        assert cluster_class(loaded).__name__ == loaded.class_
    except SpecError as error:
        assert loaded.kind.package in str(error)
        assert "pip install" in str(error)


def test_shipped_local_file_uses_every_core_on_loopback(monkeypatch):
    monkeypatch.setattr(arguments, "cpu_count", lambda: 5)
    path = next(path for path in SHIPPED if path.stem == "local")
    kwargs = keywords(load_cluster_spec(path))
    assert (kwargs["n_workers"], kwargs["threads_per_worker"], kwargs["processes"]) == (5, 1, True)
    assert kwargs["host"] == "127.0.0.1"
    assert kwargs["dashboard_address"].startswith("127.0.0.1:")


def test_bare_local_cluster_gets_our_defaults(monkeypatch):
    monkeypatch.setattr(arguments, "cpu_count", lambda: 6)
    kwargs = keywords(spec(LOCAL))
    assert (kwargs["n_workers"], kwargs["threads_per_worker"], kwargs["processes"]) == (6, 1, True)
    assert keywords(spec(LOCAL, scale=4))["n_workers"] == 4
    assert keywords(spec(LOCAL, kwargs={"n_workers": 3}))["n_workers"] == 3
    assert keywords(spec(LOCAL, kwargs={"threads_per_worker": 2}))["n_workers"] == 3
    adapt = {"minimum": 2, "maximum": 3}
    assert keywords(spec(LOCAL, adapt=adapt))["n_workers"] == 2


def test_dashboard_is_on_loopback_unless_a_host_is_named():
    for given, host in ((":0", "127.0.0.1"), ("0", "127.0.0.1"), ("0.0.0.0:0", "0.0.0.0")):
        kwargs = keywords(spec(LOCAL, kwargs={"dashboard_address": given}))
        assert kwargs["dashboard_address"] == f"{host}:0"
    kwargs = keywords(spec(LOCAL, kwargs={"dashboard_address": None}))
    assert kwargs["dashboard_address"] is None
    assert kwargs["scheduler_kwargs"] == {"dashboard_address": "127.0.0.1:0"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LOCAL | {"kwarg": {}}, ["unknown key kwarg", "kwargs", "class"]),
        (LOCAL | {"adapt": {"min": 1, "maximum": 2}}, ["adapt.min", "minimum"]),
        (LOCAL | {"adapt": {"minimum": 3, "maximum": 2}}, ["minimum must not exceed maximum"]),
        (LOCAL | {"adapt": {"minimum": 0, "maximum": 2}}, ["adapt.minimum"]),
        (LOCAL | {"adapt": {"minimum": 1, "maximum": 2}, "scale": 1}, ["scale or adapt"]),
        (LOCAL | {"scale": 0}, ["scale"]),
        (LOCAL | {"version": 2}, ["version"]),
        (LOCAL | {"timeout": -1}, ["timeout"]),
        (LOCAL | {"kwargs": [1]}, ["kwargs"]),
        (LOCAL | {"kwargs": {"threads_per_worker": "x"}}, ["kwargs.threads_per_worker"]),
        (LOCAL | {"kwargs": {"scheduler_kwargs": [1]}}, ["kwargs.scheduler_kwargs"]),
        (LOCAL | {"kwargs": {"processes": "no"}}, ["kwargs.processes must be int, not str"]),
        (SSH | {"kwargs": {"worker_options": "x"}}, ["kwargs.worker_options"]),
        (SLURM | {"scale": 1, "kwargs": {"job_script_prologue": 3}}, ["job_script_prologue"]),
        (
            SLURM | {"scale": 1, "kwargs": {"walltime": 14400}},
            ["kwargs.walltime must be str"],
        ),
        (KUBE | {"kwargs": {"env": "A=1"}}, ["kwargs.env"]),
        (LOCAL | {"args": [4]}, ["no args"]),
        (LOCAL | {"environment": {"A": [1]}}, ["environment"]),
        (LOCAL | {"environment": {"A=B": 1}}, ["environment.A=B"]),
        (
            {"module": "subprocess", "class": "Popen"},
            ["subprocess.Popen is not allowed", "SSHCluster"],
        ),
        ({"module": "dask_jobqueue", "class": "LocalCluster"}, ["not allowed"]),
        ({"module": "dask.distributed"}, ["module and class"]),
        ({}, ["module and class"]),
        (LOCAL | {"address": "tcp://a:1"}, ["runs already"]),
        ({"address": "tcp://a:1", "scale": 2}, ["runs already"]),
        ({"address": "http://a:1"}, ["address"]),
        ({"address": "tcp://a"}, ["address"]),
        ({"address": "tcp://a:1", "security": PEM}, ["security needs a tls:// address"]),
        ({"address": "tls://a:1", "security": {"ca": "a"}}, ["no cert and key for client"]),
        (LOCAL | {"security": {"ca": "a"}}, ["for scheduler, worker, client"]),
        (
            LOCAL | {"security": {"ca": "a", "client": {"cert": "b", "key": "c"}}},
            ["no cert and key for scheduler, worker"],
        ),
        (LOCAL | {"security": {"ca": "a", "cert": "b"}}, ["cert and key go together"]),
        (LOCAL | {"security": {**PEM, "certificate": "b"}}, ["security.certificate"]),
        (KUBE | {"security": PEM}, ["KubeCluster speaks plain TCP", "kubernetes.yaml"]),
        (LOCAL | {"lost_timeout": 0}, ["lost_timeout"]),
        (SLURM, ["starts no worker by itself"]),
        (SSH | {"scale": 2}, ["one worker a host"]),
        ("class: [", ["not YAML"]),
        ("- 1", ["list"]),
        ("class: !!python/name:os.system", ["not YAML"]),
    ],
)
def test_bad_file_is_refused(load, content, words):
    with pytest.raises(SpecError) as caught:
        load(content)
    assert "cluster.yaml" in caught.value.found
    for word in words:
        assert word in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match="absent.yaml"):
        load_cluster_spec(tmp_path / "absent.yaml")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(SpecError, match="pip install dask-jobqueue"):
        cluster_class(spec(SLURM, scale=1))
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(SpecError, match="pip install asyncssh"):
        cluster_class(spec(SSH))


def test_package_that_breaks_on_import_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace())
    with pytest.raises(SpecError, match="does not import"):
        cluster_class(spec(SLURM, scale=1))


@pytest.mark.parametrize(
    ("base", "given", "key", "expected"),
    [
        (SLURM, {}, "job_script_prologue", ["export A='x y'", "export B=2"]),
        (
            SLURM,
            {"job_script_prologue": ["module load x"]},
            "job_script_prologue",
            ["module load x", "export A='x y'", "export B=2"],
        ),
        (
            SSH,
            {"worker_options": {"nthreads": 1}},
            "worker_options",
            {"nthreads": 1, "env": {"A": "x y", "B": "2"}},
        ),
        (KUBE, {"env": {"A": "y", "C": "3"}}, "env", {"A": "x y", "B": "2", "C": "3"}),
        (
            KUBE,
            {"env": [{"name": "A", "value": "y"}, {"name": "C", "valueFrom": {"fieldRef": {}}}]},
            "env",
            [
                {"name": "C", "valueFrom": {"fieldRef": {}}},
                {"name": "A", "value": "x y"},
                {"name": "B", "value": "2"},
            ],
        ),
    ],
)
def test_environment_goes_where_the_class_takes_it(base, given, key, expected):
    scale = {} if base is SSH else {"scale": 1}
    made = spec(base, kwargs=given, environment={"A": "x y", "B": 2}, **scale)
    assert keywords(made)[key] == expected
    plain = spec(base, kwargs=given, **scale)
    assert keywords(plain) == given


def test_a_pods_environment_is_of_texts():
    made = spec(KUBE, scale=1, kwargs={"env": {"C": 3}})
    assert keywords(made)["env"] == {"C": "3"}


@pytest.mark.parametrize(
    "keys",
    [
        LOCAL | {"kwargs": {"memory_limit": "auto", "threads_per_worker": None}},
        SSH | {"kwargs": {"connect_options": [{"port": 22}, {"port": 2222}]}},
        SSH | {"kwargs": {"connect_options": None, "scheduler_options": {"port": [0, 8786]}}},
        SLURM | {"scale": 1, "kwargs": {"cores": None, "memory": None, "account": 7}},
        SLURM | {"class": "HTCondorCluster", "scale": 1, "kwargs": {"job_extra_directives": {}}},
    ],
)
def test_what_a_class_takes_is_not_refused(load, keys):
    assert load(keys).kwargs == keys["kwargs"]


# --- security ---------------------------------------------------------------------------------


@pytest.fixture
def pki(tmp_path):
    make_certificates(tmp_path / "pki", ["localhost"])
    return tmp_path / "pki"


def test_paths_are_taken_from_the_folder_of_the_file(load, tmp_path):
    own = {"cert": "c.pem", "key": "/keys/c.pem"}
    loaded = load(LOCAL | {"security": {**PEM, "client": own}})
    assert loaded.security.ca == tmp_path / "ca.pem"
    assert loaded.security.pair("worker").cert == tmp_path / "node.pem"
    assert loaded.security.pair("client").cert == tmp_path / "c.pem"
    assert loaded.security.pair("client").key == Path("/keys/c.pem")
    assert loaded.lost_timeout == 50


def test_a_local_cluster_under_tls(pki):
    files = {name: str(pki / file) for name, file in PEM.items()}
    kwargs = {"n_workers": 1, "dashboard_address": None}
    with connect(spec(LOCAL, kwargs=kwargs, security=files)) as client:
        info = client.scheduler_info()
        assert all(name.startswith("tls://") for name in (info["address"], *info["workers"]))
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        with pytest.raises(GenretError, match="no scheduler answered") as caught:
            address = info["address"].replace("tls", "tcp")
            with (
                dask.config.set({"distributed.comm.require-encryption": False}),
                connect(spec({"address": address, "timeout": 2})),
            ):
                pass
        assert "both sides speak TLS" in caught.value.fix
    assert dask.config.get("distributed.comm.tls.ca-file") is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda pki: (pki / "ca.pem").unlink(), "ca.pem cannot be read (No such file"),
        (lambda pki: (pki / "ca.pem").write_text("not PEM"), "holds no certificate"),
        (lambda pki: (pki / "node.pem").unlink(), "node.pem cannot be read (No such file"),
        (lambda pki: (pki / "node-key.pem").write_text(""), "not a certificate and its key"),
        (
            lambda pki: shutil.copy(pki / "ca-key.pem", pki / "node-key.pem"),
            "not a certificate and its key",
        ),
    ],
)
def test_a_file_of_security_that_is_no_good(pki, damage, words):
    damage(pki)
    files = {name: str(pki / file) for name, file in PEM.items()}
    with pytest.raises(SpecError) as caught, connect(spec(LOCAL, security=files)):
        pass
    assert words in caught.value.found and "genret-dask certificates" in caught.value.fix


def test_only_the_files_that_are_read_here_are_looked_at(pki):
    files = ClusterSecurity.model_validate(
        {
            "ca": pki / "ca.pem",
            "client": {"cert": pki / "node.pem", "key": pki / "node-key.pem"},
            "worker": {"cert": "/on/hosts.pem", "key": "/on/hosts-key.pem"},
        }
    )
    settings = tls_settings(files, ("client",))
    assert settings["distributed.comm.tls.worker.key"] == "/on/hosts-key.pem"
    with pytest.raises(SpecError, match="/on/hosts.pem cannot be read"):
        tls_settings(files, ("worker",))


def test_a_key_that_others_can_read_gets_a_warning(pki, caplog):
    files = ClusterSecurity(**{name: pki / file for name, file in PEM.items()})
    tls_settings(files, ROLES)
    assert not caplog.records
    (pki / "node-key.pem").chmod(0o640)
    tls_settings(files, ROLES)
    assert "chmod 600" in caplog.text and len(caplog.records) == 1


def test_a_tls_address_without_certificates_says_what_to_give():
    address = "tls://127.0.0.1:1"
    with (
        pytest.raises(SpecError, match="has no certificates") as caught,
        connect(spec({"address": address})),
    ):
        pass
    assert "security:" in caught.value.fix
    own = {"distributed.comm.tls.ca-file": "ca", "distributed.comm.tls.client.cert": "c"}
    with dask.config.set(own):
        assert clusters._security_settings(spec({"address": address})) == {}


def test_a_remote_cluster_without_security_gets_a_warning(caplog):
    for quiet in (spec(LOCAL), spec({"address": "tcp://127.0.0.1:1"})):
        clusters._security_settings(quiet)
    assert not caplog.records
    for loud in (spec(SSH), spec(SLURM, scale=1), spec({"address": "tcp://10.0.0.1:1"})):
        clusters._security_settings(loud)
    assert len(caplog.records) == 3 and "can run code" in caplog.text


def test_jobs_refuse_plain_text_and_older_tls(pki):
    files = {name: str(pki / file) for name, file in PEM.items()}
    kwargs = keywords(spec(SLURM, scale=1, security=files))
    assert kwargs["job_script_prologue"] == [
        "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True",
        "export DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION=1.3",
    ]
    assert kwargs["security"].tls_worker_key == files["key"]
    assert kwargs["security"].tls_min_version == ssl.TLSVersion.TLSv1_3


# --- running ----------------------------------------------------------------------------------


def _facts():
    return os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("GENRET_TEST")


def _holds_interrupts():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _children():
    return [child for child in psutil.Process().children(recursive=True) if _is_worker(child)]


def _is_worker(process):
    # multiprocessing's resource tracker lives as long as this process does.
    try:
        return process.is_running() and "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _gone(processes, seconds=10):
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_two_processes_run_a_task_and_leave_nothing(monkeypatch, recwarn, interruptible):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GENRET_TEST", raising=False)
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    kwargs = {"n_workers": 2, "dashboard_address": f"127.0.0.1:{port}"}
    with taken, connect(spec(LOCAL, kwargs=kwargs, environment={"GENRET_TEST": "x"})) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        facts = client.run(_facts)
        started = _children()
        assert {pid for pid, _, _ in facts.values()} == {process.pid for process in started}
        assert [rest for _, *rest in facts.values()] == [["1", "x"]] * 2
        assert set(client.run(_holds_interrupts).values()) == {True}
        info = client.scheduler_info()
        assert info["address"].startswith("tcp://127.0.0.1:")
        assert [worker["nthreads"] for worker in info["workers"].values()] == [1, 1]
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        assert str(port) not in client.dashboard_link
        settings = client.run_on_scheduler(_scheduler_settings)
        assert settings == (10, "1h")
        assert set(client.run(_sampling).values()) == {"100ms"}
    assert _gone(started)
    assert client.status == "closed"
    assert not {"OMP_NUM_THREADS", "GENRET_TEST"} & set(os.environ)
    assert dask.config.get("distributed.scheduler.allowed-failures") == 3
    assert not [warning for warning in recwarn if "already in use" in str(warning.message)]


def _scheduler_settings(dask_scheduler=None):
    return dask_scheduler.allowed_failures, dask.config.get(
        "distributed.deploy.lost-worker-timeout"
    )


def _sampling():
    return dask.config.get("distributed.worker.profile.interval")


def test_environment_of_the_file_beats_the_shell(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    kwargs = {"n_workers": 1, "dashboard_address": None}
    with connect(spec(LOCAL, kwargs=kwargs, environment={"OMP_NUM_THREADS": 3})) as client:
        assert {threads for _, threads, _ in client.run(_facts).values()} == {"3"}
    assert os.environ["OMP_NUM_THREADS"] == "64"


def test_an_address_is_used_and_left_running():
    kwargs = {"n_workers": 1, "dashboard_address": None}
    with connect(spec(LOCAL, kwargs=kwargs)) as outer:
        address = outer.scheduler.address
        with (
            pytest.raises(RuntimeError, match="ours"),
            connect(spec({"address": address})) as inner,
        ):
            assert inner.submit(max, [1, 2]).result(timeout=30) == 2
            raise RuntimeError("ours")
        assert outer.submit(sum, [1, 2]).result(timeout=30) == 3
        started = _children()
    assert _gone(started)


def test_an_interrupt_inside_closes_the_cluster():
    kwargs = {"n_workers": 1, "dashboard_address": None}
    with pytest.raises(KeyboardInterrupt), connect(spec(LOCAL, kwargs=kwargs)) as client:
        started = _children()
        raise KeyboardInterrupt
    assert len(started) == 1 and _gone(started)
    assert client.status == "closed"


def test_an_interrupt_during_the_start_closes_what_was_started(monkeypatch, interruptible):
    steps = []

    def start(**kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        steps.append("started")
        return SimpleNamespace(close=lambda: steps.append("closed"))

    monkeypatch.setattr(clusters, "cluster_class", lambda spec: start)
    # The system gives a signal that this thread blocks to any other thread of the process.
    done = threading.Event()
    threading.Thread(target=done.wait).start()
    try:
        with pytest.raises(KeyboardInterrupt), connect(spec(LOCAL)):
            steps.append("entered")
    finally:
        done.set()
    assert steps == ["started", "closed"]
    assert not _holds_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_cluster_without_a_client_is_closed(monkeypatch):
    closed = []
    fake = SimpleNamespace(
        close=lambda: closed.append("cluster"), scale=lambda n: closed.append(f"scaled to {n}")
    )
    monkeypatch.setattr(clusters, "cluster_class", lambda spec: lambda **kwargs: fake)
    # `fake` has no scheduler: the client cannot be built.
    with pytest.raises(GenretError, match="no scheduler answered"), connect(spec(SLURM, scale=2)):
        pass
    assert closed == ["scaled to 2", "cluster"]


def test_no_scheduler_at_the_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    address = f"tcp://127.0.0.1:{port}"
    with (
        pytest.raises(GenretError, match=f"no scheduler answered at {address}") as caught,
        connect(spec({"address": address, "timeout": 1})),
    ):
        pass
    assert caught.value.exit_code == 1
    assert time.monotonic() - start < 20


def test_no_worker_in_time_is_an_error_that_closes():
    kwargs = {"n_workers": 0, "dashboard_address": None}
    with (
        pytest.raises(GenretError, match="no worker after 0.2 s"),
        connect(spec(LOCAL, kwargs=kwargs, timeout=0.2)),
    ):
        pass


@pytest.mark.parametrize(
    ("made", "name", "near"),
    [
        (spec(LOCAL, kwargs={"n_worker": 2}), "n_worker", "n_workers"),
        (spec(LOCAL, kwargs={"memorylimit": "1GB"}), "memorylimit", "memory_limit"),
        (spec(SLURM, scale=1, kwargs={"core": 2, "memory": "1GB"}), "core", "cores"),
        (spec(SLURM, scale=1, kwargs={"partition": "x"}), "partition", None),
    ],
)
def test_an_argument_that_the_class_does_not_have_is_named(made, name, near):
    if made.module == SLURM["module"]:
        pytest.importorskip("dask_jobqueue")
    with (
        pytest.raises(SpecError) as caught,
        connect(made),
    ):
        pass
    assert caught.value.found == f"{made.class_} has no argument {name}"
    assert near is None or near in caught.value.expected


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (spec(SSH, args=[["a", "b"]], kwargs={"hostz": 1}), "\\(hostz\\): .* argument 'hostz'"),
        (spec(LOCAL, kwargs={"memory_limit": "x"}), "'x' as a byte unit"),
        (spec(LOCAL, kwargs={"interface": "nope"}), "'nope' is not a valid network interface"),
        (spec(KUBE, scale=1, kwargs={"env": ["A=1"]}), r"kwargs \(env\)"),
    ],
)
def test_what_a_class_refuses_is_one_message(monkeypatch, made, words):
    if made.module == KUBE["module"]:
        monkeypatch.setattr(clusters, "cluster_class", lambda spec: None)
    with pytest.raises(GenretError, match=words), connect(made):
        pass


def test_a_size_of_memory_that_is_none():
    with pytest.raises(SpecError, match="memory of dask.distributed.LocalCluster cannot be read"):
        arguments.memory_limit(spec(LOCAL, kwargs={"memory_limit": "x"}))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (TypeError("unexpected keyword 'x'"), SpecError, "refused its args or kwargs"),
        (RuntimeError("sbatch: not found"), GenretError, "did not start: RuntimeError: sbatch"),
    ],
)
def test_a_class_that_fails(monkeypatch, error, kind, words):
    def broken(**kwargs):
        raise error

    monkeypatch.setattr(clusters, "cluster_class", lambda spec: broken)
    with pytest.raises(GenretError, match=words) as caught, connect(spec(SLURM, scale=1)):
        pass
    assert type(caught.value) is kind


def test_a_kubernetes_cluster_that_did_not_start_is_closed_at_once(monkeypatch, caplog):
    class Pods:
        _instances: set = set()
        name, shutdown_on_close = "toy", True

        def __init__(self, **kwargs):
            self._instances.add(self)
            raise ValueError("no credentials")

        def close(self, timeout):
            raise ValueError("no credentials to close")

    others = object.__new__(Pods)
    Pods._instances.add(others)
    monkeypatch.setattr(clusters, "cluster_class", lambda spec: Pods)
    with pytest.raises(GenretError, match="no credentials"), connect(spec(KUBE, scale=1)):
        pass
    (ours,) = Pods._instances - {others}
    assert (ours.shutdown_on_close, others.shutdown_on_close) == (False, True)
    assert "toy could not be closed (no credentials to close)" in caplog.text


def test_own_dask_configuration_is_kept():
    with dask.config.set({"distributed.scheduler.allowed-failures": 7}):
        ours = clusters._settings()
    assert ours["distributed.deploy.lost-worker-timeout"] == "1h"
    assert "distributed.scheduler.allowed-failures" not in ours


@pytest.mark.chaos
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_orphans_after_a_signal(tmp_path, how):
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            import time
            from genret_dask.clusters import ClusterSpec, connect

            if __name__ == "__main__":
                signal.signal(signal.SIGINT, signal.default_int_handler)
                keys = {"module": "distributed", "class": "LocalCluster"}
                keys["kwargs"] = {"n_workers": 2, "dashboard_address": None}
                with connect(ClusterSpec.model_validate(keys)) as client:
                    future = client.submit(time.sleep, 60)
                    print("ready", flush=True)
                    future.result()
            """
        )
    )
    # A session of its own: Ctrl-C reaches every process of the terminal's group.
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert program.stdout.readline() == "ready\n"
        started = psutil.Process(program.pid).children(recursive=True)
        assert len([process for process in started if _is_worker(process)]) == 2
        if how == signal.SIGINT:
            os.killpg(program.pid, how)
        else:
            program.send_signal(how)
        program.communicate(timeout=40)
        assert program.returncode in (-how, 130, 1)
        assert _gone(started, 20)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
