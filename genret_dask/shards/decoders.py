"""What a shard computes of its queries, for each kind of identifier: search, then candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from genret_dask.errors import ModelError
from genret_dask.identifiers import Codes
from genret_dask.identifiers.ngrams import NgramIndex, close
from genret_dask.inference.beam import find
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.documents import Evidence, gather_evidence, rank_documents
from genret_dask.inference.memory import Decoding
from genret_dask.inference.ngrams import NgramConstraint, collect
from genret_dask.inference.resident import searcher
from genret_dask.inference.rows import Rows
from genret_dask.inference.score import score
from genret_dask.inference.session import Session
from genret_dask.models.flops import prefill_flops, step_flops
from genret_dask.specs import NgramsIdentifiers

Arrays = dict[str, np.ndarray]
"""Variables of one dataset of the cube, each [queries, ...]."""


class Decoder(Protocol):
    """A model and the identifiers that it generates.

    Attributes
    ----------
    decoding : Decoding
        What it takes, in bytes.
    """

    @property
    def decoding(self) -> Decoding: ...

    def search(self, tokens: np.ndarray, lengths: np.ndarray) -> Arrays:
        """The cube's search variables of padded queries."""
        ...

    def score(
        self, tokens: np.ndarray, lengths: np.ndarray, queries: np.ndarray, part: slice
    ) -> Arrays:
        """The cube's contrast variables of some candidates.

        Parameters
        ----------
        queries : int64[queries]
            Rows of the candidates.
        part : slice
            Of each query's candidates.
        """
        ...


@dataclass(frozen=True)
class CodeDecoder:
    """Codes: one identifier a document.

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
        found = searcher(self.session)(
            self.session, self.codes.trie, self.vocabulary, tokens, lengths, self.beams
        )
        return {
            "token": found.token,
            "logit": found.logit,
            "log_partition": found.log_partition,
            "score": found.score,
            "doc": found.doc,
            **costs(self.session, lengths, found.rows_decoded),
        }

    def score(
        self, tokens: np.ndarray, lengths: np.ndarray, queries: np.ndarray, part: slice
    ) -> Arrays:
        """See `Decoder.score`."""
        paths = self.codes.paths(self.candidates[queries, part])
        logit, log_partition = score(self.session, self.vocabulary, tokens, lengths, paths)
        return {"logit": logit, "log_partition": log_partition}


@dataclass(frozen=True)
class NgramDecoder:
    """n-grams: spans of the documents, any of which leads to them.

    Attributes
    ----------
    beams : tuple of int
    candidates : int32[queries, candidates]
        Documents to score; -1 is none.
    spans : int32[queries, candidates, spans, 2]
        The spans that stand for each candidate.
    """

    session: Session
    index: NgramIndex
    spec: NgramsIdentifiers
    beams: tuple[int, ...]
    candidates: np.ndarray
    spans: np.ndarray

    @property
    def end_token(self) -> int:
        return self.session.manifest.provenance["eos_token"]

    @cached_property
    def constraint(self) -> NgramConstraint:
        spec = self.spec
        return NgramConstraint(self.index, spec.min_tokens, spec.max_tokens, spec.partials)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Every step may ask for any token of the text."""
        manifest, steps = self.session.manifest, self.spec.max_tokens
        return Vocabulary(
            manifest.start_token,
            np.zeros(steps, np.int64),
            (self.index.vocabulary,) * steps,
            self.end_token,
        )

    @cached_property
    def decoding(self) -> Decoding:
        """See `Decoder`."""
        manifest, steps = self.session.manifest, self.spec.max_tokens
        return Decoding(
            architecture=manifest.architecture,
            graph=manifest.graph,
            nodes=self.index.prefixes(steps),
            blocks=(self.index.vocabulary,) * steps,
            beams=self.beams,
            identifiers=self.spec.spans,
            results=self.spec.ngrams(self.beams),
            whole_vocabulary=True,
        )

    def generate(
        self, tokens: np.ndarray, lengths: np.ndarray
    ) -> tuple[Rows, Evidence, np.ndarray]:
        """The n-grams of padded queries, what they say of documents, and the rows decoded."""
        found, rows_decoded = find(
            self.session, self.constraint, self.vocabulary, tokens, lengths, self.beams
        )
        evidence = gather_evidence(
            found, self.index, self.end_token, self.spec.scoring, len(tokens)
        )
        return found, evidence, rows_decoded

    def search(self, tokens: np.ndarray, lengths: np.ndarray) -> Arrays:
        """See `Decoder.search`."""
        found, evidence, rows_decoded = self.generate(tokens, lengths)
        shape = len(tokens), len(self.beams)
        doc, total = rank_documents(evidence, *shape, self.spec.scoring.documents)
        return {
            **collect(
                found, self.index, evidence.weight, len(tokens), self.spec.ngrams(self.beams)
            ),
            "doc": doc,
            "score": total,
            "left_out": evidence.left_out,
            **costs(self.session, lengths, rows_decoded),
        }

    def score(
        self, tokens: np.ndarray, lengths: np.ndarray, queries: np.ndarray, part: slice
    ) -> Arrays:
        """See `Decoder.score`."""
        documents, spans = self.candidates[queries, part], self.spans[queries, part]
        shape = *spans.shape[:-1], self.spec.max_tokens
        paths = self.index.spans(
            np.repeat(documents.ravel(), spans.shape[2]), spans.reshape(-1, 2), shape[-1]
        )
        paths = close(paths, self.end_token).reshape(shape)
        flat = paths.reshape(len(queries), -1, shape[-1])
        logit, log_partition = score(self.session, self.vocabulary, tokens, lengths, flat)
        return {
            "token": paths,
            "logit": logit.reshape(shape),
            "log_partition": log_partition.reshape(shape),
        }


def costs(session: Session, lengths: np.ndarray, rows_decoded: np.ndarray) -> Arrays:
    """Operations of a search at each beam size alone, and the prefixes it decodes.

    Parameters
    ----------
    rows_decoded : int32[queries, beams, steps]
    """
    architecture = session.manifest.architecture
    prefill = prefill_flops(architecture, lengths)
    steps = np.stack(
        [step_flops(architecture, lengths, step) for step in range(rows_decoded.shape[-1])], axis=-1
    )
    return {
        "flops": prefill[:, None] + (rows_decoded * steps[:, None, :]).sum(axis=-1),
        "rows_decoded": rows_decoded.sum(axis=-1),
    }


def check_index(index: NgramIndex, session: Session, corpus: str, folder: Path) -> None:
    """Refuse an index of another tokeniser or of another collection.

    Raises
    ------
    ModelError
        It is not what the model, or the cube, was made with.
    """
    manifest = session.manifest
    pairs = (
        ("tokeniser", index.tokenizer, manifest.files.get("tokenizer.json", "none")),
        ("vocabulary", index.vocabulary, manifest.start_token),
        ("collection", index.corpus, corpus),
    )
    for name, found, expected in pairs:
        if found != expected:
            raise ModelError(
                f"the index at {folder} was made with another {name} ({found})",
                expected=f"{expected}, which the model and the cube were made with",
                fix=f"remove {folder} and run the sweep again",
            )
