"""Passages that nobody wrote, of another collection's words: for runs whose size is what matters.

Each word follows the last as it does somewhere in that collection, drawn from all the places where
it does (a bigram model; Shannon 1948, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.beir import BeirDataset
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.order import hashed, in_random_order
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.specs import PositiveInt
from genret_dask.storage.fingerprint import fingerprint

_REPEATED = 100  # one passage in so many is another's, word for word
_ITS_OWN = 10  # one passage in so many holds a word that no other has
_ASKED = 8  # words of a query
_SPLITS = ("train",) * 7 + ("dev",) + ("test",) * 2
_BLOCK = 2**14


class BigramsDataset(Dataset):
    """Passages drawn by a bigram model of a BEIR folder, to measure at any size."""

    kind: Literal["bigrams"] = "bigrams"
    path: Path = Field(description="a BEIR folder, whose words and their order are learned")
    documents: PositiveInt = Field(100_000, description="passages to draw")
    words: PositiveInt = Field(100, description="of a passage")
    queries: PositiveInt = Field(2000, description="to draw: eight words of a passage each")
    seed: int = Field(0, ge=0, description="of all that is drawn")

    needs = "a BEIR folder to learn from"
    example = """dataset:
  kind: bigrams
  path: data/scifact          # a BEIR folder to learn the words from
  documents: 1000000"""

    @property
    def title(self) -> str:
        """What was learned from, and how many passages."""
        return f"{self.documents} passages after {self.path.resolve().name}"

    def read(self, into: CollectionWriter) -> None:
        """Draw passages and queries; each depends on its number and the seed alone.

        One passage in a hundred repeats another, one in ten holds a word of its own. Seven tenths
        of the queries are of the train split, a tenth of dev and two of test; their passages are
        no other query's, as far as there are so many.

        Raises
        ------
        DatasetError
            What the BEIR folder's reading raises; or it has no words.
        """
        model = _Bigrams.of(BeirDataset(path=self.path).load())
        for first in range(0, self.documents, _BLOCK):
            numbers = np.arange(first, min(first + _BLOCK, self.documents))
            for number, text in zip(numbers.tolist(), self._draw(model, numbers), strict=True):
                into.document(f"p{number}", "", text)
        places = np.arange(self.queries) % self.documents
        asked = in_random_order(places, self.documents, (self.seed, 1))
        texts = self._draw(model, asked)
        for number, (document, text) in enumerate(zip(asked.tolist(), texts, strict=True)):
            words = text.split(" ")
            chosen = in_random_order(
                np.arange(_ASKED), max(len(words), _ASKED), (self.seed, number)
            )
            kept = [words[place] for place in np.sort(chosen) if place < len(words)]
            into.query(f"q{number}", " ".join(kept))
            into.judge(_SPLITS[number % len(_SPLITS)], f"q{number}", f"p{document}")

    def _draw(self, model: _Bigrams, numbers: np.ndarray) -> Iterator[str]:
        """Yield the texts of passages by their numbers."""
        twin = numbers % _REPEATED == _REPEATED - 1
        # Whose number is a multiple repeats none itself.
        other = hashed(numbers, (self.seed, 2)) % (numbers.astype(np.uint64) + np.uint64(1))
        source = np.where(twin, other.astype(np.int64) // _REPEATED * _REPEATED, numbers)
        place = (hashed(source, (self.seed, 3)) % self.words).astype(np.int64)
        own = np.where(source % _ITS_OWN == 1, place, -1)
        rows = model.draw(source, self.words, (self.seed, 4))
        for number, place, row in zip(source.tolist(), own.tolist(), rows, strict=True):
            words = model.words[row]
            if place >= 0:
                words[place] = f"unique{number}"
            yield " ".join(words)

    def fingerprint(self) -> str:
        """Hash the settings and the folder's files."""
        settings = self.model_dump(mode="json", exclude={"path"})
        return fingerprint("bigrams", BeirDataset(path=self.path).fingerprint(), settings)


@dataclass(frozen=True)
class _Bigrams:
    """Which words follow a word, as often as they do.

    Attributes
    ----------
    words : object[vocabulary]
        Strings.
    followers : int32[n]
        Words that follow some word: those of a word stand together, by its number.
    starts : int64[vocabulary + 1]
        Where those of each word begin.
    stream : int32[n]
        All words as they stand, from which a passage's first is drawn.
    """

    words: np.ndarray
    followers: np.ndarray
    starts: np.ndarray
    stream: np.ndarray

    @classmethod
    def of(cls, collection: Collection) -> _Bigrams:
        found = [word for text in collection.documents() for word in text.split()]
        if not found:
            raise DatasetError(
                f"collection {collection.name} has no words", expected="documents with text"
            )
        stream, words = pd.factorize(np.array(found, dtype=object))
        followers = np.roll(stream, -1)[np.argsort(stream, kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(stream))])
        return cls(words, followers.astype(np.int32), starts, stream.astype(np.int32))

    def draw(self, numbers: np.ndarray, length: int, key: tuple[int, ...]) -> np.ndarray:
        """Draw words of some passages, int32[passages, length]."""
        rows = np.empty((len(numbers), length), dtype=np.int32)
        rows[:, 0] = self.stream[hashed(numbers, (*key, 0)) % len(self.stream)]
        for place in range(1, length):
            first, stop = self.starts[rows[:, place - 1]], self.starts[rows[:, place - 1] + 1]
            drawn = hashed(numbers, (*key, place)) % (stop - first).astype(np.uint64)
            rows[:, place] = self.followers[first + drawn.astype(np.int64)]
        return rows
