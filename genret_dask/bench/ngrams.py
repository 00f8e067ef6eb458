"""The n-gram index: its build, its size, a step of the constraint, the documents, its memory.

The corpus is real text, the docstrings of installed libraries, repeated as often as it takes; in
every repetition the runs of eight tokens of a document stand in another order. The logits are
those of the corpus's unigrams under noise, so that frequent tokens compete as they do in a model.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from genret_dask.bench.measure import Measurement, compare, median_seconds, quantity
from genret_dask.bench.workload import Scale
from genret_dask.datasets import PydocDataset
from genret_dask.identifiers.ngrams import NgramIndex, Part
from genret_dask.identifiers.stream import Stream, tokenize_stream
from genret_dask.inference.beam import advance, find
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.documents import NgramsScoring, gather_evidence, rank_documents
from genret_dask.inference.ngrams import NgramShortlist
from genret_dask.inference.rows import Rows, Step
from genret_dask.models.reader import Reader, plain
from genret_dask.specs import TokenizerSpec
from genret_dask.training.tokenizer import train_tokenizer

_MAPPED: list[Corpus] = []
"""Of a second process: what it has mapped stays so until it ends."""
BEAM, STEPS, RUN, VOCABULARY = 100, 10, 8, 16_384
BUILD, BYTES, STEP, DOCUMENTS, PRIVATE = 4.0, 8.0, 10.0, 20.0, 0.05
"""Asked for: million tokens a second, bytes a token, milliseconds of a step and of a query's
documents, and a second process's own memory as a share of the index."""


@dataclass(frozen=True)
class Corpus:
    """An index, its end token and the logits to search it with."""

    index: NgramIndex
    end_token: int
    logits: np.ndarray

    @cached_property
    def constraint(self) -> NgramShortlist:
        return NgramShortlist(self.index, 1, STEPS)

    @cached_property
    def partition(self) -> np.ndarray:
        highest = self.logits.max(axis=-1)
        return np.log(np.exp(self.logits - highest[..., None]).sum(axis=-1)) + highest


class Prepared:
    """A model that costs nothing: its logits were drawn before."""

    def __init__(self, corpus: Corpus) -> None:
        self._logits, self._partition = corpus.logits, corpus.partition

    def prefill(self, tokens: np.ndarray, lengths: np.ndarray) -> int:
        return 0

    def step(
        self, state: int, tokens: np.ndarray, parents: np.ndarray, rows: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        width = tokens.shape[1]
        return self._logits[state, None, :width], self._partition[state, None, :width], state + 1


def run_ngrams(scale: Scale, runs: int) -> Iterator[Measurement]:
    """Everything about n-grams that no model takes part in."""
    stream, vocabulary, end = _text(scale.documents)
    few = _repeated(stream, scale.ngram_tokens // 100)
    small = _with_index(Part.build(few, vocabulary), vocabulary, end)
    for share in (2, 1):  # half of it is about as large as a part is by default
        tokens = _repeated(stream, scale.ngram_tokens // share)
        case = f"{len(tokens.tokens):,} tokens"
        start = time.perf_counter()
        part = Part.build(tokens, vocabulary)
        rate = len(tokens.tokens) / (time.perf_counter() - start) / 1e6
        name, on = "n-grams: index build", f"{case}, one core, against the rate asked for"
        yield quantity(name, on, rate, BUILD, "Mtokens/s", target=1.0, larger_is_better=True)
    size = part.nbytes / len(tokens.tokens)
    on = f"{case}, 16 bits a token, against the size asked for"
    yield quantity("n-grams: index size", on, size, BYTES, "bytes/token", target=1.0)
    large = _with_index(part, vocabulary, end)
    yield from _steps(large, small, case, runs)
    yield from _documents(large, case, runs)
    yield _memory(large, case)


def _steps(large: Corpus, small: Corpus, case: str, runs: int) -> Iterator[Measurement]:
    """One step of the constraint, selection included."""
    walks = [partial(_search, corpus) for corpus in (large, small)]
    times = [1e3 * taken / STEPS for taken in median_seconds(walks, max(runs, 9))]
    name, on = "n-grams: a step", f"{case}, beam {BEAM}, against the time asked for"
    yield quantity(name, on, times[0], STEP, "ms", target=1.0)
    rest = f"beam {BEAM}, {case} against {small.index.tokens:,}"
    yield quantity(name, rest, times[0], times[1], "ms", target=0.5)
    walked = _steps_of(large)
    for each in (True, False):
        how = "a prefix at a time" if each else "all prefixes at once"
        yield compare(
            f"{name} and its prefix",
            f"{case}, beam {BEAM}, peer: prefixes walked from the root, then listed, {how}",
            lambda: np.concatenate([np.sort(_advanced(large, step).score) for step in walked]),
            partial(_walked, large, walked, each),
            equal=partial(np.allclose, rtol=0, atol=1e-4),
            runs=runs,
            target=10.0 if each else None,
            per=len(walked),
        )


def _documents(corpus: Corpus, case: str, runs: int) -> Iterator[Measurement]:
    found = _search(corpus)

    def rank() -> Any:
        scoring = NgramsScoring()
        evidence = gather_evidence(found, corpus.index, corpus.end_token, scoring, 1)
        return rank_documents(evidence, 1, 1, scoring.documents)

    (taken,) = median_seconds([rank], max(runs, 9))
    on = f"{case}, beam {BEAM}, against the time asked for"
    yield quantity("n-grams: documents", on, 1e3 * taken, DOCUMENTS, "ms/query", target=1.0)


def _memory(corpus: Corpus, case: str) -> Measurement:
    """What the second process on a host that maps and searches the index adds to its memory."""
    process = partial(ProcessPoolExecutor, 1, multiprocessing.get_context("spawn"))
    scratch = TemporaryDirectory(prefix="genret-bench.")
    with scratch as root, process() as first, process() as second:
        corpus.index.parts[0].save(Path(root))
        for worker in (first, second):
            searched = worker.submit(_worker, Path(root), corpus.index.vocabulary, corpus.end_token)
            grown = searched.result()
    on = f"{case}, its memory, against the share of the index asked for"
    asked = PRIVATE * corpus.index.nbytes / 1e6
    return quantity("n-grams: a second process", on, grown / 1e6, asked, "MB", target=1.0)


def _worker(folder: Path, vocabulary: int, end: int) -> int:
    """Search a small index, then the one of a folder, and keep it; return the bytes that took."""
    tokens = np.append(np.arange(1, vocabulary + 1), 0).astype(np.uint16)
    small = Part.build(Stream(tokens, np.zeros(1, np.int64), np.zeros(1, np.int32)), vocabulary)
    first = _with_index(small, vocabulary, end)
    _search(first)
    before = psutil.Process().memory_full_info().uss
    index = NgramIndex((Part.load(folder),), vocabulary, "", "")
    second = Corpus(index, end, first.logits)
    second.__dict__["partition"] = first.partition
    _MAPPED.append(second)
    _search(second)
    return psutil.Process().memory_full_info().uss - before


# --- the corpus ---------------------------------------------------------------------------------


def _text(documents: int) -> tuple[Stream, int, int]:
    """Tokens of so many docstrings, or of all, the vocabulary and its end token."""
    collection = PydocDataset(documents=documents).load()
    tokenizer = train_tokenizer(collection, TokenizerSpec(vocab_size=VOCABULARY))
    reader = Reader(plain(tokenizer.backend_tokenizer))
    stream = tokenize_stream(enumerate(collection.texts), reader, reader.vocabulary)
    return stream, reader.vocabulary, int(tokenizer.eos_token_id)


def _repeated(stream: Stream, size: int) -> Stream:
    """About `size` tokens: documents again and again, their runs of tokens in another order."""
    rng = np.random.default_rng(0)
    lengths = np.diff(np.append(stream.starts, len(stream.tokens)))
    inner = np.arange(len(stream.tokens)) - np.repeat(stream.starts, lengths)
    text = np.repeat(np.arange(len(lengths)), lengths)
    runs = inner // RUN
    closing = inner == lengths[text] - 1
    tokens, documents, sizes, total = [], [], [], 0
    while total < size:
        key = rng.random(len(stream.tokens) // RUN + 2 * len(lengths) + 1)
        first = np.cumsum(np.append(0, -(-lengths // RUN)))[:-1]
        place = np.where(closing, 2.0, key[first[text] + runs])
        order = np.lexsort((inner, place, text))
        keep = int(np.searchsorted(np.cumsum(lengths), size - total, side="right")) + 1
        stop = int(np.cumsum(lengths)[min(keep, len(lengths)) - 1])
        tokens.append(stream.tokens[order][:stop])
        sizes.append(lengths[:keep])
        documents.append(stream.documents[:keep] + len(tokens) * len(lengths))
        total += stop
    starts = np.cumsum(np.append(0, np.concatenate(sizes)))[:-1]
    return Stream(np.concatenate(tokens), starts, np.concatenate(documents).astype(np.int32))


def _with_index(part: Part, vocabulary: int, end: int) -> Corpus:
    counts = np.diff(part.array.heads)[1:]
    shape = (STEPS, BEAM, len(counts))
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    logits = 2 * noise + np.log(counts + 0.1).astype(np.float32)
    return Corpus(NgramIndex((part,), vocabulary, "", ""), end, logits)


# --- a step, and two ways to do without states ----------------------------------------------------


def _search(corpus: Corpus) -> Rows:
    query, length = np.zeros((1, 1), dtype=np.int64), np.ones(1, dtype=np.int64)
    session: Any = Prepared(corpus)
    rows, starts = corpus.index.vocabulary, np.zeros(STEPS, dtype=np.int64)
    vocabulary = Vocabulary(rows, starts, (rows,) * STEPS, corpus.end_token)
    return find(session, corpus.constraint, vocabulary, query, length, (BEAM,))[0]


def _steps_of(corpus: Corpus) -> list[Step]:
    """Every step of a search, but the first."""
    live = Rows.root(corpus.index.root(1), 1, STEPS)
    found = []
    for depth in range(STEPS):
        rows = np.arange(len(live.query))
        logits, partition = corpus.logits[depth, : len(rows)], np.zeros(len(rows), np.float32)
        found.append(Step(live, rows, 1, logits, rows, partition, 0, depth, depth + 1 == STEPS))
        live = _advanced(corpus, found[-1])
        live = live.take(np.flatnonzero(~live.ended))
    return found[1:]


def _advanced(corpus: Corpus, step: Step) -> Rows:
    return advance(step, corpus.constraint, corpus.end_token, np.array([BEAM]))


def _walked(corpus: Corpus, steps: list[Step], each: bool) -> np.ndarray:
    """The best continuations' scores, every prefix looked up from its first token on."""
    found = []
    for step in steps:
        index, live, logits = corpus.index, step.live, corpus.logits[step.depth]
        best = [live.score + logits[: len(live.query), corpus.end_token]]
        rows = np.arange(len(live.query))
        for part in np.split(rows, len(rows)) if each else [rows]:
            state = index.root(len(part))
            for depth in range(step.depth):
                state = index.refine(state, depth, live.token[part, depth])
            row, token, _ = index.expand(state, step.depth)
            best.append(live.score[part[row]] + logits[part[row], token])
        found.append(np.sort(np.concatenate(best))[-BEAM:])
    return np.concatenate(found)
