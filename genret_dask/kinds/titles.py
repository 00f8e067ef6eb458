"""Titles, or other short texts of the documents, as identifiers: GENRE's."""

from __future__ import annotations

from collections.abc import Iterator
from string import Formatter
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from genret_dask.datasets.collection import Collection
from genret_dask.errors import DatasetError, listed
from genret_dask.identifiers.listing import list_identifiers
from genret_dask.kinds.base import Shape, Source
from genret_dask.kinds.listed import Listed, Tokens, of_text
from genret_dask.models.reader import Reader
from genret_dask.storage.artefacts import fetched

_FIELDS = ("title", "id", "text")
_ROUNDS = 64


class TitlesIdentifiers(Listed):
    """Titles, or other short texts of the documents, closed by the end token (GENRE).

    References
    ----------
    De Cao et al. (2021), "Autoregressive Entity Retrieval", arXiv 2010.00904.
    """

    kind: Literal["titles"] = "titles"
    template: str = Field(
        "{title}", description="of {title}, {id} and {text}; {n} numbers those that read the same"
    )
    blank: bool = Field(
        False, description="begin with a blank, as what follows a prompt of text does"
    )
    repeated: Literal["number", "share"] = Field(
        "number",
        description="documents that read the same: told apart by a number, or by nothing",
    )
    empty: Literal["refuse", "allow"] = Field(
        "refuse", description="documents without one: refused, or left out of search"
    )
    max_tokens: Annotated[int, Field(gt=0, le=1024)] = Field(32, description="of an identifier")
    longer: Literal["refuse", "cut"] = Field(
        "refuse", description="identifiers of more tokens: refused, or cut"
    )

    noun = "title"
    per_tokenizer = True

    @field_validator("template")
    @classmethod
    def _known(cls, template: str) -> str:
        try:
            names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            raise ValueError(f"{template!r} is no template: {error}") from error
        if names - {*_FIELDS, "n"} or not names & {*_FIELDS}:
            raise ValueError(
                f"{template!r} is no template of {{title}}, {{id}}, {{text}} and {{n}}"
            )
        return template

    def planned(self, documents: int) -> Shape:
        """See `Kind.planned`."""
        return Shape(0, self.max_tokens + 1)

    def refusals(self, collection: Collection) -> Iterator[str]:
        """See `Kind.refusals`: documents whose text is empty, or has more words than tokens."""
        rows = np.arange(len(collection))
        texts = self._spelled(collection, rows, np.ones_like(rows))
        words = np.fromiter((len(text.split()) for text in texts), np.int64, len(rows))
        yield from self._problems_of(collection, words, "words")

    def _problems_of(self, collection: Collection, lengths: np.ndarray, unit: str) -> Iterator[str]:
        """Name the documents of no length, or of too much of it, where the settings forbid them."""
        empty, longer = np.flatnonzero(lengths == 0), np.flatnonzero(lengths > self.max_tokens)
        if len(empty) and self.empty == "refuse":
            yield (
                f"{len(empty)} documents have an empty {self.template}: "
                f"{_names(collection, empty)}; give them one, or set identifiers.empty: allow to "
                "search without them"
            )
        if len(longer) and self.longer == "refuse":
            yield (
                f"{len(longer)} documents have a {self.template} of more than {self.max_tokens} "
                f"{unit}: {_names(collection, longer)}; raise identifiers.max_tokens, or set "
                "identifiers.longer: cut"
            )

    def tokens(self, source: Source) -> Tokens:
        """See `Listed.tokens`."""
        if source.tokenizer is None:
            raise ValueError("titles are made of a tokeniser's tokens")
        folder, collection = fetched(source.tokenizer), source.collection
        reader = Reader.at(folder / "tokenizer.json")
        numbers = np.ones(len(collection), dtype=np.int64)
        rows = self._tokenised(collection, reader, np.arange(len(collection)), numbers)
        if self.repeated == "number":
            self._tell_apart(rows, collection, reader, numbers)
        return of_text(rows, folder)

    def _tell_apart(
        self, rows: np.ndarray, collection: Collection, reader: Reader, numbers: np.ndarray
    ) -> None:
        """Number the documents of equal tokens, in place, until all differ."""
        step: np.ndarray | int = 0
        for _ in range(_ROUNDS):
            identifier = list_identifiers(rows)[1]
            rank, size = _ranks(identifier, numbers > 1)
            again = np.flatnonzero(rank > 0)
            if not len(again):
                return
            if isinstance(step, int):  # no two documents of a group ever have the same number
                step, numbers[again] = size, rank[again] + 1
            else:
                numbers[again] += step[again]
            rows[again] = self._tokenised(collection, reader, again, numbers[again])
        raise DatasetError(
            f"{len(again)} documents read like others whatever number they get: "
            f"{_names(collection, again)}",
            expected="a tokeniser that reads digits, and identifiers that are not cut",
            fix="raise identifiers.max_tokens, or set identifiers.repeated: share",
        )

    def _tokenised(
        self, collection: Collection, reader: Reader, rows: np.ndarray, numbers: np.ndarray
    ) -> np.ndarray:
        """Tokens of some documents' texts, int32[rows, max_tokens], -1 behind the last.

        Raises
        ------
        DatasetError
            A document has none, or too many, and the settings forbid it.
        """
        found = np.full((len(rows), self.max_tokens), -1, dtype=np.int32)
        lengths, row = np.ones(len(collection), dtype=np.int64), 0
        for chunk in reader.bare(self._spelled(collection, rows, numbers), " " * self.blank):
            for ids in chunk:
                lengths[rows[row]] = len(ids)
                kept = ids[: self.max_tokens]
                found[row, : len(kept)] = kept
                row += 1
        if problems := list(self._problems_of(collection, lengths, "tokens")):
            raise DatasetError("; ".join(problems))
        return found

    def _spelled(
        self, collection: Collection, rows: np.ndarray, numbers: np.ndarray
    ) -> Iterator[str]:
        """Spell documents out; the first of those that read the same has the number 1."""
        columns = {"title": collection.titles, "id": collection.document_ids}
        columns["text"] = collection.texts
        columns = {name: one for name, one in columns.items() if f"{{{name}}}" in self.template}
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            fields = {name: one[row].strip() for name, one in columns.items()}
            text = self.template.format(n=number, **fields)
            yield text if number == 1 or "{n}" in self.template else f"{text} {number}"


def _names(collection: Collection, rows: np.ndarray) -> str:
    return listed(collection.document_ids.take(rows[:3]), of=len(rows))


def _ranks(identifier: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each document among those of its identifier, from 0, and how many they are.

    Parameters
    ----------
    later : bool[documents]
        Those that stand behind the others.
    """
    order = np.lexsort((later, identifier))
    ordered = identifier[order]
    opens = np.searchsorted(ordered, ordered)
    rank, size = np.empty_like(order), np.empty_like(order)
    rank[order] = np.arange(len(order)) - opens
    size[order] = np.searchsorted(ordered, ordered, side="right") - opens
    rank[identifier < 0] = 0
    return rank, size
