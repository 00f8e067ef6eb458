"""The candidates of the contrastive generation loss: a query's positives and sampled negatives."""

from __future__ import annotations

import hashlib

import numpy as np

from genret_dask.datasets.collection import Collection, Qrels
from genret_dask.errors import DatasetError


def select_queries(collection: Collection, split: str, limit: int | None, seed: int) -> np.ndarray:
    """Query rows of a split that have a relevant document, ascending; a seeded sample of `limit`.

    Raises
    ------
    DatasetError
        There is none.
    """
    rows = np.unique(collection.qrels[split].relevant().query)
    if not len(rows):
        raise DatasetError(
            f"the {split} split of {collection.name} has no query with a relevant document",
            expected="judgements above 0",
            fix="choose another split with inference.split",
        )
    if limit is not None and limit < len(rows):
        rows = np.sort(np.random.default_rng((seed, 3)).choice(rows, limit, replace=False))
    return rows


def build_candidates(
    collection: Collection, qrels: Qrels, queries: np.ndarray, negatives: int, seed: int
) -> dict[str, np.ndarray]:
    """Positives, then negatives, then padding, of each query.

    Negatives are a uniform sample without repeats of the documents that are not relevant; it
    depends on the seed and the query's id alone. A corpus with fewer gives all of them.

    Returns
    -------
    dict
        doc int32, is_positive bool, relevance int32; each [queries, candidates], doc -1 in the
        padding.
    """
    judged = {row: (docs, grades) for row, docs, grades in qrels.relevant().by_query()}
    most = max(len(judged[int(row)][0]) for row in queries)
    width = most + min(negatives, len(collection))
    doc = np.full((len(queries), width), -1, dtype=np.int32)
    relevance = np.zeros((len(queries), width), dtype=np.int32)
    for place, row in enumerate(queries):
        positives, grades = judged[int(row)]
        sampled = sample_negatives(
            len(collection), positives, negatives, seed, collection.query_ids[int(row)]
        )
        doc[place, : len(positives)] = positives
        relevance[place, : len(positives)] = grades
        doc[place, len(positives) : len(positives) + len(sampled)] = sampled
    used = (doc >= 0).any(axis=0)
    doc, relevance = doc[:, used], relevance[:, used]
    return {"doc": doc, "is_positive": relevance > 0, "relevance": relevance}


def sample_negatives(
    documents: int, positives: np.ndarray, count: int, seed: int, query_id: str
) -> np.ndarray:
    """`count` distinct rows of 0 .. documents that are not positive, or all of them if fewer."""
    digest = hashlib.sha256(query_id.encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng((seed, int.from_bytes(digest[:8], "little")))
    rest = documents - len(positives)
    drawn = rng.choice(rest, size=min(count, rest), replace=False, shuffle=False)
    # Number i of the documents left over is row i plus the positives at or below it.
    ordered = np.sort(positives)
    return drawn + np.searchsorted(ordered - np.arange(len(ordered)), drawn, side="right")
