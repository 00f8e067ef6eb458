"""Record tasks that failed while others went on, in `failures.json` of the run directory."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from genret_dask.errors import GenretError
from genret_dask.redaction import redact
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import replace_file

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class Failure:
    """A task that was given up.

    Attributes
    ----------
    key : str
        Name of the task.
    error : str
        Class and message of the error.
    worker : str
        Worker that the task failed on last; empty if the cluster did not say.
    attempts : int
        How often the task was started.
    time : str
        When it failed, UTC, ISO 8601.
    """

    key: str
    error: str
    worker: str
    attempts: int
    time: str


class FailureLog:
    """Keep the failures of a run; remove a task that succeeds later.

    Parameters
    ----------
    folder : path, optional
        The run directory; without one nothing is written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = RunLayout(folder).failures if folder else None
        self._failures = {one.key: one for one in read_failures(folder)} if folder else {}

    def add(self, key: str, error: BaseException, worker: str, attempts: int) -> None:
        """Record a failure, and log it unless another task failed with the same text."""
        text = _text(error)
        if not any(one.error == text for one in self._failures.values()):
            logger.error("%s failed on %s: %s", key, worker or "an unknown worker", text)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._failures[key] = Failure(key, text, worker, attempts, now)
        self._write()

    def discard(self, key: str) -> None:
        """Remove a task that succeeded."""
        if self._failures.pop(key, None):
            self._write()

    def clear(self) -> None:
        """Remove all tasks; called when every task succeeded."""
        if self._failures:
            self._failures = {}
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            if self._failures:
                failures = [asdict(one) for _, one in sorted(self._failures.items())]
                text = json.dumps({"failures": failures}, indent=1) + "\n"
                replace_file(self._path, text.encode())
            else:
                self._path.unlink(missing_ok=True)
        except (OSError, GenretError) as error:  # the task's own is still raised at the end
            logger.warning("cannot write %s: %s", self._path, error)


def read_failures(folder: Path) -> list[Failure]:
    """Read the tasks of a run directory that failed and did not succeed since.

    The list is empty if nothing failed, or if the file cannot be read.
    """
    path = RunLayout(folder).failures
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Failure(**failure) for failure in content["failures"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged: %s", path, error)
        return []


def summary(failures: list[tuple[str, BaseException]], tasks: int) -> GenretError:
    """Make one error of all failures of a stage.

    If all are the same error of ours, return it. Otherwise list the first few in an error of their
    common class, or in a `GenretError` if they have none of ours.
    """
    first, kinds = failures[0][1], {type(error) for _, error in failures}
    ours = first if isinstance(first, GenretError) and len(kinds) == 1 else None
    if ours and len({str(error) for _, error in failures}) == 1:
        return ours
    lines = [f"{len(failures)} of {tasks} tasks failed:"]
    for key, error in failures[:_SHOWN]:
        lines.append(f"  {key}: {_text(error)}")
    if len(failures) > _SHOWN:
        lines.append(f"  and {len(failures) - _SHOWN} more, in failures.json")
    again = "run the same command again: finished work is kept, and these are tried again"
    kind, fix = (type(ours), ours.fix) if ours else (GenretError, None)
    return kind("\n".join(lines), fix=fix or again)


def _text(error: BaseException) -> str:
    found = error.found if isinstance(error, GenretError) else error
    return redact(f"{type(error).__name__}: {found}")
