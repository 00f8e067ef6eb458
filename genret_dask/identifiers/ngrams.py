"""n-grams: a document's identifiers are the token spans of its text, at any length of corpus.

The index is the corpus itself, tokenised, with a suffix array for each part of it. A part is an
artefact of its own, made by a task of its own and mapped by every process; `index.json` beside
them, written last, names them all. A query's prefix is one interval a part, and counts add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from genret_dask.errors import ModelError
from genret_dask.identifiers.stream import Stream
from genret_dask.identifiers.suffix_array import SuffixArray, runs
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, check_hash, fetched, record_of
from genret_dask.storage.fingerprint import Origin, sha256_file
from genret_dask.storage.places import replace_file
from genret_dask.storage.records import damaged, dump_record

INDEX = "index.json"

_RECORD = {"vocabulary": int, "tokenizer": str, "corpus": str, "parts": dict}
_READ = 16  # occurrences for each token of the vocabulary up to which reading them is faster
_AT_ONCE = 2**20  # occurrences read or tokens looked up, for the memory that they take


def name_of_index(tokenizer: Path) -> str:
    """Return what the index and the spans of a tokeniser are named by: the start of its hash.

    Parameters
    ----------
    tokenizer : Path
        The tokeniser's artefact.

    Raises
    ------
    ModelError
        It is not there, or has no tokenizer.json.
    """
    files = record_of(tokenizer)["files"]
    if "tokenizer.json" not in files:
        raise damaged(tokenizer / "tokenizer.json", "is missing")
    return str(files["tokenizer.json"])[:12]


@dataclass(frozen=True)
class Part:
    """A run of documents: their stream and a suffix array of it, or of some of the documents.

    Attributes
    ----------
    stream : Stream
    array : SuffixArray
    size : int
        Tokens of the documents in the array, separators left out.
    """

    stream: Stream
    array: SuffixArray
    size: int

    @classmethod
    def build(cls, stream: Stream, vocabulary: int, least: int = 1) -> Part:
        """Index the spans of `least` tokens or more."""
        return cls.of(stream, SuffixArray.build(stream.tokens, vocabulary, least))

    @classmethod
    def of(cls, stream: Stream, array: SuffixArray) -> Part:
        """A part whose array is of all its documents."""
        return cls(stream, array, len(stream.tokens) - len(stream.starts))

    def within(self, documents: np.ndarray) -> Part:
        """Keep the array to some documents; the stream stays whole."""
        kept = np.isin(self.stream.documents, documents)
        sizes = np.diff(self.stream.starts, append=len(self.stream.tokens))
        array = self.array.within(np.repeat(kept, sizes))
        return Part(self.stream, array, int((sizes[kept] - 1).sum()))

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files that `load` maps."""
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {**vars(self.stream), "suffixes": self.array.suffixes, "heads": self.array.heads}

    @classmethod
    def load(cls, folder: Path) -> Part:
        """Map the arrays that `save` wrote; processes on a host share their pages."""
        names = ("tokens", "starts", "documents", "suffixes", "heads")
        found = {name: read_array(folder / f"{name}.npy", dims=1) for name in names}
        suffixes, heads = found.pop("suffixes"), found.pop("heads")
        return cls.of(Stream(**found), SuffixArray(found["tokens"], suffixes, heads))

    @cached_property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays().values())


@dataclass(frozen=True)
class NgramIndex:
    """The constraint of n-gram identifiers: which tokens may follow a prefix, and where it occurs.

    A prefix's state is its interval in each part, int64 ``[parts, 2]``; a part in which it does not
    occur has an empty one.

    Attributes
    ----------
    parts : tuple of Part
        Runs of documents, in order.
    vocabulary : int
        Token ids are below.
    tokenizer : str
        SHA-256 of the tokeniser's file.
    corpus : str
        Content hash of the collection.
    """

    parts: tuple[Part, ...]
    vocabulary: int
    tokenizer: str
    corpus: str

    @cached_property
    def tokens(self) -> int:
        """Tokens of the corpus, separators left out."""
        return sum(part.size for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def prefixes(self, depth: int) -> tuple[int, ...]:
        """At most how many distinct prefixes of each length there are, from 0 to `depth`."""
        return tuple(min(self.vocabulary**length, self.tokens) for length in range(depth + 1))

    def within(self, documents: np.ndarray) -> NgramIndex:
        """Keep to the n-grams of some documents; spans of the others can still be read.

        Takes memory for the suffixes that are kept, and for a byte a token of one part.

        Parameters
        ----------
        documents : int64[n]
            Their rows.
        """
        return replace(self, parts=tuple(part.within(documents) for part in self.parts))

    def root(self, rows: int) -> np.ndarray:
        """The state of the empty prefix, int64[rows, parts, 2]."""
        whole = [[0, len(part.array.suffixes)] for part in self.parts]
        return np.tile(np.array(whole, dtype=np.int64), (rows, 1, 1))

    def count(self, states: np.ndarray) -> np.ndarray:
        """How often each prefix occurs in the corpus; int64[rows]."""
        return (states[..., 1] - states[..., 0]).sum(axis=-1)

    def refine(self, states: np.ndarray, depth: int, token: np.ndarray) -> np.ndarray:
        """States of prefixes made one token longer; one that does not occur has a count of 0.

        Parameters
        ----------
        states : int64[rows, parts, 2]
        depth : int
            Tokens of every prefix.
        token : int64[rows]

        Raises
        ------
        ModelError
            A token is outside the index's vocabulary.
        """
        if len(token) and not 0 <= token.min() <= token.max() < self.vocabulary:
            raise ModelError(
                f"token {token.max() if token.max() >= self.vocabulary else token.min()}",
                expected=f"a token of the index, below {self.vocabulary}",
                fix="use the tokeniser that the index was made with",
            )
        new = np.empty_like(states)
        for number, part in enumerate(self.parts):
            low, high = states[:, number, 0], states[:, number, 1]
            new[:, number] = np.stack(part.array.refine(low, high, depth, token + 1), axis=-1)
        return new

    def expand(self, states: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every token that may follow each prefix.

        Parameters
        ----------
        states : int64[rows, parts, 2]
        depth : int
            Tokens of every prefix.

        Returns
        -------
        row : int64[c]
            Index into `states` of each child's prefix, ascending.
        token : int64[c]
            Ascending within a row.
        states : int64[c, parts, 2]
        """
        narrow = self.count(states) <= _READ * self.vocabulary
        few, many = np.flatnonzero(narrow), np.flatnonzero(~narrow)
        found = [(few, self.listed(states[few], depth))]
        for chunk in np.array_split(many, -(-len(many) * self.vocabulary // _AT_ONCE) or 1):
            found.append((chunk, self._looked_up(states[chunk], depth)))
        return _together(found)

    def listed(self, states: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`expand` by reading every occurrence: for prefixes that have few."""
        ends = np.cumsum(self.count(states)) // _AT_ONCE
        chunks = np.split(np.arange(len(states)), np.flatnonzero(np.diff(ends)) + 1)
        if len(chunks) == 1:
            return self._read(states, depth)
        return _together([(chunk, self._read(states[chunk], depth)) for chunk in chunks])

    def _read(self, states: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`listed` of so many prefixes as can be read at once."""
        found = [
            part.array.children(states[:, number, 0], states[:, number, 1], depth)
            for number, part in enumerate(self.parts)
        ]
        if len(found) == 1:
            row, token, low, high = found[0]
            return row, token - 1, np.stack([low, high], axis=-1)[:, None]
        key = np.concatenate([row * (self.vocabulary + 1) + token for row, token, *_ in found])
        keys, place = np.unique(key, return_inverse=True)
        children = np.zeros((len(keys), len(found), 2), dtype=np.int64)
        ends = np.cumsum([len(row) for row, *_ in found])
        for number, (mine, (_, _, low, high)) in enumerate(
            zip(np.split(place, ends[:-1]), found, strict=True)
        ):
            children[mine, number] = np.stack([low, high], axis=-1)
        row, token = np.divmod(keys, self.vocabulary + 1)
        return row, token - 1, children

    def _looked_up(
        self, states: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`expand` by looking up every token of the vocabulary: for prefixes that occur often."""
        row, token = np.divmod(np.arange(len(states) * self.vocabulary), self.vocabulary)
        children = self.refine(states[row], depth, token)
        occurs = np.flatnonzero(self.count(children))
        return row[occurs], token[occurs], children[occurs]

    # --- texts --------------------------------------------------------------------------------

    def locate(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every occurrence of each prefix.

        Returns
        -------
        row : int64[occurrences]
            Ascending.
        position : int64[occurrences]
            Place in the corpus: parts follow each other.
        document : int32[occurrences]
        """
        rows, positions, documents = [], [], []
        base = 0
        for number, part in enumerate(self.parts):
            low, high = states[:, number, 0], states[:, number, 1]
            row, place = runs(low, high - low)
            position = part.array.suffixes[place].astype(np.int64)
            text = np.searchsorted(part.stream.starts, position, side="right") - 1
            rows.append(row)
            positions.append(position + base)
            documents.append(part.stream.documents[text])
            base += len(part.stream.tokens)
        row = np.concatenate(rows)
        order = np.argsort(row, kind="stable")
        return row[order], np.concatenate(positions)[order], np.concatenate(documents)[order]

    def lengths(self, documents: int) -> tuple[np.ndarray, np.ndarray]:
        """int32[documents]: tokens of a document's first and longest text, 0 where it has none."""
        first, longest = np.zeros((2, documents), dtype=np.int32)
        for stream in (part.stream for part in self.parts):
            size = np.diff(stream.starts, append=len(stream.tokens)) - 1
            opens = np.flatnonzero(np.diff(stream.documents, prepend=-1))
            first[stream.documents[opens]] = size[opens]
            if len(opens):
                longest[stream.documents[opens]] = np.maximum.reduceat(size, opens)
        return first, longest

    def spans(self, documents: np.ndarray, spans: np.ndarray, length: int) -> np.ndarray:
        """Tokens of spans of the documents' first texts.

        Parameters
        ----------
        documents : int[n]
        spans : int[n, 2]
            First token and the one that the span ends before; -1 is no span.
        length : int
            Tokens of a row of the result.

        Returns
        -------
        int64[n, length]
            -1 behind the end.
        """
        found = np.full((len(documents), length), -1, dtype=np.int64)
        for stream in (part.stream for part in self.parts):
            here, text = stream.first_texts(documents)
            start, inner = stream.starts[text, None], spans[here, :1] + np.arange(length)
            size = np.append(stream.starts, len(stream.tokens))[text + 1, None] - start - 1
            inside = (spans[here, :1] >= 0) & (inner < np.minimum(spans[here, 1:], size))
            tokens = stream.tokens[np.where(inside, start + inner, 0)].astype(np.int64)
            found[here] = np.where(inside, tokens - 1, -1)
        return found


def _together(
    found: Sequence[tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `NgramIndex.expand` returns, from some of the rows' at a time."""
    row = np.concatenate([places[row] for places, (row, _, _) in found])
    token, children = (np.concatenate([one[column] for _, one in found]) for column in (1, 2))
    order = np.argsort(row, kind="stable")
    return row[order], token[order], children[order]


def close(tokens: np.ndarray, end_token: int, padding: int = -1) -> np.ndarray:
    """Spans as identifiers: one that is shorter than its row has the end token behind it.

    Parameters
    ----------
    tokens : int64[n, length]
        -1 behind the end; a row without a token stays empty.
    padding : int
        What stands behind the end of an identifier.
    """
    sizes = (tokens >= 0).sum(axis=1)
    closed = np.where(tokens >= 0, tokens, padding)
    short = np.flatnonzero((sizes > 0) & (sizes < tokens.shape[1]))
    closed[short, sizes[short]] = end_token
    return closed


def open_parts(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The parts of an index as checked folders of this machine, by name."""
    return {name: fetched(folder / name) for name in names}


def index_of_parts(
    parts: Mapping[str, Path], vocabulary: int, tokenizer: str, corpus: str
) -> NgramIndex:
    """An index of parts that were opened; see `NgramIndex`."""
    return NgramIndex(tuple(map(Part.load, parts.values())), vocabulary, tokenizer, corpus)


def write_index(
    folder: Path,
    index: NgramIndex,
    parts: Mapping[str, Path],
    made_from: Origin,
    **documents: np.ndarray,
) -> None:
    """Vouch for a finished index; atomic, and the last thing to be written.

    Parameters
    ----------
    parts : dict of name to path
        Of `open_parts`.
    **documents : int[n]
        Documents that the record names.
    """
    record = {
        **made_from.record(),
        "vocabulary": index.vocabulary,
        "tokenizer": index.tokenizer,
        "corpus": index.corpus,
        "tokens": index.tokens,
        **{name: rows.tolist() for name, rows in documents.items()},
        "parts": {name: sha256_file(part / RECORD) for name, part in parts.items()},
    }
    replace_file(folder / INDEX, dump_record(record))


def read_index(folder: Path) -> NgramIndex:
    """Open an index; its arrays are memory-mapped.

    Raises
    ------
    ModelError
        There is none, or a part is missing or damaged: a file's hash differs from its record's.
    """
    record = record_of(folder, INDEX, _RECORD)
    parts = open_parts(folder, record["parts"])
    for name, part in parts.items():
        check_hash(part / RECORD, record["parts"][name])
    return index_of_parts(parts, *(record[name] for name in ("vocabulary", "tokenizer", "corpus")))
