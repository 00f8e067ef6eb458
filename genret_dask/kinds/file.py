"""Identifiers that a user brings in a file, for the documents of the collection by their ids."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genret_dask.datasets.collection import Collection
from genret_dask.errors import DatasetError, GenretError, listed
from genret_dask.identifiers.listing import list_identifiers, prefixes_of_others
from genret_dask.kinds.base import Shape, Source
from genret_dask.kinds.listed import Listed, Tokens
from genret_dask.models.pretrained import load_tokenizer
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.storage.artefacts import fetched
from genret_dask.storage.fingerprint import sha256_file
from genret_dask.storage.sources import contents, source_hash

logger = logging.getLogger(__name__)

Entry = tuple[str, Any]
"""A document's id and its identifier: a string, or a list of strings or of integers."""

Content = Literal["text", "tokens", "numbers"]

_CHUNK = 2**14  # entries that are held at a time
_SUFFIXES = (".tsv", ".json", ".jsonl", ".npy")
_ID_KEYS = ("_id", "id", "docid", "doc_id")
_MOST = 2**31


class FileIdentifiers(Listed):
    """A user's own identifiers: texts, tokens that a tokeniser knows, or lists of integers."""

    kind: Literal["file"] = "file"
    path: Path = Field(
        description=".tsv (docid, tab, identifier), .json ({docid: identifier}), .jsonl (_id, "
        "identifier), or .npy (integers, a row a document of the collection)"
    )
    end: bool | None = Field(
        None,
        description="close identifiers with the end token; texts, and others whose lengths differ",
    )
    blank: bool = Field(
        False, description="texts: begin with a blank, as what follows a prompt of text does"
    )
    shared: bool = Field(
        False, description="integers: all levels share one block of new vocabulary rows"
    )
    repeated: Literal["refuse", "share"] = Field(
        "refuse", description="documents with the same identifier: refused, or found together"
    )
    missing: Literal["refuse", "allow"] = Field(
        "refuse", description="documents without one: refused, or left out of search"
    )
    prefixes: Literal["refuse", "allow"] = Field(
        "allow", description="identifiers that others begin with: refused, or closed by the end"
    )
    unknown: Literal["refuse", "allow"] = Field(
        "refuse", description="identifiers of ids that the collection lacks: refused, or ignored"
    )

    @property
    def content(self) -> Content:
        """What the file's first identifier is."""
        return _content(*self._stamp)

    @property
    def _stamp(self) -> tuple[str, int]:
        """The file, and when it was written.

        Raises
        ------
        DatasetError
            It is not there.
        """
        try:
            return str(self.path), self.path.stat().st_mtime_ns
        except OSError as error:
            raise DatasetError(
                f"identifiers.path: {self.path} cannot be read: {error.strerror}",
                expected=f"a file of identifiers: {', '.join(_SUFFIXES)}",
            ) from error

    @property
    def per_tokenizer(self) -> bool:  # type: ignore[override]
        """See `Kind`: integers are new rows of any model's vocabulary."""
        return self.content != "numbers"

    def problems(self) -> Iterator[str]:
        """See `Kind.problems`."""
        try:
            if self.content != "numbers" and self.shared:
                yield f"identifiers {self.label}: shared is for integers; {self.path} holds text"
        except GenretError as error:
            yield error.line(f"identifiers {self.label}")

    def settings(self) -> dict[str, Any]:
        """See `Kind.settings`."""
        return contents(self, "name", "path", bytes=source_hash(Path(self._stamp[0])))

    def planned(self, documents: int) -> Shape:
        """See `Kind.planned`."""
        rows, steps = _extent(*self._stamp, self.content)
        numbers = self.content == "numbers"
        return Shape((rows if self.shared else rows * steps) + 1 if numbers else 0, steps + 1)

    # --- before any work ----------------------------------------------------------------------

    def refusals(self, collection: Collection) -> Iterator[str]:
        """See `Kind.refusals`: ids that are unknown, twice there, or missing."""
        seen = np.zeros(len(collection), dtype=np.int64)
        unknown, strangers = 0, list[str]()
        for ids, _ in self._chunks(collection):
            rows = collection.document_ids.find(ids)
            unknown += int((rows < 0).sum())
            strangers += [ids[place] for place in np.flatnonzero(rows < 0)[: 3 - len(strangers)]]
            np.add.at(seen, rows[rows >= 0], 1)
        twice, missing = np.flatnonzero(seen > 1), np.flatnonzero(seen == 0)
        if unknown and self.unknown == "refuse":
            yield (
                f"{self.path} has {unknown} ids that the collection lacks: "
                f"{listed(strangers, of=unknown)}; is it of another collection? "
                "identifiers.unknown: allow ignores them"
            )
        if len(twice):
            names = listed(collection.document_ids.take(twice[:3]), of=len(twice))
            yield f"{self.path} has several identifiers for {len(twice)} documents: {names}"
        if len(missing) and self.missing == "refuse":
            names = listed(collection.document_ids.take(missing[:3]), of=len(missing))
            yield (
                f"{self.path} has no identifier for {len(missing)} of {len(collection)} documents: "
                f"{names}; identifiers.missing: allow leaves them out of search"
            )

    # --- making -------------------------------------------------------------------------------

    def tokens(self, source: Source) -> Tokens:
        """See `Listed.tokens`.

        Raises
        ------
        DatasetError
            The tokeniser lacks a token, or documents share an identifier where that is forbidden.
        """
        collection, content = source.collection, self.content
        if content == "numbers":
            rows = self._rows(collection, lambda identifiers: identifiers)
            found = self._of_numbers(rows)
        else:
            if source.tokenizer is None:
                raise ValueError("texts are read by a tokeniser")
            folder = fetched(source.tokenizer)
            file = folder / "tokenizer.json"
            lead = " " * self.blank
            read = _text_reader(file, lead) if content == "text" else _token_reader(file)
            rows = self._rows(collection, read)
            end = load_tokenizer(str(folder), local_files_only=True).eos_token_id
            closed = self._closes(rows, content == "text")
            digest = sha256_file(folder / "tokenizer.json")
            found = Tokens(rows, end if closed else None, tokenizer=digest)
        self._check(found.rows, collection)
        return found

    def _of_numbers(self, rows: np.ndarray) -> Tokens:
        """New vocabulary rows: as many as each level's largest number, or any level's, tells."""
        largest = [int(column.max()) + 1 for column in rows.T]
        sizes = (max(largest),) if self.shared else tuple(largest)
        if not self.shared:
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            rows = np.where(rows < 0, -1, rows + starts).astype(np.int32)
        return Tokens(rows, sum(sizes) if self._closes(rows, False) else None, sizes)

    def _closes(self, rows: np.ndarray, default: bool) -> bool:
        """Whether an end token follows; prefixes of others need one.

        Raises
        ------
        DatasetError
            Identifiers differ in length, and the settings forbid an end token.
        """
        lengths = (rows >= 0).sum(axis=1)
        lengths = lengths[lengths > 0]
        differ = bool(len(lengths)) and int(lengths.min()) != int(lengths.max())
        if differ and self.end is False:
            raise DatasetError(
                f"the identifiers in {self.path} have {lengths.min()} to {lengths.max()} tokens",
                expected="one length, or an end token",
                fix="remove identifiers.end: false",
            )
        return default or differ if self.end is None else self.end

    def _check(self, rows: np.ndarray, collection: Collection) -> None:
        """Refuse identifiers that are shared, or that others begin with; or say how many are."""
        distinct, identifier = list_identifiers(rows)
        begun = np.flatnonzero(np.isin(identifier, prefixes_of_others(distinct)))
        if len(begun):
            text = (
                f"the identifiers of {len(begun)} documents in {self.path} are the beginnings of "
                f"others: {listed(collection.document_ids.take(begun[:3]), of=len(begun))}"
            )
            if self.prefixes == "refuse":
                raise DatasetError(
                    text,
                    expected="identifiers of which none begins another",
                    fix="set identifiers.prefixes: allow; the end token tells them apart",
                )
            logger.warning("%s; the end token tells them apart", text)
        if self.repeated == "share":
            return
        counts = np.bincount(identifier[identifier >= 0])
        shared = np.flatnonzero((identifier >= 0) & (counts[identifier] > 1))
        if len(shared):
            raise DatasetError(
                f"{len(shared)} documents share their identifier in {self.path} with others: "
                f"{listed(collection.document_ids.take(shared[:3]), of=len(shared))}",
                expected="an identifier for each document",
                fix="make them differ, or set identifiers.repeated: share",
            )

    def _rows(self, collection: Collection, read: Any) -> np.ndarray:
        """Token rows of all documents, int32[documents, longest], -1 behind the last."""
        found = np.full((len(collection), 1), -1, dtype=np.int32)
        for ids, identifiers in self._chunks(collection):
            sequences = read(identifiers)
            width = max(map(len, sequences))
            if width > found.shape[1]:
                found = np.pad(found, ((0, 0), (0, width - found.shape[1])), constant_values=-1)
            for row, sequence in zip(collection.document_ids.find(ids), sequences, strict=True):
                if row >= 0:
                    found[row, : len(sequence)] = sequence
        return found

    def _chunks(self, collection: Collection) -> Iterator[tuple[list[str], list[Any]]]:
        """Ids and identifiers, some at a time."""
        entries = _alike(self.path, self.content, collection.document_ids)
        while chunk := list(islice(entries, _CHUNK)):
            yield [name for name, _ in chunk], [identifier for _, identifier in chunk]


# --- the file -------------------------------------------------------------------------------------


def _entries(path: Path, document_ids: Sequence[str] | None = None) -> Iterator[Entry]:
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
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if document_ids is not None and len(array) != len(document_ids):
            raise DatasetError(
                f"{path} has {len(array)} rows, and the collection {len(document_ids)} documents",
                expected="a row for each document, in the collection's order",
            )
        for row, numbers in enumerate(array):
            name = str(row) if document_ids is None else document_ids[row]
            yield name, [int(number) for number in numbers if number >= 0]
    elif path.suffix == ".json":
        yield from _json_entries(path)
    else:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    read = _json_line if path.suffix == ".jsonl" else _tab_line
                    yield read(path, number, line)


def _alike(
    path: Path, content: Content, document_ids: Sequence[str] | None = None
) -> Iterator[Entry]:
    """Yield the entries of a file, each checked to be what the first one is."""
    for number, (name, identifier) in enumerate(_entries(path, document_ids), 1):
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
def _content(path: str, _mtime: int) -> Content:
    """What the first identifier of a file is.

    Raises
    ------
    DatasetError
        The file has another ending, no entry, or one of none of these.
    """
    file = Path(path)
    if file.suffix not in _SUFFIXES:
        raise DatasetError(
            f"{file} ends in {file.suffix!r}",
            expected=f"one of {', '.join(_SUFFIXES)}; pickles are not read, they can run code",
        )
    if file.suffix == ".npy":
        return _array_content(file)
    first = next(_entries(file), None)
    if first is None:
        raise DatasetError(f"{file} has no identifier", expected="one for each document")
    content = _content_of(first[1])
    if content is None:
        raise _wrong(file, 1, *first)
    return content


def _array_content(file: Path) -> Content:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
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
def _extent(path: str, _mtime: int, content: Content) -> tuple[int, int]:
    """One more than the largest number of a file, and tokens of its longest identifier, at most."""
    largest, steps = 0, 1
    for _, identifier in _alike(Path(path), content):
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


# --- tokens ---------------------------------------------------------------------------------------


def _text_reader(tokenizer: Path, lead: str) -> Callable[[list[str]], list[list[int]]]:
    reader = Reader.at(tokenizer)
    return lambda texts: [ids for chunk in reader.bare(texts, lead) for ids in chunk]


def _token_reader(tokenizer: Path) -> Callable[[list[list[str]]], list[list[int]]]:
    """A function that looks tokens up; `DatasetError` where the tokeniser lacks some."""
    known = read_tokenizer(tokenizer).get_vocab()

    def read(identifiers: list[list[str]]) -> list[list[int]]:
        names = {token for identifier in identifiers for token in identifier}
        if lacking := sorted(names - known.keys()):
            raise DatasetError(
                f"the tokeniser lacks {len(lacking)} tokens of the identifiers: {listed(lacking)}",
                expected="identifiers of tokens that the model has",
                fix="bring the tokeniser that the model was trained with, or give integers, which "
                "get new vocabulary rows",
            )
        return [[known[token] for token in identifier] for identifier in identifiers]

    return read
