"""A cluster's YAML file as a record.

The file follows dask-ctl's first version (``version``, ``module``, ``class``, ``args``,
``kwargs``), which we read ourselves, and adds ``scale`` or ``adapt``, ``environment``,
``security``, ``timeout``, ``lost_timeout`` and, in place of a class, the ``address`` of a scheduler
that already runs. Only the cluster classes named in `CLASSES` can be started.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from genret_dask.clusters.security import ROLES, ClusterSecurity, Role
from genret_dask.specs.strict_yaml import read_yaml
from genret_dask.specs.validation import Record, validate

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

# Of the keyword arguments, those that are read here before the class sees them.
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("n_workers", "threads_per_worker", "processes", "cores"), (int,)),
    **dict.fromkeys(("scheduler_kwargs", "worker_options"), (dict,)),
    "env": (dict, list),
    "job_script_prologue": (list,),
    "walltime": (str,),
}


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
    """The cluster that a sweep runs on: one to start, or the address of one that runs already."""

    version: Literal[1] = 1
    module: str | None = None
    class_: str | None = Field(None, alias="class")
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
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

    @field_validator("kwargs")
    @classmethod
    def _of_types(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        for name, types in _TYPES.items():
            value = kwargs.get(name)
            if value is not None and not isinstance(value, types):
                names = " or ".join(one.__name__ for one in types)
                raise ValueError(f"kwargs.{name} must be {names}, not {type(value).__name__}")
        return kwargs

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
        if missing := [role for role in roles if self.security.pair(role) is None]:
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
        """Name the cluster by its address, or by its class."""
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
    spec = validate(ClusterSpec, read_yaml(path), source=str(path), fix=_FIX)
    if spec.security is None:
        return spec
    folder = Path(path).absolute().parent
    return spec.model_copy(update={"security": spec.security.within(folder)})


def workers_a_host(kwargs: dict[str, Any]) -> int:
    """Count the worker processes that SSHCluster starts on each host."""
    return int((kwargs.get("worker_options") or {}).get("n_workers", 1))
