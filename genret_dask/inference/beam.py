"""Constrained beam search at a whole grid of beam sizes in one pass.

Beams of different size do not nest, so the results of a small beam cannot be read off a large one.
But the union of the prefixes that any beam of the grid keeps is little larger than what the
largest keeps: the union is decoded once, and each beam size selects among the children of its own
members. The result equals one search for each beam size.

A prefix scores the sum of its tokens' log-softmax over the full vocabulary: the constraint decides
what may follow, it does not renormalise. Ties go to the smaller identifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genret_dask.identifiers import Trie
from genret_dask.inference.finite import check_finite
from genret_dask.inference.session import Session
from genret_dask.monitoring.meter import count_decoded, phase


@dataclass(frozen=True)
class Vocabulary:
    """Where the identifiers' tokens stand among a model's rows.

    Attributes
    ----------
    start_token : int
        The token that opens an identifier.
    block_starts : int64[levels]
        First row of each level's block.
    level_sizes : tuple of int
        Rows of each block.
    """

    start_token: int
    block_starts: np.ndarray
    level_sizes: tuple[int, ...]

    def block(self, level: int) -> tuple[int, int]:
        start = int(self.block_starts[level])
        return start, start + self.level_sizes[level]


@dataclass(frozen=True)
class Beams:
    """What a search found.

    There are as many ranks as the largest beam holds documents; those beyond a beam's size are
    empty.

    Attributes
    ----------
    token : int32[query, beam, rank, step]
        Vocabulary rows; -1 where empty.
    logit, log_partition : float32[query, beam, rank, step]
        NaN where empty.
    score : float32[query, beam, rank]
        Sum over steps of logit - log_partition, descending; NaN where empty.
    doc : int32[query, beam, rank]
        Collection row; -1 where empty.
    rows_decoded : int32[query, beam, step]
        Prefixes that this beam size alone would have decoded at each step.
    """

    token: np.ndarray
    logit: np.ndarray
    log_partition: np.ndarray
    score: np.ndarray
    doc: np.ndarray
    rows_decoded: np.ndarray


def search(
    session: Session,
    trie: Trie,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    beams: Sequence[int],
) -> Beams:
    """Search a batch of queries at every beam size of the grid.

    Parameters
    ----------
    tokens : int64[queries, width]
        Right-padded query tokens.
    lengths : int64[queries]
    beams : sequence of int
        Beam sizes; one larger than the corpus returns every document.

    Raises
    ------
    NumericError
        The model gave NaN or infinity to a live prefix or to a token that may follow it.
    """
    queries, sizes = len(tokens), np.asarray(beams)
    live = Rows.root(queries, len(sizes), trie.depth)
    rows_decoded = np.zeros((queries, len(sizes), trie.depth), dtype=np.int32)
    state = session.prefill(tokens, lengths)
    parents = np.zeros((queries, 1), dtype=np.int64)
    last = np.full((queries, 1), vocabulary.start_token, dtype=np.int64)

    for level in range(trie.depth):
        rows_decoded[:, :, level] = np.add.reduceat(
            live.member, np.searchsorted(live.query, np.arange(queries)), axis=1, dtype=np.int32
        ).T
        logits, log_partition, state = session.step(state, last, parents, vocabulary.block(level))
        count_decoded("search", len(live.query))
        row_partition = log_partition[live.query, live.slot]
        check_finite(row_partition, live.query, level, "the log-partition")
        with phase("constraint"):
            parent, code, node = trie.expand(level, live.node)
        place = live.query[parent], live.slot[parent]
        logit, partition = logits[(*place, code)], row_partition[parent]
        check_finite(logit, place[0], level, "a legal token's logit")
        score = live.score[parent] + (logit.astype(np.float64) - partition)

        chosen, member = select(live.query[parent], node, score, live.member[:, parent], sizes)
        came_from = parent[chosen]
        live = live.grow(
            came_from,
            level,
            node=node[chosen],
            score=score[chosen],
            member=member,
            token=code[chosen] + vocabulary.block_starts[level],
            logit=logit[chosen],
            log_partition=partition[chosen],
        )
        width = int(live.slot.max()) + 1
        last = np.zeros((queries, width), dtype=np.int64)
        last[live.query, live.slot] = live.token[:, level]
        parents = np.zeros((queries, width), dtype=np.int64)
        parents[live.query, live.slot] = place[1][chosen]

    return collect(live, trie.documents, queries, sizes, rows_decoded)


@phase("select")
def select(
    query: np.ndarray, node: np.ndarray, score: np.ndarray, member: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of children sorted by query, which the beam sizes keep: each the best of its own members'.

    Returns
    -------
    chosen : int64[rows]
        Children that any beam keeps, by query, then rank.
    member : bool[beams, rows]
    """
    contends = np.zeros(len(query), dtype=bool)
    for mine, size in zip(member, sizes, strict=True):
        held = np.flatnonzero(mine)
        contends[held[_reaches(query[held], score[held], size)]] = True
    contenders = np.flatnonzero(contends)
    order = contenders[np.lexsort((node[contenders], -score[contenders], query[contenders]))]
    query, member = query[order], member[:, order]
    counts = np.cumsum(member, axis=1)
    first = np.searchsorted(query, query)
    before = np.where(first > 0, counts[:, first - 1], 0)
    member &= counts - before <= sizes[:, None]
    kept = member.any(axis=0)
    return order[kept], member[:, kept]


def _reaches(query: np.ndarray, score: np.ndarray, size: int) -> np.ndarray:
    """Of children sorted by query, which score at least the `size`-th best of their query."""
    if not len(query):
        return np.zeros(0, dtype=bool)
    return score >= kth_best(query, score, size, int(query[-1]) + 1)[query]


def kth_best(query: np.ndarray, score: np.ndarray, k: int, queries: int) -> np.ndarray:
    """The k-th highest score of each query, -inf where it has fewer; float64[queries].

    Takes linear time, so that only the few that reach it need sorting.

    Parameters
    ----------
    query : int64[n]
        Ascending.
    score : float64[n]
    """
    first = np.searchsorted(query, np.arange(queries))
    width = int(np.diff(np.append(first, len(query))).max())
    if width < k:
        return np.full(queries, -np.inf)
    table = np.full((queries, width), -np.inf)
    table[query, np.arange(len(query)) - first[query]] = score
    return np.partition(table, width - k, axis=1)[:, width - k]


@dataclass(frozen=True)
class Rows:
    """The union of the beams' prefixes, sorted by query, then by descending score."""

    query: np.ndarray  # int64[rows]
    slot: np.ndarray  # int64[rows], place within the query
    node: np.ndarray  # int64[rows], trie node
    score: np.ndarray  # float64[rows]
    member: np.ndarray  # bool[beams, rows]: which beam sizes hold the prefix
    token: np.ndarray  # int64[rows, steps]
    logit: np.ndarray  # float32[rows, steps]
    log_partition: np.ndarray  # float32[rows, steps]

    @classmethod
    def root(cls, queries: int, beams: int, depth: int) -> Rows:
        return cls(
            query=np.arange(queries),
            slot=np.zeros(queries, dtype=np.int64),
            node=np.zeros(queries, dtype=np.int64),
            score=np.zeros(queries),
            member=np.ones((beams, queries), dtype=bool),
            token=np.full((queries, depth), -1, dtype=np.int64),
            logit=np.full((queries, depth), np.nan, dtype=np.float32),
            log_partition=np.full((queries, depth), np.nan, dtype=np.float32),
        )

    @phase("select")
    def grow(
        self,
        came_from: np.ndarray,
        level: int,
        *,
        node: np.ndarray,
        score: np.ndarray,
        member: np.ndarray,
        token: np.ndarray,
        logit: np.ndarray,
        log_partition: np.ndarray,
    ) -> Rows:
        """The rows of the next level: each a row of this one, longer by a token."""
        query = self.query[came_from]
        history = [self.token[came_from], self.logit[came_from], self.log_partition[came_from]]
        for past, new in zip(history, (token, logit, log_partition), strict=True):
            past[:, level] = new
        slot = np.arange(len(query)) - np.searchsorted(query, query)
        return Rows(query, slot, node, score, member, *history)


@phase("select")
def collect(
    rows: Rows,
    documents: np.ndarray,
    queries: int,
    sizes: np.ndarray,
    rows_decoded: np.ndarray,
) -> Beams:
    """The ranks of each beam size, from the rows of the last level."""
    shape = (queries, len(sizes), min(int(sizes.max()), len(documents)))
    depth = rows.token.shape[1]
    found = Beams(
        token=np.full((*shape, depth), -1, dtype=np.int32),
        logit=np.full((*shape, depth), np.nan, dtype=np.float32),
        log_partition=np.full((*shape, depth), np.nan, dtype=np.float32),
        score=np.full(shape, np.nan, dtype=np.float32),
        doc=np.full(shape, -1, dtype=np.int32),
        rows_decoded=rows_decoded,
    )
    for beam in range(len(sizes)):
        held = np.flatnonzero(rows.member[beam])
        query = rows.query[held]
        place = query, beam, np.arange(len(held)) - np.searchsorted(query, query)
        found.token[place] = rows.token[held]
        found.logit[place] = rows.logit[held]
        found.log_partition[place] = rows.log_partition[held]
        found.score[place] = rows.score[held]
        found.doc[place] = documents[rows.node[held]]
    return found
