"""Artefacts: folders of a run directory, complete or absent, that know what they were made from.

A folder carries `artefact.json`: the fingerprint of the inputs and settings it was made from, and
the SHA-256 of every file. It is written beside its place and published by one rename.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genret_dask.errors import GenretError, ModelError, StaleError
from genret_dask.fingerprint import sha256_file

RECORD = "artefact.json"


def read_record(folder: Path, name: str = RECORD) -> dict[str, Any] | None:
    """The record of a published artefact, or None when there is none."""
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / name} is unreadable: {error}", fix=f"remove {folder} and run again"
        ) from error
    return record


def is_current(folder: Path, made_from: str, name: str = RECORD) -> bool:
    """Whether the artefact is there and was made from these inputs.

    Raises
    ------
    StaleError
        It is there, but was made from others.
    """
    record = read_record(folder, name)
    if record is None:
        return False
    if record["made_from"] != made_from:
        raise StaleError(
            f"{folder} was made from other inputs or settings (fingerprint {record['made_from']})",
            expected=f"fingerprint {made_from}",
            fix=f"give the run another name, or remove {folder}",
        )
    return True


@contextmanager
def publishing(folder: Path, made_from: str, **facts: Any) -> Iterator[Path]:
    """Give a folder to write into; on leaving without an error it becomes the artefact.

    Parameters
    ----------
    facts
        Further JSON values of the record.
    """
    # Of its own: a task that a cluster believed lost may still be writing.
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise unwritable(partial, error) from error
    yield partial
    files = {
        str(path.relative_to(partial)): sha256_file(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    record = {"made_from": made_from, **facts, "files": files}
    (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for path in [*partial.rglob("*"), partial]:
        fsync(path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    fsync(folder.parent)
    for left_over in folder.parent.glob(f"{folder.name}.*.partial"):
        shutil.rmtree(left_over, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file with its hash; returns the record.

    Raises
    ------
    ModelError
        The record or a file is missing, or a hash differs.
    """
    record = read_record(folder)
    if record is None:
        raise ModelError(f"{folder} has no {RECORD}", fix=f"remove {folder} and run again")
    for name, digest in record["files"].items():
        path = folder / name
        found = sha256_file(path) if path.is_file() else "no file"
        if found != digest:
            raise ModelError(
                f"{path}: SHA-256 {found}",
                expected=f"{digest}, by {RECORD}",
                fix=f"remove {folder} and run again",
            )
    return record


def write_text(path: Path, text: str) -> None:
    """Put a text file in its place, complete and durable: temporary file, fsync, rename, fsync."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    fsync(path.parent)


def unwritable(path: Path, error: OSError) -> GenretError:
    """The error for a place that cannot be written to."""
    return GenretError(
        f"cannot write to {path}: {error.strerror or error}",
        expected="a run directory that this user can write to, on a disk with room",
        fix="choose another with --runs, or change its permissions",
    )


def fsync(path: Path) -> None:
    """Have the operating system put a file, or a folder's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
