"""What a sweep will take, before it starts: tasks, shards, bytes, FLOPs, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from dask.utils import format_bytes

from genret_dask.cube.schema import Group
from genret_dask.datasets.collection import Collection
from genret_dask.errors import BudgetError
from genret_dask.models.flops import (
    Architecture,
    prefill_flops,
    step_flops,
    training_flops_per_example,
)
from genret_dask.shards.plan import padded_widths, plan_shards
from genret_dask.specs import SweepSpec, TrainingSpec, precise_name
from genret_dask.specs.grid import Cell, cells_of, models_of
from genret_dask.study.candidates import candidate_width, select_queries
from genret_dask.study.survey import Step, left_of
from genret_dask.study.template import group_sizes
from genret_dask.training.memory import (
    SAMPLED,
    SMALLER_EXPORT,
    SMALLER_TRAINING,
    Need,
    Texts,
    export_bytes,
    training_bytes,
)

WORKER_BYTES = 180 * 2**20
"""A process that has imported what a search needs holds about that."""

CPU_TRAINING_RATE, CPU_SEARCH_RATE = 60e9, 80e9
"""FLOP/s of one core, seen with models of 10^4 to 10^6 parameters on a 2-core AVX-512 machine."""

START_SECONDS = 20.0
"""Imports here and on a worker, the cluster, results and report: with nothing to compute."""
TRAINING_SECONDS, EXPORT_SECONDS, SHARD_SECONDS = 1.5, 0.5, 0.2
"""A task of a tiny model, on one core."""
STEP_SECONDS = 0.015
"""A training step beside its FLOPs: Python, and kernels too small to fill a core."""
READ_SECONDS = 0.0012
"""A document that a training reads before its first step, of at most `SAMPLED`."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take; FLOPs are upper estimates.

    Attributes
    ----------
    documents, queries : int
    models : list of str
        Of the cube: each trained model in each precision.
    train_tasks, export_tasks, shards : int
    train_steps : int
        Of all trainings, if none stops early.
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
    train_steps: int
    cube_bytes: int
    train_flops: float
    search_flops: float
    task_bytes: int
    query_bytes: int

    def seconds(self, cores: int, left: Mapping[str, float] | None = None) -> float:
        """Rough time on that many CPU cores, with a worker each, without the preparation.

        Parameters
        ----------
        cores : int
        left : mapping of str to float, optional
            The share of a stage's results that are still to be made, as
            `genret_dask.study.survey.shares_left` has it; all of a stage that is not named.
        """
        share = {"train": 1.0, "export": 1.0, "search": 1.0, **(left or {})}
        training = self.train_flops / CPU_TRAINING_RATE + self.train_steps * STEP_SECONDS
        training += self.train_tasks * (
            TRAINING_SECONDS + READ_SECONDS * min(self.documents, SAMPLED)
        )
        search = self.search_flops / CPU_SEARCH_RATE + self.shards * SHARD_SECONDS
        work = share["train"] * training + share["search"] * search
        work += share["export"] * self.export_tasks * EXPORT_SECONDS
        return START_SECONDS + work / max(1, cores)


def duration(seconds: float) -> str:
    """Seconds in words, in the unit that a reader counts in: 80 s, 14 min, 3.5 h.

    Examples
    --------
    >>> duration(82), duration(840), duration(12600)
    ('82 s', '14 min', '3.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def estimate(spec: SweepSpec, collection: Collection) -> Estimate:
    """Plan a sweep of a collection without writing anything."""
    inference = spec.inference
    cells, models = cells_of(spec), models_of(spec)
    trained = [] if spec.models_from else cells
    groups = planned_groups(spec, collection)
    queries = next(iter(groups.values())).sizes["query"]
    cube_bytes, shards = cube_size(spec, groups)
    costs = [_Cost(spec, cell, groups[cell.kind].sizes, collection) for cell in cells]
    return Estimate(
        documents=len(collection),
        queries=queries,
        models=list(dict.fromkeys(chain.from_iterable(models.values()))),
        train_tasks=len(trained),
        export_tasks=0 if spec.models_from else sum(map(len, models.values())),
        shards=shards,
        train_steps=sum(
            _steps_of(cell.training(spec)) for cell in trained if cell.model.checkpoint is None
        ),
        cube_bytes=cube_bytes,
        train_flops=0.0 if spec.models_from else sum(cost.train_flops() for cost in costs),
        search_flops=len(spec.export.precision) * sum(cost.search_flops() for cost in costs),
        task_bytes=max(cost.task_bytes(inference.batch_queries) for cost in costs),
        query_bytes=max(cost.task_bytes(1) for cost in costs),
    )


def planned_groups(spec: SweepSpec, collection: Collection) -> dict[str, Group]:
    """The groups of the cube by identifier kind, with the most steps that identifiers can have."""
    inference = spec.inference
    queries = select_queries(collection, inference.split, inference.queries, spec.seed)
    qrels = collection.qrels[inference.split]
    groups, models = {}, models_of(spec)
    for kind in spec.identifiers:
        sizes = group_sizes(
            spec,
            kind,
            models=len(models[kind.label]),
            queries=len(queries),
            candidates=candidate_width(qrels, inference.negatives, len(collection)),
            documents=len(collection),
            steps=kind.planned(len(collection)).steps,
        )
        groups[kind.label] = Group(
            kind.label, kind.kind, kind.variables, sizes, inference.shard_queries, {}, {}, {}, {}
        )
    return groups


def cube_size(spec: SweepSpec, groups: Mapping[str, Group]) -> tuple[int, int]:
    """Return the bytes of a cube of `planned_groups` before compression, and its shards."""
    models, rows = models_of(spec), spec.inference.shard_queries
    shards = (
        len(plan_shards(kind, models[kind], one.sizes["query"], rows))
        for kind, one in groups.items()
    )
    return sum(group.nbytes for group in groups.values()), sum(shards)


def check_budget(spec: SweepSpec, plan: Estimate) -> None:
    """Refuse a memory budget into which not even one query fits.

    Raises
    ------
    BudgetError
    """
    budget, least = spec.inference.memory_bytes, WORKER_BYTES + plan.query_bytes
    if budget is not None and budget < least:
        raise BudgetError(
            f"the memory budget of {format_bytes(budget)} does not hold a worker process and one "
            f"query with beams up to {max(spec.inference.beams)}",
            expected=f"{format_bytes(least)} or more, by estimate",
            fix="give a larger --memory (inference.memory), or smaller beams",
        )


def _steps_of(training: TrainingSpec) -> int:
    return -(-training.examples // training.batch_size)


def memory_needs(spec: SweepSpec, texts: Texts, steps: Sequence[Step]) -> list[Need]:
    """What each training and export that is left holds at its widest moment, by estimate.

    Parameters
    ----------
    texts : Texts
        `texts_of` the collection.
    steps : sequence of Step
        Of `genret_dask.study.survey.survey`; what is done needs nothing.
    """
    train, export = left_of(steps, "train"), left_of(steps, "export")
    needs = []
    for cell in cells_of(spec):
        name = f"{cell.kind}/{cell.name}"
        exported = {f"{cell.kind}/{precise_name(cell.name, one)}" for one in spec.export.precision}
        if name not in train and exported.isdisjoint(export):
            continue
        architecture, tied = planned_architecture(spec, cell, texts.documents)
        training, identifiers = cell.training(spec), cell.identifiers
        needed = training_bytes(
            architecture,
            training,
            texts,
            max_tokens=spec.max_tokens,
            steps=identifiers.planned(texts.documents).steps,
            tied=tied,
            pretrained=cell.model.source is not None,
        )
        if name in train and cell.model.checkpoint is None:
            needs.append(Need("training", name, needed, lambda limit: SMALLER_TRAINING))
        needed = export_bytes(architecture, tied=tied)
        needs.append(Need("export", name, needed, lambda limit: SMALLER_EXPORT))
    return needs


def planned_architecture(spec: SweepSpec, cell: Cell, documents: int) -> tuple[Architecture, bool]:
    """The sizes of a cell's model, and whether its head is tied.

    The vocabulary lacks the codes of the level that makes identifiers unique, which only the
    collection tells.
    """
    from genret_dask.models.architectures import architecture_of
    from genret_dask.models.configs import config_of

    config, identifiers = config_of(cell.model), cell.identifiers
    if cell.model.checkpoint is not None:
        return architecture_of(config), config.tie_word_embeddings
    if cell.model.pretrained is None:
        config.vocab_size = spec.tokenizer.vocab_size
    config.vocab_size += 1 + identifiers.planned(documents).rows
    return architecture_of(config), config.tie_word_embeddings


class _Cost:
    """What one cell takes."""

    def __init__(
        self, spec: SweepSpec, cell: Cell, sizes: dict[str, int], collection: Collection
    ) -> None:
        self._spec, self._cell, self._sizes = spec, cell, sizes
        self._architecture, _ = planned_architecture(spec, cell, len(collection))
        self._decoding = cell.identifiers.plan(self._architecture, collection, spec.inference.beams)

    def train_flops(self) -> float:
        if self._cell.model.checkpoint is not None:
            return 0.0
        training = self._cell.training(self._spec)
        per_example = training_flops_per_example(
            self._architecture, self._spec.max_tokens, self._sizes["step"]
        )
        return float(training.examples * per_example)

    def search_flops(self) -> float:
        """Two prefills, the largest beam's prefixes and the candidates' prefixes, a query."""
        tokens, sizes = self._spec.max_tokens, self._sizes
        beam, paths = (
            max(self._spec.inference.beams),
            sizes["candidate"] * sizes.get("identifier", 1),
        )
        reachable = np.array(self._decoding.nodes[:-1], dtype=float)
        rows = np.minimum(beam, reachable) + np.minimum(paths, reachable)
        steps = step_flops(self._architecture, tokens, np.arange(sizes["step"]))
        per_query = 2 * prefill_flops(self._architecture, tokens) + (rows * steps).sum()
        return float(sizes["query"] * per_query)

    def task_bytes(self, batch_queries: int) -> int:
        """Memory of a search task that decodes so many of the longest queries at once."""
        inference, candidates = self._spec.inference, self._sizes["candidate"]
        shard = min(inference.shard_queries, self._sizes["query"])
        prompt = int(padded_widths(np.array(self._spec.max_tokens)))
        decoded = min(batch_queries, shard) * self._decoding.query_bytes(prompt, candidates)
        return shard * self._decoding.result_bytes(candidates) + decoded
