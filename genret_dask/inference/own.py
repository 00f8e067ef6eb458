"""A query's own document: the one with the query's id, as collections of arguments and duplicates
have them (ArguAna, Quora).

It would be found at the first rank by any model that works, and nobody judged it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from genret_dask.cube.schema import Variable
from genret_dask.datasets.collection import Collection, Qrels

logger = logging.getLogger(__name__)

_NAMED = 5


def own_documents(
    collection: Collection, qrels: Qrels, queries: np.ndarray, ignore: bool | None
) -> np.ndarray:
    """The documents that are left out of each query's ranking and negatives; int32[queries].

    Parameters
    ----------
    qrels : Qrels
        A document that is relevant to the query is never left out.
    queries : int64[queries]
        Rows of the collection's queries.
    ignore : bool, optional
        True leaves out every document with the query's id, False none; by default one whose text,
        with its title or without, is also the query's, up to white space.

    Returns
    -------
    int32[queries]
        Collection rows, -1 where there is none.
    """
    own = np.full(len(queries), -1, dtype=np.int32)
    if ignore is False:
        return own
    twins = collection.document_ids.find(collection.query_ids.take(queries))
    same = sorted((int(twins[place]), int(place)) for place in np.flatnonzero(twins >= 0))
    relevant = qrels.relevant()
    mine = np.isin(relevant.document, [document for document, _ in same])
    judged = {*zip(relevant.query[mine].tolist(), relevant.document[mine].tolist(), strict=True)}
    others = []
    for document, place in same:
        if (int(queries[place]), document) in judged:
            continue
        if ignore or _same_text(collection, int(queries[place]), document):
            own[place] = document
        else:
            others.append(collection.document_ids[document])
    if others:
        logger.warning(
            "%d of %d queries have the id of a document of another text (%s): they stay in the "
            "rankings; inference.ignore_identical_ids: true leaves them out, false says that ids "
            "mean nothing",
            len(others),
            len(queries),
            ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else ""),
        )
    if found := int((own >= 0).sum()):
        logger.info("%d of %d queries have a document of their own, left out", found, len(queries))
    return own


def _same_text(collection: Collection, query: int, document: int) -> bool:
    words = collection.queries[query].split()
    return words in (collection.document(document).split(), collection.texts[document].split())


def without_own(
    arrays: Mapping[str, np.ndarray], variables: Mapping[str, Variable], own: np.ndarray
) -> dict[str, np.ndarray]:
    """Take each query's own document out of its rankings; those behind it move up a rank.

    Parameters
    ----------
    arrays : dict of str to array[queries, ...]
        Of a search; those without ranks stay as they are.
    variables : dict of str to Variable
        Their descriptions in the cube, with `model` as the first dimension.
    own : int32[queries]
        -1 is none.
    """
    found = (arrays["doc"] == own[:, None, None]) & (own >= 0)[:, None, None]
    if not found.any():
        return dict(arrays)
    order = np.argsort(found, axis=-1, kind="stable")
    emptied = np.take_along_axis(found, order, axis=-1)
    return {
        name: _moved(array, order, emptied, variables[name].fill)
        if "rank" in variables[name].dims
        else array
        for name, array in arrays.items()
    }


def _moved(array: np.ndarray, order: np.ndarray, emptied: np.ndarray, fill: float) -> np.ndarray:
    inner = (..., *[None] * (array.ndim - order.ndim))
    moved = np.take_along_axis(array, order[inner], axis=order.ndim - 1)
    moved[emptied] = fill
    return moved
