"""Keyword arguments of a cluster's class: its file's, our defaults, and the environment."""

from __future__ import annotations

import inspect
import logging
import shlex
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, StrictBool, with_config
from typing_extensions import TypedDict

from genret_dask.cluster_security import tls_environment, tls_settings
from genret_dask.errors import SpecError

if TYPE_CHECKING:
    from genret_dask.clusters import ClusterSpec

logger = logging.getLogger(__name__)

_DASHBOARD = "127.0.0.1:8787"

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Size = int | float | str | None  # of memory: bytes, a share of it, or a text such as 4GB
Value = StrictBool | int | float | str  # of an environment variable


@with_config(ConfigDict(extra="allow"))
class Listening(TypedDict, total=False):
    """Options of a scheduler or of an SSH connection."""

    port: Port | list[Port]
    dashboard_address: str | int | None


@with_config(ConfigDict(extra="allow"))
class Workers(TypedDict, total=False):
    """Options of a worker."""

    n_workers: PositiveInt
    nthreads: PositiveInt | None
    memory_limit: Size
    env: dict[str, Value] | None


@with_config(ConfigDict(extra="allow"))
class Variable(TypedDict, total=False):
    """An environment variable as Kubernetes writes it; `value` or where to find it."""

    name: str
    value: str


@with_config(ConfigDict(extra="allow"))
class Arguments(TypedDict, total=False):
    """Keyword arguments of Dask's cluster classes whose types are checked here.

    Dask itself finds out late, in another process, and says so in a traceback.
    """

    n_workers: NonNegativeInt | None
    threads_per_worker: PositiveInt | None
    processes: StrictBool | PositiveInt | None
    memory_limit: Size
    scheduler_port: Port | None
    dashboard_address: str | int | None
    worker_dashboard_address: str | int | None
    host: str | None
    interface: str | None
    protocol: str | None
    local_directory: str | None
    env: dict[str, Value] | list[Variable] | None
    scheduler_kwargs: Listening | None
    scheduler_options: Listening | None
    worker_options: Workers | None
    connect_options: Listening | list[Listening] | None
    remote_python: str | list[str] | None
    cores: PositiveInt | None
    memory: str | int | None
    queue: str | int | None
    account: str | int | None
    walltime: str | None
    job_script_prologue: list[str] | None
    job_extra_directives: list[str] | dict[str, Any] | None  # of HTCondor a dict
    log_directory: str | None
    death_timeout: int | float | str | None
    name: str | int | None
    namespace: str | None
    image: str | None
    resources: dict[str, Any] | None


def keywords(spec: ClusterSpec) -> dict[str, Any]:
    """The class's keyword arguments, with our defaults and the environment filled in."""
    kwargs: dict[str, Any] = dict(spec.kwargs)
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
    _check_local(kwargs)
    threads = kwargs.get("threads_per_worker") or 1
    kwargs["n_workers"] = _local_workers(kwargs, spec)
    kwargs["threads_per_worker"] = threads
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
    return spec.scale or max(1, usable_cores() // (kwargs.get("threads_per_worker") or 1))


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
    """Variables of the file's kwargs, and ours; a pod takes texts only."""
    if not isinstance(named, list):
        return {**strings(named), **environment}
    others = [item for item in named if item.get("name") not in environment]
    return [*others, *({"name": name, "value": text} for name, text in environment.items())]


def _check_local(kwargs: dict[str, Any]) -> None:
    from distributed import LocalCluster, Nanny, Worker

    parameters = inspect.signature(LocalCluster).parameters
    own = [name for name, item in parameters.items() if item.kind is not item.VAR_KEYWORD]
    passed_on = {*inspect.signature(Nanny).parameters, *inspect.signature(Worker).parameters}
    unknown = sorted(set(kwargs) - set(own) - passed_on)
    if unknown:
        raise SpecError(
            f"LocalCluster has no argument {', '.join(unknown)}",
            expected=f"kwargs among {', '.join(own)}, or an argument of distributed.Worker",
        )


def _dashboard(address: str | None) -> str | None:
    """`address`, on loopback unless it names a host, with a free port where its own is taken."""
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


def usable_cores() -> int:
    """Cores this process may use: the least of the host's, its affinity's and its cgroup's."""
    from dask.system import cpu_count

    return cpu_count()


def memory_limit(spec: ClusterSpec) -> int | None:
    """Bytes that the file lets each worker process hold; None where only the workers know."""
    if spec.address is not None:
        return None
    from dask.utils import parse_bytes
    from distributed.system import MEMORY_LIMIT
    from distributed.worker_memory import parse_memory_limit

    kwargs: dict[str, Any] = dict(spec.kwargs)
    match spec.kind.family:
        case "local":
            limit = kwargs.get("memory_limit", "auto")
            if limit == "auto":
                limit = MEMORY_LIMIT // max(1, _local_workers(kwargs, spec))
        case "ssh":
            limit = (kwargs.get("worker_options") or {}).get("memory_limit")
        case "queue" if kwargs.get("memory"):
            limit = parse_bytes(kwargs["memory"]) // (kwargs.get("processes") or 1)
        case _:
            return None
    if limit == "auto":
        return None
    found: int | None = parse_memory_limit(limit, 1, logger=logger)
    return found


def workers_a_host(kwargs: Mapping[str, Any]) -> int:
    """Worker processes that SSHCluster starts on each host."""
    return int((kwargs.get("worker_options") or {}).get("n_workers", 1))


def strings(environment: Mapping[str, str | int | float]) -> dict[str, str]:
    """Environment values as the text that a process sees."""
    return {name: str(value) for name, value in environment.items()}
