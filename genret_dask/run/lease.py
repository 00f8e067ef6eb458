"""The lease of a run directory: one process at a time works on it, and the others are told.

A lease is a file of its own in the folder `.lease`, numbered one higher than the last. Whoever
creates the next number first has the run; a holder that finds a higher one has lost it. A holder
renews its file; one that does not while *we* watch is dead. No clocks are compared.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from genret_dask.errors import LeaseError
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import create_file, is_local, names_in, replace_file, unwritable

logger = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
"""Between two renewals."""
WATCH_SECONDS = 60.0
"""How long a lease is watched before it counts as dead: a network file system may show its renewals
that late."""
GONE_SECONDS = 15.0
"""How long it is watched where its process is not on this machine any more."""

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
    pid : int
    since : str
        When it took the lease; UTC, ISO 8601.
    renewals : int
    released : bool
        Whether it gave the lease back.
    """

    token: str
    host: str
    pid: int
    since: str
    renewals: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self) -> bool:
        """Tell whether it worked on a machine of this name, where there is no such process."""
        if self.host != socket.gethostname():
            return False
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


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
        self._folder = RunLayout(run).lease
        self._depth = self._number = 0
        self._mine = _new_holder()
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

    def __exit__(self, *error: object) -> None:
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
        self._number = self._wait_until_free() + 1
        self._mine, self._other = _new_holder(), None
        if not create_file(self._path(self._number), _text(self._mine)) or self._is_overtaken():
            raise self._refusal(read_holder(self._folder.parent))
        for older in [one for one in _numbers(self._folder) if one < self._number]:
            self._path(older).unlink(missing_ok=True)
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True, name="genret-lease")
        self._renewing.start()

    def _wait_until_free(self) -> int:
        """Wait until nobody has the run; return the last number."""
        first = _last(self._folder)
        if _is_free(*first):
            return first[0]
        holder = first[1]
        patience = GONE_SECONDS if holder and holder.is_gone() else WATCH_SECONDS
        logger.warning(
            "%s is held by %s; waiting up to %.0f s for a sign of life",
            self._folder.parent,
            holder or "an unknown process",
            patience,
        )
        end = time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            found = _last(self._folder)
            if _is_free(*found):
                return found[0]
            if found != first:
                raise self._refusal(found[1])
        logger.warning("taking the run over from %s, which is gone", holder or "that process")
        return first[0]

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                if self._is_overtaken():
                    return
                self._mine = replace(self._mine, renewals=self._mine.renewals + 1)
                replace_file(self._path(self._number), _text(self._mine))
            except Exception as error:  # an object store's library has errors of its own
                logger.warning("cannot renew the lease of %s: %s", self._folder.parent, error)

    def _give_back(self) -> None:
        self._ended.set()
        self._renewing.join()
        if self._other is not None:
            return
        try:
            replace_file(self._path(self._number), _text(replace(self._mine, released=True)))
        except Exception as error:  # the next process sees that this one is gone
            logger.warning("cannot give back the lease of %s: %s", self._folder.parent, error)

    def _is_overtaken(self) -> bool:
        number, holder = _last(self._folder)
        if number > self._number or (holder is not None and holder.token != self._mine.token):
            self._other = holder
        return self._other is not None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.json"

    def _refusal(self, holder: Holder | None) -> LeaseError:
        return LeaseError(
            f"another process works on {self._folder.parent}: {holder or 'an unknown one'}",
            expected="one process at a time; a second may only read (fit, report, status)",
            fix="wait for it or stop it, or give this run another --name",
        )


def read_holder(run: Path) -> Holder | None:
    """Read who has a run, or had it last; None where nobody had, or the lease cannot be read."""
    return _last(RunLayout(run).lease)[1]


def _new_holder() -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), now)


def _text(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder), indent=1) + "\n").encode()


def _is_free(number: int, holder: Holder | None) -> bool:
    return number == 0 or (holder is not None and holder.released)


def _numbers(folder: Path) -> list[int]:
    stems = (name.removesuffix(".json") for name in names_in(folder) if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _last(folder: Path) -> tuple[int, Holder | None]:
    """Read the highest number, 0 if there is none, and its holder, None if that is unreadable."""
    numbers = _numbers(folder)
    if not numbers:
        return 0, None
    try:
        content = json.loads((folder / f"{numbers[-1]:08d}.json").read_text(encoding="utf-8"))
        return numbers[-1], Holder(**{one.name: content[one.name] for one in fields(Holder)})
    except (OSError, ValueError, TypeError, LookupError):
        return numbers[-1], None
