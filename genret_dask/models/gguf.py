"""The settings in the header of a GGUF file, without its weights and its vocabulary.

The package gguf keeps every token as an array of its own: seconds for a vocabulary of 50,000.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from genret_dask.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_header(path: Path) -> dict[str, Any]:
    """Settings by their names, as ``general.architecture``; an array stands by its length.

    Raises
    ------
    ModelError
        The file is cut off, or is no GGUF file.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, path.stat().st_size)
    except (ValueError, UnicodeDecodeError, struct.error, OSError) as error:
        raise ModelError(
            f"{path} is not a GGUF file: {error}",
            expected=f"GGUF, version {' or '.join(map(str, _VERSIONS))}, little-endian",
        ) from error


def _read(file: BinaryIO, size: int) -> dict[str, Any]:
    def take(count: int) -> bytes:
        if not 0 <= count <= size - file.tell():
            raise ValueError("it is cut off")
        return file.read(count)

    if take(4) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    (version,) = struct.unpack("<I", take(4))
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}")
    _, settings = struct.unpack("<QQ", take(16))
    found = {}
    for _ in range(settings):
        name = _text(take)
        (kind,) = struct.unpack("<I", take(4))
        found[name] = _array_length(take) if kind == _ARRAY else _value(take, kind)
    return found


def _value(take: Callable[[int], bytes], kind: int) -> Any:
    if kind == _STRING:
        return _text(take)
    if kind not in _NUMBERS:
        raise ValueError(f"a setting has the unknown type {kind}")
    form = f"<{_NUMBERS[kind]}"
    return struct.unpack(form, take(struct.calcsize(form)))[0]


def _text(take: Callable[[int], bytes]) -> str:
    (length,) = struct.unpack("<Q", take(8))
    return take(length).decode("utf-8")


def _array_length(take: Callable[[int], bytes]) -> int:
    kind, length = struct.unpack("<IQ", take(12))
    if kind in _NUMBERS:
        take(length * struct.calcsize(f"<{_NUMBERS[kind]}"))
        return length
    for _ in range(length):
        _value(take, kind)
    return length
