"""From the n-grams of a beam to ranked documents, by the intersective score of SEAL.

Bevilacqua et al. (2022), "Autoregressive Search Engines: Generating Substrings as Document
Identifiers" (arXiv 2204.10628), section 3.2. An n-gram n weighs

    w(n) = max(0, log(P(n|q) (1 - P(n)) / (P(n) (1 - P(n|q)))))

with P(n|q) the model's probability and P(n) the n-gram's share of the corpus's tokens. In a
document count the n-grams that have an occurrence there which no occurrence of a heavier one
overlaps, and the document scores the sum over them of w(n)^alpha (1 - beta + beta u(n)), where
u(n) is the share of n's distinct tokens that no heavier one of them has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat

from genret_dask.identifiers.ngrams import NgramIndex
from genret_dask.inference.rows import Rows
from genret_dask.monitoring.meter import phase
from genret_dask.specs import PositiveInt
from genret_dask.specs.validation import Record

_NOTHING = 1e-9  # what rounding leaves of a weight of 0


class NgramsScoring(Record):
    """How the n-grams of a beam score documents."""

    alpha: PositiveFloat = Field(2.0, description="exponent of an n-gram's weight")
    beta: Annotated[float, Field(ge=0, le=1)] = Field(
        0.8, description="how much repeated tokens take from it"
    )
    occurrences: PositiveInt = Field(
        20_000, description="looked up for a query and beam, the heaviest n-grams' first"
    )
    documents: PositiveInt = Field(100, description="ranked documents kept")


@dataclass(frozen=True)
class Evidence:
    """What each n-gram gives to each document, at each beam size.

    Attributes
    ----------
    query, beam : int64[e]
    row : int64[e]
        Of the n-grams.
    document : int32[e]
    value : float64[e]
        What it adds to the document's score.
    weight : float64[beams, rows]
        w(n); 0 where the beam does not hold the n-gram, or where it was left out.
    left_out : int64[queries, beams]
        n-grams that weigh something, but were past the limit of occurrences.
    """

    query: np.ndarray
    beam: np.ndarray
    row: np.ndarray
    document: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    left_out: np.ndarray


def weigh(found: Rows, index: NgramIndex) -> np.ndarray:
    """w(n) of every n-gram; float64[rows].

    Notes
    -----
    The weight bounds what a frequent n-gram can bring in: it is 0 unless the model holds the n-gram
    for likelier than the corpus does, so one that weighs anything has at most P(n|q) times the
    corpus's tokens of occurrences.
    """
    tiny = np.finfo(float).tiny
    share = index.count(found.states) / index.tokens
    chance = np.minimum(np.exp(found.score), 1 - 1e-12)  # rounding may bring a certain one to 1
    share = np.clip(share, tiny, 1 - 1e-12)
    odds = found.score - np.log1p(-chance) - np.log(share) + np.log1p(-share)
    return np.where(odds > _NOTHING, odds, 0.0)


@phase("rank")
def gather_evidence(
    found: Rows, index: NgramIndex, end_token: int, scoring: NgramsScoring, queries: int
) -> Evidence:
    """Look n-grams up in the corpus and score what they say of its documents.

    Of each query and beam size the heaviest n-grams are looked up, as long as their occurrences
    come to no more than ``scoring.occurrences`` in all.
    """
    weight = np.where(found.member, weigh(found, index), 0.0)
    counts = index.count(found.states)
    beam, row = np.nonzero(weight > 0)
    group = found.query[row] * len(weight) + beam
    order = np.lexsort((row, -weight[beam, row], group))
    beam, row, group = beam[order], row[order], group[order]
    total = np.cumsum(counts[row])
    before = np.append(0, total)[np.searchsorted(group, group)]
    kept = total - before <= scoring.occurrences
    left_out = np.bincount(group[~kept], minlength=queries * len(weight))
    weight[beam[~kept], row[~kept]] = 0.0
    beam, row, group = beam[kept], row[kept], group[kept]
    rank = np.arange(len(row))  # in all groups at once: a smaller one is heavier

    # Occurrences of each entry, found once for all beam sizes.
    rows, place = np.unique(row, return_inverse=True)
    at, position, document = index.locate(found.states[rows])
    firsts = np.searchsorted(at, np.arange(len(rows) + 1))
    sizes = np.diff(firsts)[place]
    entry = np.repeat(rank, sizes)
    inner = np.arange(len(entry)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    occurrence = np.repeat(firsts[:-1][place], sizes) + inner

    token = found.token[row]
    token = np.where(token == end_token, -1, token)
    free = _free(group[entry], position[occurrence], entry, (token >= 0).sum(axis=1), index)
    # An n-gram counts once in a document: one item for all its free occurrences.
    entry, document = entry[free], document[occurrence[free]].astype(np.int64)
    documents = int(document.max(initial=0)) + 1
    key = np.unique((group[entry] * documents + document) * max(1, len(row)) + entry)
    pair, entry = np.divmod(key, max(1, len(row)))
    fresh = _fresh(pair, entry, token, index.vocabulary)
    value = weight[beam[entry], row[entry]] ** scoring.alpha * (1 - scoring.beta * (1 - fresh))
    return Evidence(
        query=found.query[row[entry]],
        beam=beam[entry],
        row=row[entry],
        document=(pair % documents).astype(np.int32),
        value=value,
        weight=weight,
        left_out=left_out.reshape(queries, len(weight)),
    )


def _free(
    group: np.ndarray,
    position: np.ndarray,
    entry: np.ndarray,
    lengths: np.ndarray,
    index: NgramIndex,
) -> np.ndarray:
    """Which occurrences no occurrence of a heavier entry of their group overlaps."""
    sizes = lengths[entry]
    occurrence = np.repeat(np.arange(len(entry)), sizes)
    inner = np.arange(len(occurrence)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    span = sum(len(part.stream.tokens) for part in index.parts)
    place = group[occurrence] * span + position[occurrence] + inner
    order = np.lexsort((entry[occurrence], place))
    ordered = place[order]
    opens = np.append(True, ordered[1:] != ordered[:-1])[: len(order)]
    heaviest = entry[occurrence[order]][opens][np.cumsum(opens) - 1]
    taken = np.zeros(len(entry), dtype=bool)
    taken[occurrence[order][heaviest != entry[occurrence[order]]]] = True
    return ~taken


def _fresh(pair: np.ndarray, entry: np.ndarray, token: np.ndarray, vocabulary: int) -> np.ndarray:
    """Share of each item's distinct tokens that no heavier item of its document has.

    Parameters
    ----------
    pair, entry : int64[n]
        Group and document as one number, ascending, and the entry, ascending within.
    token : int64[entries, steps]
        -1 is none.
    """
    document = np.cumsum(np.append(True, pair[1:] != pair[:-1])) - 1
    tokens = np.sort(token, axis=1)
    distinct = tokens >= 0
    distinct[:, 1:] &= tokens[:, 1:] != tokens[:, :-1]
    item, step = np.nonzero(distinct[entry])
    key = document[item] * vocabulary + tokens[entry[item], step]
    _, first = np.unique(key, return_index=True)  # items stand by weight within a document
    size = len(entry)
    return np.bincount(item[first], minlength=size) / np.maximum(
        np.bincount(item, minlength=size), 1
    )


@phase("rank")
def rank_documents(
    evidence: Evidence, queries: int, beams: int, ranks: int
) -> tuple[np.ndarray, np.ndarray]:
    """The documents of each query and beam size by their score, ties by document.

    Returns
    -------
    doc : int32[queries, beams, ranks]
        -1 where there is none.
    score : float32[queries, beams, ranks]
        NaN where there is none.
    """
    group = evidence.query * beams + evidence.beam
    documents = int(evidence.document.max(initial=0)) + 1
    keys, place = np.unique(group * documents + evidence.document, return_inverse=True)
    group, document = np.divmod(keys, documents)
    # In float32, in which it is kept: what is shown as a tie is one.
    total = np.bincount(place, evidence.value, minlength=len(keys)).astype(np.float32)
    order = np.lexsort((document, -total, group))
    rank = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    order, rank = order[rank < ranks], rank[rank < ranks]
    doc = np.full((queries * beams, ranks), -1, dtype=np.int32)
    score = np.full((queries * beams, ranks), np.nan, dtype=np.float32)
    doc[group[order], rank] = document[order]
    score[group[order], rank] = total[order]
    return doc.reshape(queries, beams, ranks), score.reshape(queries, beams, ranks)
