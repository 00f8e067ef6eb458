"""What a host keeps of a run on an object store: fetched folders, and unfinished work."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path
from typing import Any

from genret_dask.storage.fingerprint import sha256_file
from genret_dask.storage.places import cache, is_local, staged
from genret_dask.storage.records import damaged, parse_record


def fetch(folder: Path, record: str) -> Path:
    """A folder as one of this machine: itself, or the host's copy, made once and checked by hash.

    Parameters
    ----------
    record : str
        The folder's JSON file whose `files` have the SHA-256 of every other one by its name.

    Raises
    ------
    ModelError
        A file is missing, or its hash is not what the record says.
    """
    if is_local(folder):
        return folder
    place: Any = folder
    try:
        text = (place / record).read_bytes()
    except FileNotFoundError as error:
        raise damaged(place / record, "is missing") from error
    files = parse_record(text, place / record, {"files": dict})["files"]
    copy = cache() / "fetched" / hashlib.sha256(text).hexdigest()[:32]
    copy.parent.mkdir(parents=True, exist_ok=True)
    if copy.is_dir():
        return copy
    with open(copy.with_name(copy.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process of the host fetches, the others wait
        if not copy.is_dir():
            with staged(copy, record) as staging:
                for name, digest in files.items():
                    _download(place / name, staging / name, digest)
                (staging / record).write_bytes(text)
    return copy


def _download(source: Any, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.fs.get_file(source.path, str(target))
    except FileNotFoundError as error:
        raise damaged(source, "is missing") from error
    found = sha256_file(target)
    if found != digest:
        raise damaged(source, f"has sha256 {found[:16]}..., its record says {digest[:16]}...")


def working_folder(folder: Path, suffix: str) -> Path:
    """A folder of this machine for unfinished work on `folder`: beside it, or in the cache."""
    if is_local(folder):
        return folder.with_name(folder.name + suffix)
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return cache() / "working" / f"{folder.name}-{name}{suffix}"
