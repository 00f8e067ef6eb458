"""Training pairs: texts, each with the document whose identifier it should generate.

A pair is a function of the collection, the seed and the pair's number. None is held or written:
a training draws the pairs of a batch when it comes to it, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.columns import Strings
from genret_dask.datasets.given import GivenPairs
from genret_dask.datasets.order import in_random_order
from genret_dask.datasets.words import one_line, sentences, words
from genret_dask.specs import PairsSpec

_WINDOW = 2**15  # characters of a document that pseudo-queries are sought in


@dataclass(frozen=True)
class Pairs:
    """Some (text, document) pairs.

    Attributes
    ----------
    texts : list of str
    document : int64[n]
        Collection rows.
    """

    texts: list[str]
    document: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Pairs:
        return Pairs([self.texts[row] for row in rows], self.document[rows])


class TrainingPairs:
    """The pairs of the train split's queries, of documents and of pseudo-queries, by their numbers.

    Train queries come first, each distinct pair of a text and a document once. Every document with
    a text follows, with the same count of pairs: itself, where `documents` is set, `sentences`
    sentences of three words or more, and `spans` random runs of words. Where a document has fewer
    sentences, further runs of words stand for them. A document of more than 32,768 characters is
    looked at through a window of so many, drawn for each. Two pseudo-queries of a document may be
    equal, as those of a short one are: they count as they are numbered. So do the pairs of a user's
    files, which stand among those of documents.

    Parameters
    ----------
    collection : Collection
    spec : PairsSpec
    seed : int
    fraction : float
        Of the queries' pairs and of the documents'. Smaller fractions lie within larger ones.
    excluded : iterable of int
        Documents without an identifier.
    given : GivenPairs, optional
        Those of the user's files.

    Attributes
    ----------
    queries, others : int
        Pairs of train queries, and of documents and pseudo-queries.
    """

    def __init__(
        self,
        collection: Collection,
        spec: PairsSpec,
        seed: int,
        fraction: float = 1.0,
        excluded: Iterable[int] = (),
        given: GivenPairs | None = None,
    ) -> None:
        self._collection, self._spec, self._seed = collection, spec, seed
        self._given = given or GivenPairs(np.empty(0, np.int32), Strings.of([]))
        self._without = np.union1d(collection.blank, np.fromiter(excluded, np.int64))
        self._asked = self._train_queries() if spec.queries else np.empty((0, 2), np.int64)
        self._slots = spec.documents + spec.sentences + spec.spans
        self._dropped = np.empty(0, np.int64)
        if len(self._without):
            self._dropped = np.flatnonzero(np.isin(self._given.document, self._without))
        self._of_documents = (len(collection) - len(self._without)) * self._slots
        self._all_others = self._of_documents + len(self._given.texts) - len(self._dropped)
        self.queries = round(fraction * len(self._asked))
        self.others = round(fraction * self._all_others)
        if not len(self):  # one pair, of those that a larger fraction has one of first
            self.queries = min(1, len(self._asked)) if len(self._asked) >= self._all_others else 0
            self.others = min(1 - self.queries, self._all_others)

    def __len__(self) -> int:
        return self.queries + self.others

    def take(self, numbers: np.ndarray) -> Pairs:
        """Draw some pairs.

        Parameters
        ----------
        numbers : int64[n]
            From 0, below the length; those of train queries are below `queries`.
        """
        asks = numbers < self.queries
        document = np.empty(len(numbers), dtype=np.int64)
        texts = [""] * len(numbers)
        asked = self._asked[in_random_order(numbers[asks], len(self._asked), (self._seed, 7))]
        document[asks] = asked[:, 1]
        for place, query in zip(np.flatnonzero(asks), asked[:, 0], strict=True):
            texts[place] = one_line(self._collection.queries[int(query)])
        places = np.flatnonzero(~asks)
        slots = in_random_order(numbers[places] - self.queries, self._all_others, (self._seed, 8))
        is_given = slots >= self._of_documents
        rank, slot = np.divmod(slots[~is_given], max(self._slots, 1))
        document[places[~is_given]] = _skipping(rank, self._without)
        for place, one in zip(places[~is_given], slot.tolist(), strict=True):
            texts[place] = self._of_document(int(document[place]), one)
        rows = _skipping(slots[is_given] - self._of_documents, self._dropped)
        document[places[is_given]] = self._given.document[rows]
        for place, row in zip(places[is_given], rows.tolist(), strict=True):
            texts[place] = one_line(self._given.texts[row])
        return Pairs(texts, document)

    def _train_queries(self) -> np.ndarray:
        """Rows of queries and of their documents, each pair of a text and a document once."""
        train = self._collection.qrels["train"].relevant()
        rows, place = np.unique(train.query, return_inverse=True)
        texts = [one_line(text) for text in self._collection.queries.take(rows)]
        _, same = np.unique(np.array(texts, dtype=object), return_inverse=True)
        _, first = np.unique(
            np.stack([same[place], train.document], axis=1), axis=0, return_index=True
        )
        first.sort()
        kept = np.array([bool(text) for text in texts], dtype=bool)[place[first]]
        kept &= ~np.isin(train.document[first], self._without)
        first = first[kept]
        return np.stack([train.query[first], train.document[first]], axis=1).astype(np.int64)

    def _of_document(self, document: int, slot: int) -> str:
        if slot < self._spec.documents:
            return one_line(self._collection.document(document))
        number = slot - self._spec.documents
        if number < self._spec.sentences:
            rng = np.random.default_rng((self._seed, document))
            found = _sentences(_window(self._collection.texts[document], rng))
            if number < len(found):
                return found[rng.permutation(len(found))[number]]
        rng = np.random.default_rng((self._seed, document, slot))
        text = one_line(_window(self._collection.document(document), rng))
        return _span(text, self._spec.span_words, rng)


def _skipping(numbers: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Rows by their numbers among those that are not left out; `left_out` ascends."""
    below = left_out - np.arange(len(left_out))
    return np.asarray(numbers + np.searchsorted(below, numbers, side="right"))


def _window(text: str, rng: np.random.Generator) -> str:
    """Some `_WINDOW` characters of a long text: to find all of its words takes too long."""
    if len(text) <= _WINDOW:
        return text
    first = int(rng.integers(0, len(text) - _WINDOW + 1))
    return text[first : first + _WINDOW]


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in sentences(text) if len(words(sentence, 3)) == 3]


def _span(text: str, bounds: tuple[int, int], rng: np.random.Generator) -> str:
    """Draw a run of words, from where the first begins to where the last ends."""
    places = words(text)
    if not places:
        return text
    length = int(rng.integers(bounds[0], bounds[1] + 1))
    first = int(rng.integers(0, max(len(places) - length, 0) + 1))
    run = places[first : first + length]
    return text[run[0][0] : run[-1][1]]


def dev_split(collection: Collection) -> str | None:
    """Return the split whose queries tell when to stop: dev, else train, else none."""
    splits = ("dev", "train")
    return next((name for name in splits if len(collection.qrels[name].relevant())), None)


def dev_pairs(collection: Collection, count: int, seed: int, excluded: Iterable[int] = ()) -> Pairs:
    """Return at most `count` pairs of the queries of `dev_split`, in the order of their rows.

    Parameters
    ----------
    excluded : iterable of int
        Documents without an identifier.
    """
    split = dev_split(collection)
    if split is None:
        return Pairs([], np.empty(0, np.int64))
    judged = collection.qrels[split].relevant()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(judged))[:count])
    chosen = chosen[~np.isin(judged.document[chosen], np.fromiter(excluded, np.int64))]
    texts = collection.queries.take(judged.query[chosen])
    return Pairs(texts, judged.document[chosen].astype(np.int64))
