"""Artefacts: folders of a run directory, complete or absent, that know what they were made from.

A folder carries `artefact.json`: the inputs and settings it was made from, and the SHA-256 of
every file. It is written beside its place and published at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from genret_dask.errors import StaleError
from genret_dask.storage.fingerprint import Origin, sha256_file
from genret_dask.storage.host_cache import fetch
from genret_dask.storage.places import staged
from genret_dask.storage.records import damaged, dump_record, read_record
from genret_dask.storage.sources import source_hash

RECORD = "artefact.json"

_LARGE = 2**26  # bytes: a tenth of a second to read

_PUBLISHED: Mapping[str, type] = {"files": dict}


def record_of(
    folder: Path, name: str = RECORD, needs: Mapping[str, type] = _PUBLISHED
) -> dict[str, Any]:
    """The record of a published artefact.

    Parameters
    ----------
    needs : mapping of key to type
        What the record must have; see `genret_dask.storage.records.read_record`.

    Raises
    ------
    ModelError
        There is none, it is damaged, or it is not such a record.
    """
    record = read_record(folder / name, needs)
    if record is None:
        raise damaged(folder / name, "is missing")
    return record


State = Literal["done", "to do", "grows", "stale"]


@dataclass(frozen=True, eq=False)
class Artefact:
    """A folder of the run directory and what it is made from.

    Attributes
    ----------
    folder : Path
    made_from : Origin
    record : str
        Its file that tells what is there.
    grows : tuple of str
        Parts of the origin that may change without making stale what depends on the artefact: it
        is then made anew, larger.
    elsewhere : Path or None
        Where the same artefact of another run lies, which is taken over.
    """

    folder: Path
    made_from: Origin
    record: str = RECORD
    grows: tuple[str, ...] = ()
    elsewhere: Path | None = None

    @property
    def place(self) -> Path:
        """Where it can be read: its folder, or that of the other run before it is taken over."""
        if self.elsewhere is None or (self.folder / self.record).exists():
            return self.folder
        return self.elsewhere

    @property
    def fingerprint(self) -> str:
        return self.made_from.fingerprint

    @property
    def state(self) -> State:
        """What is there: the same, nothing, a smaller one, or one made from something else."""
        record = read_record(self.place / self.record)
        if record is None:
            return "to do"
        if record.get("fingerprint") == self.fingerprint:
            return "done"
        differing = set(self.made_from.differing(record))
        return "grows" if differing and differing <= {*self.grows} else "stale"

    @property
    def is_current(self) -> bool:
        """Whether it is there, and need not be made.

        Raises
        ------
        StaleError
            It is there, but was made from something else, which is named.
        """
        state = self.state
        if state == "stale":
            recorded = record_of(self.folder, self.record, {}).get("fingerprint")
            raise StaleError(
                f"{self.folder} was made from other inputs or settings: "
                + ("; ".join(self.differences) or f"fingerprint {recorded}"),
                expected=f"those of this run (fingerprint {self.fingerprint})",
                fix="take the change back, give the run another name (--name), or have it made "
                "anew (--redo)",
            )
        return state == "done"

    @property
    def differing(self) -> list[str]:
        """Dotted names of the parts that differ from the one that is there."""
        record = read_record(self.folder / self.record)
        return self.made_from.differing(record) if record else []

    @property
    def differences(self) -> list[str]:
        """What differs from the one that is there, a line each; empty where there is none."""
        record = read_record(self.folder / self.record)
        return self.made_from.differences(record) if record else []


def is_current(folder: Path, origin: Origin, name: str = RECORD) -> bool:
    """Whether the artefact is there and was made from these inputs; see `Artefact`."""
    return Artefact(folder, origin, name).is_current


class Publishing(Protocol):
    """A task that publishes an artefact."""

    @property
    def folder(self) -> Path: ...
    @property
    def made_from(self) -> Origin: ...


Task = TypeVar("Task", bound=Publishing)


def missing(tasks: Iterable[Task]) -> list[Task]:
    """Those of some tasks whose artefact is not there; `StaleError` where it is of other inputs."""
    return [task for task in tasks if not is_current(task.folder, task.made_from)]


@contextmanager
def publishing(folder: Path, origin: Origin, **facts: Any) -> Iterator[Path]:
    """Give a folder to write into; on leaving without an error it becomes the artefact.

    Parameters
    ----------
    facts
        Further JSON values of the record.
    """
    with staged(folder, RECORD) as staging:
        yield staging
        (staging / RECORD).write_bytes(
            dump_record({**origin.record(), **facts, "files": hashes_of(staging)})
        )


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path within it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def fetched(folder: Path) -> Path:
    """A published artefact as a folder of this machine, its files checked by their hashes.

    A large file is not read again while its size, modification time and inode stay the same.

    Raises
    ------
    ModelError
        The record or a file is missing, or a hash differs.
    """
    folder = fetch(folder, RECORD)
    for name, digest in record_of(folder)["files"].items():
        check_hash(folder / name, digest, remembered=True)
    return folder


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file with its hash; returns the record.

    Raises
    ------
    ModelError
        The record or a file is missing, or a hash differs.
    """
    record = record_of(folder)
    for name, digest in record["files"].items():
        check_hash(folder / name, digest)
    return record


def check_hash(path: Path, digest: str, *, remembered: bool = False) -> None:
    """Raise `ModelError` unless the file is there and has this SHA-256."""
    try:
        known = remembered and path.stat().st_size >= _LARGE
        found = source_hash(path) if known else sha256_file(path)
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})") from error
    if found != digest:
        raise damaged(path, f"has sha256 {found[:16]}..., its record says {digest[:16]}...")
