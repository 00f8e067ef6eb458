"""Who has no certificate of the cluster's authority neither runs anything there nor joins it."""

from __future__ import annotations

import socket
import ssl
import sys

import dask
import pytest
from distributed import Client
from distributed.security import Security

from genret_dask.clusters.security import ROLES, ClusterSecurity, tls_settings
from tests.servers.conftest import security
from tests.servers.servers import dask_processes, process, wait_for
from tests.servers.test_sweeps import environment


def certified(files, **changes):
    """Dask's security of one who shows these files."""
    with dask.config.set(tls_settings(ClusterSecurity(**files), ROLES)):
        return Security(**changes)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Files of another authority."""
    return security(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def cluster(pki, tmp_path_factory):
    """A scheduler with one worker under TLS, and a client that may come in."""
    folder = tmp_path_factory.mktemp("strangers") / "dask"
    with (
        dask_processes(folder, workers=1, **environment(pki)) as running,
        Client(running.address, security=certified(pki)) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        yield running, client


def census(client):
    """Workers, clients and tasks that the scheduler knows, and tasks that it has ever known."""

    def count(dask_scheduler):
        clients = [name for name in dask_scheduler.clients if name.startswith("Client-")]
        return (
            sorted(dask_scheduler.workers),
            sorted(clients),
            len(dask_scheduler.tasks),
            dask_scheduler.transition_counter,
        )

    return client.run_on_scheduler(count)


class Careless(Security):
    """Shows a certificate, or none, and checks nobody else's: only the other side can refuse."""

    __slots__ = ("shown",)

    def __init__(self, shown=None):
        super().__init__(require_encryption=True)
        self.shown = shown

    def get_connection_args(self, role):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.shown:
            context.load_cert_chain(*self.shown)
        return {"ssl_context": context, "require_encryption": True, "extra_conn_args": {}}


def temporary(folder):
    """The files of a certificate that Dask makes for itself."""
    made = Security.temporary()
    for name, text in (("cert", made.tls_client_cert), ("key", made.tls_client_key)):
        (folder / f"{name}.pem").write_text(text)
    return folder / "cert.pem", folder / "key.pem"


CLIENTS = {
    "plain tcp": lambda stranger, folder: None,
    "no certificate": lambda stranger, folder: Careless(),
    "another authority's certificate": lambda stranger, folder: Careless(
        (stranger["cert"], stranger["key"])
    ),
    "a temporary certificate": lambda stranger, folder: Careless(temporary(folder)),
}


@pytest.mark.parametrize("who", CLIENTS)
def test_a_stranger_client_is_refused(cluster, stranger, tmp_path, who):
    running, client = cluster
    before = census(client)
    address = running.address.replace("tls", "tcp") if who == "plain tcp" else running.address
    canary = tmp_path / "canary"
    with (
        pytest.raises(OSError, match="(?i)reset by peer|EOF|alert"),
        Client(address, security=CLIENTS[who](stranger, tmp_path), timeout=3) as intruder,
    ):
        intruder.submit(canary.write_text, "was here").result(timeout=5)
    assert census(client) == before
    assert not canary.exists()


@pytest.mark.parametrize("who", ["stranger's certificate", "plain tcp"])
def test_a_stranger_worker_does_not_join(cluster, stranger, tmp_path, who):
    running, client = cluster
    before = census(client)
    settings = environment(stranger) if who != "plain tcp" else {}
    scheme = "tls" if settings else "tcp"
    command = [
        *(sys.executable, "-m", "distributed.cli.dask_worker"),
        running.address.replace("tls", scheme),
        *("--no-nanny", "--host", "127.0.0.1", "--no-dashboard", "--death-timeout", "4"),
        *("--local-directory", str(tmp_path)),
    ]
    log = tmp_path / "worker.log"
    with process(command, log, **settings) as worker:
        wait_for(lambda: worker.poll() is not None, "the worker's end")
    assert "Registered to" not in log.read_text() and worker.returncode != 0
    assert census(client) == before
    assert client.submit(sum, [1, 2]).result(timeout=30) == 3


def handshake(address, pki, version):
    """Speak TLS of exactly this version, with a certificate that is welcome."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pki["ca"])
    context.load_cert_chain(pki["cert"], pki["key"])
    context.minimum_version = context.maximum_version = version
    host, _, port = address.removeprefix("tls://").rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain) as spoken,
    ):
        return spoken.version()


def test_tls_below_1_3_is_refused_by_scheduler_and_worker(cluster, pki):
    running, client = cluster
    (worker,) = client.scheduler_info()["workers"]
    for address in (running.address, worker):
        assert handshake(address, pki, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
            handshake(address, pki, ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("shown", [False, True])
def test_a_worker_takes_no_orders_from_strangers(cluster, stranger, shown):
    _, client = cluster
    (worker,) = client.scheduler_info()["workers"]
    context = Careless((stranger["cert"], stranger["key"]) if shown else None)
    context = context.get_connection_args("client")["ssl_context"]
    host, _, port = worker.removeprefix("tls://").rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(plain) as spoken,
    ):
        # In TLS 1.3 the refusal of a client's certificate comes with the first read.
        if spoken.recv(1) == b"":
            raise ConnectionError("closed")


def test_the_same_client_with_a_certificate_of_the_cluster_is_let_in(cluster, pki, tmp_path):
    running, _ = cluster
    canary = tmp_path / "canary"
    welcome = Careless((pki["cert"], pki["key"]))
    with Client(running.address, security=welcome, timeout=3) as client:
        assert client.submit(canary.write_text, "was here").result(timeout=30) == 8
    assert canary.exists()
