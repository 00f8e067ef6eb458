"""Columns of strings in Arrow files: mapped, never held; a string is made when it is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from genret_dask.errors import DatasetError

_ROWS = 2**14
_CHARACTERS = 2**24
"""Of a batch of rows, at most, and at which it ends: what a writer holds."""
_FEW = 64  # rows a name from which on names are looked up by their hashes


class Strings(Sequence[str]):
    """A column of strings.

    Parameters
    ----------
    column : pyarrow.ChunkedArray of string
        Without nulls.
    sorted_hashes : tuple of uint64[rows] and int32[rows], optional
        What `sort_hashes` returns, mapped: a few strings are then found without reading all.

    Examples
    --------
    >>> column = Strings.of(["a", "bc", "a"])
    >>> column[1], list(column[1:]), column.find(["a", "x"]).tolist()
    ('bc', ['bc', 'a'], [0, -1])
    """

    def __init__(
        self,
        column: pa.ChunkedArray,
        sorted_hashes: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.column = column
        self._sorted_hashes = sorted_hashes
        self._starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])

    @classmethod
    def of(cls, values: Iterable[str]) -> Strings:
        """Hold some strings in memory.

        Raises
        ------
        DatasetError
            One holds half a character, which UTF-8 cannot.
        """
        if isinstance(values, Strings):
            return values
        values = list(values)
        try:
            return cls(pa.chunked_array([values], pa.string()))
        except UnicodeEncodeError as error:
            raise half_a_character(values) from error

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Strings: ...
    def __getitem__(self, row: int | slice) -> str | Strings:
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            if step != 1:
                raise ValueError("columns are sliced by a step of 1")
            return Strings(self.column.slice(start, max(0, stop - start)))
        row = range(len(self))[row]
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        return str(self.column.chunk(chunk)[row - int(self._starts[chunk])].as_py())

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(
            own == its for own, its in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Strings: {len(self):,} rows>"

    def take(self, rows: Iterable[int]) -> list[str]:
        """Return the strings of some rows, in their order."""
        return [self[int(row)] for row in rows]

    @property
    def chunks(self) -> tuple[int, ...]:
        """Rows of each batch."""
        return tuple(map(len, self.column.chunks))

    @property
    def lengths(self) -> np.ndarray:
        """Characters of each string: int64[rows]."""
        chunks = [pc.utf8_length(chunk).to_numpy() for chunk in self.column.chunks]
        return np.concatenate([np.empty(0, np.int64), *chunks]).astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all strings."""
        return sum(pc.sum(pc.binary_length(chunk)).as_py() or 0 for chunk in self.column.chunks)

    @property
    def hashes(self) -> np.ndarray:
        """64 bits of each string, the same for equal ones: uint64[rows]."""
        chunks = [
            pd.util.hash_array(chunk.to_numpy(zero_copy_only=False), categorize=False)
            for chunk in self.column.chunks
        ]
        return np.concatenate([np.empty(0, np.uint64), *chunks])

    def find(self, names: Iterable[str] | pa.ChunkedArray) -> np.ndarray:
        """Return the row of each name, -1 where it is none of the column's: int64[names].

        Of a string that the column repeats it is the last row.
        """
        if not isinstance(names, pa.ChunkedArray):
            names = pa.chunked_array([list(names)], pa.string())
        if self._sorted_hashes and len(names) * _FEW < len(self):
            return self._look_up(Strings(names), *self._sorted_hashes)
        wanted = names.combine_chunks().dictionary_encode()
        place = pc.index_in(self.column, value_set=wanted.dictionary)
        rows = np.flatnonzero(pc.is_valid(place).to_numpy())
        found = np.full(len(wanted.dictionary), -1, dtype=np.int64)
        found[place.drop_null().to_numpy()] = rows
        return found[wanted.indices.to_numpy()]

    def _look_up(self, names: Strings, hashes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = np.full(len(names), -1, dtype=np.int64)
        wanted = names.hashes
        first, last = (np.searchsorted(hashes, wanted, side) for side in ("left", "right"))
        for place in np.flatnonzero(first < last):
            for row in rows[first[place] : last[place]]:
                if self[int(row)] == names[int(place)]:
                    found[place] = row
        return found

    def sort_hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sorted hashes and the row of each, equal ones in the order of their rows."""
        hashes = self.hashes
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return hashes[order], order

    def repeated(self) -> tuple[int, int] | None:
        """Return the first two rows that hold the same string; None where all differ."""
        hashes, order = self._sorted_hashes or self.sort_hashes()
        twins = np.flatnonzero(hashes[1:] == hashes[:-1])
        pairs = sorted((int(order[at + 1]), int(order[at])) for at in twins)
        for later, earlier in pairs:
            if self[later] == self[earlier]:
                return earlier, later
        return None

    def digest(self) -> bytes:
        """SHA-256 over the lengths in bytes and over the bytes of all strings."""
        lengths, letters = hashlib.sha256(), hashlib.sha256()
        for chunk in self.column.chunks:
            _, offsets, data = chunk.buffers()
            ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            lengths.update(np.diff(ends).astype("<i4").tobytes())
            if data is not None and len(chunk):
                letters.update(memoryview(data)[ends[0] : ends[-1]])
        return lengths.digest() + letters.digest()


def half_a_character(values: Iterable[str]) -> DatasetError:
    """The error for strings of which one is none in UTF-8."""
    row, text = next((row, text) for row, text in enumerate(values) if not encodable(text))
    return DatasetError(
        f"row {row}: {text[:60]!r} holds half a character", expected="text without lone surrogates"
    )


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold a text; lone surrogates, which JSON lets through, it cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class RowWriter:
    """Write rows into an Arrow file, a batch at a time; equal rows give equal bytes.

    Parameters
    ----------
    path : Path
    fields : dict of name to pyarrow.DataType

    Attributes
    ----------
    rows : int
        That were added.
    """

    def __init__(self, path: Path, fields: dict[str, pa.DataType]) -> None:
        self._schema = pa.schema([pa.field(name, kind, False) for name, kind in fields.items()])
        self._file = pa.ipc.new_file(str(path), self._schema)
        self.rows = 0
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._write()
        finally:
            self._file.close()

    def add(self, *row: Any) -> None:
        """Add a row, a value a field."""
        self._rows.append(row)
        self.rows += 1
        self._characters += sum(len(value) for value in row if isinstance(value, str))
        if len(self._rows) == _ROWS or self._characters >= _CHARACTERS:
            self._write()

    def _write(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        try:
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, self._schema, strict=True)
            ]
        except UnicodeEncodeError as error:
            texts = (value for row in self._rows for value in row if isinstance(value, str))
            raise half_a_character(texts) from error
        if self._rows:
            self._file.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows, self._characters = [], 0


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write columns of numbers into an Arrow file, as one batch."""
    batch = pa.record_batch({name: pa.array(values) for name, values in columns.items()})
    with pa.ipc.new_file(str(path), batch.schema) as file:
        file.write_batch(batch)


def read_table(path: Path) -> pa.Table:
    """Map an Arrow file that `RowWriter` or `write_table` wrote.

    Raises
    ------
    DatasetError
        It is missing or damaged.
    """
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"{path} cannot be read: {str(error)[:200]}",
            expected="the table that genret-dask wrote",
            fix=f"delete {path.parent} to have it built again",
        ) from error
