"""Embeddings of a corpus, range by range: each a task that reads its own documents alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.order import sample_rows
from genret_dask.datasets.words import RULES
from genret_dask.identifiers.embedding import EmbeddingSpec, unit_length
from genret_dask.identifiers.vectors import Vectors
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched, is_current, publishing
from genret_dask.storage.fingerprint import Origin

SAMPLE = 100_000
"""Documents that an embedding is fitted to; a collection of no more is embedded at once."""

RANGE = 2**15
"""Documents of a task."""

_VECTORS = "vectors.npy"


@dataclass(frozen=True)
class EmbedTask:
    """The embeddings of a range of documents.

    Attributes
    ----------
    collection : Path
        The artefact of the corpus.
    first, last : int
        Documents of the range, half-open.
    embedding : EmbeddingSpec
    fitted, folder : Path
        The artefact of what the embedding was fitted to, and where the vectors go.
    made_from : Origin
    """

    collection: Path
    first: int
    last: int
    embedding: EmbeddingSpec
    fitted: Path
    folder: Path
    made_from: Origin


def run_embed(task: EmbedTask, report: Callable[[float], None]) -> None:
    """Embed and publish a range, unless it is there; nothing is reported on the way."""
    if is_current(task.folder, task.made_from):
        return
    texts = stored.read_artefact(task.collection).documents(task.first, task.last)
    vectors = unit_length(task.embedding.transform(texts, fetched(task.fitted)))
    with publishing(task.folder, task.made_from) as partial:
        np.save(partial / _VECTORS, vectors)


def embed_tasks(
    collection: Collection,
    folder_of_collection: Path,
    embedding: EmbeddingSpec,
    seed: int,
    folder: Path,
) -> list[EmbedTask]:
    """Fit an embedding to documents that the seed chooses; return the tasks that embed all.

    Parameters
    ----------
    folder : Path
        What is fitted and the vectors go into a folder within; embeddings of other settings get
        another.
    """
    parts = {"collection": collection.content_hash, "embedding": embedding.settings()}
    made_from = Origin("embedding", {**parts, "seed": seed, "words": RULES, "sample": SAMPLE})
    folder = folder / made_from.fingerprint
    if not is_current(folder / "fitted", made_from):
        rows = sample_rows(len(collection), SAMPLE, (seed, 12))
        with publishing(folder / "fitted", made_from) as partial:
            embedding.fit(collection, rows, seed, partial)
    ranges = [
        (first, min(first + RANGE, len(collection))) for first in range(0, len(collection), RANGE)
    ]
    return [
        EmbedTask(
            collection=folder_of_collection,
            first=first,
            last=last,
            embedding=embedding,
            fitted=folder / "fitted",
            folder=folder / f"{first:08d}-{last:08d}",
            made_from=Origin("embeddings", {**made_from.parts, "documents": [first, last]}),
        )
        for first, last in ranges
    ]


def copy_fitted(task: EmbedTask, folder: Path) -> None:
    """Copy what a task's embedding was fitted to, without its record."""
    ignore = shutil.ignore_patterns(RECORD)
    shutil.copytree(fetched(task.fitted), folder, ignore=ignore, dirs_exist_ok=True)


def open_vectors(tasks: list[EmbedTask]) -> Vectors:
    """Map what the tasks wrote.

    Raises
    ------
    ModelError
        A file is missing or damaged.
    """
    return Vectors([read_array(fetched(task.folder) / _VECTORS, dims=2) for task in tasks])
