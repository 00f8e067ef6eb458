"""Benchmark of the corpus's size: what a sweep's stages take a document, and its processes hold."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from genret_dask.bench.measure import Measurement, quantity
from genret_dask.bench.scaling import workers_of_one_thread
from genret_dask.bench.workload import QUICK, Scale
from genret_dask.clusters import connect
from genret_dask.cube.store import read_attributes
from genret_dask.datasets import BigramsDataset, PydocDataset
from genret_dask.datasets.beir import write_folder
from genret_dask.kinds import CodesIdentifiers, NgramsIdentifiers
from genret_dask.monitoring.timing import read_stages
from genret_dask.specs import InferenceSpec, ModelSpec, SweepSpec, TrainingSpec
from genret_dask.study.sweep import Study

LEAST = 1000
"""Documents against which a run with nothing to do is compared."""

_CLIENT, _WORKER = 1.5e9, 4e9  # bytes that they may take
_AFTER = ("train", "export", "search", "results")  # stages that are no preparation
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class _Swept:
    """One sweep.

    Attributes
    ----------
    stages : dict of str to float
        Seconds of each, of the reading of the source first.
    again : float
        Seconds of a second run, which has nothing to do.
    client, worker : int
        Most bytes of the process's own that the client, and any worker, held at once.
    digest : str
        Of the cube.
    """

    stages: dict[str, float]
    again: float
    client: int
    worker: int
    digest: str

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())

    @property
    def preparation(self) -> float:
        return sum(spent for stage, spent in self.stages.items() if stage not in _AFTER)


def run_corpus(
    scale: Scale, runs: int, documents: int | None = None, text: Path | None = None
) -> Iterator[Measurement]:
    """Whole sweeps of drawn passages, each once; workers have one thread, the client all cores.

    Parameters
    ----------
    documents : int, optional
        Passages; 100,000 by default.
    text : path, optional
        A BEIR folder that passages are drawn after; docstrings by default.
    """
    quick = scale is QUICK
    documents = documents or (2 * LEAST if quick else 100_000)
    with TemporaryDirectory(prefix="genret-bench.") as folder:
        if text is None:
            text = Path(folder) / "text"
            libraries = ("dask",) if quick else PydocDataset().libraries
            write_folder(PydocDataset(libraries=libraries).load(), text)
        few = _sweep(text, LEAST, 1)
        tenth = few if documents // 10 <= LEAST else _sweep(text, documents // 10, 1)
        one, two = (_sweep(text, documents, workers) for workers in (1, 2))
    fewer = max(documents // 10, LEAST)
    case = f"{documents:,} passages, against {fewer:,}"
    for stage, spent in one.stages.items():
        each = 1e6 * spent / documents, 1e6 * tenth.stages.get(stage, 0.0) / fewer
        yield quantity(stage, case, *each, "us a document")
    case = f"{documents:,} passages"
    equal = one.digest == two.digest
    name, times = "preparation by 2 workers against 1", (two.preparation, one.preparation)
    yield quantity(name, case, *times, "s", target=1.7, equal=equal)
    name, times = "all by 2 workers against 1", (two.seconds, one.seconds)
    yield quantity(name, case, *times, "s", equal=equal)
    case = f"{documents:,} passages; the peer is the bound"
    for name, held, bound in (
        ("memory of the client", max(one.client, two.client), _CLIENT),
        ("memory of a worker", max(one.worker, two.worker), _WORKER),
    ):
        yield quantity(name, case, held / 1e9, bound / 1e9, "GB", target=1.0)
    case = f"{documents:,} passages, against {LEAST:,}"
    yield quantity("a run with nothing to do", case, one.again, few.again, "s", target=1 / 1.2)


def _study(text: Path, documents: int) -> SweepSpec:
    """The study that is swept: one small model for each kind of identifier."""
    return SweepSpec(
        name="corpus",
        dataset=BigramsDataset(path=text, documents=documents),
        identifiers=(CodesIdentifiers(codes=256), NgramsIdentifiers(allow_unreachable=True)),
        models=(ModelSpec(family="t5", size="femto"),),
        training=TrainingSpec(examples=3200, batch_size=32, evaluations=1),
        inference=InferenceSpec(queries=200, negatives=32, beams=(1, 10), threads=1),
        baselines=(),
    )


def _sweep(text: Path, documents: int, workers: int) -> _Swept:
    """Sweep in a process of its own, whose memory is that of one client."""
    with (
        TemporaryDirectory(prefix="genret-bench.") as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        return pool.submit(_swept, text, documents, workers, Path(folder)).result()


def _swept(text: Path, documents: int, workers: int, folder: Path) -> _Swept:
    spec = _study(text, documents)
    with connect(workers_of_one_thread(workers, env=_ONE_THREAD)) as client:
        pids = [os.getpid(), *client.run(os.getpid).values()]
        moments = [time.perf_counter()]
        with _watched(pids) as peaks:
            note = partial(_note, moments)
            cube = Study(spec, client, runs=folder, progress=note).search()
        began = time.perf_counter()
        Study(spec, client, runs=folder).search()
        again = time.perf_counter() - began
    (record,) = read_stages(folder / spec.name)
    stages = {"reading": moments[1] - moments[0]}
    stages |= {name: float(stage["seconds"]) for name, stage in record["stages"].items()}
    digest = str(read_attributes(cube)["digest"])
    return _Swept(stages, again, peaks[0], max(peaks[1:]), digest)


def _note(moments: list[float], stage: str, done: float, total: float) -> None:
    moments.append(time.perf_counter())


@contextmanager
def _watched(pids: list[int]) -> Iterator[list[int]]:
    """Give a list that holds, once left, the most bytes of its own that each process had."""
    peaks, ended = [0] * len(pids), threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL):
            for row, pid in enumerate(pids):
                peaks[row] = max(peaks[row], _own_bytes(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _own_bytes(pid: int) -> int:
    """Bytes of a process that no file backs; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
