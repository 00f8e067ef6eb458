"""Queries of a user's own file, which belong to no collection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from genret_dask.datasets.lines import read_lines
from genret_dask.errors import DatasetError

_EXPECTED = 'a line like {"_id": "q1", "text": "..."}, like q1<TAB>text, or a query a line'


class Asked(NamedTuple):
    """Queries in the order of their file."""

    ids: list[str]
    texts: list[str]


def read_queries(source: Path | TextIO) -> Asked:
    """Read queries, plain or .gz: JSON lines, id and text between a tab, or a query a line.

    The first line tells which. Queries without an id are numbered from 1.

    Raises
    ------
    DatasetError
        There is no query, a line is malformed or its text empty, an id is repeated or holds a
        blank; file and line are named.
    """
    lines = read_lines(source) if isinstance(source, Path) else _typed(source)
    name = source if isinstance(source, Path) else Path("standard input")
    found, seen = Asked([], []), dict[str, int]()
    read = None
    for number, line in lines:
        if read is None:
            read = _json if line.lstrip().startswith("{") else _tabbed if "\t" in line else _plain
        try:
            query, text = read(line, len(found.ids) + 1)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _wrong(name, number, f"{line[:60]!r} is not as the first line") from error
        if not text.strip():
            raise _wrong(name, number, f"query {query} has no text")
        if not query or len(query.split()) != 1 or query.split()[0] != query:
            raise _wrong(name, number, f"the id {query!r} is empty or holds a blank")
        if (first := seen.setdefault(query, number)) != number:
            raise _wrong(name, number, f"the id {query!r} again, first in line {first}")
        found.ids.append(query)
        found.texts.append(text)
    if not found.ids:
        raise DatasetError(f"{name} has no query", expected=_EXPECTED)
    return found


def _json(line: str, number: int) -> tuple[str, str]:
    record = json.loads(line)
    query, text = record.get("_id", str(number)), record["text"]
    if not isinstance(query, str | int) or not isinstance(text, str):
        raise TypeError("an id and a text")
    return str(query), text


def _tabbed(line: str, number: int) -> tuple[str, str]:
    query, text = line.split("\t", 1)
    return query, text


def _plain(line: str, number: int) -> tuple[str, str]:
    if "\t" in line:
        raise ValueError("a tab")
    return str(number), line


def _typed(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if text := line.strip("\r\n"):
            yield number, text


def _wrong(name: Path, number: int, problem: str) -> DatasetError:
    return DatasetError(f"{name}, line {number}: {problem}", expected=_EXPECTED)
