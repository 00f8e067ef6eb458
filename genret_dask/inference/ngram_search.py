"""Beam search constrained to the n-grams of a corpus, at a whole grid of beam sizes in one pass.

An n-gram ends at its greatest length, or by the end token once it has its least length; one that
has ended keeps its place in the beam and its score, and is decoded no more. As in
`genret_dask.inference.beam`, the union of all beams' prefixes is decoded once, scores are sums of
log-softmax over the full vocabulary, and ties go to the smaller token sequence.

Every prefix that a beam kept on the way is an n-gram of its own, as in SEAL (Bevilacqua et al.,
2022, arXiv 2204.10628), which ranks by all that its search has scored; `Rules.partials` turns that
off.

A frequent prefix may be followed by most of the vocabulary. Its tokens are looked up in the order
of their scores, only until no other can enter a beam: the search is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from genret_dask.identifiers.ngrams import LISTED, NgramIndex
from genret_dask.inference.beam import select
from genret_dask.inference.session import Session

_BLOCK = 64  # tokens whose largest score stands for them all
_SLACK = 1e-3  # nats by which a float32 score may miss its float64 value, and more


@dataclass(frozen=True)
class Rules:
    """What an n-gram is to a model.

    Attributes
    ----------
    start_token : int
        Opens every n-gram.
    end_token : int
        Ends one early.
    min_tokens, max_tokens : int
        Tokens of an n-gram, the end token left out.
    partials : bool
        Whether prefixes that were kept count as n-grams too, from `min_tokens` on.
    """

    start_token: int
    end_token: int
    min_tokens: int
    max_tokens: int
    partials: bool = True


@dataclass(frozen=True)
class Ngrams:
    """Prefixes, in the end n-grams, that any beam size holds, by query, then descending score.

    Attributes
    ----------
    query : int64[rows]
    order : int64[rows]
        Orders the token sequences of a query.
    is_open : bool[rows]
        May still grow.
    score : float64[rows]
    member : bool[beams, rows]
        Which beam sizes hold it.
    states : int64[rows, parts, 2]
        Its intervals in the index.
    token : int64[rows, steps]
        The end token is one of them; -1 behind the last.
    logit, log_partition : float32[rows, steps]
        NaN behind the last.
    slot : int64[rows]
        Row of its query in the model's last step.
    """

    query: np.ndarray
    order: np.ndarray
    is_open: np.ndarray
    score: np.ndarray
    member: np.ndarray
    states: np.ndarray
    token: np.ndarray
    logit: np.ndarray
    log_partition: np.ndarray
    slot: np.ndarray

    @classmethod
    def root(cls, queries: int, beams: int, steps: int, index: NgramIndex) -> Ngrams:
        return cls(
            query=np.arange(queries),
            order=np.zeros(queries, dtype=np.int64),
            is_open=np.ones(queries, dtype=bool),
            score=np.zeros(queries),
            member=np.ones((beams, queries), dtype=bool),
            states=index.root(queries),
            token=np.full((queries, steps), -1, dtype=np.int64),
            logit=np.full((queries, steps), np.nan, dtype=np.float32),
            log_partition=np.full((queries, steps), np.nan, dtype=np.float32),
            slot=np.zeros(queries, dtype=np.int64),
        )

    def take(self, rows: np.ndarray) -> Ngrams:
        """Some of the rows."""
        columns = {name: column[rows] for name, column in vars(self).items() if name != "member"}
        return Ngrams(**columns, member=self.member[:, rows])

    @classmethod
    def join(cls, parts: Sequence[Ngrams]) -> Ngrams:
        """All rows of several, in order again."""
        columns = {
            name: np.concatenate([vars(part)[name] for part in parts], axis=int(name == "member"))
            for name in vars(parts[0])
        }
        order = np.lexsort((*columns["token"].T[::-1], columns["query"]))
        columns["order"][order] = np.arange(len(order))
        joined = cls(**columns)
        return joined.take(np.lexsort((joined.order, -joined.score, joined.query)))


@dataclass(frozen=True)
class Children:
    """Continuations of prefixes, in any order; a prefix that has ended continues as itself."""

    row: np.ndarray  # int64[c], of the prefixes
    token: np.ndarray  # int64[c], -1 where the prefix has ended
    score: np.ndarray  # float64[c]
    is_open: np.ndarray  # bool[c]
    states: np.ndarray  # int64[c, parts, 2]

    @classmethod
    def join(cls, *parts: Children) -> Children:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


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
        place = np.zeros(len(live.query), dtype=np.int64)
        place[going] = slot
        live = replace(live, slot=place)
        live = advance(live, level, logits, log_partition, index, rules, sizes)
        if rules.partials and level + 1 >= rules.min_tokens:
            kept.append(live.take(np.flatnonzero(live.is_open)))
    return Ngrams.join([*kept, live]), rows_decoded


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
    base = live.score - np.where(live.is_open, partition, 0)

    def scored(row: np.ndarray, token: np.ndarray, states: np.ndarray, is_open: bool) -> Children:
        score = base[row] + logits[live.query[row], live.slot[row], token]
        return Children(row, token, score, np.full(len(row), is_open), states)

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
    going = np.flatnonzero(live.is_open)
    if level >= rules.min_tokens:
        known.append(scored(going, np.full(len(going), rules.end_token), live.states[going], False))
    wide = index.count(live.states[going]) > LISTED
    few = going[~wide]
    row, token, states = index.listed(live.states[few], level)
    goes_on = level + 1 < rules.max_tokens
    known.append(scored(few[row], token, states, goes_on))
    children = Children.join(*known)
    if wide.any():
        rows = going[wide]
        table = logits[live.query[rows], live.slot[rows]] + base[rows, None].astype(np.float32)
        looked_up = _LookUp(live, rows, table, index, level)
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


class _LookUp:
    """Continuations of frequent prefixes, found in the order of their scores.

    Parameters
    ----------
    rows : int64[r]
        The frequent ones among the prefixes.
    table : float32[r, vocabulary]
        Scores of their continuations, legal or not.
    """

    def __init__(
        self, live: Ngrams, rows: np.ndarray, table: np.ndarray, index: NgramIndex, level: int
    ) -> None:
        self.live, self.rows, self.table = live, rows, table
        self.index, self.level = index, level
        self.queries = int(live.query[-1]) + 1
        self.query = live.query[rows]
        starts = np.arange(0, table.shape[1], _BLOCK)
        largest = np.maximum.reduceat(table, starts, axis=1)
        # One line a query, however many of its prefixes are frequent.
        first = np.searchsorted(self.query, self.query)
        place = np.arange(len(rows)) - first
        shape = self.queries, int(place.max()) + 1, len(starts)
        peaks = np.full(shape, -np.inf, dtype=np.float32)
        peaks[self.query, place] = largest
        self.peaks = peaks.reshape(self.queries, -1)

    def complete(
        self, children: Children, scored: Callable[..., Children], sizes: np.ndarray
    ) -> Children:
        """Add continuations until every beam size's best are among the children.

        Parameters
        ----------
        scored : callable
            Gets prefixes, tokens and states; returns them as children.
        """
        bound = np.full(self.queries, -np.inf)
        bound[self.query] = np.inf  # the best that has not been looked up; of the others, none is
        wanted = 2 * int(sizes.max())
        while True:
            worst = self._worst_kept(children, sizes)
            pending = bound > worst
            if not pending.any():
                return children
            lower = np.where(pending, np.maximum(worst, self._reached_by(wanted)), bound)
            of_row, over_row = lower[self.query, None], bound[self.query, None]
            asked = (self.table >= (of_row - _SLACK)) & (self.table < (over_row - _SLACK))
            row, token = np.nonzero(asked)
            row = self.rows[row]
            states = self.index.refine(self.live.states[row], self.level, token)
            occurs = np.flatnonzero(self.index.count(states))
            found = scored(row[occurs], token[occurs], states[occurs])
            children = Children.join(children, found)
            bound, wanted = lower, 4 * wanted

    def _worst_kept(self, children: Children, sizes: np.ndarray) -> np.ndarray:
        """Of each query the lowest score that any beam size keeps; float64[queries]."""
        query = self.live.query[children.row]
        worst = np.full(self.queries, np.inf)
        for size, member in zip(sizes, self.live.member, strict=True):
            concerned = np.zeros(self.queries, dtype=bool)
            concerned[self.query[member[self.rows]]] = True
            mine = member[children.row]
            kth = kth_best(query[mine], children.score[mine], int(size), self.queries)
            worst = np.where(concerned, np.minimum(worst, kth), worst)
        return worst

    def _reached_by(self, wanted: int) -> np.ndarray:
        """Of each query a score that at least `wanted` continuations reach; float64[queries]."""
        width = self.peaks.shape[1]
        if wanted > width:
            return np.full(self.queries, -np.inf)
        return np.partition(self.peaks, width - wanted, axis=1)[:, width - wanted].astype(float)


def kth_best(query: np.ndarray, score: np.ndarray, k: int, queries: int) -> np.ndarray:
    """The k-th highest score of each query, -inf where it has fewer; float64[queries]."""
    order = np.argsort(query, kind="stable")
    query, score = query[order], score[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    table = np.full((queries, max(k, int(place.max(initial=0)) + 1)), -np.inf)
    table[query, place] = score
    width = table.shape[1]
    return np.partition(table, width - k, axis=1)[:, width - k]
