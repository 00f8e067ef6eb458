"""What the models of a study are made from: collection, pairs, tokenisers, identifiers.

Each is an artefact of the run directory, made when it is first asked for and kept.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import span

from genret_dask.datasets import given, stored
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.summary import count_repeated
from genret_dask.inference.own import own_documents
from genret_dask.kinds import Kind
from genret_dask.kinds.base import Source
from genret_dask.kinds.spans_task import SPANS, open_spans, run_spans, spans_tasks
from genret_dask.specs import ModelSpec, SweepSpec
from genret_dask.specs.grid import cells_of
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import Artefact, fetched, missing, publishing, record_of
from genret_dask.storage.layout import ROWS, TEXTS
from genret_dask.storage.places import remove
from genret_dask.study.candidates import (
    build_candidates,
    count_negatives,
    select_queries,
)
from genret_dask.study.origins import Origins
from genret_dask.study.within import read_within

if TYPE_CHECKING:
    from genret_dask.executors.protocol import Executor

logger = logging.getLogger(__name__)


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
        self.spec = spec
        self.origins = Origins(spec, folder)
        self._executor, self._report = executor, report
        self._spaces: dict[Path, Artefact] = {}

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
        facts: dict[str, Any] = {"content_hash": collection.content_hash}
        if of_dataset := self.spec.dataset.facts():
            facts["facts"] = of_dataset
        with publishing(made.folder, made.made_from, **facts) as partial_folder:
            stored.move(self.origins.loaded_in, partial_folder / TEXTS)
        self._report("dataset", 1, 1)
        return collection

    def pairs(self) -> Artefact | None:
        """The training pairs of the user's files; None where there are none."""
        made = self.origins.pairs
        if made is not None and not made.is_current:
            with publishing(made.folder, made.made_from) as partial_folder:
                for name in given.FILES:
                    shutil.move(self.origins.loaded_pairs / name, partial_folder / name)
        return made

    # --- text ---------------------------------------------------------------------------------

    def tokenizer(self, model: ModelSpec) -> Artefact:
        """The tokeniser that a model reads with: the study's, or its pretrained weights' own."""
        collection, made = self.collection, self.origins.tokenizer(model)
        if made.is_current:
            return made
        from genret_dask.training.tokenizer import save_tokenizer, train_tokenizer

        if model.source is not None:
            from genret_dask.models.configs import pretrained_tokenizer

            with publishing(made.folder, made.made_from) as partial_folder:
                save_tokenizer(pretrained_tokenizer(model, model.source), partial_folder)
            return made
        self._report("tokenizer", 0, 1)
        with publishing(made.folder, made.made_from) as partial_folder:
            save_tokenizer(train_tokenizer(collection, self.spec.tokenizer), partial_folder)
        self._report("tokenizer", 1, 1)
        return made

    # --- identifiers --------------------------------------------------------------------------

    def space(self, kind: Kind, model: ModelSpec) -> Artefact:
        """The identifiers that a model generates: of its tokeniser, where they are made of it."""
        tokenizer = self.tokenizer(model).folder if kind.per_tokenizer else None
        made = self.origins.space(kind, model)
        if made.folder not in self._spaces:
            if not made.is_current:
                source = Source(
                    collection=self.collection,
                    place=self.origins.collection.folder,
                    tokenizer=tokenizer,
                    working=made.folder / "working",
                    seed=self.spec.seed,
                    report=self._report,
                    map=self._map,
                )
                old = self.origins.grown_from(kind)
                if old is None:
                    kind.build(made, source)
                else:
                    kind.extend(made, source, old)
            kind.check(made.folder, self.collection)
            self._spaces[made.folder] = made
        return self._spaces[made.folder]

    def _map(
        self,
        stage: str,
        function: Callable[..., Any],
        tasks: list[Any],
        names: list[str],
        cost: Callable[[Any], float],
    ) -> list[Any]:
        """Run tasks of a stage where the study's tasks run."""
        self._report(stage, 0, sum(map(cost, tasks)))
        with span(self.spec.name, stage):
            return self._executor().map(
                function,
                tasks,
                names,
                cost=cost,
                progress=lambda done, total: self._report(stage, done, total),
            )

    # --- spans --------------------------------------------------------------------------------

    def candidate_spans(self, kind: Kind, model: ModelSpec) -> Artefact | None:
        """The identifiers that stand for each candidate: candidates.npy.

        None where a document has just one.
        """
        if not kind.choices:
            return None
        tokenizer, _, _ = self.tokenizer(model), self.space(kind, model), self.candidates
        made = self.origins.candidate_spans(kind, model)
        if made.is_current:
            return made
        working = made.folder / "working"
        tasks = spans_tasks(
            self.queries,
            kind,
            self.spec.seed,
            collection=self.origins.collection.folder,
            candidates=self.origins.candidates.folder,
            tokenizer=tokenizer.folder,
            folder=working / made.fingerprint,
            made_from=made.made_from,
        )
        if todo := missing(tasks):
            names = [f"spans.{kind.label}.{made.folder.name}-{task.first:05d}" for task in todo]
            self._map("spans of candidates", run_spans, todo, names, lambda t: len(t.queries))
        with publishing(made.folder, made.made_from) as partial_folder:
            np.save(partial_folder / SPANS, open_spans(tasks))
        remove(working)
        return made

    # --- candidates ---------------------------------------------------------------------------

    @cached_property
    def queries(self) -> np.ndarray:
        """Rows of the queries that are searched."""
        spec = self.spec.inference
        return select_queries(self.collection, spec.split, spec.queries, self.spec.seed)

    def within(self) -> Artefact | None:
        """The rows of the documents that a search is kept to, as rows.npy; None for all."""
        made, place = self.origins.within, self.spec.inference.within
        if made is not None and place is not None and not made.is_current:
            rows = read_within(self.collection, place)
            with publishing(made.folder, made.made_from) as partial_folder:
                np.save(partial_folder / ROWS, rows)
        return made

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
        for cell in cells_of(self.spec):
            self.space(cell.identifiers, cell.model)
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
