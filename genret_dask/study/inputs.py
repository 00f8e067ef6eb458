"""What the models of a study are made from: collection, pairs, tokenisers, identifiers.

Each is an artefact of the run directory, made when it is first asked for and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from distributed import span

from genret_dask.datasets import stored
from genret_dask.datasets.checks import nothing_to_train_on
from genret_dask.datasets.collection import Collection, count_repeated
from genret_dask.errors import DatasetError
from genret_dask.identifiers import build_codes, write_codes
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
from genret_dask.inference.own import own_documents
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.specs import (
    CodesIdentifiers,
    IdentifiersSpec,
    ModelSpec,
    NgramsIdentifiers,
    SweepSpec,
)
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import Artefact, fetched, publishing, record_of
from genret_dask.storage.fingerprint import sha256_file
from genret_dask.study.candidates import build_candidates, count_negatives, select_queries
from genret_dask.study.origins import Origins

if TYPE_CHECKING:
    from genret_dask.executors.protocol import Executor

logger = logging.getLogger(__name__)

_LISTED = 20  # ids in an error's text


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
        executor: Callable[[], Executor],
        report: Callable[[str, float, float], None],
    ) -> None:
        self.spec, self.folder = spec, folder
        self.origins = Origins(spec, folder)
        self._executor, self._report = executor, report
        self._spaces: dict[Path | str, Artefact] = {}

    @cached_property
    def collection(self) -> Collection:
        """The collection, loaded once and kept in the run directory."""
        made = self.origins.collection
        if made.is_current:
            return self.origins.loaded
        self._report("dataset", 0, 1)
        collection = self.origins.loaded
        if repeated := count_repeated(collection):
            logger.warning(
                "%d of %d documents have the text of another: nothing tells them apart",
                repeated,
                len(collection),
            )
        facts = {"content_hash": collection.content_hash}
        with publishing(made.folder, made.made_from, **facts) as partial_folder:
            stored.write(collection, partial_folder / "beir")
        self._report("dataset", 1, 1)
        return collection

    # --- text ---------------------------------------------------------------------------------

    @cached_property
    def pairs(self) -> Artefact:
        """(text, document) pairs: train.jsonl.gz, dev.jsonl.gz and documents.jsonl.gz."""
        from genret_dask.training.pairs import Pairs, build_pairs, write_pairs

        spec, collection, made = self.spec, self.collection, self.origins.pairs
        if not made.is_current:
            self._report("pairs", 0, 1)
            pairs = build_pairs(collection, spec.training.pairs, spec.seed)
            if not len(pairs):
                raise nothing_to_train_on(collection)
            split = "dev" if len(collection.qrels["dev"].relevant()) else "train"
            dev = collection.qrels[split].relevant()
            dev_split = split if len(dev) else None
            with publishing(made.folder, made.made_from, dev_split=dev_split) as partial_folder:
                write_pairs(pairs, partial_folder / "train.jsonl.gz")
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

    def tokenizer(self, model: ModelSpec) -> Artefact:
        """The tokeniser that a model reads with: the study's, or its pretrained weights' own."""
        collection, made = self.collection, self.origins.tokenizer(model)
        if made.is_current:
            return made
        from genret_dask.training.tokenizer import save_tokenizer, train_tokenizer

        if model.pretrained is not None:
            from genret_dask.models.configs import pretrained_tokenizer

            with publishing(made.folder, made.made_from) as partial_folder:
                save_tokenizer(pretrained_tokenizer(model, model.pretrained), partial_folder)
            return made
        self._report("tokenizer", 0, 1)
        with publishing(made.folder, made.made_from) as partial_folder:
            save_tokenizer(train_tokenizer(collection, self.spec.tokenizer), partial_folder)
        self._report("tokenizer", 1, 1)
        return made

    # --- identifiers --------------------------------------------------------------------------

    def space(self, kind: IdentifiersSpec, model: ModelSpec) -> Artefact:
        """The identifiers that a model generates: codes, or the index of its tokeniser."""
        place = "codes" if isinstance(kind, CodesIdentifiers) else self.tokenizer(model).folder
        if place not in self._spaces:
            made = self.origins.space(kind, model)
            if isinstance(kind, CodesIdentifiers):
                self._spaces[place] = self._codes(kind, made)
            else:
                self._spaces[place] = self._index(kind, self.tokenizer(model).folder, made)
        return self._spaces[place]

    def _codes(self, spec: CodesIdentifiers, made: Artefact) -> Artefact:
        if not made.is_current:
            self._report("identifiers", 0, 1)
            codes = build_codes(self.collection, spec, self.spec.seed)
            write_codes(codes, made.folder, made.made_from)
            self._report("identifiers", 1, 1)
        return made

    def _index(self, spec: NgramsIdentifiers, tokenizer: Path, made: Artefact) -> Artefact:
        """The index of the collection under a tokeniser; its parts are tasks."""
        if not made.is_current:
            file = fetched(tokenizer) / "tokenizer.json"
            digest, vocabulary = sha256_file(file), read_tokenizer(file).get_vocab_size()
            tasks = index_tasks(
                self.collection,
                self.folder / "collection",
                tokenizer,
                vocabulary,
                spec,
                made.folder,
                made.made_from,
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
            corpus = self.collection.content_hash
            index = index_of_parts(parts, vocabulary, digest, corpus)
            first, longest = index.lengths(len(self.collection))
            write_index(
                made.folder,
                index,
                parts,
                made.made_from,
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

        return self._spans(kind, model, self.origins.pair_spans, sample)

    def candidate_spans(self, kind: IdentifiersSpec, model: ModelSpec) -> Artefact | None:
        """The spans that stand for each candidate: candidates.npy; n-grams only."""
        if not isinstance(kind, NgramsIdentifiers):
            return None
        queries = [self.collection.queries[row] for row in self.queries]
        documents = self.candidates["doc"]

        def sample(sampler: SpanSampler, folder: Path) -> None:
            self._sample(sampler, queries, documents, folder / "candidates.npy")

        return self._spans(kind, model, self.origins.candidate_spans, sample)

    def _spans(
        self,
        spec: NgramsIdentifiers,
        model: ModelSpec,
        origin: Callable[[NgramsIdentifiers, ModelSpec], Artefact],
        sample: Callable[[SpanSampler, Path], None],
    ) -> Artefact:
        tokenizer, _ = self.tokenizer(model), self.space(spec, model)
        made = origin(spec, model)
        if not made.is_current:
            sampler = SpanSampler(
                first_texts(self.collection, spec),
                self.collection.document_ids,
                Reader.at(fetched(tokenizer.folder) / "tokenizer.json"),
                spec,
                self.spec.seed,
            )
            with publishing(made.folder, made.made_from) as partial_folder:
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
        stage = f"spans of {path.stem}"
        none = np.full_like(sampler.sample("", 0), -1)
        found = np.tile(none, (*documents.shape, 1, 1))
        for row, (query, candidates) in enumerate(zip(queries, documents.tolist(), strict=True)):
            for column, document in enumerate(candidates):
                if document >= 0:
                    found[row, column] = sampler.sample(query, document)
            if row % 64 == 0:
                self._report(stage, row, len(queries))
        np.save(path, found[:, 0] if flat else found)
        self._report(stage, len(queries), len(queries))

    # --- candidates ---------------------------------------------------------------------------

    @cached_property
    def queries(self) -> np.ndarray:
        """Rows of the queries that are searched."""
        spec = self.spec.inference
        return select_queries(self.collection, spec.split, spec.queries, self.spec.seed)

    @cached_property
    def own(self) -> np.ndarray:
        """The document of each of them that is left out; see `genret_dask.inference.own`."""
        spec = self.spec.inference
        qrels = self.collection.qrels[spec.split]
        return own_documents(self.collection, qrels, self.queries, spec.ignore_identical_ids)

    @cached_property
    def candidates(self) -> dict[str, np.ndarray]:
        """Positives and negatives of the queries, the same for every kind of identifier."""
        spec, collection = self.spec.inference, self.collection
        for kind in self.spec.identifiers:
            for model in self.spec.models:
                self.space(kind, model)
        made, excluded = self.origins.candidates, self.origins.without_identifiers()
        if not made.is_current:
            built = build_candidates(
                collection,
                collection.qrels[spec.split],
                self.queries,
                spec.negatives,
                self.spec.seed,
                [] if excluded is None else excluded.tolist(),
                self.own,
            )
            _warn_of_few(built, spec.negatives)
            with publishing(made.folder, made.made_from) as partial_folder:
                for name, array in built.items():
                    np.save(partial_folder / f"{name}.npy", array)
        folder = fetched(made.folder)
        names: list[str] = sorted(record_of(folder)["files"])
        return {Path(name).stem: read_array(folder / name, mapped=False) for name in names}


def _warn_of_few(candidates: dict[str, np.ndarray], negatives: int) -> None:
    """Say so where queries have fewer negatives than were asked for."""
    found = count_negatives(candidates["doc"], candidates["is_positive"])
    if (found < negatives).any():
        logger.warning(
            "inference.negatives is %d, but %d of %d queries have fewer: %d to %d documents can be "
            "negatives; with n of them the contrastive loss is log(1 + 1/n) by chance",
            negatives,
            (found < negatives).sum(),
            len(found),
            found.min(),
            found.max(),
        )


def _named(index: Path, name: str) -> list[int]:
    """Documents that the record of an index names."""
    return record_of(index, INDEX, {name: list})[name]
