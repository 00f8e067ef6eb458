"""Search and scoring against transformers, on the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from genret_dask.bench.measure import Measurement, compare, seconds
from genret_dask.bench.peers import Generate, score_documents
from genret_dask.bench.workload import Workload
from genret_dask.inference.score import score

TOLERANCE = 1e-3
"""Nats by which two float32 programs may differ in the log-probability of an identifier."""

_SEARCH = {("t5", 10): 2.0, ("t5", 100): 3.0, ("llama", 10): 4.0, ("llama", 100): 6.0}
_GRID = {"t5": 6.0, "llama": 10.0}
_SINGLY = {"t5": 5.0, "llama": 5.0}
_TOGETHER = {"t5": 2.5, "llama": 3.0}
_SCORED_QUERIES = 2


def run_search(workload: Workload, runs: int) -> Iterator[Measurement]:
    """One beam size against `generate`."""
    peer = _better_batch(workload)
    for beam in (10, 100):
        yield compare(
            "search",
            f"{workload.family}, beam {beam}, peer in batches of {peer.batch}",
            partial(_rankings, workload, (beam,)),
            partial(peer.search, beam),
            equal=lambda ours, theirs: same_ranking(ours[0], theirs),
            runs=runs,
            target=_SEARCH.get((workload.family, beam)),
            per=len(workload.tokens),
            unit="ms/query",
        )


def run_grid(workload: Workload, runs: int) -> Iterator[Measurement]:
    """The whole grid of beam sizes, against one search for each and against our largest alone."""
    beams = workload.scale.beams
    peer = _better_batch(workload)
    case = f"{workload.family}, beams {','.join(map(str, beams))}"
    timed: dict[str, Any] = {"runs": runs, "per": len(workload.tokens), "unit": "ms/query"}
    yield compare(
        "grid",
        f"{case}, peer in batches of {peer.batch}",
        partial(_rankings, workload, beams),
        lambda: [peer.search(beam) for beam in beams],
        equal=lambda ours, theirs: all(map(same_ranking, ours, theirs)),
        target=_GRID.get(workload.family),
        **timed,
    )
    yield compare(
        "grid against its largest beam",
        case,
        lambda: _rankings(workload, beams)[-1],
        lambda: _rankings(workload, beams[-1:])[0],
        equal=same_ranking,
        target=1 / 1.15,
        **timed,
    )


def run_scoring(workload: Workload, runs: int) -> Iterator[Measurement]:
    """The candidates of a query against two ways of teacher forcing."""
    rng = np.random.default_rng(1)
    count = min(1 + workload.scale.negatives, workload.scale.documents)
    drawn = [
        rng.choice(workload.scale.documents, count, replace=False) for _ in range(_SCORED_QUERIES)
    ]
    documents = np.stack(drawn).astype(np.int32)
    peers = (("a forward pass each", 1, _SINGLY), ("one batch", count, _TOGETHER))
    for name, batch, targets in peers:
        yield compare(
            "scoring",
            f"{workload.family}, {count} documents, peer: {name}",
            lambda: _score(workload, documents),
            partial(score_documents, workload, documents, batch),
            equal=lambda ours, theirs: np.allclose(ours, theirs, rtol=0, atol=TOLERANCE),
            runs=runs,
            target=targets.get(workload.family),
            per=_SCORED_QUERIES,
            unit="ms/query",
        )


def same_ranking(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> bool:
    """Whether two rankings agree; documents whose scores tie within `TOLERANCE` may change places.

    A peer that gives no scores must rank alike.
    """
    (doc, score), (other, other_score) = ours, theirs
    if doc.shape != other.shape:
        return False
    if np.isnan(other_score).all():
        return np.array_equal(doc, other)
    if not np.allclose(score, other_score, rtol=0, atol=TOLERANCE):
        return False
    for row in range(len(doc)):
        moved = set(doc[row].tolist()) ^ set(other[row].tolist())
        last = score[row, -1] + TOLERANCE
        for documents, scores in ((doc, score), (other, other_score)):
            if any(scores[row, np.isin(documents[row], list(moved))] > last):
                return False
    return True


def _rankings(workload: Workload, beams: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Documents and scores at every beam size, each [query, rank], from one search."""
    found = workload.search(beams)
    sizes = (found.doc >= 0).sum(axis=2).max(axis=0)
    return [
        (found.doc[:, place, :size], found.score[:, place, :size])
        for place, size in enumerate(sizes)
    ]


def _score(workload: Workload, documents: np.ndarray) -> np.ndarray:
    queries = len(documents)
    logit, log_partition = score(
        workload.session,
        workload.vocabulary,
        workload.tokens[:queries],
        workload.lengths[:queries],
        workload.codes.paths(documents),
    )
    return (logit - log_partition).sum(axis=-1)


def _better_batch(workload: Workload) -> Generate:
    """The peer at the batch size that suits it best, by one search at beam 10."""
    candidates = [Generate(workload, batch) for batch in (1, len(workload.tokens))]
    for candidate in candidates:
        candidate.search(10)
    return min(candidates, key=lambda candidate: seconds(lambda: candidate.search(10)))
