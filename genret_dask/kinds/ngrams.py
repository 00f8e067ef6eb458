"""n-grams: token spans of the documents, constrained to the corpus; any of them leads to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, model_validator
from tokenizers import Tokenizer

from genret_dask.cube.schema import (
    CONTRAST,
    COSTS,
    SCORED,
    SEARCH,
    Variable,
    Variables,
    allowed_variable,
    ranking_variables,
    token_variables,
)
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.pairs import Pairs
from genret_dask.errors import DatasetError, ModelError
from genret_dask.identifiers.diagnostics import distinct_tokens, shared_streams
from genret_dask.identifiers.index_task import (
    PART,
    FirstTexts,
    index_tasks,
    plan_parts,
    run_index,
)
from genret_dask.identifiers.ngrams import (
    INDEX,
    NgramIndex,
    close,
    index_of_parts,
    open_parts,
    read_index,
    write_index,
)
from genret_dask.identifiers.spans import SpanSampler
from genret_dask.identifiers.suffix_array import BYTES
from genret_dask.inference.beam import find
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.documents import (
    Evidence,
    NgramsScoring,
    gather_evidence,
    rank_documents,
)
from genret_dask.inference.memory import Decoding
from genret_dask.inference.ngrams import NgramConstraint, NgramShortlist, collect
from genret_dask.inference.rows import Rows
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
    costs,
    require_same,
    tokenizer_of,
)
from genret_dask.models.flops import Architecture
from genret_dask.models.manifest import Manifest
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.specs import PositiveInt
from genret_dask.storage.artefacts import Artefact, fetched, missing, record_of
from genret_dask.storage.fingerprint import Origin, sha256_file

logger = logging.getLogger(__name__)

View = Literal["body", "titles", "queries"]

_GENERATED = ("model", "query", "beam", "ngram")
_LISTED = 20  # ids in an error's text
_TOKENIZING = 100_000_000  # bytes of texts that are tokenised together, and of the tokeniser
_NAN = float("nan")


class NgramsIdentifiers(Kind):
    """Token spans of the documents, constrained to the corpus."""

    kind: Literal["ngrams"] = "ngrams"
    min_tokens: PositiveInt = Field(1, description="before an n-gram may end")
    max_tokens: Annotated[int, Field(gt=0, le=1024)] = Field(10, description="at which it ends")
    partials: bool = Field(
        True, description="score documents by every prefix that a beam kept, as SEAL does"
    )
    span_words: PositiveInt = Field(10, description="words of a sampled span")
    spans: PositiveInt = Field(10, description="sampled of each (query, document)")
    temperature: PositiveFloat = Field(1.0, description="of the sampling by overlap")
    views: tuple[View, ...] = Field(
        ("body",), description="what is indexed: body, titles, queries (those of the train split)"
    )
    scoring: NgramsScoring = NgramsScoring()
    allow_unreachable: bool = Field(
        False, description="keep documents that no n-gram of min_tokens leads to"
    )
    log_allowed: bool = Field(
        False, description="store the log-sum over the tokens that may follow, which lists them all"
    )
    part_characters: PositiveInt | None = Field(
        None, description="of text in a part of the index; an eighth of the corpus, within bounds"
    )

    noun = "n-gram"
    per_tokenizer = True
    record_name = INDEX

    @property
    def variables(self) -> Variables:
        """See `Kind.variables`."""
        return {
            SEARCH: {
                **token_variables(_GENERATED),
                **(allowed_variable(_GENERATED) if self.log_allowed else {}),
                "ngram_score": Variable(
                    _GENERATED, "float32", _NAN, "nat", "log-probability of the n-gram"
                ),
                "weight": Variable(
                    _GENERATED,
                    "float32",
                    _NAN,
                    "nat",
                    "weight in a document's score, 0 = not looked up",
                ),
                "count": Variable(
                    _GENERATED, "int64", 0, "1", "occurrences of the n-gram in the corpus"
                ),
                "left_out": Variable(
                    ("model", "query", "beam"),
                    "int32",
                    -1,
                    "1",
                    "n-grams of some weight beyond the limit of occurrences",
                ),
                **ranking_variables("intersective score of the document's n-grams", "1"),
                **COSTS,
            },
            CONTRAST: token_variables((*SCORED, "identifier")),
        }

    @model_validator(mode="after")
    def _consistent(self) -> NgramsIdentifiers:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        if "body" not in self.views or len(set(self.views)) != len(self.views):
            raise ValueError("views must be distinct, and body one of them")
        return self

    # --- before any work ----------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """See `Kind.settings`."""
        absent = set() if self.log_allowed else {"log_allowed"}  # as before there was such a thing
        return self.model_dump(mode="json", exclude={"name", "allow_unreachable", *absent})

    def made_from(self, corpus: str, seed: int, tokenizer: str | None) -> Origin:
        """See `Kind.made_from`."""
        settings = self.model_dump(mode="json", include={"views", "min_tokens", "part_characters"})
        settings["part_characters"] = self.part_characters or PART
        parts = {"collection": corpus, "tokenizer": tokenizer, "identifiers": settings}
        return Origin("ngrams", parts)

    # --- size ---------------------------------------------------------------------------------

    @property
    def choices(self) -> int:
        """See `Kind.choices`."""
        return self.spans

    @property
    def steps(self) -> int:
        """See `Kind.steps`."""
        return self.max_tokens

    def ngrams(self, beams: tuple[int, ...]) -> int:
        """Return how many n-grams a query has at the largest beam size, at most."""
        kept = self.max_tokens - self.min_tokens + 1 if self.partials else 1
        return kept * max(beams)

    def planned(self, documents: int) -> Shape:
        """See `Kind.planned`."""
        return Shape(0, self.max_tokens)

    def shape(self, folder: Path) -> Shape:
        """See `Kind.shape`."""
        return Shape(0, self.max_tokens)

    def plan(
        self, architecture: Architecture, collection: Collection, beams: tuple[int, ...]
    ) -> Decoding:
        """See `Kind.plan`; a text has fewer tokens than letters."""
        vocabulary, letters = architecture.vocab_size - 1, int(collection.texts.lengths.sum())
        nodes = [min(vocabulary**length, letters) for length in range(self.max_tokens)]
        return self.decoding(architecture, "beam", (*nodes, letters), vocabulary, beams)

    def making(self, collection: Collection, vocabulary: int) -> Making:
        """See `Kind.making`; a token has four letters on disk, and three at least in memory."""
        lengths = collection.texts.lengths
        documents, characters = len(lengths), max(1, int(lengths.sum()))
        letters = collection.texts.nbytes
        letters += collection.titles.nbytes if "titles" in self.views else 0
        letters += collection.queries.nbytes if "queries" in self.views else 0
        firsts = [first for first, _ in plan_parts(collection, self.part_characters)]
        part, heads = int(np.add.reduceat(lengths, firsts).max()), 8 * vocabulary * len(firsts)
        width = 1 if vocabulary < 2**16 else 2
        # Of memory, a character of a part: to sort its tokens, and to hold them twice.
        held = width * (BYTES + 4) / 3 * letters / characters

        def smaller(nbytes: int) -> str:
            # The last document of a part lies beyond it.
            most = int((nbytes - _TOKENIZING) / held) - int(lengths.max())
            unit = 10 ** max(0, len(str(most)) - 2)
            to = f" to {most // unit * unit}" if most > 0 else ""
            return f"lower identifiers.part_characters{to}"

        return Making(
            task_seconds=0.9e-6 * letters,
            bytes_kept=(4 + 2 * width) * letters // 4 + 12 * documents + heads,
            task_bytes=int(held * part) + _TOKENIZING,
            stage="index",
            fix=smaller,
        )

    def sizes(self, beams: tuple[int, ...], documents: int) -> dict[str, int]:
        """See `Kind.sizes`."""
        return {
            "rank": self.scoring.documents,
            "ngram": self.ngrams(beams),
            "identifier": self.spans,
        }

    def decoding(
        self,
        architecture: Architecture,
        graph: Literal["beam", "optimum"],
        nodes: tuple[int, ...],
        vocabulary: int,
        beams: tuple[int, ...],
    ) -> Decoding:
        """Return what a search and a scoring take.

        Parameters
        ----------
        nodes : tuple of int
            Distinct prefixes of each length, at most.
        vocabulary : int
            Token ids are below.
        """
        return Decoding(
            architecture=architecture,
            graph=graph,
            nodes=nodes,
            blocks=(vocabulary,) * self.max_tokens,
            beams=beams,
            identifiers=self.spans,
            results=self.ngrams(beams),
            whole_vocabulary=not self.log_allowed,
        )

    # --- making and opening -------------------------------------------------------------------

    def build(self, made: Artefact, source: Source) -> None:
        """See `Kind.build`; parts of the index are tasks."""
        tokenizer = source.tokenizer or Path()
        file = fetched(tokenizer) / "tokenizer.json"
        digest, vocabulary = sha256_file(file), read_tokenizer(file).get_vocab_size()
        tasks = index_tasks(
            source.collection,
            source.place,
            tokenizer,
            vocabulary,
            made.folder,
            made.made_from,
            views=self.views,
            least=self.min_tokens,
            part_characters=self.part_characters,
        )
        if todo := missing(tasks):
            source.map(
                "index",
                run_index,
                todo,
                [f"index.ngrams.{digest[:12]}-{task.name[5:]}" for task in todo],
                cost=lambda task: task.last - task.first,
            )
        parts = open_parts(made.folder, [task.name for task in tasks])
        index = index_of_parts(parts, vocabulary, digest, source.collection.content_hash)
        first, longest = index.lengths(len(source.collection))
        write_index(
            made.folder,
            index,
            parts,
            made.made_from,
            unreachable=np.flatnonzero(longest < self.min_tokens),
            without_spans=np.flatnonzero(first < self.min_tokens),
        )

    def check(self, folder: Path, collection: Collection) -> None:
        """Count and list the documents that no n-gram leads to; refuse them unless allowed."""
        rows = record_of(folder, INDEX, {"unreachable": list})["unreachable"]
        if not rows:
            return
        names = [collection.document_ids[row] for row in rows[:_LISTED]]
        listed = ", ".join([*names, *(["..."] if len(rows) > _LISTED else [])])
        text = f"{len(rows)} documents have no n-gram of {self.min_tokens} tokens: {listed}"
        if not self.allow_unreachable:
            raise DatasetError(
                text,
                expected=f"documents of {self.min_tokens} tokens or more",
                fix="drop them, lower identifiers.min_tokens, or set identifiers.allow_unreachable "
                "to search without them",
            )
        logger.warning("%s; index.json lists all", text)

    def without_identifiers(self, folder: Path) -> np.ndarray:
        """See `Kind.without_identifiers`."""
        record = record_of(folder, INDEX, {"without_spans": list})
        return np.array(record["without_spans"], dtype=np.int64)

    def open(self, folder: Path) -> NgramIndex:
        """See `Kind.open`."""
        return read_index(folder)

    def diagnostics(self, folder: Path, collection: Collection) -> Diagnosis:
        """See `Kind.diagnostics`; those without an identifier of their own are `without_spans`."""
        record = record_of(folder, INDEX, {"unreachable": list, "without_spans": list})
        index = self.open(folder)
        streams = [part.stream for part in index.parts]
        return Diagnosis(
            {
                "documents": len(collection),
                "unreachable": len(record["unreachable"]),
                "without_spans": len(record["without_spans"]),
                "sharing_a_token_stream": shared_streams(streams),
                "tokens": index.tokens,
                "distinct_tokens": distinct_tokens(streams, index.vocabulary),
                "vocabulary": index.vocabulary,
                "views": ", ".join(self.views),
                "parts": len(index.parts),
            }
        )

    # --- training -----------------------------------------------------------------------------

    def sampled_from(self) -> dict[str, Any]:
        """See `Kind.sampled_from`."""
        return self.model_dump(
            mode="json",
            exclude={"name", "scoring", "partials", "allow_unreachable", "log_allowed"},
        )

    def sampler(self, collection: Collection, tokenizer: Path, seed: int) -> Sampler:
        """See `Kind.sampler`."""
        return SpanSampler(
            FirstTexts(collection, self.views),
            collection.document_ids,
            Reader.at(tokenizer),
            seed,
            spans=self.spans,
            span_words=self.span_words,
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
        )

    def targets(
        self, space: NgramIndex, start_token: int, end_token: int, sampler: Sampler | None
    ) -> Targets:
        """See `Kind.targets`."""
        if sampler is None:
            raise ValueError("n-grams of a document are sampled")
        return NgramTargets(space, self.max_tokens, end_token, sampler)

    # --- search -------------------------------------------------------------------------------

    def require_match(
        self, space: NgramIndex, manifest: Manifest, corpus: str, folder: Path
    ) -> None:
        """Refuse an index of another tokeniser or of another collection.

        Raises
        ------
        ModelError
            It is not what the model, or the cube, was made with.
        """
        require_same(folder, "tokeniser", space.tokenizer, tokenizer_of(manifest))
        require_same(folder, "collection", space.corpus, corpus)
        if space.vocabulary > manifest.vocab_size:
            raise ModelError(
                f"the identifiers at {folder} are of {space.vocabulary} tokens",
                expected=f"at most the {manifest.vocab_size} rows of the model's head",
                fix=f"remove {folder} and run the sweep again",
            )

    def within(self, space: NgramIndex, documents: np.ndarray) -> NgramIndex:
        """See `Kind.within`."""
        return space.within(documents)

    def decoder(
        self,
        session: Session,
        space: NgramIndex,
        beams: tuple[int, ...],
        candidates: np.ndarray,
        chosen: np.ndarray | None,
    ) -> Decoder:
        """See `Kind.decoder`."""
        if chosen is None:
            chosen = np.empty((*candidates.shape, 0, 2), dtype=np.int32)
        return NgramDecoder(session, space, self, beams, candidates, chosen)

    def explain(
        self,
        session: Session,
        space: NgramIndex,
        tokenizer: Tokenizer,
        beam: int,
        tokens: np.ndarray,
        lengths: np.ndarray,
    ) -> Explained:
        """See `Kind.explain`; n-grams have a weight and a count too, and stand by weight."""
        no_candidates = np.empty((1, 0), dtype=np.int32)
        no_spans = np.empty((1, 0, 0, 2), dtype=np.int32)
        decoder = NgramDecoder(session, space, self, (beam,), no_candidates, no_spans)
        ngrams, evidence, _ = decoder.generate(tokens, lengths)
        texts = [_text(row, tokenizer, decoder.end_token) for row in ngrams.token]
        weight, counts, found = evidence.weight[0], space.count(ngrams.states), Explained()
        for row in np.lexsort((-ngrams.score, -weight)):
            found.identifiers.append(
                {
                    "identifier": texts[row],
                    "score": float(ngrams.score[row]),
                    "weight": float(weight[row]),
                    "count": int(counts[row]),
                    "documents": evidence.document[evidence.row == row].tolist(),
                }
            )
        docs, scores = (one[0, 0] for one in rank_documents(evidence, 1, 1, self.scoring.documents))
        for document, total in zip(docs.tolist(), scores.tolist(), strict=True):
            mine = np.flatnonzero(evidence.document == document)
            mine = mine[np.argsort(-evidence.value[mine], kind="stable")]
            pieces = [(texts[evidence.row[item]], float(evidence.value[item])) for item in mine]
            if document >= 0:
                found.documents.append((document, total, pieces))
        return found


def _text(tokens: np.ndarray, tokenizer: Tokenizer, end_token: int) -> str:
    """An n-gram as it reads; one that the end token closed ends with a bar."""
    ids = [int(token) for token in tokens if token >= 0]
    ended = bool(ids) and ids[-1] == end_token
    text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
    return f"{text}|" if ended else text


class NgramTargets:
    """The spans that are sampled for a pair, one of them at every visit."""

    def __init__(self, index: NgramIndex, length: int, end_token: int, sampler: Sampler) -> None:
        self.length = length
        self._index, self._end, self._sampler = index, end_token, sampler

    def labels(self, pairs: Pairs, visit: np.random.Generator) -> np.ndarray:
        """See `Targets.labels`."""
        rows = zip(pairs.texts, pairs.document.tolist(), strict=True)
        spans = np.stack([self._sampler.sample(text, document) for text, document in rows])
        which = visit.integers(0, spans.shape[1], len(spans))
        return self._tokens(pairs.document, spans[np.arange(len(spans)), which])

    def _tokens(self, documents: np.ndarray, spans: np.ndarray) -> np.ndarray:
        return close(self._index.spans(documents, spans, self.length), self._end, IGNORED)


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
        """The token that ends an n-gram early."""
        return self.session.manifest.require_reading().eos_token

    @cached_property
    def constraint(self) -> NgramConstraint:
        """The n-grams of the corpus."""
        spec = self.spec
        constraint = NgramConstraint if spec.log_allowed else NgramShortlist
        return constraint(self.index, spec.min_tokens, spec.max_tokens, spec.partials)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Every step may ask for any token of the text."""
        steps, rows = self.spec.max_tokens, self.index.vocabulary
        start = self.session.manifest.start_token
        return Vocabulary(start, np.zeros(steps, np.int64), (rows,) * steps, self.end_token)

    @cached_property
    def decoding(self) -> Decoding:
        """See `Decoder`."""
        manifest, steps = self.session.manifest, self.spec.max_tokens
        nodes, vocabulary = self.index.prefixes(steps), self.index.vocabulary
        return self.spec.decoding(
            manifest.architecture, manifest.graph, nodes, vocabulary, self.beams
        )

    def generate(
        self, tokens: np.ndarray, lengths: np.ndarray
    ) -> tuple[Rows, Evidence, np.ndarray]:
        """Return the n-grams of padded queries, what they say of documents, and rows decoded."""
        found, rows_decoded = find(
            self.session, self.constraint, self.vocabulary, tokens, lengths, self.beams
        )
        scoring = self.spec.scoring
        evidence = gather_evidence(found, self.index, self.end_token, scoring, len(tokens))
        return found, evidence, rows_decoded

    def search(self, tokens: np.ndarray, lengths: np.ndarray) -> Arrays:
        """See `Decoder.search`."""
        found, evidence, rows_decoded = self.generate(tokens, lengths)
        shape = len(tokens), len(self.beams)
        doc, total = rank_documents(evidence, *shape, self.spec.scoring.documents)
        most = self.spec.ngrams(self.beams)
        allowed = self.spec.log_allowed
        return {
            **collect(found, self.index, evidence.weight, len(tokens), most, allowed),
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
