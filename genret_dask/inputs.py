"""What the models of a study are made from: collection, pairs, tokenisers, identifiers.

Each is an artefact of the run directory, made when it is first asked for and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from distributed import span

from genret_dask.arrays import read_array
from genret_dask.artefacts import fetched, is_current, publishing, record_of
from genret_dask.datasets import artefact, fingerprint_of, load
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import RULES
from genret_dask.errors import DatasetError
from genret_dask.fingerprint import Origin, fingerprint, sha256_file
from genret_dask.identifiers import Codes, build_codes, read_codes, write_codes
from genret_dask.identifiers.index_task import (
    IndexTask,
    first_texts,
    index_tasks,
    is_indexed,
    run_index,
)
from genret_dask.identifiers.ngrams import (
    INDEX,
    index_of_parts,
    open_parts,
    write_index,
)
from genret_dask.identifiers.spans import SpanSampler
from genret_dask.inference.candidates import build_candidates, select_queries
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.specs import (
    CodesIdentifiers,
    IdentifiersSpec,
    ModelSpec,
    NgramsIdentifiers,
    SweepSpec,
)

if TYPE_CHECKING:
    from genret_dask.shards.run import DaskExecutor
    from genret_dask.shards.serial import SerialExecutor

logger = logging.getLogger(__name__)

_LISTED = 20  # ids in an error's text


@dataclass(frozen=True)
class Artefact:
    """A folder of the run directory and what it was made from."""

    folder: Path
    made_from: Origin


class Inputs:
    """The inputs of a study's models.

    Parameters
    ----------
    spec : SweepSpec
    folder : Path
        The run directory.
    executor : callable
        Returns where the tasks of large inputs run.
    report : callable
        Gets a stage, the work done and the work in all.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        executor: Callable[[], DaskExecutor | SerialExecutor],
        report: Callable[[str, float, float], None],
    ) -> None:
        self.spec, self.folder = spec, folder
        self._executor, self._report = executor, report
        self._indexes: dict[Path, Artefact] = {}

    @cached_property
    def collection(self) -> Collection:
        """The collection, loaded once and kept in the run directory."""
        folder, spec = self.folder / "collection", self.spec
        settings = spec.dataset.model_dump(mode="json", exclude={"path", "passages"})
        parts = {"dataset": settings, "contents": fingerprint_of(spec.dataset), "seed": spec.seed}
        made_from = Origin("collection", parts)
        if is_current(folder, made_from):
            return artefact.read(fetched(folder) / "beir")
        self._report("dataset", 0, 1)
        collection = load(self.spec.dataset, self.spec.seed)
        with publishing(folder, made_from) as partial_folder:
            artefact.write(collection, partial_folder / "beir")
        self._report("dataset", 1, 1)
        return collection

    # --- text ---------------------------------------------------------------------------------

    @cached_property
    def pairs(self) -> Artefact:
        """(text, document) pairs: train.jsonl.gz, dev.jsonl.gz and documents.jsonl.gz."""
        from genret_dask.training.pairs import Pairs, build_pairs, write_pairs

        spec, collection = self.spec, self.collection
        settings = spec.training.model_dump(mode="json", include={"pairs", "dev_queries"})
        parts = {"collection": collection.content_hash, "training": settings, "seed": spec.seed}
        made_from = Origin("pairs", {**parts, "words": RULES})
        made = Artefact(self.folder / "pairs", made_from)
        if not is_current(made.folder, made_from):
            self._report("pairs", 0, 1)
            with publishing(made.folder, made_from) as partial_folder:
                pairs = build_pairs(collection, spec.training.pairs, spec.seed)
                write_pairs(pairs, partial_folder / "train.jsonl.gz")
                split = "dev" if len(collection.qrels["dev"].relevant()) else "train"
                dev = collection.qrels[split].relevant()
                chosen = np.random.default_rng(spec.seed).permutation(len(dev))
                chosen = np.sort(chosen[: spec.training.dev_queries])
                texts = [collection.queries[row] for row in dev.query[chosen]]
                write_pairs(
                    Pairs(texts, dev.document[chosen], np.zeros(len(texts), np.int8)),
                    partial_folder / "dev.jsonl.gz",
                )
                texts = [collection.document(row) for row in range(len(collection))]
                rows = np.arange(len(texts), dtype=np.int32)
                write_pairs(
                    Pairs(texts, rows, np.ones(len(rows), np.int8)),
                    partial_folder / "documents.jsonl.gz",
                )
            self._report("pairs", 1, 1)
        return made

    @cached_property
    def tokenizer(self) -> Artefact:
        """The tokeniser of models from scratch."""
        parts = {"collection": self.collection.content_hash, "tokenizer": self.spec.tokenizer}
        made_from = Origin("tokenizer", {**parts, "words": RULES})
        made = Artefact(self.folder / "tokenizer", made_from)
        if not is_current(made.folder, made_from):
            from genret_dask.training.tokenizer import save_tokenizer, train_tokenizer

            self._report("tokenizer", 0, 1)
            with publishing(made.folder, made_from) as partial_folder:
                tokenizer = train_tokenizer(self.collection, self.spec.tokenizer)
                save_tokenizer(tokenizer, partial_folder)
            self._report("tokenizer", 1, 1)
        return made

    def _tokenizer_of(self, model: ModelSpec) -> Artefact:
        """The tokeniser that a model reads with: the study's, or its pretrained weights' own."""
        if model.pretrained is None:
            return self.tokenizer
        made_from = Origin("tokenizer", {"pretrained": model.pretrained})
        made = Artefact(self.folder / "tokenizers" / model.label, made_from)
        if not is_current(made.folder, made_from):
            from genret_dask.training.architectures import pretrained_tokenizer
            from genret_dask.training.tokenizer import save_tokenizer

            with publishing(made.folder, made_from) as partial_folder:
                save_tokenizer(pretrained_tokenizer(model, model.pretrained), partial_folder)
        return made

    # --- identifiers --------------------------------------------------------------------------

    def space(self, kind: IdentifiersSpec, model: ModelSpec) -> Artefact:
        """The identifiers that a model generates: codes, or the index of its tokeniser."""
        if isinstance(kind, CodesIdentifiers):
            return self._code_artefact
        tokenizer = self._tokenizer_of(model).folder
        if tokenizer not in self._indexes:
            self._indexes[tokenizer] = self._index(kind, tokenizer)
        return self._indexes[tokenizer]

    @cached_property
    def _code_artefact(self) -> Artefact:
        (spec,) = (one for one in self.spec.identifiers if isinstance(one, CodesIdentifiers))
        parts = {"collection": self.collection.content_hash, "identifiers": spec}
        made_from = Origin("codes", {**parts, "seed": self.spec.seed, "words": RULES})
        made = Artefact(self.folder / "identifiers" / "codes", made_from)
        if not is_current(made.folder, made_from):
            self._report("identifiers", 0, 1)
            write_codes(build_codes(self.collection, spec, self.spec.seed), made.folder, made_from)
            self._report("identifiers", 1, 1)
        return made

    @cached_property
    def codes(self) -> Codes:
        """The documents' codes, of a study that has any."""
        return read_codes(self._code_artefact.folder)

    def _index(self, spec: NgramsIdentifiers, tokenizer: Path) -> Artefact:
        """The index of the collection under a tokeniser; its parts are tasks."""
        file = fetched(tokenizer) / "tokenizer.json"
        digest, vocabulary = sha256_file(file), read_tokenizer(file).get_vocab_size()
        corpus = self.collection.content_hash
        settings = spec.model_dump(mode="json", include={"views", "min_tokens", "part_characters"})
        named = {"collection": corpus, "tokenizer": digest, "identifiers": settings}
        made_from = Origin("ngrams", named)
        made = Artefact(self.folder / "identifiers" / "ngrams" / digest[:12], made_from)
        if not is_current(made.folder, made_from, INDEX):
            tasks = index_tasks(
                self.collection,
                self.folder / "collection",
                tokenizer,
                vocabulary,
                spec,
                made.folder,
                made_from,
            )
            todo: list[IndexTask] = [task for task in tasks if not is_indexed(task)]
            if todo:
                self._report("index", 0, sum(task.last - task.first for task in todo))
                with span(self.spec.name, "index"):
                    self._executor().map(
                        run_index,
                        todo,
                        [f"index.ngrams.{digest[:12]}-{task.name[5:]}" for task in todo],
                        cost=lambda task: task.last - task.first,
                        progress=lambda done, total: self._report("index", done, total),
                    )
            parts = open_parts(made.folder, [task.name for task in tasks])
            index = index_of_parts(parts, vocabulary, digest, corpus)
            first, longest = index.lengths(len(self.collection))
            write_index(
                made.folder,
                index,
                parts,
                made_from,
                unreachable=np.flatnonzero(longest < spec.min_tokens),
                without_spans=np.flatnonzero(first < spec.min_tokens),
            )
        self._check_reachable(spec, _named(made.folder, "unreachable"))
        return made

    def _check_reachable(self, spec: NgramsIdentifiers, rows: list[int]) -> None:
        """Count and list the documents that no n-gram leads to; refuse them unless allowed."""
        if not rows:
            return
        names = [self.collection.document_ids[row] for row in rows[:_LISTED]]
        listed = ", ".join([*names, *(["..."] if len(rows) > _LISTED else [])])
        text = f"{len(rows)} documents have no n-gram of {spec.min_tokens} tokens: {listed}"
        if not spec.allow_unreachable:
            raise DatasetError(
                text,
                expected=f"documents of {spec.min_tokens} tokens or more",
                fix="drop them, lower identifiers.min_tokens, or set identifiers.allow_unreachable "
                "to search without them",
            )
        logger.warning("%s; index.json lists all", text)

    # --- spans --------------------------------------------------------------------------------

    def pair_spans(self, kind: IdentifiersSpec, model: ModelSpec) -> Artefact | None:
        """The spans that stand for each pair's document: train.npy and dev.npy; n-grams only."""
        if not isinstance(kind, NgramsIdentifiers):
            return None

        def sample(sampler: SpanSampler, folder: Path) -> None:
            from genret_dask.training.pairs import read_pairs

            source = fetched(self.pairs.folder)
            for name in ("train", "dev"):
                pairs = read_pairs(source / f"{name}.jsonl.gz")
                self._sample(
                    sampler, pairs.texts, pairs.document[:, None], folder / f"{name}.npy", flat=True
                )

        return self._spans("pairs", kind, model, self.pairs.made_from, sample)

    def candidate_spans(self, kind: IdentifiersSpec, model: ModelSpec) -> Artefact | None:
        """The spans that stand for each candidate: candidates.npy; n-grams only."""
        if not isinstance(kind, NgramsIdentifiers):
            return None
        queries = [self.collection.queries[row] for row in self.queries]

        def sample(sampler: SpanSampler, folder: Path) -> None:
            self._sample(sampler, queries, self.candidates["doc"], folder / "candidates.npy")

        return self._spans("candidates", kind, model, self._candidates_from, sample)

    def _spans(
        self,
        name: str,
        spec: NgramsIdentifiers,
        model: ModelSpec,
        texts: Origin,
        sample: Callable[[SpanSampler, Path], None],
    ) -> Artefact:
        tokenizer, space = self._tokenizer_of(model), self.space(spec, model)
        parts = {
            name: texts.fingerprint,
            "index": space.made_from.fingerprint,
            "identifiers": spec.model_dump(mode="json", exclude={"scoring"}),
            "seed": self.spec.seed,
            "words": RULES,
        }
        made_from = Origin("spans", parts)
        made = Artefact(self.folder / "spans" / f"{name}-{space.folder.name}", made_from)
        if not is_current(made.folder, made_from):
            sampler = SpanSampler(
                first_texts(self.collection, spec),
                self.collection.document_ids,
                Reader.at(fetched(tokenizer.folder) / "tokenizer.json"),
                spec,
                self.spec.seed,
            )
            with publishing(made.folder, made_from) as partial_folder:
                sample(sampler, partial_folder)
        return made

    def _sample(
        self,
        sampler: SpanSampler,
        queries: Sequence[str],
        documents: np.ndarray,
        path: Path,
        *,
        flat: bool = False,
    ) -> None:
        """Spans of documents [queries, candidates], -1 being none; int32 [..., spans, 2]."""
        none = np.full_like(sampler.sample("", 0), -1)
        found = np.tile(none, (*documents.shape, 1, 1))
        for row, (query, candidates) in enumerate(zip(queries, documents.tolist(), strict=True)):
            for column, document in enumerate(candidates):
                if document >= 0:
                    found[row, column] = sampler.sample(query, document)
            if row % 64 == 0:
                self._report("spans", row, len(queries))
        np.save(path, found[:, 0] if flat else found)
        self._report("spans", len(queries), len(queries))

    # --- candidates ---------------------------------------------------------------------------

    @cached_property
    def queries(self) -> np.ndarray:
        """Rows of the queries that are searched."""
        spec = self.spec.inference
        return select_queries(self.collection, spec.split, spec.queries, self.spec.seed)

    @property
    def _candidates_from(self) -> Origin:
        spec = self.spec.inference
        parts = {
            "collection": self.collection.content_hash,
            "inference": {name: getattr(spec, name) for name in ("split", "queries", "negatives")},
            "seed": self.spec.seed,
            "documents without identifiers": fingerprint(self._excluded.tolist()),
        }
        return Origin("candidates", parts)

    @cached_property
    def _excluded(self) -> np.ndarray:
        """Documents that lack identifiers of their own in one of the study's spaces."""
        found = np.empty(0, dtype=np.int64)
        for kind in self.spec.identifiers:
            if isinstance(kind, NgramsIdentifiers):
                for model in self.spec.models:
                    rows = _named(self.space(kind, model).folder, "without_spans")
                    found = np.union1d(found, rows)
        return found.astype(np.int64)

    @cached_property
    def candidates(self) -> dict[str, np.ndarray]:
        """Positives and negatives of the queries, the same for every kind of identifier."""
        spec, collection = self.spec.inference, self.collection
        folder, made_from = self.folder / "candidates", self._candidates_from
        if not is_current(folder, made_from):
            built = build_candidates(
                collection,
                collection.qrels[spec.split],
                self.queries,
                spec.negatives,
                self.spec.seed,
                self._excluded.tolist(),
            )
            with publishing(folder, made_from) as partial_folder:
                for name, array in built.items():
                    np.save(partial_folder / f"{name}.npy", array)
        folder = fetched(folder)
        names: list[str] = sorted(record_of(folder)["files"])
        return {Path(name).stem: read_array(folder / name, mapped=False) for name in names}


def _named(index: Path, name: str) -> list[int]:
    """Documents that the record of an index names."""
    return record_of(index, INDEX, {name: list})[name]
