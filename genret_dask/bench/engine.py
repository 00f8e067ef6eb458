"""The engine against the machine and against itself: peak, precision, exactness, growth."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.utils
import onnxruntime as ort
from onnx import helper, numpy_helper

from genret_dask.bench.measure import Measurement, median_seconds, quantity, seconds
from genret_dask.bench.workload import Workload, random_codes
from genret_dask.exporters.quantise import quantise
from genret_dask.inference.graph import EXECUTION_PROVIDERS, PROVIDER_OPTIONS
from genret_dask.inference.session import Session, session_for
from genret_dask.models.flops import step_flops

SQUARES = (512, 1024, 2048)
"""Sides of the square matrices whose product may show the peak."""
_BEAM = 100


def run_peak(workload: Workload, runs: int) -> Iterator[Measurement]:
    """Share of the machine's best matrix product that a step reaches.

    The peak is the best rate that ONNX Runtime's own products show, into memory that is there
    already: of some square ones and of one shaped as the model's, ten times each round.
    """
    step = _steps(workload.session, workload)
    architecture = workload.session.manifest.architecture
    own = (len(workload.tokens) * _BEAM, architecture.d_model, architecture.d_ff)
    shapes = (own, *((side,) * 3 for side in SQUARES))
    products = [_product(*shape, workload.provider, workload.threads) for shape in shapes]
    step()
    times, rates = [], []
    for _ in range(runs):
        times.append(seconds(step))
        for shape, product in zip(shapes, products, strict=True):
            best = min(seconds(product) for _ in range(10))
            rates.append(2 * math.prod(shape) / best)
    taken, peak = float(np.median(times)), max(rates) / 1e9
    queries, beams = len(workload.tokens), _BEAM
    rate = queries * beams * float(step_flops(architecture, workload.scale.prompt, 1)) / taken / 1e9
    name = "share of the sgemm peak"
    case = f"{workload.family}, a step of {queries} queries x {beams} beams"
    yield quantity(name, case, rate, peak, "GFLOP/s", target=0.4, larger_is_better=True)


def _steps(session: Session, workload: Workload) -> Callable[[], Any]:
    """One step of every query's beams, after the first."""
    queries = len(workload.tokens)
    state = session.prefill(workload.tokens, workload.lengths)
    start = np.full((queries, 1), workload.start_token)
    *_, state = session.step(state, start, start * 0, workload.vocabulary.block(0))
    first = workload.vocabulary.block(0)[0]
    tokens = np.tile(first + np.arange(_BEAM) % workload.codes.level_sizes[0], (queries, 1))
    return lambda: session.step(state, tokens, tokens * 0, workload.vocabulary.block(1))


def _product(rows: int, inner: int, columns: int, provider: str, threads: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((rows, inner), dtype=np.float32)
    right = rng.standard_normal((inner, columns), dtype=np.float32)
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 20]>
        product (float[{rows},{inner}] x) => (float[{rows},{columns}] y) {{ y = MatMul (x, w) }}"""
    )
    model.graph.initializer.append(numpy_helper.from_array(right, "w"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = [(EXECUTION_PROVIDERS[provider], PROVIDER_OPTIONS[provider])]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(left, provider))
    out = np.zeros((rows, columns), dtype=np.float32)
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(out, provider))
    return lambda: session.run_with_iobinding(binding)


def run_selection(workload: Workload, runs: int) -> Iterator[Measurement]:
    """Time of a search outside the model (constraint, selection, copies) against inside."""
    session = workload.session
    inside = [0.0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments)
            inside[0] += time.perf_counter() - start
            return result

        return run

    names = ("prefill", "step", "step_resident")
    found = []
    try:
        for name in names:
            setattr(session, name, timed(getattr(session, name)))
        for _ in range(runs + 1):
            inside[0] = 0.0
            total = seconds(partial(workload.search, workload.scale.beams))
            found.append((total - inside[0], inside[0]))
    finally:
        for name in names:
            delattr(session, name)
    outside, model = (1e3 * float(np.median(times)) for times in zip(*found[1:], strict=True))
    mine, theirs = outside / len(workload.tokens), model / len(workload.tokens)
    case = f"{workload.family}, the grid, against the time inside"
    target = 50.0 if workload.provider == "cuda" else None
    yield quantity("outside the model", case, mine, theirs, "ms/query", target=target)


def run_growth(
    workload: Workload, runs: int, documents: Sequence[int] = (10**4, 10**5, 10**6)
) -> Iterator[Measurement]:
    """How the time of a search follows queries, beam and documents.

    A ratio of 1 is a time in proportion (queries, beam) or the same time (documents); above 1 it
    is better.
    """
    search, queries = workload.search, len(workload.tokens)
    counts = (max(1, queries // 4), queries // 2, queries)
    # Of each size a search, and the work that its time is divided by.
    by_queries = {count: (partial(search, (50,), queries=count), count) for count in counts}
    by_beam = {beam: (partial(search, (beam,)), queries * beam) for beam in (25, 50, 100, 200)}
    tries = {size: random_codes(size).trie for size in documents}
    by_documents = {
        size: (partial(search, (_BEAM,), trie=trie), queries) for size, trie in tries.items()
    }
    of_documents = f"beam {_BEAM}, {{:,}} against {{:,}} documents"
    for what, case, tried, unit, target in (
        ("queries", "beam 50, {} against {} queries", by_queries, "ms/query", None),
        ("the beam", "beam {} against {}", by_beam, "ms/query/beam", None),
        ("documents", of_documents, by_documents, "ms/query", 1 / 1.1),
    ):
        taken = median_seconds([call for call, _ in tried.values()], runs)
        each = [1e3 * spent / work for spent, (_, work) in zip(taken, tried.values(), strict=True)]
        first, *others = zip(tried, each, strict=True)
        for size, spent in others:
            text = f"{workload.family}, {case.format(size, first[0])}"
            yield quantity(f"growth in {what}", text, spent, first[1], unit, target=target)


def run_exactness(workload: Workload, runs: int) -> Iterator[Measurement]:
    """What the full vocabulary's log-partition costs, against one of the asked block alone."""
    with TemporaryDirectory(dir=workload.folder.parent) as root:
        folder = Path(root)
        _without_partition(workload.folder, folder)
        manifest = workload.session.manifest
        block_only = session_for(folder, manifest, workload.provider, workload.threads)
        exact, block = median_seconds(
            [_steps(workload.session, workload), _steps(block_only, workload)], runs
        )
    case = f"{workload.family}, a step against one normalised over the level's block"
    yield quantity("exact log-partition", case, 1e3 * exact, 1e3 * block, "ms")


def _without_partition(exported: Path, folder: Path) -> None:
    """A copy of an exported model whose log-partition is of the asked block; shares its weights."""
    name = "head.onnx" if (exported / "head.onnx").is_file() else "step.onnx"
    for path in exported.iterdir():
        if path.name != name:
            os.link(path, folder / path.name)
    model = onnx.load(exported / name, load_external_data=False)
    (full,) = [node for node in model.graph.node if "log_partition" in node.output]
    full.output[0] = "unused"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "last"))
    inputs, outputs = ["logits", "last"], ["log_partition"]
    model.graph.node.append(helper.make_node("ReduceLogSumExp", inputs, outputs, keepdims=0))
    # ONNX Runtime runs every node that it is given, read or not.
    names = ([value.name for value in of] for of in (model.graph.input, model.graph.output))
    onnx.save(onnx.utils.Extractor(model).extract_model(*names), folder / name)


def run_int8(workload: Workload, runs: int) -> Iterator[Measurement]:
    """int8 weights against float32: the time of a search, and how much of its top 10 is kept."""
    if workload.provider != "cpu":
        return
    with TemporaryDirectory(prefix="genret-bench.") as root:
        folder = Path(root, "int8")
        folder.mkdir()
        quantise(workload.folder, folder)
        int8 = session_for(folder, workload.session.manifest, "cpu", workload.threads)
        searches = [partial(workload.search, (_BEAM,), session=one) for one in (int8, None)]
        taken = median_seconds(searches, runs)
        found = [search().doc[:, 0, :10] for search in searches]
    queries = len(workload.tokens)
    case = f"{workload.family}, search at beam {_BEAM}, peer: our float32"
    mine, theirs = (1e3 * time / queries for time in taken)
    yield quantity("int8", case, mine, theirs, "ms/query", target=1.5)
    kept = [len(np.intersect1d(*rows)) / 10 for rows in zip(*found, strict=True)]
    share, case = float(np.mean(kept)), f"{workload.family}, random weights"
    yield quantity("int8: top 10 kept", case, share, 1.0, "1", larger_is_better=True)
