"""The lease of a run directory: one process at a time works on it, and the others are told.

A lease is a file of its own in the folder `.lease`, numbered one higher than the last. Whoever
creates the next number first has the run; a holder that finds a higher one has lost it. No clocks
are compared: another host's lease is dead when it was not renewed for as long as *we* watched.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import psutil

from genret_dask.errors import GenretError, LeaseError
from genret_dask.storage.places import create_file, is_local, names_in, replace_file, unwritable

logger = logging.getLogger(__name__)

FOLDER = ".lease"
RENEW_SECONDS = 5.0
"""Between two renewals."""
WATCH_SECONDS = 60.0
"""How long another host's lease is watched before it counts as dead."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Holder:
    """Who has a run.

    Attributes
    ----------
    token : str
        Unique to a lease.
    host : str
        Name of the machine.
    machine : str
        One boot of a machine, one process namespace in it: where `pid` means something.
    pid : int
    started : float
        When the process started, by its machine; tells it from a later one of the same pid.
    since : str
        When it took the lease; UTC, ISO 8601.
    renewals : int
    released : bool
        Whether it gave the lease back.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: float
    since: str
    renewals: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_dead(self) -> bool | None:
        """Whether its process is gone; None where that cannot be told from here."""
        if self.machine != _machine():
            return None
        return _started(self.pid) != self.started


class Lease:
    """Holds a run directory while work is done in it; a context manager that may be nested.

    A thread renews it. It is given back at the end; where the process dies, the next one takes it.

    Parameters
    ----------
    run : path
        The run directory; made when it is not there.

    Raises
    ------
    LeaseError
        On entering: another process has it.
    GenretError
        On entering: the directory cannot be written to.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER
        self._depth = self._number = 0
        self._mine = _this_process()
        self._other: Holder | None = None
        self._ended = threading.Event()
        self._renewing = threading.Thread()

    def __enter__(self) -> Lease:
        if not self._depth:
            try:
                self._take()
            except OSError as error:
                raise unwritable(self._folder.parent, error) from error
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._give_back()

    def check(self) -> None:
        """Raise `LeaseError` where another process has taken the run over."""
        if self._other is not None:
            raise LeaseError(
                f"the run {self._folder.parent} was taken over by {self._other}",
                expected="this process to have it to itself",
                fix="see whether this machine was suspended or cut off from the run directory; "
                "what was done is kept, and the other process goes on",
            )

    def _take(self) -> None:
        if is_local(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        number, holder = self._wait_until_free()
        if holder is not None and not holder.released:
            logger.warning("taking the run over from %s, which is gone", holder)
        self._mine = _this_process()
        self._other = None
        self._number = number + 1
        if not create_file(self._path(self._number), _text(self._mine)) or self._is_overtaken():
            raise _refusal(self._folder.parent, read_holder(self._folder.parent))
        for older in [one for one in _numbers(self._folder) if one < self._number]:
            self._path(older).unlink(missing_ok=True)
        self._ended = threading.Event()
        self._renewing = threading.Thread(
            target=self._renew, args=(self._mine, self._ended), daemon=True, name="genret-lease"
        )
        self._renewing.start()

    def _wait_until_free(self) -> tuple[int, Holder | None]:
        """The last number, and who had it; waits for a sign of life of another host's process."""
        began = time.monotonic()
        seen: tuple[int, Holder | None] | None = None
        while True:
            number, holder = _last(self._folder)
            if number == 0 or (holder is not None and (holder.released or holder.is_dead())):
                return number, holder
            alive = holder is not None and holder.is_dead() is False
            if alive or (seen is not None and seen != (number, holder)):
                raise _refusal(self._folder.parent, holder)
            if seen is None:
                seen = number, holder
                logger.warning(
                    "%s is held by %s; waiting up to %.0f s for a sign of life",
                    self._folder.parent,
                    holder or "an unknown process",
                    WATCH_SECONDS,
                )
            if time.monotonic() - began >= WATCH_SECONDS:
                return number, holder
            time.sleep(_POLL_SECONDS)

    def _renew(self, mine: Holder, ended: threading.Event) -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                if self._is_overtaken():
                    return
                mine = replace(mine, renewals=mine.renewals + 1)
                replace_file(self._path(self._number), _text(mine))
            except Exception as error:  # an object store's library has errors of its own
                logger.warning("cannot renew the lease of %s: %s", self._folder.parent, error)

    def _give_back(self) -> None:
        self._ended.set()
        self._renewing.join()
        if self._other is not None:
            return
        path = self._path(self._number)
        try:
            try:
                replace_file(path, _text(replace(self._mine, released=True)))
            except GenretError:  # a full disk has no room for a new file, but takes one away
                path.unlink()
        except Exception as error:  # the next process sees that this one is gone
            logger.warning("cannot give back the lease of %s: %s", self._folder.parent, error)

    def _is_overtaken(self) -> bool:
        number, holder = _last(self._folder)
        if number > self._number or (holder is not None and holder.token != self._mine.token):
            self._other = holder
        return self._other is not None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.json"


def read_holder(run: Path) -> Holder | None:
    """Who has a run, or had it last; None where nobody ever had, or its lease cannot be read."""
    return _last(run / FOLDER)[1]


def _this_process() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0.0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _started(pid: int) -> float | None:
    """When a process started, if it can be by a clock that nobody sets; None where it is gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if not stat.is_file():  # not Linux
            return process.create_time()
        return float(stat.read_text().rpartition(")")[2].split()[19])
    except (psutil.NoSuchProcess, OSError):
        return None


def _machine() -> str:
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:  # not Linux: the name has to do
            continue
    return " ".join(parts)


def _text(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder), indent=1) + "\n").encode()


def _numbers(folder: Path) -> list[int]:
    stems = (name.removesuffix(".json") for name in names_in(folder) if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _last(folder: Path) -> tuple[int, Holder | None]:
    """The highest number, 0 where there is none, and its holder, None where it is unreadable."""
    numbers = _numbers(folder)
    if not numbers:
        return 0, None
    try:
        text = (folder / f"{numbers[-1]:08d}.json").read_text(encoding="utf-8")
        return numbers[-1], Holder(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return numbers[-1], None


def _refusal(run: Path, holder: Holder | None) -> LeaseError:
    return LeaseError(
        f"another process works on {run}: {holder or 'one that cannot be told'}",
        expected="one process at a time; a second may only read (fit, report, status)",
        fix="wait for it or stop it, or give this run another --name",
    )
