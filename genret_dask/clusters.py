"""A cluster's YAML file to a running Dask cluster and its client.

The file follows dask-ctl's first version (``version``, ``module``, ``class``, ``args``,
``kwargs``), which we read ourselves, and adds ``scale`` or ``adapt``, ``environment``, ``timeout``
and, in place of a class, the ``address`` of a scheduler that already runs. Only the cluster
classes named in `CLASSES` can be started.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from genret_dask.cluster_arguments import keywords, strings
from genret_dask.errors import GenretError, SpecError
from genret_dask.specs import Record, read_yaml, validate

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


class _Kind(NamedTuple):
    family: str
    package: str
    needs: tuple[str, ...] = ()


_LOCAL = _Kind("local", "distributed")
_SSH = _Kind("ssh", "asyncssh", needs=("asyncssh",))
_QUEUE = _Kind("queue", "dask-jobqueue")

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
# deaths, and a nanny that takes longer than 15 s to restart its worker is dropped for good.
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 10,
    "distributed.deploy.lost-worker-timeout": "1h",
}


class Adapt(Record):
    """Bounds between which the number of workers follows the work."""

    minimum: PositiveInt = Field(description="never fewer; the first worker needs no task")
    maximum: PositiveInt

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
    kwargs: dict[str, Any] = Field(default_factory=dict)
    address: Annotated[str, Field(pattern=r"^(tcp|tls)://[^\s/]+:\d+$")] | None = None
    scale: PositiveInt | None = Field(None, description="workers to ask for")
    adapt: Adapt | None = None
    environment: dict[str, str | int | float] = Field(default_factory=dict)
    timeout: PositiveFloat = Field(120, description="seconds to wait for the first worker")
    lost_timeout: PositiveFloat = Field(
        50,
        description="seconds without any worker, or without the scheduler, before the run gives up",
    )

    @model_validator(mode="after")
    def _one_target(self) -> ClusterSpec:
        if self.address is not None:
            if self.model_fields_set - {"version", "address", "timeout", "lost_timeout"}:
                raise ValueError(
                    "an address is of a cluster that runs already; it goes with timeout only"
                )
            return self
        if self.module is None or self.class_ is None:
            raise ValueError("give module and class, or the address of a running scheduler")
        if (self.module, self.class_) not in CLASSES:
            allowed = ", ".join(".".join(name) for name in CLASSES)
            raise ValueError(f"{self.module}.{self.class_} is not allowed; allowed: {allowed}")
        self._check_workers()
        return self

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
    return validate(ClusterSpec, content, source=str(path))


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
        The cluster's package is missing or its keyword arguments are wrong.
    GenretError
        The cluster did not start, did not answer, or had no worker within ``spec.timeout`` seconds.
    """
    import dask
    from distributed import Client

    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_settings()))
        target: Any = spec.address
        if target is None:
            stack.enter_context(_environ(spec))
            with _interrupts_held() if _is_here(spec) else nullcontext():
                target = _start(spec)
                stack.callback(target.close)
        try:
            client = stack.enter_context(Client(target, timeout=spec.timeout))
        except (OSError, TypeError, ValueError) as error:
            raise GenretError(
                f"no scheduler answered at {spec.label}: {error}",
                expected=f"an answer within {spec.timeout:g} s",
                fix="check that it runs and can be reached; tls:// also needs the certificates "
                "in Dask's configuration (distributed.comm.tls)",
            ) from error
        _wait(client, spec)
        yield client


def _is_here(spec: ClusterSpec) -> bool:
    return spec.kind.family in ("local", "cuda")


def _start(spec: ClusterSpec) -> Any:
    start = cluster_class(spec)
    kwargs = keywords(spec)
    try:
        cluster = start(*spec.args, **kwargs)
    except TypeError as error:
        raise SpecError(
            f"{spec.label} refused its args or kwargs: {error}",
            fix="compare them with the class's documentation",
        ) from error
    except Exception as error:
        logger.debug("%s did not start", spec.label, exc_info=True)
        raise GenretError(
            f"{spec.label} did not start: {type(error).__name__}: {error}",
            fix="check the cluster file, and that its hosts, queue or namespace can be reached",
        ) from error
    try:
        if spec.adapt is not None:
            cluster.adapt(minimum=spec.adapt.minimum, maximum=spec.adapt.maximum)
        elif spec.scale is not None:
            cluster.scale(spec.scale)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _wait(client: Client, spec: ClusterSpec) -> None:
    try:
        client.wait_for_workers(1, timeout=spec.timeout)
    except TimeoutError as error:
        raise GenretError(
            f"{spec.label} has no worker after {spec.timeout:g} s",
            expected="at least one worker",
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


@contextmanager
def _environ(spec: ClusterSpec) -> Iterator[None]:
    """Set the environment that local worker processes inherit, and put ours back at the end.

    Native thread counts are read when NumPy is imported, which is before a nanny's ``env`` takes
    effect, so they must be inherited. Nannies write Dask's own pre-spawn variables
    (``OMP_NUM_THREADS=1`` and its like) into this process; those are put back too.
    """
    import dask

    names = {*spec.environment, *dask.config.get("distributed.nanny.pre-spawn-environ")}
    before = {name: os.environ.get(name) for name in names}
    if _is_here(spec):
        os.environ.update(strings(spec.environment))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a local cluster starts; it is raised right after.

    A cluster interrupted half way cannot be closed. The threads and worker processes that start
    here inherit the blocked signal, so that a later Ctrl-C reaches this process alone, which then
    closes the workers in order.
    """
    handler = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(handler) or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Starting the tracker unblocks SIGINT in its thread: it must be up before the workers spawn.
    resource_tracker.ensure_running()
    held: list[int] = []
    # Blocked here, the signal may still reach another thread; its handler then runs in this one.
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)
