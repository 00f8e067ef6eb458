"""What a process keeps between shards: ONNX Runtime sessions, codes, queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from genret_dask.identifiers import Codes, read_codes
from genret_dask.inference.session import Session, open_session

PLUGIN = "genret-resources"
_OPEN_SESSIONS = 4


class Resources:
    """Opened lazily, shared by the threads of a process, never pickled into a task."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[tuple[Any, ...], Session] = OrderedDict()
        self._others: dict[tuple[Any, ...], Any] = {}

    def session(self, folder: Path, provider: str, threads: int) -> Session:
        """The session of an exported model; the few used last stay open."""
        key = (folder, provider, threads, (folder / "manifest.json").stat().st_mtime_ns)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = open_session(folder, provider=provider, threads=threads)
                while len(self._sessions) > _OPEN_SESSIONS:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def codes(self, folder: Path) -> Codes:
        stamp = (folder / "artefact.json").stat().st_mtime_ns
        return self.cached(("codes", folder, stamp), lambda: read_codes(folder))

    def cached(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._others:
                self._others[key] = load()
            return self._others[key]


class ResourcesPlugin(WorkerPlugin):
    """Gives every Dask worker its `Resources`."""

    name = PLUGIN

    def setup(self, worker: Any) -> None:
        self.resources = Resources()

    def teardown(self, worker: Any) -> None:
        del self.resources


def worker_resources() -> Resources:
    """The resources of the worker that runs the current task."""
    from distributed import get_worker

    plugin: Any = get_worker().plugins[PLUGIN]
    return plugin.resources
