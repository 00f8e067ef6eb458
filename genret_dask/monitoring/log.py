"""The log of a run directory: `log.jsonl`, one JSON object a line, appended by the client alone.

Every line has `time` (UTC), `run` (which invocation wrote it), `event` and, within a stage,
`stage`; `docs/monitoring.md` lists the events. A line that was torn by a crash is skipped.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from genret_dask.errors import GenretError, Terminated
from genret_dask.redaction import redact
from genret_dask.storage.host_cache import working_folder
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import is_local, replace_file

logger = logging.getLogger(__name__)

STAGE_UNITS = {
    "train": "GFLOP", "export": "models", "search": "queries", "index": "documents",
    "embedding": "documents", "spans": "queries", "baselines": "baselines",
}  # fmt: skip
"""What `done` and `total` of a stage count, by the first word of its name; see `unit_of`."""

Event = Callable[..., None]
"""Gets an event's name, and its fields as keyword arguments."""

_SENT_AT = ("run_started", "stage_began", "stage_ended", "run_ended")
"""Events after which an object store gets the log: objects cannot be appended to."""
_TEXT = 2000  # characters kept of a field


def unit_of(stage: str) -> str:
    """What `done` and `total` of a stage count."""
    return STAGE_UNITS.get(stage.partition(" ")[0], "steps")


def silent(event: str, **fields: Any) -> None:
    """An `Event` that nobody hears."""


class RunLog:
    """Appends events to the log of a run directory, from any thread.

    A log that cannot be written is worth a warning, not the run. As a context manager it notes how
    the run ended, if it began.

    Parameters
    ----------
    folder : path
        The run directory; while it is not there, nothing is written.

    Attributes
    ----------
    stage : str or None
        Written to every line.
    """

    def __init__(self, folder: Path) -> None:
        self.stage: str | None = None
        self._place = RunLayout(folder).log
        here = folder if is_local(folder) else working_folder(folder, ".log")
        self._path = RunLayout(here).log
        self._before: bytes | None = None  # the object's content before this run
        self._run = uuid.uuid4().hex[:8]
        self._lock = threading.Lock()
        self._began = self._warned = False

    def __call__(self, event: str, **fields: Any) -> None:
        """Write a line: name and fields, which are plain JSON values; None is left out."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": now, "run": self._run, "event": event, "stage": self.stage}
        line = {name: value for name, value in {**head, **fields}.items() if value is not None}
        text = json.dumps(_clean(line), default=str) + "\n"
        with self._lock:
            self._append(text.encode(), event in _SENT_AT)

    def _append(self, line: bytes, send: bool) -> None:
        try:
            if not self._is_open():
                return
            with open(self._path, "a+b", buffering=0) as file:
                if file.seek(0, os.SEEK_END):  # a crash or a full disk may have torn a line
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
            self._began = True
            if send and not is_local(self._place):
                self._send()
        except Exception as error:  # an object store's library has errors of its own
            level = logging.DEBUG if self._warned else logging.WARNING
            logger.log(level, "cannot write %s, going on without: %s", self._place, error)
            self._warned = True

    def _is_open(self) -> bool:
        """Whether lines can be written; those for an object store go to a file of this host."""
        if not is_local(self._place) and not self._began:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
        return self._path.parent.is_dir()

    def _send(self) -> None:
        """Replace the object by what it held before this run, and the lines of this run."""
        if self._before is None:
            self._before = self._place.read_bytes() if self._place.is_file() else b""
        replace_file(self._place, self._before + self._path.read_bytes())

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._began:
            return
        self.stage = None
        if error is None:
            self("run_ended", outcome="done", exit=0)
        elif isinstance(error, KeyboardInterrupt):
            code = 143 if isinstance(error, Terminated) else 130
            self("run_ended", outcome="interrupted", exit=code)
        else:
            code = error.exit_code if isinstance(error, GenretError) else 1
            if isinstance(error, SystemExit):
                code = error.code if isinstance(error.code, int) else 1
            text = str(error)
            self("run_ended", outcome="failed", exit=code, error=type(error).__name__, text=text)


def read_log(folder: Path, tail: int | None = None) -> Iterator[dict[str, Any]]:
    """The events of a run directory, oldest first; none where there is no log.

    Parameters
    ----------
    tail : int, optional
        Read only about the last so many bytes.
    """
    path = RunLayout(folder).log
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - tail) if tail else 0)
            if file.tell():
                file.readline()
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("cannot read %s: %s", path, error)


def _clean(value: Any) -> Any:
    """Without credentials in URLs, and texts cut to a length."""
    if isinstance(value, str):
        return redact(value)[:_TEXT]
    if isinstance(value, dict):
        return {str(name): _clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value
