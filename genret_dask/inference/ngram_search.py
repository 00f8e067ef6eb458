"""Beam search constrained to the n-grams of a corpus, at a whole grid of beam sizes in one pass.

An n-gram ends at its greatest length, or by the end token once it has its least length; one that
has ended keeps its place in the beam and its score, and is decoded no more. As in
`genret_dask.inference.beam`, the union of all beams' prefixes is decoded once, scores are sums of
log-softmax over the full vocabulary, and ties go to the smaller token sequence.

Every prefix that a beam kept on the way is an n-gram of its own, as in SEAL (Bevilacqua et al.,
2022, arXiv 2204.10628), which ranks by all that its search has scored; `Rules.partials` turns that
off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from genret_dask.identifiers.ngrams import LISTED, NgramIndex
from genret_dask.inference.beam import select
from genret_dask.inference.finite import check_finite
from genret_dask.inference.lookup import LookUp
from genret_dask.inference.prefixes import Children, Ngrams, Rules
from genret_dask.inference.session import Session
from genret_dask.monitoring.meter import count_decoded, phase


def search(
    session: Session,
    index: NgramIndex,
    rules: Rules,
    tokens: np.ndarray,
    lengths: np.ndarray,
    beams: Sequence[int],
) -> tuple[Ngrams, np.ndarray]:
    """Search a batch of queries at every beam size of the grid.

    Parameters
    ----------
    tokens : int64[queries, width]
        Right-padded query tokens.
    lengths : int64[queries]
    beams : sequence of int
        Beam sizes; one larger than the number of n-grams returns every n-gram.

    Returns
    -------
    ngrams : Ngrams
        A beam of size b holds b of full length or ended, and b kept prefixes of each length.
    rows_decoded : int32[queries, beams, steps]
        Prefixes that each beam size alone would have decoded.

    Raises
    ------
    NumericError
        The model gave NaN or infinity to a live prefix or to a token that was looked up.
    """
    queries, sizes = len(tokens), np.asarray(beams)
    live = Ngrams.root(queries, len(sizes), rules.max_tokens, index)
    rows_decoded = np.zeros((queries, len(sizes), rules.max_tokens), dtype=np.int32)
    state = session.prefill(tokens, lengths)
    kept = []
    for level in range(rules.max_tokens):
        going = np.flatnonzero(live.is_open)
        if not len(going):
            break
        query = live.query[going]
        for beam, member in enumerate(live.member[:, going]):
            rows_decoded[:, beam, level] = np.bincount(query[member], minlength=queries)
        slot = np.arange(len(going)) - np.searchsorted(query, query)
        shape = queries, int(slot.max()) + 1
        last, parents = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        last[query, slot] = live.token[going, level - 1] if level else rules.start_token
        parents[query, slot] = live.slot[going]
        logits, log_partition, state = session.step(state, last, parents, (0, index.vocabulary))
        count_decoded("search", len(going))
        place = np.zeros(len(live.query), dtype=np.int64)
        place[going] = slot
        live = replace(live, slot=place)
        live = advance(live, level, logits, log_partition, index, rules, sizes)
        if rules.partials and level + 1 >= rules.min_tokens:
            kept.append(live.take(np.flatnonzero(live.is_open)))
    return Ngrams.join([*kept, live]), rows_decoded


@phase("select")
def collect(
    found: Ngrams, index: NgramIndex, weight: np.ndarray, shape: tuple[int, int], most: int
) -> dict[str, np.ndarray]:
    """The n-grams of each query and beam size in arrays of equal size.

    Parameters
    ----------
    weight : float64[beams, rows]
        What each n-gram weighs (see `genret_dask.inference.documents`).
    shape : (int, int)
        Queries and beam sizes.
    most : int
        n-grams that there is room for.

    Returns
    -------
    dict
        token int32, logit and log_partition float32 [queries, beams, most, steps], -1 or NaN where
        there is none; ngram_score and weight float32, count int64 [queries, beams, most], the
        likeliest first, NaN or 0 where there is none.
    """
    beam, row = np.nonzero(found.member)
    query = found.query[row]
    order = np.lexsort((row, query * shape[1] + beam))
    beam, row, query = beam[order], row[order], query[order]
    group = query * shape[1] + beam
    rank = np.arange(len(group)) - np.searchsorted(group, group)
    place = query, beam, rank

    def filled(values: np.ndarray, fill: float, dtype: type) -> np.ndarray:
        array = np.full((*shape, most, *values.shape[1:]), fill, dtype=dtype)
        array[place] = values
        return array

    return {
        "token": filled(found.token[row], -1, np.int32),
        "logit": filled(found.logit[row], np.nan, np.float32),
        "log_partition": filled(found.log_partition[row], np.nan, np.float32),
        "ngram_score": filled(found.score[row], np.nan, np.float32),
        "weight": filled(weight[beam, row], np.nan, np.float32),
        "count": filled(index.count(found.states)[row], 0, np.int64),
    }


def advance(
    live: Ngrams,
    level: int,
    logits: np.ndarray,
    log_partition: np.ndarray,
    index: NgramIndex,
    rules: Rules,
    sizes: np.ndarray,
) -> Ngrams:
    """The best continuations of each beam size's members."""
    partition = log_partition[live.query, live.slot]
    going = np.flatnonzero(live.is_open)
    check_finite(partition[going], live.query[going], level, "the log-partition")
    base = live.score - np.where(live.is_open, partition, 0)

    def scored(row: np.ndarray, token: np.ndarray, states: np.ndarray, is_open: bool) -> Children:
        logit = logits[live.query[row], live.slot[row], token]
        check_finite(logit, live.query[row], level, "a legal token's logit")
        return Children(row, token, base[row] + logit, np.full(len(row), is_open), states)

    ended = np.flatnonzero(~live.is_open)
    known = [
        Children(
            ended,
            np.full(len(ended), -1),
            live.score[ended],
            np.zeros(len(ended), dtype=bool),
            live.states[ended],
        )
    ]
    if level >= rules.min_tokens:
        known.append(scored(going, np.full(len(going), rules.end_token), live.states[going], False))
    wide = index.count(live.states[going]) > LISTED
    few = going[~wide]
    with phase("constraint"):
        row, token, states = index.listed(live.states[few], level)
    goes_on = level + 1 < rules.max_tokens
    known.append(scored(few[row], token, states, goes_on))
    children = Children.join(*known)
    if wide.any():
        rows = going[wide]
        table = logits[live.query[rows], live.slot[rows]] + base[rows, None].astype(np.float32)
        looked_up = LookUp(live, rows, table, index, level)
        children = looked_up.complete(children, partial(scored, is_open=goes_on), sizes)

    children = _by_query(children, live)
    row, token = children.row, children.token
    key = live.order[row] * (index.vocabulary + 1) + token + 1
    chosen, member = select(live.query[row], key, children.score, live.member[:, row], sizes)
    row, token = row[chosen], token[chosen]
    grows = np.flatnonzero(token >= 0)
    history = [live.token[row], live.logit[row], live.log_partition[row]]
    now = [
        token[grows],
        logits[live.query[row], live.slot[row], token][grows],
        partition[row][grows],
    ]
    for past, new in zip(history, now, strict=True):
        past[grows, level] = new
    return Ngrams(
        query=live.query[row],
        order=np.unique(key[chosen], return_inverse=True)[1],
        is_open=children.is_open[chosen],
        score=children.score[chosen],
        member=member,
        states=children.states[chosen],
        token=history[0],
        logit=history[1],
        log_partition=history[2],
        slot=live.slot[row],
    )


def _by_query(children: Children, live: Ngrams) -> Children:
    order = np.argsort(live.query[children.row], kind="stable")
    return Children(*(column[order] for column in vars(children).values()))
