"""A cluster's YAML file to a running Dask cluster and its client.

The file follows dask-ctl's first version (``version``, ``module``, ``class``, ``args``,
``kwargs``), which we read ourselves, and adds ``scale`` or ``adapt``, ``environment``,
``security``, ``timeout``, ``lost_timeout`` and, in place of a class, the ``address`` of a scheduler
that already runs. Only the cluster classes named in `CLASSES` can be started.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from genret_dask.cluster_arguments import (
    Arguments,
    VariableName,
    keywords,
    strings,
    workers_a_host,
)
from genret_dask.cluster_process import environ, interrupts_held
from genret_dask.cluster_security import (
    ROLES,
    ClusterSecurity,
    Role,
    has_tls_settings,
    tls_settings,
)
from genret_dask.errors import GenretError, SpecError
from genret_dask.specs.strict_yaml import read_yaml
from genret_dask.specs.validation import Record, validate

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


class _Kind(NamedTuple):
    family: str
    package: str
    needs: tuple[str, ...] = ()
    here: tuple[Role, ...] = ROLES  # roles of the processes on this machine


_LOCAL = _Kind("local", "distributed")
_SSH = _Kind("ssh", "asyncssh", needs=("asyncssh",), here=("client",))
_QUEUE = _Kind("queue", "dask-jobqueue", here=("scheduler", "client"))

CLASSES: dict[tuple[str, str], _Kind] = {
    ("dask.distributed", "LocalCluster"): _LOCAL,
    ("distributed", "LocalCluster"): _LOCAL,
    ("dask.distributed", "SSHCluster"): _SSH,
    ("distributed", "SSHCluster"): _SSH,
    ("dask_cuda", "LocalCUDACluster"): _Kind("cuda", "dask-cuda"),
    **{
        ("dask_jobqueue", f"{system}Cluster"): _QUEUE
        for system in ("SLURM", "PBS", "LSF", "SGE", "OAR", "HTCondor")
    },
    ("dask_kubernetes.operator", "KubeCluster"): _Kind("kubernetes", "dask-kubernetes"),
}

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


_FIX = "correct it; docs/clusters.md shows the keys, the class's documentation its arguments"
_WITH_ADDRESS = {"version", "address", "security", "timeout", "lost_timeout"}


class Adapt(Record):
    """Bounds between which the number of workers follows the work."""

    minimum: PositiveInt = Field(description="never fewer; the first worker needs no task")
    maximum: PositiveInt
    replace_after: PositiveFloat = Field(
        60, description="seconds without any of its workers before a queue's job counts as dead"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Adapt:
        if self.minimum > self.maximum:
            raise ValueError("minimum must not exceed maximum")
        return self


class ClusterSpec(Record):
    """Where a sweep runs: a cluster to start, or the address of one that runs already."""

    model_config = ConfigDict(populate_by_name=True)

    version: Literal[1] = 1
    module: str | None = None
    class_: str | None = Field(None, alias="class")
    args: tuple[Any, ...] = ()
    kwargs: Arguments = Field(default_factory=Arguments)
    address: Annotated[str, Field(pattern=r"^(tcp|tls)://[^\s/]+:\d+$")] | None = None
    scale: PositiveInt | None = Field(None, description="workers to ask for")
    adapt: Adapt | None = None
    environment: dict[VariableName, str | int | float] = Field(default_factory=dict)
    security: ClusterSecurity | None = None
    timeout: PositiveFloat = Field(120, description="seconds to wait for the first worker")
    lost_timeout: PositiveFloat = Field(
        50,
        description="seconds without any worker, or without the scheduler, before the run gives up",
    )

    @model_validator(mode="after")
    def _one_target(self) -> ClusterSpec:
        if self.address is not None:
            if self.model_fields_set - _WITH_ADDRESS:
                others = ", ".join(sorted(_WITH_ADDRESS - {"version", "address"}))
                raise ValueError(
                    f"an address is of a cluster that runs already; it goes with {others} only"
                )
            if self.security is not None and not self.address.startswith("tls://"):
                raise ValueError(f"security needs a tls:// address, not {self.address}")
            self._check_roles(("client",))
            return self
        if self.module is None or self.class_ is None:
            raise ValueError("give module and class, or the address of a running scheduler")
        if (self.module, self.class_) not in CLASSES:
            allowed = ", ".join(".".join(name) for name in CLASSES)
            raise ValueError(f"{self.module}.{self.class_} is not allowed; allowed: {allowed}")
        self._check_workers()
        self._check_roles(ROLES)
        return self

    def _check_roles(self, roles: tuple[Role, ...]) -> None:
        if self.security is None:
            return
        if self.address is None and self.kind.family == "kubernetes":
            raise ValueError(
                "KubeCluster speaks plain TCP to its scheduler; for TLS start the shipped manifest "
                "with kubectl and give its address (cluster_specs/kubernetes.yaml)"
            )
        if missing := self.security.missing(roles):
            raise ValueError(f"security: no cert and key for {', '.join(missing)}")

    def _check_workers(self) -> None:
        family = self.kind.family
        if self.scale is not None and self.adapt is not None:
            raise ValueError("give scale or adapt, not both")
        if family == "ssh" and (self.scale is not None or self.adapt is not None):
            raise ValueError("SSHCluster has one worker a host; list the hosts in place of scale")
        asked = self.scale or self.adapt or {"n_workers", "n_jobs"} & set(self.kwargs)
        if family == "queue" and not asked:
            raise ValueError(f"{self.class_} starts no worker by itself; give scale or adapt")
        if family == "local" and self.args:
            raise ValueError("LocalCluster takes kwargs only, no args")

    @property
    def kind(self) -> _Kind:
        return CLASSES[self.module or "", self.class_ or ""]

    @property
    def label(self) -> str:
        """The address, or the dotted name of the class."""
        return self.address or f"{self.module}.{self.class_}"


def load_cluster_spec(path: Path | str) -> ClusterSpec:
    """Read a cluster's YAML file.

    Raises
    ------
    SpecError
        The file is missing, is not YAML, has an unknown key, or names a class that is not allowed.

    Examples
    --------
    >>> load_cluster_spec("cluster_specs/local.yaml").label  # doctest: +SKIP
    'dask.distributed.LocalCluster'
    """
    content = read_yaml(path)
    keys = [field.alias or name for name, field in ClusterSpec.model_fields.items()]
    unknown = sorted(str(key) for key in set(content) - set(keys))
    if unknown:
        raise SpecError(
            f"{path}: unknown key {', '.join(unknown)}", expected=f"valid keys: {', '.join(keys)}"
        )
    spec = validate(ClusterSpec, content, source=str(path), fix=_FIX)
    if spec.security is None:
        return spec
    folder = Path(path).absolute().parent
    return spec.model_copy(update={"security": spec.security.within(folder)})


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
    """Dask's configuration for the spec's security, or a word where there is none."""
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
    kwargs = keywords(spec)
    others = set(getattr(start, "_instances", ()))
    try:
        cluster = start(*spec.args, **kwargs)
    except TypeError as error:
        raise SpecError(
            f"{spec.label} refused its args or kwargs: {error}",
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
        from genret_dask.cluster_jobs import WholeJobs

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
    """`_SETTINGS`, less those that the user's own Dask configuration sets."""
    import dask

    shipped = dask.config.merge(*dask.config.defaults)
    return {
        key: value
        for key, value in _SETTINGS.items()
        if dask.config.get(key) == dask.config.get(key, config=shipped)
    }
