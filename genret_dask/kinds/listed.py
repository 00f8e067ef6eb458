"""Identifiers that are listed, of any length: tokens of the model's text, or new vocabulary rows.

A subclass gives each document's tokens; everything else follows from them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from genret_dask.cube.schema import Variables
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.pairs import Pairs
from genret_dask.identifiers import Codes
from genret_dask.identifiers.diagnostics import level_records, trie_facts
from genret_dask.identifiers.listing import (
    Listing,
    list_identifiers,
    prefixes_of_others,
    read_listing,
    read_shape,
    write_listing,
)
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.memory import Decoding
from genret_dask.inference.score import score
from genret_dask.inference.session import Session
from genret_dask.kinds.base import (
    IGNORED,
    Arrays,
    Decoder,
    Diagnosis,
    Explained,
    Kind,
    Making,
    Sampler,
    Shape,
    Source,
    Targets,
    require_same,
    tokenizer_of,
)
from genret_dask.kinds.fixed import VARIABLES, search_trie
from genret_dask.models.flops import Architecture
from genret_dask.models.manifest import Manifest
from genret_dask.models.pretrained import load_tokenizer
from genret_dask.storage.artefacts import Artefact, record_of
from genret_dask.storage.fingerprint import Origin, sha256_file
from genret_dask.storage.places import remove

_RANKED = ("token", "logit", "log_partition", "log_allowed", "score")
_NO_CANDIDATES = np.empty((1, 0), dtype=np.int32)


@dataclass(frozen=True)
class Tokens:
    """What documents are identified by, before equal ones are told.

    Attributes
    ----------
    rows : int32[documents, longest]
        From the base that `Listing` has; -1 behind a document's last, all -1 where it has none.
    end : int or None
    level_sizes : tuple of int, optional
        New vocabulary rows: of each level's own block, or of the one block of all levels. None
        where the rows are those of the tokeniser's text.
    tokenizer : str or None
        SHA-256 of that tokeniser.
    """

    rows: np.ndarray
    end: int | None
    level_sizes: tuple[int, ...] | None = None
    tokenizer: str | None = None


def of_text(rows: np.ndarray, folder: Path, *, closed: bool = True) -> Tokens:
    """Give rows of a tokeniser's tokens its end token, and the tokeniser's hash.

    Parameters
    ----------
    folder : Path
        A fetched artefact of a tokeniser.
    """
    end = load_tokenizer(str(folder), local_files_only=True).eos_token_id if closed else None
    return Tokens(rows, end, tokenizer=sha256_file(folder / "tokenizer.json"))


class Listed(Kind):
    """A kind whose identifiers are listed: one a document, which others may share."""

    noun = "identifier"

    @property
    def variables(self) -> Variables:
        """See `Kind.variables`."""
        return VARIABLES

    @abstractmethod
    def tokens(self, source: Source) -> Tokens:
        """Return each document's tokens."""

    def made_from(self, corpus: str, seed: int, tokenizer: str | None) -> Origin:
        """See `Kind.made_from`."""
        parts = {"collection": corpus, "identifiers": self.settings(), "tokenizer": tokenizer}
        return Origin(self.kind, parts)

    # --- size ---------------------------------------------------------------------------------

    def shape(self, folder: Path) -> Shape:
        """See `Kind.shape`."""
        return Shape(*read_shape(folder))

    def plan(
        self, architecture: Architecture, collection: Collection, beams: tuple[int, ...]
    ) -> Decoding:
        """See `Kind.plan`."""
        rows, documents = architecture.vocab_size, len(collection)
        steps = self.planned(documents).steps
        nodes = (1, *[min(rows, documents), *[documents] * (steps - 1)])
        return Decoding(architecture, "beam", nodes, (rows,) * steps, beams)

    def making(self, collection: Collection, vocabulary: int) -> Making:
        """See `Kind.making`."""
        documents, steps = len(collection), self.planned(len(collection)).steps
        seconds = 1e-7 * collection.titles.nbytes + 5e-6 * documents
        return Making(
            client_seconds=seconds,
            bytes_kept=documents * (8 + 12 * steps),
            client_bytes=documents * (16 + 16 * steps),
        )

    def sizes(self, beams: tuple[int, ...], documents: int) -> dict[str, int]:
        """See `Kind.sizes`."""
        return {"rank": min(max(beams), documents)}

    # --- making and opening -------------------------------------------------------------------

    def build(self, made: Artefact, source: Source) -> None:
        """See `Kind.build`."""
        source.report("identifiers", 0, 1)
        tokens = self.tokens(source)
        missing = np.flatnonzero(tokens.rows[:, 0] < 0)
        write_listing(_listing(tokens), made.folder, made.made_from, missing=missing.tolist())
        remove(source.working)
        source.report("identifiers", 1, 1)

    def without_identifiers(self, folder: Path) -> np.ndarray:
        """See `Kind.without_identifiers`."""
        return np.array(record_of(folder, needs={"missing": list})["missing"], dtype=np.int64)

    def open(self, folder: Path) -> Listing:
        """See `Kind.open`."""
        return read_listing(folder)

    def diagnostics(self, folder: Path, collection: Collection) -> Diagnosis:
        """See `Kind.diagnostics`."""
        space = self.open(folder)
        reached = int((space.identifier >= 0).sum())
        facts = {
            **super().diagnostics(folder, collection).facts,
            "identifiers": len(space.tokens),
            **trie_facts(space.trie, len(space.tokens)),
            "unreachable": len(collection) - reached,
            "beginning_others": len(prefixes_of_others(space.tokens)),
            "sharing_an_identifier": int(space.sizes[space.sizes > 1].sum()),
        }
        return Diagnosis(facts, level_records(space.trie))

    # --- training -----------------------------------------------------------------------------

    def targets(
        self, space: Listing, start_token: int, end_token: int, sampler: Sampler | None
    ) -> Targets:
        """See `Kind.targets`."""
        return ListedTargets(space, _base(space, start_token))

    def new_rows(self, space: Listing) -> Codes | None:
        """See `Kind.new_rows`: those of identifiers of one length, with a block a level."""
        if not space.rows or space.end is not None or space.rows != sum(space.level_sizes):
            return None
        if (space.identifier < 0).any():  # they have no tokens to start from
            return None
        return Codes(space.tokens[space.identifier], space.level_sizes)

    # --- search -------------------------------------------------------------------------------

    def require_match(self, space: Listing, manifest: Manifest, corpus: str, folder: Path) -> None:
        """Refuse identifiers of another tokeniser than the model's.

        Raises
        ------
        ModelError
        """
        if space.tokenizer is not None:
            require_same(folder, "tokeniser", space.tokenizer, tokenizer_of(manifest))

    def within(self, space: Listing, documents: np.ndarray) -> Listing:
        """See `Kind.within`."""
        return space.within(documents)

    def decoder(
        self,
        session: Session,
        space: Listing,
        beams: tuple[int, ...],
        candidates: np.ndarray,
        chosen: np.ndarray | None,
    ) -> Decoder:
        """See `Kind.decoder`."""
        return ListedDecoder(session, space, beams, candidates)

    def explain(
        self,
        session: Session,
        space: Listing,
        tokenizer: Tokenizer,
        beam: int,
        tokens: np.ndarray,
        lengths: np.ndarray,
    ) -> Explained:
        """See `Kind.explain`."""
        decoder = ListedDecoder(session, space, (beam,), _NO_CANDIDATES)
        arrays = decoder.search(tokens, lengths)
        found = Explained()
        docs, scores = arrays["doc"][0, 0].tolist(), arrays["score"][0, 0].tolist()
        for row, value, spelled in zip(docs, scores, arrays["token"][0, 0], strict=True):
            if row < 0:
                continue
            found.documents.append((row, value, []))
            text = _text(spelled, space, decoder.vocabulary, tokenizer)
            if found.identifiers and found.identifiers[-1]["identifier"] == text:
                found.identifiers[-1]["documents"].append(row)
            else:
                found.identifiers.append({"identifier": text, "score": value, "documents": [row]})
        return found


def _base(space: Listing, start_token: int) -> int:
    """The vocabulary row that tokens count from."""
    return start_token + 1 if space.rows else 0


def _listing(tokens: Tokens) -> Listing:
    """Tell equal identifiers, and lay out each step's block of vocabulary rows."""
    distinct, identifier = list_identifiers(tokens.rows)
    distinct = distinct[:, : int((distinct >= 0).sum(axis=1).max(initial=0))]
    blocks = list(_blocks(distinct, tokens))
    starts = np.array([first for first, _ in blocks], dtype=np.int64)
    within = distinct - starts[: distinct.shape[1]]
    within[distinct < 0] = -1
    return Listing(
        tokens=within.astype(np.int32),
        identifier=identifier,
        block_starts=starts,
        level_sizes=tuple(stop - first for first, stop in blocks),
        end=tokens.end,
        rows=_new_rows(tokens),
        tokenizer=tokens.tokenizer,
    )


def _new_rows(tokens: Tokens) -> int:
    return sum(tokens.level_sizes or ()) + (
        tokens.level_sizes is not None and tokens.end is not None
    )


def _blocks(distinct: np.ndarray, tokens: Tokens) -> Iterator[tuple[int, int]]:
    """First row of each step's block, and the row behind its last."""
    end, sizes = tokens.end, tokens.level_sizes
    ends = [] if end is None else [end]
    first = 0
    for level, column in enumerate(distinct.T):
        if sizes is None:
            used = column[column >= 0]
            bounds = [int(used.min()), int(used.max()), *ends]
        elif len(sizes) == 1:  # one block for all levels
            bounds = [0, sizes[0] - 1, *ends]
        else:
            bounds = [first, first + sizes[level] - 1, *ends]
            first += sizes[level]
        yield min(bounds), max(bounds) + 1
    if end is not None:
        yield end, end + 1


def _text(tokens: np.ndarray, space: Listing, vocabulary: Vocabulary, tokenizer: Tokenizer) -> str:
    """An identifier as it reads: its text, or the numbers of its new rows."""
    ids = [int(token) for token in tokens if token >= 0]
    if space.end is not None:
        ids = ids[:-1]
    if not space.rows:
        return str(tokenizer.decode(ids, skip_special_tokens=False))
    starts = vocabulary.block_starts[: len(ids)].tolist()
    return "-".join(str(token - start) for token, start in zip(ids, starts, strict=True))


class ListedTargets:
    """A document's one identifier, with its end token where it has one."""

    def __init__(self, listing: Listing, base: int) -> None:
        self.length = listing.steps
        self._listing, self._starts = listing, listing.block_starts + base

    def labels(self, pairs: Pairs, visit: np.random.Generator) -> np.ndarray:
        """See `Targets.labels`."""
        paths = self._listing.paths(pairs.document)
        return np.where(paths < 0, IGNORED, paths + self._starts)


@dataclass(frozen=True)
class ListedDecoder:
    """Searches and scores listed identifiers.

    Attributes
    ----------
    beams : tuple of int
    candidates : int32[queries, candidates]
        Documents to score; -1 is none.
    """

    session: Session
    listing: Listing
    beams: tuple[int, ...]
    candidates: np.ndarray

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Where the levels' blocks stand among the model's rows."""
        start, listing = self.session.manifest.start_token, self.listing
        base = _base(listing, start)
        end = None if listing.end is None else base + listing.end
        return Vocabulary(start, listing.block_starts + base, listing.level_sizes, end)

    @cached_property
    def decoding(self) -> Decoding:
        """See `Decoder`."""
        nodes = [1, *map(len, self.listing.trie.codes)]
        if self.listing.end is not None:
            nodes.append(len(self.listing.tokens))
        return Decoding(
            architecture=self.session.manifest.architecture,
            graph=self.session.manifest.graph,
            nodes=tuple(nodes),
            blocks=self.listing.level_sizes,
            beams=self.beams,
        )

    def search(self, tokens: np.ndarray, lengths: np.ndarray) -> Arrays:
        """See `Decoder.search`; documents that share an identifier follow each other."""
        found = search_trie(
            self.session, self.listing.trie, self.vocabulary, tokens, lengths, self.beams
        )
        ranked = {name: found.pop(name) for name in _RANKED}
        identifiers = found.pop("doc")
        beams = np.minimum(self.beams, len(self.listing.identifier))
        return {**_of_documents(ranked, identifiers, self.listing, beams), **found}

    def score(
        self, tokens: np.ndarray, lengths: np.ndarray, queries: np.ndarray, part: slice
    ) -> Arrays:
        """See `Decoder.score`."""
        paths = self.listing.paths(self.candidates[queries, part])
        logit, log_partition = score(self.session, self.vocabulary, tokens, lengths, paths)
        return {"logit": logit, "log_partition": log_partition}


def _of_documents(
    ranked: Arrays, identifiers: np.ndarray, listing: Listing, beams: np.ndarray
) -> Arrays:
    """Put the documents of each identifier in its place; a beam of size b returns b of them.

    Parameters
    ----------
    ranked : dict of str to array[queries, beams, ranks, ...]
    identifiers : int32[queries, beams, ranks]
        -1 where there is none.
    beams : int64[beams]
        Documents of each beam size, at most.
    """
    counts = np.where(identifiers < 0, 0, listing.sizes[np.maximum(identifiers, 0)])
    stops = np.cumsum(counts, axis=-1)
    rank = np.arange(int(beams.max()))
    # Of each rank: the identifier, and its place among the documents of that identifier.
    source = (stops[..., None, :] <= rank[:, None]).sum(axis=-1)
    empty = (source == identifiers.shape[-1]) | (rank >= beams[:, None])
    source = np.minimum(source, identifiers.shape[-1] - 1)
    place = rank - np.take_along_axis(stops - counts, source, axis=-1)
    own = np.take_along_axis(identifiers, source, axis=-1)
    documents = listing.documents(np.where(empty, 0, own), np.where(empty, 0, place))
    found = {"doc": np.where(empty, -1, documents).astype(np.int32)}
    for name, array in ranked.items():
        inner = (..., *[None] * (array.ndim - source.ndim))
        moved = np.take_along_axis(array, source[inner], axis=2)
        moved[empty] = -1 if name == "token" else np.nan
        found[name] = moved
    return found
