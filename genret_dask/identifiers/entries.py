"""A user's file of identifiers, read an entry at a time: a document's id and what identifies it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from genret_dask.errors import DatasetError
from genret_dask.storage.arrays import load

Entry = tuple[str, Any]
"""A document's id and its identifier: a string, or a list of strings or of integers."""

Content = Literal["text", "tokens", "numbers"]

SUFFIXES = (".tsv", ".json", ".jsonl", ".npy")
_ID_KEYS = ("_id", "id", "docid", "doc_id")
_MOST = 2**31


def read_entries(path: Path, document_ids: Sequence[str] | None = None) -> Iterator[Entry]:
    """Yield each document's id and identifier, in the order of the file.

    Parameters
    ----------
    document_ids : sequence of str, optional
        Of the rows of an array.

    Raises
    ------
    DatasetError
        The file is of no known format, or malformed; the line or the place is named.
    """
    if path.suffix == ".npy":
        array = load(path)
        if document_ids is not None and len(array) != len(document_ids):
            raise DatasetError(
                f"{path} has {len(array)} rows, and the collection {len(document_ids)} documents",
                expected="a row for each document, in the collection's order",
            )
        for row, numbers in enumerate(array):
            length = int((numbers >= 0).sum())
            if (numbers[:length] < 0).any():
                raise DatasetError(
                    f"{path} row {row} is {numbers.tolist()}", expected="-1 behind numbers alone"
                )
            if length:
                name = str(row) if document_ids is None else document_ids[row]
                yield name, numbers[:length].tolist()
    elif path.suffix == ".json":
        yield from _json_entries(path)
    else:
        read = _json_line if path.suffix == ".jsonl" else _tab_line
        with path.open(encoding="utf-8") as lines:
            try:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield read(path, number, line)
            except UnicodeDecodeError as error:
                raise DatasetError(f"{path} is not UTF-8: {error}") from error


def alike(
    path: Path, content: Content, document_ids: Sequence[str] | None = None
) -> Iterator[Entry]:
    """Yield the entries of a file, each checked to be what the first one is."""
    for number, (name, identifier) in enumerate(read_entries(path, document_ids), 1):
        if _content_of(identifier) != content:
            raise _wrong(path, number, name, identifier)
        yield name, identifier


def _tab_line(path: Path, number: int, line: str) -> Entry:
    name, tab, identifier = line.rstrip("\r\n").partition("\t")
    if not tab or not identifier.strip():
        raise DatasetError(
            f"{path} line {number}: {line.strip()[:80]!r}", expected="docid, a tab, an identifier"
        )
    return name, identifier.strip()


def _json_line(path: Path, number: int, line: str) -> Entry:
    try:
        record = json.loads(line)
        name = next(str(record[key]) for key in _ID_KEYS if key in record)
        return name, record["identifier"]
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        raise DatasetError(
            f"{path} line {number}: {line.strip()[:80]!r}",
            expected=f"an object with identifier and one of {', '.join(_ID_KEYS)}",
        ) from error


def _json_entries(path: Path) -> Iterator[Entry]:
    """Read one object of ids and identifiers, an entry at a time."""
    text, decoder = path.read_text(encoding="utf-8"), json.JSONDecoder()

    def skip(at: int, wanted: str) -> int:
        while at < len(text) and text[at].isspace():
            at += 1
        if at >= len(text) or text[at] not in wanted:
            raise ValueError(f"character {at} is no {' or '.join(wanted)}")
        return at + 1

    try:
        at = skip(0, "{")
        while True:
            at = skip(at, '"') - 1
            name, at = decoder.raw_decode(text, at)
            at = skip(at, ":")
            while text[at].isspace():
                at += 1
            identifier, at = decoder.raw_decode(text, at)
            yield str(name), identifier
            at = skip(at, ",}")
            if text[at - 1] == "}":
                return
    except (ValueError, IndexError) as error:
        raise DatasetError(
            f"{path} is no object of ids and identifiers: {error}",
            expected='{"docid": identifier, ...}',
        ) from error


@lru_cache(maxsize=16)
def content_of_file(path: str, _mtime: int) -> Content:
    """What the first identifier of a file is.

    Raises
    ------
    DatasetError
        The file has another ending, no entry, or one of none of these.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise DatasetError(
            f"{file} ends in {file.suffix!r}",
            expected=f"one of {', '.join(SUFFIXES)}; pickles are not read, they can run code",
        )
    if file.suffix == ".npy":
        return _array_content(file)
    first = next(read_entries(file), None)
    if first is None:
        raise DatasetError(f"{file} has no identifier", expected="one for each document")
    content = _content_of(first[1])
    if content is None:
        raise _wrong(file, 1, *first)
    return content


def _array_content(file: Path) -> Content:
    try:
        array = load(file)
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(
            f"{file} cannot be read: {str(error)[:120]}", expected="a .npy of integers"
        ) from error
    if array.ndim != 2 or array.dtype.kind not in "iu" or not array.size:
        raise DatasetError(
            f"{file} holds {array.dtype}{list(array.shape)}",
            expected="integers [documents, levels], -1 behind the last of an identifier",
        )
    return "numbers"


@lru_cache(maxsize=16)
def extent_of_file(path: str, _mtime: int, content: Content) -> tuple[int, int]:
    """One more than the largest number of a file, and tokens of its longest identifier, at most."""
    largest, steps = 0, 1
    for _, identifier in alike(Path(path), content):
        steps = max(steps, len(identifier.encode()) if content == "text" else len(identifier))
        if content == "numbers":
            largest = max(largest, *identifier)
    return largest + 1, steps


def _content_of(identifier: Any) -> Content | None:
    if isinstance(identifier, str) and identifier.strip():
        return "text"
    if not isinstance(identifier, list) or not identifier:
        return None
    if all(isinstance(one, str) for one in identifier):
        return "tokens"
    if all(type(one) is int and 0 <= one < _MOST for one in identifier):
        return "numbers"
    return None


def _wrong(path: Path, number: int, name: str, identifier: Any) -> DatasetError:
    return DatasetError(
        f"{path} entry {number}: the identifier of {name!r} is {str(identifier)[:80]!r}",
        expected="a text, or a list of tokens or of integers from 0, as the file's first one is",
    )
