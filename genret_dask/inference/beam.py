"""Constrained beam search at a whole grid of beam sizes in one pass.

Beams of different size do not nest, so the results of a small beam cannot be read off a large one.
But the union of the prefixes that any beam of the grid keeps is little larger than what the
largest keeps: the union is decoded once, and each beam size selects among the children of its own
members. The result equals one search for each beam size.

A prefix scores the sum of its tokens' log-softmax over the full vocabulary: the constraint decides
what may follow, it does not renormalise. Ties go to the smaller token sequence.

An identifier that ends before others keeps its place in the beam, or leaves it for a pool of the
best, as the constraint has it. With a pool, the search at a beam size is that of transformers'
`generate` with `num_beams` and `length_penalty=0`: it goes on with as many unfinished prefixes as
the beam is large, and stops when none of them scores above the worst of a full pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genret_dask.identifiers import Trie
from genret_dask.inference.constraint import Constraint, Shortlist, Vocabulary
from genret_dask.inference.finite import check_finite
from genret_dask.inference.rows import Children, Ranked, Rows, Step, ranks
from genret_dask.inference.selection import kth_best, select
from genret_dask.inference.session import Session
from genret_dask.monitoring.meter import count_decoded, phase


@dataclass(frozen=True)
class Beams:
    """What a search for documents found.

    There are as many ranks as the largest beam holds documents; those beyond a beam's size are
    empty.

    Attributes
    ----------
    token : int32[query, beam, rank, step]
        Vocabulary rows; -1 where empty.
    logit, log_partition : float32[query, beam, rank, step]
        NaN where empty.
    log_allowed : float32[query, beam, rank, step]
        Log-sum-exp over the logits of the tokens that the constraint allowed; NaN where empty.
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
    log_allowed: np.ndarray
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
    """Find the documents of a batch of queries at every beam size of the grid.

    Takes and raises what `find` does; a beam size larger than the corpus returns every document.

    Raises
    ------
    ValueError
        Identifiers have different lengths, and the vocabulary has no end token.
    """
    if trie.endings and vocabulary.end_token is None:
        raise ValueError("identifiers of different length need an end token in the vocabulary")
    found, rows_decoded = find(session, trie, vocabulary, tokens, lengths, beams)
    return collect(found, trie, len(tokens), max(beams), rows_decoded)


def find(
    session: Session,
    constraint: Constraint,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    beams: Sequence[int],
) -> tuple[Rows, np.ndarray]:
    """Find the identifiers of a batch of queries at every beam size of the grid.

    Parameters
    ----------
    tokens : int64[queries, width]
        Right-padded query tokens.
    lengths : int64[queries]
    beams : sequence of int
        Beam sizes; one larger than the number of identifiers returns every identifier.

    Returns
    -------
    found : Rows
        A beam of size b holds b identifiers, and b kept prefixes of each length where the
        constraint counts those.
    rows_decoded : int32[queries, beams, steps]
        Prefixes that each beam size alone would have decoded.

    Raises
    ------
    NumericError
        The model gave NaN or infinity to a live prefix or to a token that may follow it.
    """
    queries, sizes = len(tokens), np.asarray(beams)
    live = Rows.root(constraint.root(queries), len(sizes), constraint.steps)
    pool, kept = live.take(np.arange(0)), []
    rows_decoded = np.zeros((queries, len(sizes), constraint.steps), dtype=np.int32)
    state = session.prefill(tokens, lengths)
    for depth in range(constraint.steps):
        final = depth + 1 == constraint.steps
        step, state = decode(session, state, live, vocabulary, queries, depth, final)
        rows_decoded[:, :, depth] = step.decoded()
        live = advance(step, constraint, vocabulary.end_token, sizes)
        if not constraint.keeps_ended:
            live, pool = settle(live, pool, sizes, queries)
        if live.ended.all():
            break
        if constraint.partial_tokens is not None and depth + 1 >= constraint.partial_tokens:
            kept.append(live.take(np.flatnonzero(~live.ended)))
    return Rows.join([live, pool, *kept]), rows_decoded


def decode(
    session: Session,
    state: Any,
    live: Rows,
    vocabulary: Vocabulary,
    queries: int,
    depth: int,
    final: bool,
) -> tuple[Step, Any]:
    """Feed the last token of each prefix that has not ended to the model.

    Raises
    ------
    NumericError
        A log-partition is not finite.
    """
    going = np.flatnonzero(~live.ended)
    query, slot = live.query[going], live.slot[going]
    shape = queries, int(slot.max()) + 1
    last, parents = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    last[query, slot] = live.token[going, depth - 1] if depth else vocabulary.start_token
    parents[query, slot] = live.parent[going]
    block = vocabulary.block(depth)
    logits, log_partition, state = session.step(state, last, parents, block)
    count_decoded("search", len(going))
    place = np.zeros(len(live.query), dtype=np.int64)
    place[going] = query * shape[1] + slot
    partition = np.zeros(len(live.query), dtype=log_partition.dtype)
    partition[going] = log_partition[query, slot]
    check_finite(partition[going], query, depth, "the log-partition")
    logits = logits.reshape(-1, logits.shape[-1])
    step = Step(live, going, queries, logits, place, partition, block[0], depth, final)
    return step, state


def advance(step: Step, constraint: Constraint, end_token: int | None, sizes: np.ndarray) -> Rows:
    """Keep the best continuations of each beam size's members."""
    children = continuations(step, constraint, end_token, sizes)
    member = step.live.member.take(children.row, axis=1)
    if isinstance(constraint, Shortlist):
        log_allowed = np.full(len(step.live.query), np.nan, dtype=np.float32)
    else:
        log_allowed = step.log_allowed(children)
    chosen, member, slot = select(children, member, sizes, leave=not constraint.keeps_ended)
    return step.grow(children.take(chosen), member, slot, log_allowed)


def continuations(
    step: Step, constraint: Constraint, end_token: int | None, sizes: np.ndarray
) -> Children:
    """Score what the prefixes may become: every child, or those that a beam may keep."""
    going, states = step.going, step.live.states[step.going]
    known = []
    if len(going) < len(step.live.query):
        known.append(step.carried())
    if end_token is not None:
        ends = np.flatnonzero(constraint.ends(states, step.depth))
        token = np.full(len(ends), end_token - step.first)
        known.append(step.children(going[ends], token, states[ends], ends=True))
    if isinstance(constraint, Shortlist):
        return constraint.shortlist(step, known, sizes).in_order()
    with phase("constraint"):
        row, token, states = constraint.expand(states, step.depth)
    if not known:
        return step.children(row, token, states)
    return Children.join([*known, step.children(going[row], token, states)]).in_order()


@phase("select")
def settle(live: Rows, pool: Rows, sizes: np.ndarray, queries: int) -> tuple[Rows, Rows]:
    """Move identifiers that have ended to the pool, and stop where none can enter it any more.

    Parameters
    ----------
    live, pool : Rows
        Prefixes that were grown, and the best identifiers of each beam size.

    Returns
    -------
    live, pool : Rows
    """
    pool = Rows.join([pool, live.take(np.flatnonzero(live.ended))])
    chosen, member, _ = select(pool, pool.member, sizes)
    pool = pool.take(chosen, member)
    live = live.take(np.flatnonzero(~live.ended))
    goes_on = np.empty((len(sizes), queries), dtype=bool)
    for beam, size in enumerate(sizes):
        mine, theirs = live.member[beam], pool.member[beam]
        best = kth_best(live.query[mine], live.score[mine], 1, queries)
        worst = kth_best(pool.query[theirs], pool.score[theirs], int(size), queries)
        goes_on[beam] = best > worst
    member = live.member & goes_on[:, live.query]
    held = np.flatnonzero(member.any(axis=0))
    live = live.take(held, member[:, held])
    return replace(live, slot=ranks(live.query, live.score)), pool


@phase("select")
def collect(found: Rows, trie: Trie, queries: int, most: int, rows_decoded: np.ndarray) -> Beams:
    """Put documents in the ranks of each beam size.

    Parameters
    ----------
    most : int
        The largest beam size.
    """
    ranked = Ranked(found, queries, min(most, len(trie.documents)))
    row = ranked.row
    token = found.token[row]
    documents = trie.found(found.states[row], (token >= 0).sum(axis=1))
    return Beams(
        token=ranked.array(token, -1, np.int32),
        logit=ranked.array(found.logit[row], np.nan, np.float32),
        log_partition=ranked.array(found.log_partition[row], np.nan, np.float32),
        log_allowed=ranked.array(found.log_allowed[row], np.nan, np.float32),
        score=ranked.array(found.score[row], np.nan, np.float32),
        doc=ranked.array(documents, -1, np.int32),
        rows_decoded=rows_decoded,
    )
