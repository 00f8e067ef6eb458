"""Records: small JSON files that vouch for others, and carry a hash of themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from genret_dask.errors import ModelError

_DIGEST = "record_sha256"


def dump_record(content: dict[str, Any]) -> bytes:
    """The text of a record: its content as JSON, and the SHA-256 of that."""
    return (json.dumps({**content, _DIGEST: _digest(content)}, indent=1) + "\n").encode()


def parse_record(text: bytes | str, source: Path) -> dict[str, Any]:
    """The content of a record.

    Raises
    ------
    ModelError
        The text is not JSON, or not what its hash says: a byte has changed.
    """
    try:
        content = json.loads(text)
        digest = content.pop(_DIGEST)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(source, f"is not a record ({type(error).__name__}: {error})") from error
    if digest != _digest(content):
        raise damaged(source, "is not what its own hash says")
    for name in content.get("files", {}):
        if not stays_inside(name):
            raise damaged(source, f"names {name!r}, which is not inside its folder")
    return content


def read_record(path: Path) -> dict[str, Any] | None:
    """The content of a record, or None where there is no file.

    Raises
    ------
    ModelError
        It is damaged, or cannot be read.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})") from error
    return parse_record(text, path)


def stays_inside(name: str) -> bool:
    """Whether a file's name leads to a place inside the folder that it is relative to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and bool(name)


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
