"""What a process keeps between shards, and what it may use: memory and cores."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask.system import CPU_COUNT
from distributed import WorkerPlugin
from distributed.system import MEMORY_LIMIT

from genret_dask.errors import SpecError
from genret_dask.inference.session import Session, open_session
from genret_dask.kinds.base import Kind
from genret_dask.models.manifest import MANIFEST, fetched_model
from genret_dask.monitoring.meter import phase
from genret_dask.shards.usage import MemoryUse, Peak, resident
from genret_dask.specs import Provider
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched
from genret_dask.storage.layout import ROWS
from genret_dask.storage.places import is_local

PLUGIN = "genret-resources"
SHARE = 0.6
"""Of a worker's memory limit, what it may hold unless told otherwise; Dask spills from there on."""

_HOST_SECONDS = 2.0
_OPEN_SESSIONS = 4
_GRAPHS = 2**25  # bytes of a session's graphs and kernels, at most
_FIRST_USE = 2**24  # bytes of code and buffers that the first shard touches


@dataclass(frozen=True)
class Host:
    """The machine that a process runs on, as far as it may use it.

    Attributes
    ----------
    cores : int
    workers, threads : int
        Dask workers on it, this one included, and their threads.
    """

    cores: int = CPU_COUNT
    workers: int = 1
    threads: int = 1

    def threads_each(self, asked: int | None) -> int:
        """ONNX Runtime threads of a task: as asked, or the cores shared among the workers' threads.

        Raises
        ------
        SpecError
            All tasks together would have more threads than there are cores.
        """
        share = max(1, self.cores // self.threads)
        if asked is None:
            return share
        if asked > share:
            raise SpecError(
                f"inference.threads {asked}, with {self.threads} tasks at once on a machine, is "
                f"{asked * self.threads} threads for {self.cores} cores",
                expected=f"at most {share}",
                fix="leave threads out, or give the cluster fewer workers or fewer threads each",
            )
        return asked


class Resources:
    """Opened lazily, shared by the threads of a process, never pickled into a task.

    Parameters
    ----------
    worker : str
        Name of the process.
    memory_limit : int, optional
        What Dask lets the process hold, in bytes; its share of the machine's memory when left out.
    tasks : int
        Tasks that run in it at once.

    Attributes
    ----------
    host : Host
    """

    def __init__(
        self, worker: str = "this process", memory_limit: int | None = None, tasks: int = 1
    ) -> None:
        self.host = Host()
        self._worker, self._limit, self._tasks = worker, memory_limit, tasks
        self._lock = threading.Lock()
        self._sessions: OrderedDict[tuple[Any, ...], _Open] = OrderedDict()
        self._others: dict[tuple[Any, ...], Any] = {}
        self._base: int | None = None
        self._expected = 0
        self._peak: Peak | None = None

    def session(self, folder: Path, provider: str, threads: int) -> Session:
        """The session of an exported model; the few used last stay open."""
        folder = self.cached(("model", *_stamp(folder, MANIFEST)), lambda: fetched_model(folder))
        key = (folder, provider, threads, *_stamp(folder, MANIFEST))
        with self._lock:
            if self._peak is None:
                self._peak = Peak()
            if key not in self._sessions:
                self._sessions[key] = _open(folder, provider, threads)
                while len(self._sessions) > _OPEN_SESSIONS:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(key)
            return self._sessions[key].session

    def space(self, kind: Kind, folder: Path, within: Path | None = None) -> Any:
        """Identifiers; their pages belong to the host, and are not counted as the process's.

        Parameters
        ----------
        within : Path, optional
            An artefact with the rows of the documents that a search is kept to.
        """
        stamp = _stamp(folder, kind.record_name)
        whole = self.cached(stamp, lambda: kind.open(folder))
        if within is None:
            return whole
        rows = read_array(self.fetched(within) / ROWS, dims=1)
        return self.cached(
            ("within", *stamp, *_stamp(within, RECORD)), lambda: kind.within(whole, rows)
        )

    def fetched(self, folder: Path) -> Path:
        """A published artefact as a checked folder of this machine."""
        return self.cached(("fetched", *_stamp(folder, RECORD)), lambda: fetched(folder))

    def cached(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._others:
                with phase("load"):
                    self._others[key] = load()
            return self._others[key]

    @property
    def session_bytes(self) -> int:
        """What the open models are taken to hold of the process's memory."""
        return sum(opened.grown + opened.mapped for opened in list(self._sessions.values()))

    # --- memory -------------------------------------------------------------------------------

    def budget(self, asked: int | None, provider: Provider) -> int | None:
        """Bytes that the process may hold; None, without a bound, where a GPU decodes."""
        if asked is not None or provider != "cpu":
            return asked
        return int(SHARE * (self._limit or MEMORY_LIMIT // self.host.workers))

    def room(self, budget: int | None, wanted: int) -> int:
        """Bytes of the budget that are left to a task, beside what is loaded and other tasks.

        Models that no task needs any more are closed while less than `wanted` is left.
        """
        if budget is None:
            return sys.maxsize
        with self._lock:
            while self._room(budget) < wanted and len(self._sessions) > self._tasks:
                self._sessions.popitem(last=False)
            return self._room(budget)

    def needed(self, wanted: int) -> int:
        """The budget with which a task would have `wanted` bytes left."""
        with self._lock:
            return self._loaded() + self._tasks * wanted

    def expect(self, task_bytes: int) -> None:
        """Take note of what a task is estimated to take."""
        with self._lock:
            self._expected = max(self._expected, self._loaded() + self._tasks * task_bytes)

    def use(self, budget: int | None, provider: Provider) -> MemoryUse:
        """What the process has held since it loaded the first thing."""
        peak = self._peak or Peak()
        on_host = provider == "cpu"
        return MemoryUse(
            worker=self._worker,
            peak_bytes=peak.read(),
            since=peak.since,
            estimated_bytes=self._expected if on_host else None,
            budget_bytes=budget if on_host else None,
        )

    def _room(self, budget: int) -> int:
        return max(0, budget - self._loaded()) // self._tasks

    def _loaded(self) -> int:
        """What the process holds when nothing is decoded, and files that it may yet read."""
        sessions = self._sessions.values()
        if self._base is None:
            self._base = resident() + _FIRST_USE - sum(opened.grown for opened in sessions)
        return self._base + sum(opened.grown + opened.mapped for opened in sessions)


@dataclass(frozen=True)
class _Open:
    """A session, what the process grew by when it was opened, and the files that it maps."""

    session: Session
    grown: int
    mapped: int


@phase("load")
def _open(folder: Path, provider: str, threads: int) -> _Open:
    before, mapped = resident(), _file_bytes(folder)
    session = open_session(folder, provider=provider, threads=threads)
    # What other tasks take meanwhile is not the session's, which has at most two copies of its
    # weights, in a type at most twice as wide.
    grown = min(max(0, resident() - before), 4 * mapped + _GRAPHS)
    return _Open(session, grown, mapped)


def _stamp(folder: Path, record: str) -> tuple[Any, ...]:
    """What tells a folder from a later one of that name, where it can be told by a look."""
    return (folder, (folder / record).stat().st_mtime_ns) if is_local(folder) else (folder,)


def _file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class ResourcesPlugin(WorkerPlugin):
    """Gives every Dask worker its `Resources`."""

    name = PLUGIN

    def setup(self, worker: Any) -> None:
        limit = worker.memory_manager.memory_limit
        self.resources = Resources(worker.address, limit, worker.state.nthreads)
        self.looked = -_HOST_SECONDS

    def teardown(self, worker: Any) -> None:
        del self.resources


def session_bytes(worker: Any) -> int:
    """What the open models of a Dask worker hold of its memory."""
    return worker.plugins[PLUGIN].resources.session_bytes


_provided: ContextVar[Resources | None] = ContextVar("resources", default=None)


@contextmanager
def provided(resources: Resources) -> Iterator[None]:
    """Have tasks of this thread use these resources, in place of a Dask worker's."""
    token = _provided.set(resources)
    try:
        yield
    finally:
        _provided.reset(token)


def current_resources() -> Resources:
    """The resources of the executor, or of the Dask worker, that runs the current task.

    The scheduler is asked now and then who else is on the host, as workers come and go.
    """
    from distributed import get_worker

    if (resources := _provided.get()) is not None:
        return resources
    worker = get_worker()
    plugin: Any = worker.plugins[PLUGIN]
    now = time.monotonic()
    if now - plugin.looked >= _HOST_SECONDS:
        plugin.looked = now
        plugin.resources.host = _host_of(worker)
    return plugin.resources


def _host_of(worker: Any) -> Host:
    from distributed.comm.addressing import get_address_host
    from distributed.utils import sync

    here = get_address_host(worker.address)
    threads: dict[str, int] = sync(worker.loop, worker.scheduler.ncores)
    near = [count for address, count in threads.items() if get_address_host(address) == here]
    return Host(workers=len(near), threads=sum(near))
