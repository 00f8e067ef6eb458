"""Hashes of the files that a study reads from outside its run directory: data, weights, embedders.

Bytes decide whether a result is current, never paths. Weights are large, so a hash is remembered on
the host beside the file's size, modification time and inode, and an unchanged file is not read
again; `recheck` reads all of them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from genret_dask.errors import ModelError
from genret_dask.storage.fingerprint import fingerprint, sha256_file
from genret_dask.storage.places import cache, replace_file

logger = logging.getLogger(__name__)

_MEMORY = "hashes.json"
_REMEMBERED = 10_000  # files; those that were read longest ago are forgotten
_RACY_SECONDS = 2.0
"""A file changed so lately may change again within the same tick of its file system's clock."""

_TEXT_FILES = (".json", ".model", ".txt", ".jinja")
_MODEL_FILES = (*_TEXT_FILES, ".safetensors", ".bin")
"""Suffixes of what transformers reads from a model's folder; a README beside it changes nothing."""


def source_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; read once as long as its stat stays the same."""
    path = Path(path).absolute()
    stamp = _stamp(path)
    known = _read().get(str(path))
    if known and known[:-1] == stamp:
        return str(known[-1])
    digest = sha256_file(path)
    if _stamp(path) == stamp and time.time() - stamp[1] / 1e9 > _RACY_SECONDS:
        _write({str(path): [*stamp, digest]})
    return digest


def model_hash(place: Path) -> str:
    """Return 16 hexadecimal digits over a GGUF file, or over the files of a Hugging Face folder.

    Names within the folder count, the folder's own place does not.
    """
    return _hash_of("model", place, _MODEL_FILES)


def tokenizer_hash(place: Path) -> str:
    """`model_hash` without the weights, where they are files of their own."""
    return _hash_of("tokenizer", place, _TEXT_FILES)


def weights_hash(place: Path, base: Path | None) -> str:
    """`model_hash` of weights; of an adapter, of both it and its base."""
    found = model_hash(place)
    return found if base is None else fingerprint("adapter", [found, model_hash(base)])


def _hash_of(what: str, place: Path, suffixes: tuple[str, ...]) -> str:
    try:
        if place.is_file():
            return fingerprint(f"{what} file", source_hash(place))
        files = sorted(path for path in place.iterdir() if path.suffix in suffixes)
        return fingerprint(f"{what} folder", {path.name: source_hash(path) for path in files})
    except OSError as error:
        raise ModelError(
            f"{place} cannot be read: {error.strerror or error}",
            expected="a Hugging Face folder with config.json, or a GGUF file",
        ) from error


def contents(settings: BaseModel, *sources: str, **hashes: Any) -> dict[str, Any]:
    """Settings as a fingerprint sees them: the hashes of its sources in place of where they lie.

    Parameters
    ----------
    sources : str
        Fields that only say where something lies, or what it is called.
    hashes
        What stands in their place, by name.
    """
    return {**settings.model_dump(mode="json", exclude=set(sources)), **hashes}


def paths_in(settings: Any) -> list[Path]:
    """Every path in a record, and in the records and sequences that it holds."""
    if isinstance(settings, Path):
        return [settings]
    if isinstance(settings, BaseModel):
        settings = [value for _, value in settings]
    if isinstance(settings, list | tuple):
        return [path for value in settings for path in paths_in(value)]
    return []


def recheck(places: Iterable[Path]) -> list[Path]:
    """Read the remembered files of unchanged stat; forget and return those of other bytes.

    Parameters
    ----------
    places : iterable of Path
        Files, and folders of files, that are looked at; others are not.
    """
    roots = [place.absolute() for place in places]
    changed = []
    for name, known in _read().items():
        path = Path(name)
        if not any(path.is_relative_to(root) for root in roots):
            continue
        try:
            if known[:-1] == _stamp(path) and sha256_file(path) != known[-1]:
                changed.append(path)
        except OSError as error:
            logger.debug("cannot check %s: %s", path, error)
    _write({}, forget=changed)
    return changed


def _stamp(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _read() -> dict[str, list[Any]]:
    """Stamp and hash by path; what is not such an entry is left out."""
    try:
        found = json.loads((cache() / _MEMORY).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: one for name, one in found.items() if isinstance(one, list) and len(one) == 4}


def _write(new: dict[str, list[Any]], forget: list[Path] | None = None) -> None:
    """Remember; a host whose cache cannot be written to reads files anew each time."""
    gone = {str(path) for path in forget or ()}
    if not new and not gone:
        return
    place = cache() / _MEMORY
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = {n: known for n, known in _read().items() if n not in gone and n not in new}
            latest = dict([*kept.items(), *new.items()][-_REMEMBERED:])
            replace_file(place, json.dumps(latest, indent=1).encode())
    except Exception as error:
        logger.info("hashes are not remembered: %s", error)
