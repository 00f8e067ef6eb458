"""Benchmarks of the fan-out: two workers against one, the cost of a shard's task, the client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from genret_dask.bench.measure import Measurement, quantity
from genret_dask.bench.workload import QUICK, Scale
from genret_dask.clusters import ClusterSpec, connect
from genret_dask.cube.store import read_attributes
from genret_dask.datasets import BeirDataset, Strings
from genret_dask.datasets.beir import write_folder
from genret_dask.datasets.collection import SPLITS, Collection, Qrels
from genret_dask.executors.dask import DaskExecutor
from genret_dask.shards.usage import resident
from genret_dask.specs import InferenceSpec, ModelSpec, SweepSpec, TrainingSpec
from genret_dask.storage.places import remove
from genret_dask.study.sweep import Study

if TYPE_CHECKING:
    from distributed import Client

TASKS = 10_000
_BUDGET = 5.0  # milliseconds of the client and the scheduler, a shard
_WORDS = 500


def run_scaling(scale: Scale, runs: int) -> Iterator[Measurement]:
    """Workers of one thread each on this machine; a search whose results differ is no speed."""
    quick = scale is QUICK
    with TemporaryDirectory(prefix="genret-bench.") as folder:
        spec = study_of_random_words(Path(folder), queries=32 if quick else 512)
        yield _workers(spec, Path(folder), 1 if quick else runs)
    with connect(workers_of_one_thread(2)) as client:
        yield from _overhead(client, TASKS // 20 if quick else TASKS)


def workers_of_one_thread(count: int, **more: Any) -> ClusterSpec:
    """Describe a cluster of this machine; `more` goes to `distributed.LocalCluster`."""
    kwargs = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None, **more}
    keys = {"module": "distributed", "class": "LocalCluster", "kwargs": kwargs}
    return ClusterSpec.model_validate(keys)


# --- two workers against one ----------------------------------------------------------------------


def _workers(spec: SweepSpec, folder: Path, runs: int) -> Measurement:
    """Queries a second of the search stage, in turns, with no other cluster on the machine."""
    times: dict[int, list[float]] = {1: [], 2: []}
    digests: set[str] = set()
    for _ in range(runs):
        for workers, spent in times.items():
            with connect(workers_of_one_thread(workers)) as client:
                rounds = [_search(spec, folder, client) for _ in range(2)]  # the first warms up
            spent.append(rounds[-1][0])
            digests.update(digest for _, digest in rounds)
    queries = spec.inference.queries or 1
    alone, both = (queries / float(np.median(spent)) for spent in times.values())
    name, equal = "2 workers against 1", len(digests) == 1
    case = f"{queries} queries, {len(spec.inference.beams)} beams, one core a worker"
    return quantity(
        name, case, both, alone, "queries/s", target=1.8, larger_is_better=True, equal=equal
    )


def _search(spec: SweepSpec, folder: Path, client: Client) -> tuple[float, str]:
    """Seconds of the search stage from its first task on, and the digest of its cube."""
    moments: list[float] = []

    def note(stage: str, done: float, total: float) -> None:
        if stage == "search":
            moments.append(time.perf_counter())

    study = Study(spec, client, runs=folder, progress=note)
    remove(study.cube)
    remove(study.layout.markers)
    study.search()
    return moments[-1] - moments[0], read_attributes(study.cube)["digest"]


def study_of_random_words(folder: Path, queries: int, **inference: Any) -> SweepSpec:
    """A model hardly trained, over documents of random words: speed does not mind."""
    rng = np.random.default_rng(0)
    words = [f"word{row}" for row in range(_WORDS)]
    texts = tuple(" ".join(rng.choice(words, 40)) for _ in range(1000))
    asked = tuple(" ".join(rng.choice(words, 8)) for _ in range(queries + 64))
    rows = np.arange(len(asked))
    split = np.where(rows < queries, "test", np.where(rows % 2, "train", "dev"))
    collection = Collection(
        name="bench",
        version="1",
        document_ids=Strings.of(f"d{row}" for row in range(len(texts))),
        titles=Strings.of([""] * len(texts)),
        texts=Strings.of(texts),
        query_ids=Strings.of(f"q{row}" for row in range(len(asked))),
        queries=Strings.of(asked),
        qrels={
            name: Qrels.from_rows(rows[split == name], rows[split == name] % len(texts))
            for name in SPLITS
        },
    )
    write_folder(collection, folder / "beir")
    return SweepSpec(
        name="scaling",
        dataset=BeirDataset(kind="beir", path=folder / "beir"),
        models=(ModelSpec(family="llama", size="femto" if queries < 64 else "mini"),),
        training=TrainingSpec(examples=256, batch_size=32, evaluations=1),
        inference=InferenceSpec(
            **{"queries": queries, "negatives": 64, "shard_queries": 16, "threads": 1, **inference}
        ),
        baselines=(),
    )


# --- the cost of a task ---------------------------------------------------------------------------


def _overhead(client: Client, tasks: int) -> Iterator[Measurement]:
    """Tasks that do nothing: what is left is the client, the scheduler and the workers' loops."""
    executor = DaskExecutor(client)

    def run(name: str, count: int) -> None:
        executor.map(_nothing, range(count), [f"{name}-{row}" for row in range(count)])

    run("warm", 100)
    run("few", tasks // 10)
    before, began = resident(), time.perf_counter()
    run("many", tasks)
    spent = 1e3 * (time.perf_counter() - began) / tasks
    case = f"{tasks:,} tasks that do nothing"
    bound = f"{case}; the peer is the bound"
    yield quantity("cost of a task", bound, spent, _BUDGET, "ms/task", target=1.0)
    name, now = "memory of the client and scheduler", resident()
    yield quantity(name, f"{case}, against a tenth", now / 1e6, before / 1e6, "MB", target=0.9)


def _nothing(task: int, report: object) -> None: ...
