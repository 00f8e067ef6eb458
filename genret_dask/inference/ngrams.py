"""The n-grams of a corpus as the constraint of a search, and what it found in arrays.

An n-gram ends at its greatest length, or by the end token once it has its least length; one that
has ended keeps its place in the beam and its score, as in SEAL (Bevilacqua et al., 2022,
"Autoregressive Search Engines: Generating Substrings as Document Identifiers", arXiv 2204.10628).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genret_dask.identifiers.ngrams import NgramIndex
from genret_dask.inference.constraint import Shortlist
from genret_dask.inference.lookup import LookUp
from genret_dask.inference.rows import Children, Ranked, Rows, Step
from genret_dask.monitoring.meter import phase

LISTED = 1024
"""Occurrences up to which reading the next token at each is faster than looking tokens up."""


@dataclass(frozen=True)
class NgramConstraint:
    """The constraint of n-grams; see `genret_dask.inference.constraint`.

    A search lists all that may follow a prefix.

    Attributes
    ----------
    index : NgramIndex
    min_tokens, max_tokens : int
        Tokens of an n-gram, the end token left out.
    partials : bool
        Whether every prefix of `min_tokens` tokens or more that a beam kept is an n-gram of its
        own, as in SEAL, which ranks by all that its search has scored.
    """

    index: NgramIndex
    min_tokens: int
    max_tokens: int
    partials: bool = True

    @property
    def steps(self) -> int:
        """See `Constraint`."""
        return self.max_tokens

    @property
    def keeps_ended(self) -> bool:
        """See `Constraint`."""
        return True

    @property
    def partial_tokens(self) -> int | None:
        """See `Constraint`."""
        return self.min_tokens if self.partials else None

    def root(self, rows: int) -> np.ndarray:
        """See `Constraint.root`; int64[rows, parts, 2]."""
        return self.index.root(rows)

    def expand(self, states: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Constraint.expand`."""
        return self.index.expand(states, depth)

    def ends(self, states: np.ndarray, depth: int) -> np.ndarray:
        """See `Constraint.ends`."""
        return np.full(len(states), depth >= self.min_tokens)


@dataclass(frozen=True)
class NgramShortlist(NgramConstraint, Shortlist):
    """The constraint of n-grams, only the best of what may follow looked up.

    Attributes
    ----------
    listed : int
        For prefixes with at most this many occurrences, read the next token at each. For more
        frequent ones, look tokens up in the order of their scores.
    """

    listed: int = LISTED

    def shortlist(self, step: Step, known: Sequence[Children], sizes: np.ndarray) -> Children:
        """See `Shortlist.shortlist`."""
        states = step.live.states
        wide = self.index.count(states[step.going]) > self.listed
        few, many = step.going[~wide], step.going[wide]
        with phase("constraint"):
            row, token, following = self.index.listed(states[few], step.depth)
        children = Children.join([*known, step.children(few[row], token, following)])
        if not len(many):
            return children
        return LookUp(step, many, self.index).complete(children, sizes)


@phase("select")
def collect(
    found: Rows,
    index: NgramIndex,
    weight: np.ndarray,
    queries: int,
    most: int,
    log_allowed: bool,
) -> dict[str, np.ndarray]:
    """Put n-grams in the ranks of each beam size.

    Parameters
    ----------
    weight : float64[beams, rows]
        What each n-gram weighs (see `genret_dask.inference.documents`).
    most : int
        n-grams that there is room for.
    log_allowed : bool
        Whether the search listed all that may follow.

    Returns
    -------
    dict
        token int32, logit, log_partition and, if asked for, log_allowed float32 [queries, beams,
        most, steps], -1 or NaN where there is none; ngram_score and weight float32, count int64
        [queries, beams, most], the likeliest first, NaN or 0 where there is none.
    """
    ranked = Ranked(found, queries, most)
    row = ranked.row
    arrays = {
        "token": ranked.array(found.token[row], -1, np.int32),
        "logit": ranked.array(found.logit[row], np.nan, np.float32),
        "log_partition": ranked.array(found.log_partition[row], np.nan, np.float32),
        "ngram_score": ranked.array(found.score[row], np.nan, np.float32),
        "weight": ranked.array(weight[ranked.beam, row], np.nan, np.float32),
        "count": ranked.array(index.count(found.states)[row], 0, np.int64),
    }
    if log_allowed:
        arrays["log_allowed"] = ranked.array(found.log_allowed[row], np.nan, np.float32)
    return arrays
