"""What Dask tells of a cluster's end, kept from the terminal, where our own messages tell of it."""

from __future__ import annotations

import logging
import os

from distributed import Worker, WorkerPlugin

NAME = "genret-quiet"


class QuietPlugin(WorkerPlugin):
    """Keeps a worker process that shares this process' terminal from telling of its own end.

    Only a process that this one started, and not where details are wanted (-vv).
    """

    name = NAME

    def __init__(self) -> None:
        wanted = logging.getLogger("genret_dask").level > logging.DEBUG
        self._client = os.getpid() if wanted else None

    def setup(self, worker: Worker) -> None:
        if os.getppid() == self._client:
            quieten()


def quieten() -> None:
    """Drop what Dask's logger has to say of tasks and connections that end with the cluster."""
    for handler in logging.getLogger("distributed").handlers:
        handler.addFilter(is_no_end)


def is_no_end(record: logging.LogRecord) -> bool:
    """Whether a record tells of something else: neither a traceback nor a task that was left."""
    return record.exc_info is None and not str(record.msg).startswith("Async instruction")
