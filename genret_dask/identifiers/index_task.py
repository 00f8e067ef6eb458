"""The index of a corpus, part by part: each a task that reads its own documents alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.identifiers.ngrams import Part
from genret_dask.identifiers.stream import tokenize_stream
from genret_dask.models.reader import Reader
from genret_dask.storage.artefacts import fetched, is_current, publishing
from genret_dask.storage.fingerprint import Origin

PART = 2**26, 2**29
"""Characters of a part, at least and at most, where the settings do not tell.

Parts are built side by side, but a search asks each of them at every step."""


@dataclass(frozen=True)
class IndexTask:
    """One part of an index.

    Attributes
    ----------
    name : str
        Of the part; its folder's.
    collection : Path
        The artefact of the corpus.
    first, last : int
        Documents of the part, half-open.
    queries : dict of document to list of str
        Pseudo-queries to index with it.
    titles : bool
        Index titles as texts of their own.
    tokenizer, folder : Path
        The tokeniser's artefact, and where the part goes.
    vocabulary, least : int
        Token ids are below `vocabulary`; spans of `least` tokens or more are indexed.
    made_from : Origin
        All inputs of the index.
    """

    name: str
    collection: Path
    first: int
    last: int
    titles: bool
    tokenizer: Path
    folder: Path
    vocabulary: int
    least: int
    made_from: Origin
    queries: dict[int, list[str]] = field(default_factory=dict, repr=False)

    def texts(self) -> Iterator[tuple[int, str]]:
        """(document, text): a document's body, then its title, then its pseudo-queries."""
        collection = stored.read_artefact(self.collection)
        rows = slice(self.first, self.last)
        texts = zip(collection.texts[rows], collection.titles[rows], strict=True)
        for document, (text, title) in enumerate(texts, self.first):
            yield document, text
            if self.titles:
                yield document, title
            for query in self.queries.get(document, ()):
                yield document, query


def run_index(task: IndexTask, report: Callable[[float], None]) -> None:
    """Tokenise, sort and publish a part, unless it is there; nothing is reported on the way."""
    if is_current(task.folder, task.made_from):
        return
    reader = Reader.at(fetched(task.tokenizer) / "tokenizer.json")
    stream = tokenize_stream(task.texts(), reader, task.vocabulary)
    part = Part.build(stream, task.vocabulary, task.least)
    with publishing(task.folder, task.made_from, kind="ngrams") as partial:
        part.save(partial)


def plan_parts(collection: Collection, characters: int | None = None) -> list[tuple[int, int]]:
    """Half-open ranges of documents, each of about `characters` of text or one document.

    By default that is an eighth of the text, within `PART`.
    """
    ends = np.cumsum(collection.texts.lengths)
    characters = characters or min(max(int(ends[-1]) // 8 + 1, PART[0]), PART[1])
    number = np.concatenate([[0], ends[:-1]]) // characters
    firsts = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
    return list(zip(firsts.tolist(), [*firsts[1:].tolist(), len(ends)], strict=True))


def pseudo_queries(collection: Collection) -> dict[int, list[str]]:
    """Train queries of each document that they are relevant to."""
    train = collection.qrels["train"].relevant()
    found: dict[int, list[str]] = {}
    for query, document in zip(train.query.tolist(), train.document.tolist(), strict=True):
        found.setdefault(document, []).append(collection.queries[query])
    return found


class FirstTexts:
    """The text of each document that its index has first: the body, or where it is blank, another.

    Spans of documents are spans of it.
    """

    def __init__(self, collection: Collection, views: Sequence[str]) -> None:
        self._collection, self._titles = collection, "titles" in views
        self._asked = pseudo_queries(collection) if "queries" in views else {}

    def __getitem__(self, document: int) -> str:
        texts = [self._collection.texts[document]]
        if self._titles:
            texts.append(self._collection.titles[document])
        texts += self._asked.get(document, ())[:1]
        return next((text for text in texts if text.split()), "")


def index_tasks(
    collection: Collection,
    folder_of_collection: Path,
    tokenizer: Path,
    vocabulary: int,
    folder: Path,
    made_from: Origin,
    *,
    views: Sequence[str],
    least: int,
    part_characters: int | None,
) -> list[IndexTask]:
    """The tasks that make an index of spans of `least` tokens or more in `folder`."""
    asked = pseudo_queries(collection) if "queries" in views else {}
    return [
        IndexTask(
            name=f"part-{number:05d}",
            collection=folder_of_collection,
            first=first,
            last=last,
            titles="titles" in views,
            tokenizer=tokenizer,
            folder=folder / f"part-{number:05d}",
            vocabulary=vocabulary,
            least=least,
            made_from=made_from,
            queries={row: asked[row] for row in range(first, last) if row in asked},
        )
        for number, (first, last) in enumerate(plan_parts(collection, part_characters))
    ]
