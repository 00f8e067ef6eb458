"""Completes and checks the keyword arguments that a cluster's file gives to its class."""

from __future__ import annotations

import inspect
import logging
import shlex
import socket
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from dask.system import cpu_count

from genret_dask.clusters.security import tls_environment, tls_settings
from genret_dask.clusters.spec import ClusterSpec
from genret_dask.errors import SpecError

logger = logging.getLogger(__name__)

_DASHBOARD = "127.0.0.1:8787"


def keywords(spec: ClusterSpec) -> dict[str, Any]:
    """Fill our defaults and the environment into the class's keyword arguments."""
    kwargs = dict(spec.kwargs)
    environment = strings(spec.environment)
    match spec.kind.family:
        case "local":
            return _local_keywords(kwargs, spec)
        case "cuda":
            kwargs["dashboard_address"] = _dashboard(kwargs.get("dashboard_address", _DASHBOARD))
        case "ssh" if environment:
            options = dict(kwargs.get("worker_options") or {})
            options["env"] = {**(options.get("env") or {}), **environment}
            kwargs["worker_options"] = options
        case "queue":
            return _queue_keywords(kwargs, spec)
        case "kubernetes" if environment or kwargs.get("env"):
            kwargs["env"] = _pod_environment(kwargs.get("env") or {}, environment)
    return kwargs


def _local_keywords(kwargs: dict[str, Any], spec: ClusterSpec) -> dict[str, Any]:
    kwargs["n_workers"] = _local_workers(kwargs, spec)
    kwargs["threads_per_worker"] = kwargs.get("threads_per_worker") or 1
    kwargs.setdefault("processes", True)
    if kwargs.get("memory_limit") == "auto":
        # Left out, it is total / n_workers; "auto" itself would be total / cores a thread.
        del kwargs["memory_limit"]
    kwargs["dashboard_address"] = _dashboard(kwargs.get("dashboard_address", _DASHBOARD))
    if kwargs["dashboard_address"] is None:
        # The scheduler serves its health page all the same, and would ask for port 8787.
        options = {"dashboard_address": "127.0.0.1:0", **(kwargs.get("scheduler_kwargs") or {})}
        kwargs["scheduler_kwargs"] = options
    return kwargs


def _local_workers(kwargs: Mapping[str, Any], spec: ClusterSpec) -> int:
    if kwargs.get("n_workers") is not None:
        return int(kwargs["n_workers"])
    if spec.adapt is not None:
        return spec.adapt.minimum
    return spec.scale or max(1, cpu_count() // (kwargs.get("threads_per_worker") or 1))


def _queue_keywords(kwargs: dict[str, Any], spec: ClusterSpec) -> dict[str, Any]:
    environment = strings(spec.environment)
    if spec.security is not None:
        import dask
        from distributed.security import Security

        settings = tls_settings(spec.security, spec.kind.here)
        with dask.config.set(settings):
            kwargs["security"] = Security()
        environment |= tls_environment(settings)
    if environment:
        exports = [f"export {name}={shlex.quote(text)}" for name, text in environment.items()]
        kwargs["job_script_prologue"] = [*(kwargs.get("job_script_prologue") or ()), *exports]
    return kwargs


def _pod_environment(named: Any, environment: dict[str, str]) -> Any:
    """Merge variables of the file's kwargs with ours; a pod takes texts only."""
    if not isinstance(named, list):
        return {**strings(named), **environment}
    others = [item for item in named if item.get("name") not in environment]
    return [*others, *({"name": name, "value": text} for name, text in environment.items())]


def check_names(start: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse a keyword argument that a class would hand on to the workers, which do not know it.

    Classes that hand nothing on refuse it themselves.

    Raises
    ------
    SpecError
        Neither the class nor what it hands its arguments on to has one of this name.
    """
    from distributed import LocalCluster, Nanny, Worker

    if not isinstance(start, type):
        return
    job = getattr(start, "job_cls", None)
    takers = [*start.__mro__, *(job.__mro__ if job else ())]
    if issubclass(start, LocalCluster):
        takers += [Nanny, Worker]
    known = {name for one in takers for name in inspect.signature(one.__init__).parameters}
    unknown = sorted(set(kwargs) - known)
    if unknown:
        near = [name for one in unknown for name in get_close_matches(one, known)]
        raise SpecError(
            f"{start.__name__} has no argument {', '.join(unknown)}",
            expected=f"perhaps {' or '.join(near)}" if near else None,
            fix="compare the kwargs of the cluster file with the class's documentation",
        )


def _dashboard(address: str | None) -> str | None:
    """Put an address on loopback unless it names a host, and on a free port if its own is taken."""
    if address is None:
        return None
    host, _, port = str(address).rpartition(":")
    host = host or "127.0.0.1"  # Dask would listen on every interface
    if not port.isdigit():
        return address
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            logger.info("dashboard port %s is taken; another one is used", port)
            port = "0"
    return f"{host}:{port}"


def memory_limit(spec: ClusterSpec) -> int | None:
    """Read the bytes that each worker process may hold; None where only the workers know.

    Raises
    ------
    SpecError
        What the file gives is no size.
    """
    from dask.utils import parse_bytes
    from distributed.system import MEMORY_LIMIT
    from distributed.worker_memory import parse_memory_limit

    kwargs, family = spec.kwargs, None if spec.address else spec.kind.family
    limit: Any = None
    try:
        if family == "queue" and kwargs.get("memory"):
            return int(parse_bytes(kwargs["memory"]) // (kwargs.get("processes") or 1))
        if family == "local":
            limit = kwargs.get("memory_limit", "auto")
            if limit == "auto":
                limit = MEMORY_LIMIT // max(1, _local_workers(kwargs, spec))
        elif family == "ssh":
            limit = (kwargs.get("worker_options") or {}).get("memory_limit")
        found: int | None = parse_memory_limit(None if limit == "auto" else limit, 1, logger=logger)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"the memory of {spec.label} cannot be read: {error}",
            expected="kwargs with bytes or a text such as 4GB",
        ) from error
    return found


def strings(environment: Mapping[str, str | int | float]) -> dict[str, str]:
    """Turn environment values into the texts that a process sees."""
    return {name: str(value) for name, value in environment.items()}
