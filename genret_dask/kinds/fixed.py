"""Identifiers of one fixed length: each level has a block of new vocabulary rows.

A subclass gives the cells of each document, and how many a plan reckons with; everything else
follows from them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tokenizers import Tokenizer

from genret_dask.cube.schema import (
    CONTRAST,
    COSTS,
    RANKED,
    SCORED,
    SEARCH,
    Variables,
    allowed_variable,
    ranking_variables,
    token_variables,
)
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.pairs import Pairs
from genret_dask.identifiers import Codes, Trie, read_codes, write_codes
from genret_dask.identifiers.codes import read_level_sizes
from genret_dask.identifiers.diagnostics import level_records, trie_facts
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.memory import Decoding
from genret_dask.inference.resident import searcher
from genret_dask.inference.score import score
from genret_dask.inference.session import Session
from genret_dask.kinds.base import (
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
    costs,
)
from genret_dask.models.flops import Architecture
from genret_dask.storage.artefacts import Artefact
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.places import remove

_NO_CANDIDATES = np.empty((1, 0), dtype=np.int32)
_CODE = 4  # bytes of a cell, and of a node's or document's number


VARIABLES: Variables = {
    SEARCH: {
        **token_variables(RANKED),
        **allowed_variable(RANKED),
        **ranking_variables("log-probability of the identifier", "nat"),
        **COSTS,
    },
    CONTRAST: {name: one for name, one in token_variables(SCORED).items() if name != "token"},
}
"""Of kinds with one identifier a document."""


class FixedLength(Kind):
    """A kind whose identifiers are rows of cells, one a level, unique to a document."""

    noun = "code"

    @property
    def variables(self) -> Variables:
        """See `Kind.variables`."""
        return VARIABLES

    @abstractmethod
    def planned_levels(self, documents: int) -> list[int]:
        """Return how many cells each level is expected to have, for plans alone."""

    @abstractmethod
    def cells(self, source: Source) -> np.ndarray:
        """Return each document's cells; int [documents, levels], from 0, no two rows equal."""

    def made_from(self, corpus: str, seed: int, tokenizer: str | None) -> Origin:
        """See `Kind.made_from`."""
        parts = {"collection": corpus, "identifiers": self.settings(), "seed": seed}
        return Origin(self.kind, parts)

    def planned(self, documents: int) -> Shape:
        """See `Kind.planned`."""
        sizes = self.planned_levels(documents)
        return Shape(sum(sizes), len(sizes))

    def shape(self, folder: Path) -> Shape:
        """See `Kind.shape`."""
        sizes = read_level_sizes(folder)
        return Shape(sum(sizes), len(sizes))

    def plan(
        self, architecture: Architecture, collection: Collection, beams: tuple[int, ...]
    ) -> Decoding:
        """See `Kind.plan`; the last level may turn out as large as any."""
        sizes, documents = self.planned_levels(len(collection)), len(collection)
        nodes = _nodes(sizes[:-1], documents)
        blocks = (*sizes[:-1], max(sizes))
        return Decoding(architecture, "beam", (*nodes, documents), blocks, beams)

    def making(self, collection: Collection, vocabulary: int) -> Making:
        """See `Kind.making`; a level of one cell is there only if documents share all others."""
        documents = len(collection)
        sizes = [size for size in self.planned_levels(documents) if size > 1]
        nodes = _nodes(sizes, documents)
        if nodes[-1] < documents:
            nodes.append(documents)
        levels, width = len(nodes) - 1, np.min_scalar_type(max(sizes, default=1)).itemsize
        trie = _CODE * sum(nodes[:-1]) + width * sum(nodes[1:]) + _CODE * documents
        kept = _CODE * levels * documents + trie
        return replace(super().making(collection, vocabulary), bytes_kept=kept)

    def sizes(self, beams: tuple[int, ...], documents: int) -> dict[str, int]:
        """See `Kind.sizes`."""
        return {"rank": min(max(beams), documents)}

    def build(self, made: Artefact, source: Source) -> None:
        """See `Kind.build`."""
        source.report("identifiers", 0, 1)
        with TemporaryDirectory(prefix="genret-codes-") as kept:
            codes = Codes.of_cells(self.cells(replace(source, kept=Path(kept))))
            write_codes(codes, made.folder, made.made_from, Path(kept))
        remove(source.working)
        source.report("identifiers", 1, 1)

    def open(self, folder: Path) -> Codes:
        """See `Kind.open`."""
        return read_codes(folder)

    def diagnostics(self, folder: Path, collection: Collection) -> Diagnosis:
        """See `Kind.diagnostics`."""
        space, documents = self.open(folder), len(collection)
        facts = {
            **super().diagnostics(folder, collection).facts,
            **trie_facts(space.trie, documents),
            "sharing_an_identifier": documents - len(space.trie.codes[-1]),
        }
        return Diagnosis(facts, level_records(space.trie, space.level_sizes))

    def targets(
        self, space: Codes, start_token: int, end_token: int, sampler: Sampler | None
    ) -> Targets:
        """See `Kind.targets`."""
        return CodeTargets(space, start_token)

    def new_rows(self, space: Codes) -> Codes:
        """See `Kind.new_rows`."""
        return space

    def within(self, space: Codes, documents: np.ndarray) -> Codes:
        """See `Kind.within`."""
        trie = Trie.build(np.asarray(space.codes[documents]))
        rows = documents[trie.documents].astype(np.int32)
        return replace(space, stored_trie=replace(trie, documents=rows))

    def decoder(
        self,
        session: Session,
        space: Codes,
        beams: tuple[int, ...],
        candidates: np.ndarray,
        chosen: np.ndarray | None,
    ) -> Decoder:
        """See `Kind.decoder`."""
        return CodeDecoder(session, space, beams, candidates)

    def explain(
        self,
        session: Session,
        space: Codes,
        tokenizer: Tokenizer,
        beam: int,
        tokens: np.ndarray,
        lengths: np.ndarray,
    ) -> Explained:
        """See `Kind.explain`."""
        arrays = CodeDecoder(session, space, (beam,), _NO_CANDIDATES).search(tokens, lengths)
        found = Explained()
        for row, value in zip(arrays["doc"][0, 0].tolist(), arrays["score"][0, 0], strict=True):
            if row >= 0:
                code = "-".join(map(str, space.codes[row]))
                one = {"identifier": code, "score": float(value), "documents": [row]}
                found.identifiers.append(one)
                found.documents.append((row, float(value), []))
        return found


def _nodes(sizes: list[int], documents: int) -> list[int]:
    """Prefixes of each length, from 0, that so many documents can have."""
    nodes = [1]
    for size in sizes:
        nodes.append(min(nodes[-1] * size, documents))
    return nodes


def search_trie(
    session: Session,
    trie: Trie,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    beams: tuple[int, ...],
) -> Arrays:
    """Search padded queries; returns the search variables of a kind with one identifier a document.

    `doc` is what the trie calls a document.
    """
    found = searcher(session)(session, trie, vocabulary, tokens, lengths, beams)
    return {
        "token": found.token,
        "logit": found.logit,
        "log_partition": found.log_partition,
        "log_allowed": found.log_allowed,
        "score": found.score,
        "doc": found.doc,
        **costs(session, lengths, found.rows_decoded),
    }


class CodeTargets:
    """A document's one code, in the vocabulary rows behind the start token."""

    def __init__(self, codes: Codes, start_token: int) -> None:
        self.length = codes.length
        self._codes, self._starts = codes.codes, codes.block_starts + start_token + 1

    def labels(self, pairs: Pairs, visit: np.random.Generator) -> np.ndarray:
        """See `Targets.labels`."""
        return self._codes[pairs.document].astype(np.int64) + self._starts


@dataclass(frozen=True)
class CodeDecoder:
    """Searches and scores codes: one identifier a document.

    Attributes
    ----------
    beams : tuple of int
    candidates : int32[queries, candidates]
        Documents to score; -1 is none.
    """

    session: Session
    codes: Codes
    beams: tuple[int, ...]
    candidates: np.ndarray

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Where the levels' blocks stand among the model's rows."""
        start = self.session.manifest.start_token
        return Vocabulary(start, self.codes.block_starts + start + 1, self.codes.level_sizes)

    @cached_property
    def decoding(self) -> Decoding:
        """See `Decoder`."""
        return Decoding(
            architecture=self.session.manifest.architecture,
            graph=self.session.manifest.graph,
            nodes=(1, *map(len, self.codes.trie.codes)),
            blocks=self.codes.level_sizes,
            beams=self.beams,
        )

    def search(self, tokens: np.ndarray, lengths: np.ndarray) -> Arrays:
        """See `Decoder.search`."""
        trie, vocabulary = self.codes.trie, self.vocabulary
        return search_trie(self.session, trie, vocabulary, tokens, lengths, self.beams)

    def score(
        self, tokens: np.ndarray, lengths: np.ndarray, queries: np.ndarray, part: slice
    ) -> Arrays:
        """See `Decoder.score`."""
        paths = self.codes.paths(self.candidates[queries, part])
        logit, log_partition = score(self.session, self.vocabulary, tokens, lengths, paths)
        return {"logit": logit, "log_partition": log_partition}
