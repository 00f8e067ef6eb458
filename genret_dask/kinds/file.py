"""Identifiers that a user brings in a file, for the documents of the collection by their ids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genret_dask.datasets.collection import Collection
from genret_dask.errors import DatasetError, GenretError, listed
from genret_dask.identifiers.entries import (
    SUFFIXES,
    Content,
    alike,
    content_of_file,
    extent_of_file,
)
from genret_dask.identifiers.listing import list_identifiers, prefixes_of_others
from genret_dask.kinds.base import Shape, Source
from genret_dask.kinds.listed import Listed, Tokens, of_text
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.storage.artefacts import fetched
from genret_dask.storage.sources import contents, source_hash

logger = logging.getLogger(__name__)

_CHUNK = 2**14  # entries that are held at a time


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
        return content_of_file(*self._stamp)

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
                expected=f"a file of identifiers: {', '.join(SUFFIXES)}",
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
        rows, steps = extent_of_file(*self._stamp, self.content)
        numbers = self.content == "numbers"
        return Shape((rows if self.shared else rows * steps) + 1 if numbers else 0, steps + 1)

    # --- before any work ----------------------------------------------------------------------

    def refusals(self, collection: Collection) -> Iterator[str]:
        """See `Kind.refusals`: ids unknown, twice there or missing, and identifiers of several."""
        seen, keys = np.zeros((2, len(collection)), dtype=np.int64)
        unknown, strangers = 0, list[str]()
        for ids, identifiers in self._chunks(collection):
            rows = collection.document_ids.find(ids)
            key = [hash(one if isinstance(one, str) else tuple(one)) for one in identifiers]
            keys[rows[rows >= 0]] = np.array(key, dtype=np.int64)[rows >= 0]
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
            yield (
                f"{self.path} has several identifiers for {len(twice)} documents: {names}; give "
                "each document one"
            )
        if len(missing) and self.missing == "refuse":
            names = listed(collection.document_ids.take(missing[:3]), of=len(missing))
            yield (
                f"{self.path} has no identifier for {len(missing)} of {len(collection)} documents: "
                f"{names}; identifiers.missing: allow leaves them out of search"
            )
        _, place, counts = np.unique(keys[seen > 0], return_inverse=True, return_counts=True)
        shared = np.flatnonzero(seen > 0)[counts[place] > 1]
        if len(shared) and self.repeated == "refuse":
            yield self._sharing(shared, collection)

    def lacking(self, vocabulary: Mapping[str, int]) -> Iterator[str]:
        """See `Kind.lacking`."""
        if self.content == "tokens":
            names = {token for _, tokens in alike(self.path, "tokens") for token in tokens}
            if missing := sorted(names - vocabulary.keys()):
                yield (
                    f"its tokeniser lacks {len(missing)} tokens of the identifiers in {self.path}: "
                    f"{listed(missing)}"
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
            found = of_text(rows, folder, closed=self._closes(rows, content == "text"))
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
            raise DatasetError(self._sharing(shared, collection))

    def _sharing(self, rows: np.ndarray, collection: Collection) -> str:
        return (
            f"{len(rows)} documents share their identifier in {self.path} with others: "
            f"{listed(collection.document_ids.take(rows[:3]), of=len(rows))}; make them differ, or "
            "set identifiers.repeated: share"
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
        entries = alike(self.path, self.content, collection.document_ids)
        while chunk := list(islice(entries, _CHUNK)):
            yield [name for name, _ in chunk], [identifier for _, identifier in chunk]


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
