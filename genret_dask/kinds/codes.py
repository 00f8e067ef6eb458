"""Codes: quantised cells of a document embedding, made unique by a last level."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import RULES
from genret_dask.errors import DatasetError
from genret_dask.identifiers import embed_task
from genret_dask.identifiers.added import added_cells
from genret_dask.identifiers.codes import (
    KEPT,
    MOST_CODES,
    Codes,
    build_cells,
    crowded,
    write_codes,
)
from genret_dask.identifiers.diagnostics import prefix_groups
from genret_dask.identifiers.embed_task import copy_fitted, embed_tasks, open_vectors, run_embed
from genret_dask.identifiers.embedding import (
    CORE_FLOPS,
    EmbeddingSpec,
    TfidfEmbedding,
    embed,
    unit_length,
)
from genret_dask.identifiers.quantisers.base import Quantiser
from genret_dask.identifiers.vectors import Vectors
from genret_dask.kinds.base import Diagnosis, Making, Source
from genret_dask.kinds.fixed import FixedLength
from genret_dask.specs.registry import entry, names_of
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import Artefact, fetched, missing
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.sources import contents

logger = logging.getLogger(__name__)

_SPREADING = 20e-6  # seconds a document, for the last level


class CodesIdentifiers(FixedLength):
    """Quantised codes of a document embedding, made unique by a last level."""

    kind: Literal["codes"] = "codes"
    levels: Annotated[int, Field(gt=0, le=64)] = Field(
        3, description="quantised levels, before the unique one"
    )
    codes: Annotated[int, Field(ge=2, le=MOST_CODES)] = Field(32, description="codes a level")
    quantiser: str = Field("rq", description="rq, kmeans, pq, or another that is installed")
    embedding: EmbeddingSpec = TfidfEmbedding()

    @field_validator("quantiser")
    @classmethod
    def _installed(cls, quantiser: str) -> str:
        if quantiser not in (known := names_of("quantisers")):
            raise ValueError(f"no quantiser {quantiser!r}; expected one of {', '.join(known)}")
        return quantiser

    @property
    def _quantiser(self) -> Quantiser:
        chosen: Quantiser = entry("quantisers", self.quantiser)()
        return chosen

    def problems(self) -> Iterator[str]:
        """See `Kind.problems`."""
        if problems := [*self.embedding.problems()]:
            yield from problems
        elif problem := self._quantiser.problem(
            self.levels, self.codes, self.embedding.cost(1).dim
        ):
            yield f"identifiers {self.label}: {problem}"

    def settings(self) -> dict[str, Any]:
        """See `Kind.settings`; of the default quantiser they say nothing, as it came first."""
        unsaid = ("quantiser",) if self.quantiser == "rq" else ()
        return contents(self, "name", "embedding", *unsaid, embedding=self.embedding.settings())

    def made_from(self, corpus: str, seed: int, tokenizer: str | None) -> Origin:
        """See `Kind.made_from`."""
        parts = super().made_from(corpus, seed, tokenizer).parts
        return Origin(self.kind, {**parts, "words": RULES})

    def planned_levels(self, documents: int) -> list[int]:
        """See `FixedLength.planned_levels`; how many share every cell only the documents tell."""
        return [*[self.codes] * self.levels, 1]

    def making(self, collection: Collection, vocabulary: int) -> Making:
        """See `Kind.making`."""
        documents, letters = len(collection), collection.texts.nbytes + collection.titles.nbytes
        sampled = min(documents, embed_task.SAMPLE)
        cost, fitted = self.embedding.cost(sampled), letters * sampled // documents
        compared = self._quantiser.compared(documents, self.levels, self.codes)
        quantising = 2 * cost.dim * self.codes * compared / CORE_FLOPS + _SPREADING * documents
        client, embedding = cost.fit_seconds * fitted + quantising, cost.seconds * letters
        kept = super().making(collection, vocabulary).bytes_kept
        made = Making(bytes_kept=kept, client_bytes=int(cost.fit_bytes * fitted))
        if documents == sampled:
            return replace(made, client_seconds=client + embedding)
        return replace(
            made,
            client_seconds=client,
            task_seconds=embedding,
            bytes_working=4 * cost.dim * documents + cost.nbytes,
            task_bytes=embed_task.RANGE * (12 * cost.dim + letters // documents) + 2 * cost.nbytes,
            stage="embedding",
            fix=lambda nbytes: "choose a smaller identifiers.embedding",
        )

    def cells(self, source: Source) -> np.ndarray:
        """See `FixedLength.cells`."""
        collection = source.collection
        if warning := crowded(len(collection), self.levels, self.codes):
            logger.warning(warning)
        vectors, names = self._vectors(source), collection.document_ids
        return build_cells(
            vectors,
            names,
            self.levels,
            self.codes,
            source.seed,
            self.quantiser,
            source.kept,
        )

    def extend(self, made: Artefact, source: Source, old: Path) -> None:
        """See `Kind.extend`: the nearest cells that have room, by the centroids that were kept."""
        known, learned = self.open(old), fetched(old) / KEPT
        texts = source.collection.documents(len(known.codes), len(source.collection))
        count = len(list(learned.glob("centroids-*.npy")))
        if count != self.levels:
            raise DatasetError(
                f"the codes at {old} keep no centroids, and new documents cannot be given codes",
                expected="codes of the quantisers rq or pq, made by this version",
                fix="train models of all documents, or take n-grams or titles",
            )
        centroids = [read_array(learned / f"centroids-{one}.npy", dims=2) for one in range(count)]
        vectors = unit_length(self.embedding.transform(texts, learned))
        cells = added_cells(known, vectors, centroids, self._quantiser)
        codes = Codes(np.concatenate([known.codes, cells]), known.level_sizes)
        write_codes(codes, made.folder, made.made_from, learned)

    def diagnostics(self, folder: Path, collection: Collection) -> Diagnosis:
        """See `Kind.diagnostics`; where all quantised cells differ, there is no unique level."""
        found, space = super().diagnostics(folder, collection), self.open(folder)
        shared = 0
        if space.length > self.levels:
            groups = prefix_groups(space.trie)[self.levels - 1]
            shared = int(groups[groups > 1].sum())
        return replace(found, facts={**found.facts, "sharing_all_quantised_cells": shared})

    def _vectors(self, source: Source) -> Vectors:
        """Embed the documents; ranges of many are tasks. What was learned of them is kept."""
        collection, embedding = source.collection, self.embedding
        if len(collection) <= embed_task.SAMPLE:
            return Vectors([embed(collection, embedding, source.seed, source.kept)])
        tasks = embed_tasks(collection, source.place, embedding, source.seed, source.working)
        if todo := missing(tasks):
            source.report("identifiers", 1, 1)  # what the embedding was fitted to is there
            source.map(
                "embedding",
                run_embed,
                todo,
                [f"embedding.codes.{embedding.kind}-{task.first:08d}" for task in todo],
                cost=lambda task: task.last - task.first,
            )
            source.report("identifiers", 0, 1)
        if source.kept is not None:
            copy_fitted(tasks[0], source.kept)
        return open_vectors(tasks)
