"""The list of benchmarks, and their run over model families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from genret_dask.bench import (
    constraint,
    corpus,
    coverage,
    engine,
    laws,
    ngrams,
    retrieving,
    scaling,
    searching,
)
from genret_dask.bench.measure import Measurement
from genret_dask.bench.workload import FULL, QUICK, workload

_Benchmarks = dict[str, tuple[Callable[..., Iterator[Measurement]], str]]

_ON_A_MODEL: _Benchmarks = {
    "search": (searching.run_search, "beam search against transformers' generate"),
    "grid": (searching.run_grid, "a grid of beam sizes in one pass"),
    "scoring": (searching.run_scoring, "257 documents of a query, teacher-forced"),
    "selection": (engine.run_selection, "time of a search outside the model"),
    "peak": (engine.run_peak, "share of the machine's best matrix product"),
    "exactness": (engine.run_exactness, "what the full vocabulary's log-partition costs"),
    "int8": (engine.run_int8, "int8 weights against float32, on the CPU"),
    "growth": (engine.run_growth, "time over queries, beam and documents"),
}
_ALONE: _Benchmarks = {
    "constraint": (constraint.run_constraint, "the trie against nested dicts"),
    "ngrams": (ngrams.run_ngrams, "the n-gram index: build, size, a step, documents, memory"),
    "negatives": (constraint.run_negatives, "sampling of negatives"),
    "scaling": (scaling.run_scaling, "two workers against one, and what a task costs"),
    "retriever": (retrieving.run_retriever, "a Retriever against a worker's search stage"),
    "corpus": (corpus.run_corpus, "sweeps of a large corpus: each stage a document, and memory"),
    "laws": (laws.run_laws, "a law of every resample, against L-BFGS from several starts"),
    "coverage": (coverage.run_coverage, "how often the intervals of synthetic laws hold the truth"),
}
CASES = {**_ON_A_MODEL, **_ALONE}
"""What `--case` names: the benchmark, and what it measures."""


def run(
    cases: Sequence[str],
    families: Sequence[str],
    quick: bool = False,
    provider: str = "cpu",
    threads: int = 1,
    runs: int = 5,
    documents: int | None = None,
    text: Path | None = None,
) -> Iterator[Measurement]:
    """Run benchmarks one after the other.

    Parameters
    ----------
    cases : sequence of str
        Keys of `CASES`.
    families : sequence of str
        Names of families that can be trained.
    quick : bool
        Small models and corpora; targets are for the large ones and left out.
    provider : {"cpu", "cuda"}
        Where both sides run.
    threads : int
        Of PyTorch and of ONNX Runtime.
    runs : int
        Timed calls of each side.
    documents, text : int and path, optional
        As `corpus.run_corpus` takes them.

    Raises
    ------
    DeviceError
        The provider is not there.
    """
    scale = QUICK if quick else FULL

    def measured() -> Iterator[Measurement]:
        for name, (benchmark, _) in _ALONE.items():
            if name in cases:
                size = {"documents": documents, "text": text} if name == "corpus" else {}
                yield from benchmark(scale, runs, **size)
        chosen = [benchmark for name, (benchmark, _) in _ON_A_MODEL.items() if name in cases]
        for family in families if chosen else ():
            with workload(family, scale, provider, threads) as made:
                for benchmark in chosen:
                    yield from benchmark(made, runs)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for measurement in measured():
            yield replace(measurement, target=None) if quick else measurement
    finally:
        torch.set_num_threads(before)
