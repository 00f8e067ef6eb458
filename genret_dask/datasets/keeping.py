"""Which documents of a larger corpus are kept: nested, so that a corpus of fewer lies within it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from genret_dask.datasets.collection import Qrels
from genret_dask.datasets.columns import Strings
from genret_dask.datasets.order import hashed
from genret_dask.errors import DatasetError


def keep_documents(
    ids: Strings, qrels: Mapping[str, Qrels], documents: int, seed: int
) -> np.ndarray:
    """Choose documents: those judged for dev and test, then for train, then others.

    Within the last two, documents go by a hash of the seed and their id, wherever they stand.

    Parameters
    ----------
    documents : int
        How many; at most those of the corpus.

    Returns
    -------
    int64[documents]
        Rows, ascending.

    Raises
    ------
    DatasetError
        More are judged for dev and test.
    """
    turn = np.full(len(ids), 2, dtype=np.int8)
    turn[qrels["train"].document] = 1
    for split in ("dev", "test"):
        turn[qrels[split].document] = 0
    if documents < (judged := int((turn == 0).sum())):
        raise DatasetError(
            f"dataset.documents is {documents:,}, and {judged:,} documents are judged for the "
            "queries of dev and test",
            expected=f"{judged:,} or more",
            fix=f"set dataset.documents: {judged}, or leave it out to keep all {len(ids):,}",
        )
    order = np.lexsort((hashed(ids.hashes, (seed, 11)), turn))
    return np.sort(order[:documents])


def only(qrels: Qrels, rows: np.ndarray) -> Qrels:
    """Keep the judgements of some documents, by their places among these; `rows` ascend."""
    kept = np.isin(qrels.document, rows)
    document = np.searchsorted(rows, qrels.document[kept])
    return Qrels.from_rows(qrels.query[kept], document, qrels.relevance[kept])
