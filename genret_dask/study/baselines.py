"""The baselines of a study: their tasks, what is in their way, and what the cube gets of them."""

from __future__ import annotations

import logging

from genret_dask.baselines.task import BaselineTask, read_rankings
from genret_dask.cube.baselines import Ranked
from genret_dask.errors import DatasetError
from genret_dask.study.candidates import select_queries
from genret_dask.study.inputs import Inputs
from genret_dask.study.origins import Origins

logger = logging.getLogger(__name__)


def baseline_tasks(inputs: Inputs) -> list[BaselineTask]:
    """The task of every baseline of a study, done or not; makes what they read."""
    origins, collection, within = inputs.origins, inputs.collection, inputs.within()
    return [
        BaselineTask(
            baseline=one,
            collection=origins.collection.folder,
            queries=inputs.queries,
            own=inputs.own,
            within=None if within is None else within.folder,
            depth=min(origins.baseline_depth, len(collection)),
            made=origins.baseline(one),
        )
        for one in origins.baselines
    ]


def ranked_by(task: BaselineTask) -> Ranked:
    """Read what a task left, as the cube keeps it."""
    doc, score = read_rankings(task.made.folder)
    baseline = task.baseline
    return Ranked(baseline.label, baseline.kind, task.made.fingerprint, doc, score)


def check_baselines(origins: Origins) -> None:
    """Refuse baselines that cannot rank the collection's documents; tell of what they lack.

    Raises
    ------
    DatasetError
        Why, a line each.
    """
    todo = [one for one in origins.baselines if origins.baseline(one).state != "done"]
    if not todo:
        return
    spec, collection = origins.spec.inference, origins.loaded
    problems = [
        f"baselines {one.label}: {problem}" for one in todo for problem in one.refusals(collection)
    ]
    if problems:
        raise DatasetError(
            "\n  ".join(problems),
            expected="rankings of documents and queries of the collection",
            fix="correct the file or leave the baseline out; nothing was started yet",
        )
    queries = select_queries(collection, spec.split, spec.queries, origins.spec.seed)
    for one in todo:
        for remark in one.remarks(collection, queries):
            logger.warning("baselines %s: %s", one.label, remark)
