"""A Retriever against the worker's search stage, and its first answer against the runtime alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort

from genret_dask.bench.measure import Measurement, compare, quantity
from genret_dask.bench.scaling import study_of_random_words
from genret_dask.bench.workload import QUICK, Scale
from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.run.retriever import Retriever
from genret_dask.shards.plan import ShardTask
from genret_dask.shards.resources import Resources
from genret_dask.shards.task import SweepContext, compute_shard
from genret_dask.study.sweep import Study
from genret_dask.study.tasks import exported_models
from genret_dask.study.template import shard_tasks

BEAM = 20


def run_retriever(scale: Scale, runs: int) -> Iterator[Measurement]:
    """Queries a second of one process with one thread, and the first answer after opening."""
    quick = scale is QUICK
    with TemporaryDirectory(prefix="genret-bench.") as folder:
        spec = study_of_random_words(Path(folder), queries=32 if quick else 1000, beams=(BEAM,))
        study = Study(spec, runs=folder)
        study.search()
        (name,) = (model.label for model in spec.models)
        texts = study.collection.queries.take(study.inputs.queries)
        retriever = Retriever.open(study.folder, model=name, threads=1)
        yield compare(
            "queries through a Retriever",
            f"{len(texts)} queries, beam {BEAM}, peer: the search stage of a worker",
            lambda: retriever.search(texts, BEAM).doc,
            partial(_stage, _context(study), shard_tasks(study.make_template()), Resources()),
            equal=np.array_equal,
            runs=runs,
            target=0.95,
            per=len(texts),
            unit="ms/query",
        )
        pairs = [_first(study.folder, name, text) for text in texts[: 2 * runs]]
    answer, runtime = np.median(pairs, axis=0)
    yield quantity(
        "first answer",
        f"beam {BEAM}, peer: its calls of ONNX Runtime",
        1e3 * answer,
        1e3 * runtime,
        "ms",
        target=1 / 1.5,
    )


def _context(study: Study) -> SweepContext:
    return SweepContext(
        run=study.layout,
        models=exported_models(study.inputs),
        inference=study.spec.inference,
        max_tokens=study.spec.max_tokens,
        fingerprint="",
        corpus=study.collection.content_hash,
    )


def _stage(context: SweepContext, shards: list[ShardTask], resources: Resources) -> np.ndarray:
    """What a worker does for the shards' searches; nothing is written."""
    found = [
        compute_shard(shard, context, resources, kept=frozenset({CONTRAST}))[SEARCH]["doc"]
        for shard in shards
    ]
    return np.concatenate(found)[:, 0]


def _first(run: Path, model: str, text: str) -> tuple[float, float]:
    """Seconds of the first search of an opened Retriever, and those of its runtime's calls."""
    retriever = Retriever.open(run, model=model, threads=1)
    with _timed_runtime() as spent:
        start = time.perf_counter()
        retriever.search([text], BEAM)
        taken = time.perf_counter() - start
    return taken, sum(spent)


@contextmanager
def _timed_runtime() -> Iterator[list[float]]:
    spent: list[float] = []
    call = ort.InferenceSession.run_with_iobinding

    def timed(*arguments: Any, **options: Any) -> None:
        start = time.perf_counter()
        call(*arguments, **options)
        spent.append(time.perf_counter() - start)

    with patch.object(ort.InferenceSession, "run_with_iobinding", timed):
        yield spent
