"""Starts or reaches a Dask cluster, and connects a client to it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from genret_dask.clusters.keywords import check_names, keywords, strings
from genret_dask.clusters.process import environ, interrupts_held
from genret_dask.clusters.security import Role, has_tls_settings, tls_settings
from genret_dask.clusters.spec import Adapt, ClusterSpec, workers_a_host
from genret_dask.errors import GenretError, SpecError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


# Dask's own defaults lose runs: workers killed by others condemn an innocent task after three
# deaths, and a nanny that takes longer than 15 s to restart its worker is dropped for good. And
# they check every event loop 50 times and sample every task 100 times a second, which takes 4 % of
# a search where each core has a worker.
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 10,
    "distributed.deploy.lost-worker-timeout": "1h",
    "distributed.admin.tick.interval": "200ms",
    "distributed.worker.profile.interval": "100ms",
}


def cluster_class(spec: ClusterSpec) -> Any:
    """Import the class (or factory) that `spec` names.

    Raises
    ------
    SpecError
        The package that holds it is not installed, or does not import here.
    """
    module = spec.module or ""
    try:
        for needed in spec.kind.needs:
            importlib.import_module(needed)
        return getattr(importlib.import_module(module), spec.class_ or "")
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{spec.label} needs the module {error.name}, which is not installed",
            expected=f"the package {spec.kind.package}",
            fix=f"pip install {spec.kind.package}",
        ) from error
    except (ImportError, AttributeError, RuntimeError) as error:
        raise SpecError(
            f"{spec.label} does not import: {error}",
            expected=f"a {spec.kind.package} that works on this machine",
            fix=f"pip install --upgrade {spec.kind.package}, or choose another cluster file",
        ) from error


@contextmanager
def connect(spec: ClusterSpec) -> Iterator[Client]:
    """Start (or reach) the cluster, wait for a worker, and yield the client.

    On the way out, by an error or Ctrl-C too, the client and a cluster that was started here are
    closed; a cluster that was reached by address is left running.

    Raises
    ------
    SpecError
        The cluster's package or a certificate is missing, or its keyword arguments are wrong.
    GenretError
        The cluster did not start, did not answer, or had no worker within ``spec.timeout`` seconds.
    """
    import dask
    from distributed import Client

    with ExitStack() as stack:
        stack.enter_context(dask.config.set({**_settings(), **_security_settings(spec)}))
        target: Any = spec.address
        if target is None:
            environment = strings(spec.environment)
            stack.enter_context(environ(environment, inherited=_is_here(spec)))
            with interrupts_held() if _is_here(spec) else nullcontext():
                target = _start(spec)
                stack.callback(target.close)
        try:
            client = stack.enter_context(Client(target, timeout=spec.timeout))
        except (OSError, TypeError, ValueError) as error:
            raise GenretError(
                f"no scheduler answered at {spec.label}: {error}",
                expected=f"an answer within {spec.timeout:g} s",
                fix="check that it runs and can be reached, and that both sides speak TLS, or "
                "neither, with certificates of one CA",
            ) from error
        _wait(client, spec)
        yield client


def _is_here(spec: ClusterSpec) -> bool:
    return spec.address is None and spec.kind.family in ("local", "cuda")


def _security_settings(spec: ClusterSpec) -> dict[str, Any]:
    """Give Dask's configuration for the spec's security; warn where a remote cluster has none."""
    here: tuple[Role, ...] = ("client",) if spec.address else spec.kind.here
    if spec.security is not None:
        return tls_settings(spec.security, here)
    if has_tls_settings():
        return {}
    if spec.address is not None and spec.address.startswith("tls://"):
        raise SpecError(
            f"{spec.address} has no certificates",
            expected="what this client shows, and the CA it trusts",
            fix="give security: {ca: ca.pem, cert: node.pem, key: node-key.pem} in the cluster "
            "file, or distributed.comm.tls in Dask's own configuration",
        )
    if not _is_here(spec) and not _is_loopback(spec.address):
        logger.warning(
            "%s has no security: whoever reaches its ports can run code on its machines", spec.label
        )
    return {}


def _is_loopback(address: str | None) -> bool:
    return address is not None and address.startswith(("tcp://127.", "tcp://localhost:"))


def _start(spec: ClusterSpec) -> Any:
    start = cluster_class(spec)
    check_names(start, spec.kwargs)
    others = set(getattr(start, "_instances", ()))
    try:
        cluster = start(*spec.args, **keywords(spec))
    except (TypeError, AttributeError) as error:
        raise SpecError(
            f"{spec.label} refused its args or kwargs ({', '.join(spec.kwargs)}): {error}",
            fix="compare them with the class's documentation",
        ) from error
    except Exception as error:
        logger.debug("%s did not start", spec.label, exc_info=True)
        if spec.kind.family == "kubernetes":
            _close(set(getattr(start, "_instances", ())) - others)
        raise GenretError(
            f"{spec.label} did not start: {type(error).__name__}: {error}",
            fix="check the cluster file, and that its hosts, queue or namespace can be reached",
        ) from error
    try:
        if spec.adapt is not None:
            cluster.adapt(**_bounds(spec.adapt, spec.kind.family))
        elif spec.scale is not None:
            cluster.scale(spec.scale)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _close(clusters: set[Any]) -> None:
    """Close what did not start, now: at exit KubeCluster would, and print tracebacks."""
    for cluster in clusters:
        try:
            cluster.close(timeout=10)
        except Exception as error:
            logger.warning(
                "%s could not be closed (%s): see kubectl get daskclusters", cluster.name, error
            )
        cluster.shutdown_on_close = False


def _bounds(adapt: Adapt, family: str) -> dict[str, Any]:
    bounds: dict[str, Any] = {"minimum": adapt.minimum, "maximum": adapt.maximum}
    if family == "queue":
        from genret_dask.clusters.jobs import WholeJobs

        bounds |= {"Adaptive": WholeJobs, "replace_after": adapt.replace_after}
    return bounds


def _wait(client: Client, spec: ClusterSpec) -> None:
    wanted = 1
    if spec.address is None and spec.kind.family == "ssh":
        # All were started by now; a queue's come one by one, for hours perhaps.
        wanted = len(client.cluster.workers) * workers_a_host(spec.kwargs)
    try:
        client.wait_for_workers(wanted, timeout=spec.timeout)
    except TimeoutError as error:
        there = len(client.scheduler_info()["workers"])
        raise GenretError(
            f"{spec.label} has {there or 'no'} worker{'s' * (there > 1)} after {spec.timeout:g} s",
            expected=f"at least {wanted}",
            fix="look at the workers' logs or the queue; a longer wait is timeout: SECONDS",
        ) from error


def _settings() -> dict[str, Any]:
    """Give `_SETTINGS` less those that the user's own Dask configuration sets."""
    import dask

    shipped = dask.config.merge(*dask.config.defaults)
    return {
        key: value
        for key, value in _SETTINGS.items()
        if dask.config.get(key) == dask.config.get(key, config=shipped)
    }
