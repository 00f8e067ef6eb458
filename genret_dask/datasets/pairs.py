"""Training pairs: texts, each with the document whose identifier it should generate."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import one_line, sentences, words
from genret_dask.errors import ModelError
from genret_dask.specs import PairsSpec

SOURCES = ("query", "document", "sentence", "span")


@dataclass(frozen=True)
class Pairs:
    """Distinct (text, document) pairs.

    Attributes
    ----------
    texts : list of str
    document : int32[n]
        Collection rows.
    source : int8[n]
        Index into `SOURCES`.
    spans : int32[n, spans, 2]
        For n-gram identifiers: spans of the document that look like the text (see
        `genret_dask.identifiers.spans`); empty for others.
    """

    texts: list[str]
    document: np.ndarray
    source: np.ndarray
    spans: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 2), np.int32))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Pairs:
        return Pairs(
            [self.texts[row] for row in rows],
            self.document[rows],
            self.source[rows],
            self.spans[rows] if len(self.spans) else self.spans,
        )


def build_pairs(collection: Collection, spec: PairsSpec, seed: int) -> Pairs:
    """Pairs of the train split's queries, of documents and of pseudo-queries, without repeats.

    A pseudo-query is a sentence of three words or more, or a random run of words of the document:
    where a document has no train query, it is all that a model can learn its identifier from.
    """
    found: dict[tuple[str, int], int] = {}
    if spec.queries:
        train = collection.qrels["train"].relevant()
        for query, document in zip(train.query.tolist(), train.document.tolist(), strict=True):
            found.setdefault((one_line(collection.queries[query]), document), 0)
    bodies = zip(collection.documents(), collection.texts, strict=True)
    for document, (text, body) in enumerate(bodies):
        rng = np.random.default_rng((seed, document))
        text = one_line(text)
        if spec.documents:
            found.setdefault((text, document), 1)
        for sentence in _sentences(body, spec.sentences, rng):
            found.setdefault((sentence, document), 2)
        for span in _spans(text, spec, rng):
            found.setdefault((span, document), 3)
    found = {pair: source for pair, source in found.items() if pair[0]}
    return Pairs(
        [text for text, _ in found],
        np.fromiter((document for _, document in found), np.int32, len(found)),
        np.fromiter(found.values(), np.int8, len(found)),
    )


def _sentences(text: str, limit: int, rng: np.random.Generator) -> list[str]:
    found = [sentence for sentence in sentences(text) if len(words(sentence, 3)) == 3]
    if len(found) > limit:
        found = [found[row] for row in np.sort(rng.permutation(len(found))[:limit])]
    return found


def _spans(text: str, spec: PairsSpec, rng: np.random.Generator) -> list[str]:
    """Random runs of words, from where the first begins to where the last ends."""
    shortest, longest = spec.span_words
    places = words(text)
    if len(places) < shortest:
        return []
    spans = []
    for length in rng.integers(shortest, longest + 1, spec.spans):
        first = int(rng.integers(0, max(len(places) - length, 0) + 1))
        run = places[first : first + length]
        spans.append(text[run[0][0] : run[-1][1]])
    return spans


def subset(pairs: Pairs, fraction: float, seed: int) -> Pairs:
    """The first `fraction` of a seeded permutation: smaller subsets lie within larger ones."""
    size = max(1, round(fraction * len(pairs)))
    order = np.random.default_rng((seed, len(pairs))).permutation(len(pairs))
    return pairs.take(np.sort(order[:size]))


def write_pairs(pairs: Pairs, path: Path) -> None:
    """Save as gzipped JSON lines with keys text, document, source."""
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        for text, document, source in zip(
            pairs.texts, pairs.document.tolist(), pairs.source.tolist(), strict=True
        ):
            line = {"text": text, "document": document, "source": SOURCES[source]}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def read_pairs(path: Path) -> Pairs:
    """Read what `write_pairs` wrote.

    Raises
    ------
    ModelError
        The file is missing or damaged.
    """
    texts, documents, sources = [], [], []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                texts.append(record["text"])
                documents.append(record["document"])
                sources.append(SOURCES.index(record["source"]))
        return Pairs(texts, np.array(documents, np.int32), np.array(sources, np.int8))
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{path} is damaged: {type(error).__name__}: {str(error)[:200]}",
            expected="the training pairs that genret-dask wrote",
            fix=f"remove {path.parent} and run again",
        ) from error
