"""The constraint and the sampling of negatives alone, against plain Python."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PrefixConstrainedLogitsProcessor

from genret_dask.bench.measure import Measurement, compare, quantity
from genret_dask.bench.peers import Prefixes, allowed, dict_trie
from genret_dask.bench.workload import LEVELS, Scale, random_codes
from genret_dask.identifiers import Trie
from genret_dask.study.candidates import sample_negatives

_BEAM = 100


def run_constraint(scale: Scale, runs: int) -> Iterator[Measurement]:
    """Expanding a beam of random identifiers' prefixes, and what the index takes."""
    codes = random_codes(scale.ids)
    case = f"{scale.ids:,} ids"
    identifiers = codes.codes.tolist()
    build_ours, build_peer = partial(Trie.build, codes.codes), partial(dict_trie, identifiers)

    def same_size(trie: Trie, root: Prefixes) -> bool:
        return len(trie.codes[0]) == len(root) and len(trie.documents) == len(identifiers)

    yield compare(
        "constraint: build", case, build_ours, build_peer, equal=same_size, runs=runs, target=8.0
    )
    trie, root = build_ours(), build_peer()
    arrays = [*trie.children, *trie.codes, trie.documents]
    sizes = sum(array.nbytes for array in arrays), _dict_bytes(root)
    mine, theirs = (size / len(identifiers) for size in sizes)
    yield quantity("constraint: size", case, mine, theirs, "bytes/id", target=12.0)

    # A walk of the beam down the trie: the same prefixes, and the same logits, for both.
    rows = np.sort(np.random.default_rng(0).choice(scale.ids, _BEAM, replace=False))
    leaves = np.empty(scale.ids, dtype=np.int64)
    leaves[trie.documents] = np.arange(scale.ids)
    nodes = [leaves[rows]]
    for level in reversed(range(LEVELS)):
        nodes.insert(0, np.searchsorted(trie.children[level], nodes[0], side="right") - 1)
    prefixes = [torch.from_numpy(codes.codes[rows, :level].astype(np.int64)) for level in range(8)]
    scores = torch.randn((_BEAM, scale.text_rows), generator=torch.Generator().manual_seed(0))
    logits = scores.numpy()
    processor = PrefixConstrainedLogitsProcessor(lambda _, ids: allowed(root, ids.tolist()), _BEAM)

    def ours() -> list[np.ndarray]:
        expanded = [trie.expand(nodes[level], level) for level in range(LEVELS)]
        return [logits[parent, code] for parent, code, _ in expanded]

    def peer() -> list[torch.Tensor]:
        return [processor(prefix, scores) for prefix in prefixes]

    def same_logits(mine: list[np.ndarray], theirs: list[torch.Tensor]) -> bool:
        masked = [scores[torch.isfinite(scores)].numpy() for scores in theirs]
        return all(map(np.array_equal, mine, masked))

    case += f", beam {_BEAM}, peer: transformers' processor and a callback over nested dicts"
    yield compare(
        "constraint: 8 steps", case, ours, peer, equal=same_logits, runs=max(runs, 9), target=50.0
    )


def run_negatives(scale: Scale, runs: int) -> Iterator[Measurement]:
    """256 negatives of one query from a whole corpus."""
    positives = np.array([7, scale.corpus // 2], dtype=np.int32)
    count = scale.negatives
    relevant = set(positives.tolist())

    def ours() -> np.ndarray:
        return sample_negatives(scale.corpus, positives, count, 0, "a query")

    def peer() -> list[int]:
        return random.sample(list(set(range(scale.corpus)) - relevant), count)

    def both_sample(mine: np.ndarray, theirs: list[int]) -> bool:
        return all(
            len(set(drawn)) == count and not relevant & set(drawn) and max(drawn) < scale.corpus
            for drawn in (mine.tolist(), theirs)
        )

    case = f"{count} of {scale.corpus:,} documents, peer: random.sample of a set's difference"
    yield compare(
        "negatives", case, ours, peer, equal=both_sample, runs=runs, target=1000.0, unit="ms/query"
    )
    yield quantity("negatives: memory", case, _peak(ours), _peak(peer), "MB")


def _dict_bytes(node: dict) -> int:
    """Bytes of nested dicts, their keys left out."""
    total, waiting = 0, [node]
    while waiting:
        here = waiting.pop()
        total += sys.getsizeof(here)
        waiting.extend(here.values())
    return total


def _peak(function: Callable[[], Any]) -> float:
    """Megabytes that a call allocates at most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
