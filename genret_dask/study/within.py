"""The documents that a search is kept to, by a file of their ids."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from genret_dask.datasets.collection import Collection
from genret_dask.errors import DatasetError, listed
from genret_dask.study.candidates import select_queries
from genret_dask.study.origins import Origins

logger = logging.getLogger(__name__)


def read_within(collection: Collection, path: Path) -> np.ndarray:
    """Read the rows of the documents that a file names, an id a line; int64[n], ascending.

    Raises
    ------
    DatasetError
        The file cannot be read, names none, or one that the collection lacks.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"inference.within: {path} cannot be read: {str(error)[:120]}",
            expected="a file of document ids, one a line",
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    rows = collection.document_ids.find(names)
    unknown = np.flatnonzero(rows < 0)
    if len(unknown) or not names:
        found = f"{len(unknown)} ids that the collection lacks: " + listed(
            [names[place] for place in unknown[:3]], of=len(unknown)
        )
        raise DatasetError(
            f"inference.within: {path} has {found if names else 'no id'}",
            expected=f"ids of documents of {collection.name}, one a line",
        )
    return np.unique(rows)


def check_within(origins: Origins) -> None:
    """Refuse documents that are not there, and tell of queries whose relevant ones are others.

    Raises
    ------
    DatasetError, SpecError
    """
    spec = origins.spec.inference
    if spec.within is None or origins.within is None or origins.within.state == "done":
        return
    collection = origins.loaded
    rows = read_within(collection, spec.within)
    queries = select_queries(collection, spec.split, spec.queries, origins.spec.seed)
    relevant = collection.qrels[spec.split].relevant()
    led = np.unique(relevant.query[np.isin(relevant.document, rows)])
    if lost := int(np.isin(queries, led, invert=True).sum()):
        logger.warning(
            "inference.within: %d of %d queries have no relevant document among the %d that are "
            "searched; each counts as one that was not found",
            lost,
            len(queries),
            len(rows),
        )
