"""What a sweep will take, before it starts: tasks, shards, bytes, FLOPs, time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genret_dask.cube.schema import SHARDED
from genret_dask.datasets.collection import Collection
from genret_dask.inference.candidates import select_queries
from genret_dask.inference.memory import Decoding
from genret_dask.models.flops import (
    Architecture,
    prefill_flops,
    step_flops,
    training_flops_per_example,
)
from genret_dask.shards.plan import padded_widths, plan_shards
from genret_dask.specs import SweepSpec
from genret_dask.study import Cell, cells_of, models_of

CPU_TRAINING_RATE, CPU_SEARCH_RATE = 60e9, 80e9
"""FLOP/s of one core, seen with models of 10^4 to 10^6 parameters on a 2-core AVX-512 machine."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take; FLOPs are upper estimates.

    Attributes
    ----------
    documents, queries : int
    models : list of str
        Of the cube: each trained model in each precision.
    train_tasks, export_tasks, shards : int
    cube_bytes : int
        Before compression.
    train_flops, search_flops : float
    task_bytes, query_bytes : int
        Memory that a search task takes for a whole batch, and for one query at a time.
    """

    documents: int
    queries: int
    models: list[str]
    train_tasks: int
    export_tasks: int
    shards: int
    cube_bytes: int
    train_flops: float
    search_flops: float
    task_bytes: int
    query_bytes: int

    def seconds(self, cores: int) -> float:
        """Rough time on that many CPU cores, start-up and data preparation left out."""
        work = self.train_flops / CPU_TRAINING_RATE + self.search_flops / CPU_SEARCH_RATE
        return work / max(1, cores)


def estimate(spec: SweepSpec, collection: Collection) -> Estimate:
    """Plan a sweep of a collection without writing anything."""
    inference = spec.inference
    rows = select_queries(collection, inference.split, inference.queries, spec.seed)
    cells, models = cells_of(spec), models_of(spec)
    levels = spec.identifiers.levels + 1
    qrels = collection.qrels[inference.split].relevant()
    positives = int(np.bincount(qrels.query)[rows].max())
    sizes = {
        "model": len(models),
        "query": len(rows),
        "beam": len(inference.beams),
        "rank": min(max(inference.beams), len(collection)),
        "step": levels,
        "candidate": positives + min(inference.negatives, len(collection) - positives),
    }
    cube_bytes = sum(
        int(np.prod([sizes[dim] for dim in variable.dims])) * np.dtype(variable.dtype).itemsize
        for variables in SHARDED.values()
        for variable in variables.values()
    )
    return Estimate(
        documents=len(collection),
        queries=len(rows),
        models=models,
        train_tasks=len(cells),
        export_tasks=len(models),
        shards=len(plan_shards(models, len(rows), inference.shard_queries)),
        cube_bytes=cube_bytes,
        train_flops=sum(_train_flops(spec, cell) for cell in cells),
        search_flops=len(spec.export.precision)
        * sum(_search_flops(spec, cell, sizes) for cell in cells),
        task_bytes=max(
            _task_bytes(spec, cell, sizes, len(collection), inference.batch_queries)
            for cell in cells
        ),
        query_bytes=max(_task_bytes(spec, cell, sizes, len(collection), 1) for cell in cells),
    )


def _train_flops(spec: SweepSpec, cell: Cell) -> float:
    training = cell.training(spec)
    architecture = _architecture(spec, cell)
    per_example = training_flops_per_example(
        architecture, training.max_tokens, spec.identifiers.levels + 1
    )
    return float(training.examples * per_example)


def _search_flops(spec: SweepSpec, cell: Cell, sizes: dict[str, int]) -> float:
    """Two prefills, the largest beam's prefixes and the candidates' prefixes, a query."""
    architecture, tokens = _architecture(spec, cell), spec.inference.max_tokens
    reachable = spec.identifiers.codes ** np.arange(sizes["step"], dtype=float)
    rows = np.minimum(sizes["rank"], reachable) + np.minimum(sizes["candidate"], reachable)
    steps = step_flops(architecture, tokens, np.arange(sizes["step"]))
    per_query = 2 * prefill_flops(architecture, tokens) + (rows * steps).sum()
    return float(sizes["query"] * per_query)


def _task_bytes(
    spec: SweepSpec, cell: Cell, sizes: dict[str, int], documents: int, batch_queries: int
) -> int:
    """Memory of a search task that decodes so many of the longest queries at once."""
    inference, levels = spec.inference, sizes["step"]
    reachable = [min(spec.identifiers.codes**level, documents) for level in range(levels)]
    decoding = Decoding(
        architecture=_architecture(spec, cell),
        graph="beam",
        nodes=(*reachable, documents),
        blocks=(spec.identifiers.codes,) * levels,
        beams=inference.beams,
    )
    shard, candidates = min(inference.shard_queries, sizes["query"]), sizes["candidate"]
    prompt = int(padded_widths(np.array(inference.max_tokens)))
    decoded = min(batch_queries, shard) * decoding.query_bytes(prompt, candidates)
    return shard * decoding.result_bytes(candidates) + decoded


def _architecture(spec: SweepSpec, cell: Cell) -> Architecture:
    from genret_dask.models.architectures import architecture_of
    from genret_dask.training.architectures import config_of

    config = config_of(cell.model)
    if cell.model.pretrained is None:
        config.vocab_size = spec.tokenizer.vocab_size
    config.vocab_size += spec.identifiers.codes * spec.identifiers.levels + 2
    return architecture_of(config)
