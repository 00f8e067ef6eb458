"""The candidates of the contrastive generation loss: a query's positives and sampled negatives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from genret_dask.datasets.collection import Collection, Qrels
from genret_dask.datasets.dpr import Answers


def select_queries(collection: Collection, split: str, limit: int | None, seed: int) -> np.ndarray:
    """Rows of a split's queries with a relevant document, the first `limit` in a seeded order.

    A larger limit has the same queries first: what was searched for them stays right.
    """
    rows = np.unique(collection.qrels[split].relevant().query)
    return np.random.default_rng((seed, 3)).permutation(rows)[:limit]


def build_candidates(
    collection: Collection,
    qrels: Qrels,
    queries: np.ndarray,
    negatives: int,
    seed: int,
    excluded: Sequence[int] = (),
    own: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Positives, then negatives, then padding, of each query.

    Negatives are a uniform sample without repeats of the documents that are not relevant and, for a
    query with answers, hold none of them; it depends on the seed and the query's id alone. A corpus
    with fewer gives all of them.

    Parameters
    ----------
    excluded : sequence of int
        Documents that are no query's negatives.
    own : int32[queries], optional
        A document of each query that is not its negative, -1 being none (see
        `genret_dask.inference.own`).

    Returns
    -------
    dict
        doc int32, is_positive bool, relevance int32; each [queries, candidates], doc -1 in the
        padding. There are as many candidates as the split's queries have at most, whichever of
        them are chosen.
    """
    judged = {row: (docs, grades) for row, docs, grades in qrels.relevant().by_query()}
    width = candidate_width(qrels, negatives, len(collection))
    without = np.asarray(excluded, dtype=np.int64)
    doc = np.full((len(queries), width), -1, dtype=np.int32)
    relevance = np.zeros((len(queries), width), dtype=np.int32)
    for place, row in enumerate(queries):
        positives, grades = judged[int(row)]
        name = collection.query_ids[int(row)]
        left_out = positives if own is None or own[place] < 0 else [*positives, own[place]]
        sampled = sample_negatives(
            len(collection),
            np.union1d(without, left_out),
            negatives,
            seed,
            name,
            partial(_with_answer, collection, name) if name in collection.answers else None,
        )
        doc[place, : len(positives)] = positives
        relevance[place, : len(positives)] = grades
        doc[place, len(positives) : len(positives) + len(sampled)] = sampled
    return {"doc": doc, "is_positive": relevance > 0, "relevance": relevance}


def candidate_width(qrels: Qrels, negatives: int, documents: int) -> int:
    """The most candidates that a query of a split can have."""
    positives = np.unique(qrels.relevant().query, return_counts=True)[1]
    return int((positives + np.minimum(negatives, documents - positives)).max())


def count_negatives(doc: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """How many negatives each query has; int64[queries].

    Parameters
    ----------
    doc : int32[queries, candidates]
        -1 is no candidate.
    is_positive : bool[queries, candidates]
    """
    return ((doc >= 0) & ~is_positive).sum(axis=-1)


def sample_negatives(
    documents: int,
    excluded: np.ndarray,
    count: int,
    seed: int,
    query_id: str,
    refused: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """`count` distinct rows of 0 .. documents that are not excluded, or all of them if fewer.

    Parameters
    ----------
    excluded : int[n]
        Distinct rows; relevant documents, above all.
    refused : callable, optional
        Gets rows and returns those among them that are no negatives either; others are drawn in
        their place, so that it sees little more than `count`.
    """
    digest = hashlib.sha256(query_id.encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng((seed, int.from_bytes(digest[:8], "little")))
    found = np.empty(0, dtype=np.int64)
    while True:
        rest = documents - len(excluded)
        size = min(count - len(found), rest)
        drawn = rng.choice(rest, size=size, replace=False, shuffle=False)
        # Number i of the documents left over is row i plus the excluded ones at or below it.
        ordered = np.sort(excluded)
        drawn += np.searchsorted(ordered - np.arange(len(ordered)), drawn, side="right")
        if refused is None or not size:
            return np.concatenate([found, drawn])
        found = np.concatenate([found, np.setdiff1d(drawn, refused(drawn), assume_unique=True)])
        if len(found) == count:
            return found
        excluded = np.concatenate([excluded, drawn])


def _with_answer(collection: Collection, query_id: str, rows: np.ndarray) -> np.ndarray:
    """Those of the documents that hold one of a query's answers."""
    answers = Answers([collection.answers[query_id]])
    held = [bool(answers.asked_by(collection.document(int(row)))) for row in rows]
    return rows[np.array(held, dtype=bool)]
