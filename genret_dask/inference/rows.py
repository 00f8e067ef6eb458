"""Prefixes of identifiers while a search grows them, and what they may become.

Rows and children stand in the order of their queries and token sequences: of two that score the
same, the one in front is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genret_dask.inference.finite import check_finite
from genret_dask.monitoring.meter import phase


@dataclass(frozen=True)
class Rows:
    """Prefixes, in the end identifiers, that any beam size holds.

    Attributes
    ----------
    query : int64[rows]
        Ascending; the rows of a query are sorted by their token sequences.
    slot : int64[rows]
        Where the model decodes it among those of its query, by score; of no meaning once it ended.
    parent : int64[rows]
        Slot, in the step before, of the prefix that it came from.
    states : array[rows, ...]
        What the constraint knows a prefix by.
    score : float64[rows]
        Sum over tokens of logit - log_partition.
    ended : bool[rows]
        May not grow.
    member : bool[beams, rows]
        Which beam sizes hold it.
    token : int64[rows, steps]
        Vocabulary rows, the end token among them; -1 behind the last.
    logit, log_partition : float32[rows, steps]
        NaN behind the last token.
    log_allowed : float32[rows, steps]
        Log-sum-exp over the logits of the tokens that the constraint allowed; NaN behind the last
        token, and everywhere where the constraint does not list them.
    """

    query: np.ndarray
    slot: np.ndarray
    parent: np.ndarray
    states: np.ndarray
    score: np.ndarray
    ended: np.ndarray
    member: np.ndarray
    token: np.ndarray
    logit: np.ndarray
    log_partition: np.ndarray
    log_allowed: np.ndarray

    @classmethod
    def root(cls, states: np.ndarray, beams: int, steps: int) -> Rows:
        """The empty prefix of each query."""
        queries = len(states)
        nothing = np.full((queries, steps), np.nan, dtype=np.float32)
        return cls(
            query=np.arange(queries),
            slot=np.zeros(queries, dtype=np.int64),
            parent=np.zeros(queries, dtype=np.int64),
            states=states,
            score=np.zeros(queries),
            ended=np.zeros(queries, dtype=bool),
            member=np.ones((beams, queries), dtype=bool),
            token=np.full((queries, steps), -1, dtype=np.int64),
            logit=nothing,
            log_partition=nothing,
            log_allowed=nothing,
        )

    def take(self, rows: np.ndarray, member: np.ndarray | None = None) -> Rows:
        """Some of the rows, of the same members or of others."""
        columns = {name: column[rows] for name, column in vars(self).items() if name != "member"}
        return Rows(**columns, member=self.member.take(rows, axis=1) if member is None else member)

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of several, in order again."""
        parts = [part for part in parts if len(part.query)] or [*parts[:1]]
        if len(parts) == 1:
            return parts[0]
        joined = cls(
            **{
                name: np.concatenate(
                    [vars(part)[name] for part in parts], axis=int(name == "member")
                )
                for name in vars(parts[0])
            }
        )
        return joined.take(np.lexsort((*joined.token.T[::-1], joined.query)))


@dataclass(frozen=True)
class Children:
    """Continuations of prefixes; one that has ended continues as itself."""

    query: np.ndarray  # int64[c]
    row: np.ndarray  # int64[c], of the prefixes
    token: np.ndarray  # int[c], of the step's block; -1 where the prefix has ended
    logit: np.ndarray  # float32[c]; NaN where the prefix has ended
    score: np.ndarray  # float64[c]
    ended: np.ndarray  # bool[c]
    states: np.ndarray  # array[c, ...]

    def take(self, rows: np.ndarray) -> Children:
        return Children(*(column[rows] for column in vars(self).values()))

    @classmethod
    def join(cls, parts: Sequence[Children]) -> Children:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def in_order(self) -> Children:
        """Sorted by prefix, then token."""
        key = self.row * (int(self.token.max(initial=0)) + 2) + self.token
        return self.take(np.argsort(key, kind="stable"))


@dataclass(frozen=True)
class Step:
    """What a model said of the prefixes that it decoded at once.

    Attributes
    ----------
    live : Rows
    going : int64[n]
        Those of `live` that have not ended, which are the ones that were decoded.
    queries : int
    logits : float32[places, block]
    place : int64[rows]
        Of each of `live`: its place among the logits; 0 where it has ended.
    partition : float32[rows]
        Of each of `live`; 0 where it has ended.
    first : int
        Vocabulary row of the first logit.
    depth : int
        Tokens of the prefixes.
    final : bool
        Whether identifiers are complete with this step's token.
    """

    live: Rows
    going: np.ndarray
    queries: int
    logits: np.ndarray
    place: np.ndarray
    partition: np.ndarray
    first: int
    depth: int
    final: bool

    def decoded(self) -> np.ndarray:
        """Count the prefixes that each beam size had decoded; int32[queries, beams]."""
        query, member = self.live.query[self.going], self.live.member[:, self.going]
        counts = np.zeros((self.queries, len(member)), dtype=np.int32)
        opens = np.flatnonzero(np.append(True, query[1:] != query[:-1]))
        counts[query[opens]] = np.add.reduceat(member, opens, axis=1, dtype=np.int32).T
        return counts

    def children(
        self, row: np.ndarray, token: np.ndarray, states: np.ndarray, ends: bool = False
    ) -> Children:
        """Score continuations of the prefixes that were decoded.

        Parameters
        ----------
        row : int64[c]
            Of `live`.
        token : int[c]
            Of the step's block.
        states : array[c, ...]
        ends : bool
            Whether the token closes an identifier.

        Raises
        ------
        NumericError
            The logit of a token is not finite.
        """
        query = self.live.query.take(row)
        first = self.place * self.logits.shape[1]
        logit = self.logits.ravel().take(first.take(row) + token)
        check_finite(logit, query, self.depth, "a legal token's logit")
        score = self.live.score.take(row) + (logit.astype(np.float64) - self.partition.take(row))
        ended = np.full(len(row), ends or self.final)
        return Children(query, row, token, logit, score, ended, states)

    def carried(self) -> Children:
        """The prefixes that have ended, as continuations of themselves."""
        row = np.flatnonzero(self.live.ended)
        old = self.live.take(row)
        token, logit = np.full(len(row), -1), np.full(len(row), np.nan, dtype=np.float32)
        return Children(old.query, row, token, logit, old.score, old.ended, old.states)

    def log_allowed(self, children: Children) -> np.ndarray:
        """Sum up what the constraint allows each prefix; float32[rows], NaN where it has ended.

        Parameters
        ----------
        children : Children
            All that there are, in order.
        """
        row, logit = children.row, children.logit
        opens = np.flatnonzero(np.diff(row, prepend=-1))  # none where nothing may follow
        found = np.full(len(self.live.query), np.nan, dtype=np.float32)
        found[row[opens]] = np.maximum.reduceat(logit, opens)
        below = np.exp(logit - found.take(row))
        found[row[opens]] += np.log(np.add.reduceat(below, opens))
        return found

    @phase("select")
    def grow(
        self, children: Children, member: np.ndarray, slot: np.ndarray, log_allowed: np.ndarray
    ) -> Rows:
        """Make rows of the children that were chosen.

        Parameters
        ----------
        children : Children
        member : bool[beams, c]
            Which beam sizes hold them.
        slot : int64[c]
            See `Rows`.
        log_allowed : float32[rows]
            Of each of `live`.
        """
        live, row = self.live, children.row
        history = [
            live.token[row],
            live.logit[row],
            live.log_partition[row],
            live.log_allowed[row],
        ]
        grows = np.flatnonzero(children.token >= 0)
        token, grown = children.token[grows], row[grows]
        now = [
            token.astype(np.int64) + self.first,
            children.logit[grows],
            self.partition[grown],
            log_allowed[grown],
        ]
        for past, new in zip(history, now, strict=True):
            past[grows, self.depth] = new
        return Rows(
            children.query,
            slot,
            live.slot[row],
            children.states,
            children.score,
            children.ended,
            member,
            *history,
        )


class Ranked:
    """Rows in arrays of [query, beam, rank, ...], the likeliest first.

    Parameters
    ----------
    rows : Rows
    queries, ranks : int
        Sizes of the arrays; there must be a rank for every row that a beam size holds.

    Attributes
    ----------
    row, beam : int64[n]
        The rows that are held and the beam sizes that hold them.
    """

    def __init__(self, rows: Rows, queries: int, ranks: int) -> None:
        order = np.lexsort((-rows.score, rows.query))
        self.beam, place = np.nonzero(rows.member[:, order])
        self.row = order[place]
        query = rows.query[self.row]
        group = self.beam * queries + query
        self._place = query, self.beam, np.arange(len(group)) - np.searchsorted(group, group)
        self._shape = queries, len(rows.member), ranks

    def array(self, values: np.ndarray, fill: float, dtype: type) -> np.ndarray:
        """Put the values of the rows that are held in their places.

        Parameters
        ----------
        values : array[n, ...]
        fill : float
            What stands where there is no row.

        Returns
        -------
        dtype[queries, beams, ranks, ...]
        """
        array = np.full((*self._shape, *values.shape[1:]), fill, dtype=dtype)
        array[self._place] = values
        return array


def ranks(query: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Place of each row within its query by descending score; ties go to the row in front.

    Parameters
    ----------
    query : int64[n]
        Ascending.
    score : float64[n]
    """
    place = np.empty(len(query), dtype=np.int64)
    order = np.lexsort((-score, query))
    place[order] = np.arange(len(query)) - np.searchsorted(query, query)
    return place
