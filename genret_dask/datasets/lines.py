"""Lines of text files, plain or .gz, and the JSON records on them; errors name file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from genret_dask.datasets.columns import encodable
from genret_dask.errors import DatasetError, listed
from genret_dask.storage.sources import source_hash

LONGEST_LINE = 2**26
"""Bytes; a compressed file can hold a line that no memory does."""


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file; `DatasetError` where it cannot be read."""
    try:
        return source_hash(path)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}", expected="a readable file") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of the lines of a plain or .gz UTF-8 file.

    Blank lines are left out. Only a line feed ends a line: JSON strings and TSV cells may hold
    every other separator.

    Raises
    ------
    DatasetError
        The file is missing, unreadable, a broken gzip file, or not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(_bounded(file), start=1):
                if len(line) > LONGEST_LINE:
                    raise malformed(
                        path,
                        number,
                        f"longer than {LONGEST_LINE // 2**20} MiB",
                        "a record a line, ended by a line feed",
                    )
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise malformed(path, number, f"not UTF-8 ({error.reason})", "text in UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(
            f"{path} is damaged after line {number}: {error}",
            expected="a complete gzip file",
            fix="download or compress it again",
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{path}: {error.strerror or error}", expected="a readable file"
        ) from error


def _bounded(file: gzip.GzipFile | BufferedReader) -> Iterator[bytes]:
    """Lines, none of which takes more memory than one that is refused."""
    while line := file.readline(LONGEST_LINE + 1):
        yield line


def malformed(path: Path, number: int, problem: str, expected: str) -> DatasetError:
    """The error for one line of a file."""
    return DatasetError(f"{path}, line {number}: {problem}", expected=expected)


# --- records ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fields:
    """The fields of one line's JSON object. Each may have several names: the first found counts.

    Attributes
    ----------
    path : Path
    number : int
        Of the line.
    record : dict
    expected : str
        What a line should be, for errors.
    """

    path: Path
    number: int
    record: dict[str, Any]
    expected: str

    @classmethod
    def of(cls, path: Path, number: int, line: str, expected: str) -> Fields:
        """Read a line."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise malformed(path, number, f"not JSON ({error})", expected) from error
        if not isinstance(record, dict):
            raise malformed(path, number, f"a JSON {type(record).__name__}", expected)
        return cls(path, number, record, expected)

    def find(self, names: Sequence[str]) -> tuple[str, Any]:
        """Return the name and the value of a field; the first name and None where there is none."""
        found = ((name, self.record.get(name)) for name in names)
        return next(((name, value) for name, value in found if value is not None), (names[0], None))

    def id(self, names: Sequence[str]) -> str:
        """Return an id, which may be a whole number and must stand in TSV files."""
        name, value = self.find(names)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            raise self._lacks(names)
        if not (isinstance(value, str) and encodable(value)) or any(c in value for c in "\t\n\r"):
            wanted = "a string without tab or line break"
            raise malformed(self.path, self.number, f"{name} is {value!r}", wanted)
        return value

    def text(self, names: Sequence[str], *, optional: bool = False) -> str:
        """Return a text; the empty one where it is optional and there is none."""
        name, value = self.find(names)
        if value is None and not optional:
            raise self._lacks(names)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(f"{name} is a {type(value).__name__}")
        if not encodable(value):
            problem = f"{name} holds half a character"
            raise malformed(self.path, self.number, problem, "no lone surrogates")
        return value

    def texts(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return a list of texts."""
        name, value = self.find(names)
        if not isinstance(value, list) or not all(
            isinstance(text, str) and encodable(text) for text in value
        ):
            raise self.wrong(f"{name} is not a list of strings")
        return tuple(value)

    def wrong(self, problem: str) -> DatasetError:
        """The error for a line that is not as expected."""
        return malformed(self.path, self.number, problem, self.expected)

    def _lacks(self, names: Sequence[str]) -> DatasetError:
        others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
        return self.wrong(f"no {names[0]}{others}; its fields: {listed([*self.record], 8) or '-'}")


def read_records(path: Path, expected: str) -> Iterator[Fields]:
    """Yield the records of a file of JSON objects, one a line."""
    for number, line in read_lines(path):
        yield Fields.of(path, number, line, expected)
