"""Records: small JSON files that vouch for others, and carry a hash of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from genret_dask.errors import ModelError

_DIGEST = "record_sha256"
_ANY: Mapping[str, type] = {}


def dump_record(content: dict[str, Any]) -> bytes:
    """The text of a record: its content as JSON, and the SHA-256 of that."""
    return (json.dumps({**content, _DIGEST: _digest(content)}, indent=1) + "\n").encode()


def parse_record(
    text: bytes | str, source: Path, needs: Mapping[str, type] = _ANY
) -> dict[str, Any]:
    """The content of a record.

    Parameters
    ----------
    needs : mapping of key to type
        What the record must have: of a dict, files or folders beside `source` with a text each; of
        a list, whole numbers.

    Raises
    ------
    ModelError
        The text is not JSON, not what its hash says, as a byte has changed, or not such a record.
    """
    try:
        content = json.loads(text)
        digest = content.pop(_DIGEST)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(source, f"is not a record ({type(error).__name__}: {error})") from error
    if digest != _digest(content):
        raise damaged(source, "is not what its own hash says")
    for key, kind in needs.items():
        _check(content.get(key), kind, key, source)
    return content


def read_record(path: Path, needs: Mapping[str, type] = _ANY) -> dict[str, Any] | None:
    """The content of a record, or None where there is no file; see `parse_record`.

    Raises
    ------
    ModelError
        It cannot be read, or is not such a record.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})") from error
    return parse_record(text, path, needs)


def _check(value: Any, kind: type, key: str, source: Path) -> None:
    if not isinstance(value, kind):
        raise damaged(source, f"has a {type(value).__name__} for {key}, not a {kind.__name__}")
    if isinstance(value, list) and not all(type(one) is int for one in value):
        raise damaged(source, f"has what is not a whole number in {key}")
    if isinstance(value, dict):
        for name, text in value.items():
            if not stays_inside(name):
                raise damaged(source, f"names {name!r}, which is not inside its folder")
            if not isinstance(text, str):
                raise damaged(source, f"has a {type(text).__name__} for {name!r} in {key}")


def stays_inside(name: str) -> bool:
    """Whether a file's name leads to a place inside the folder that it is relative to."""
    path = PurePosixPath(name)
    plain = all(part != ".." and len(part) < 256 for part in path.parts)
    return bool(path.parts) and not path.is_absolute() and plain and not {*name} & {*"\\\0"}


def damaged(path: Path, found: str) -> ModelError:
    """The error for a file that is not what was written."""
    return ModelError(
        f"{path} {found}",
        expected="the file as genret-dask wrote it",
        fix="genret-dask verify lists all damage of a run, genret-dask repair redoes it",
    )


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
