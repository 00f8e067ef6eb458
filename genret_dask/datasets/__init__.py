"""Datasets: documents, queries and relevance judgements, from docstrings, files or a catalogue.

`load` builds the collection that a spec describes and `fingerprint_of` says, without loading it,
whether it would be the same one as before.
"""

from __future__ import annotations

from genret_dask.datasets.collection import SPLITS, Collection, Qrels, summary
from genret_dask.specs import (
    BeirDataset,
    DatasetSpec,
    DprDataset,
    IrDatasetsDataset,
    PydocDataset,
)

__all__ = ["SPLITS", "Collection", "Qrels", "fingerprint_of", "load", "summary"]


def load(spec: DatasetSpec) -> Collection:
    """Load the collection that `spec` describes: a function of it and its sources alone.

    Parameters
    ----------
    spec : DatasetSpec
        One of the four kinds: pydoc, beir, dpr, ir_datasets.

    Raises
    ------
    DatasetError
        The source is missing, malformed, incomplete or empty.
    """
    match spec:
        case PydocDataset():
            from genret_dask.datasets import pydoc

            return pydoc.load(spec)
        case BeirDataset():
            from genret_dask.datasets import beir

            return beir.load(spec)
        case DprDataset():
            from genret_dask.datasets import dpr

            return dpr.load(spec)
        case IrDatasetsDataset():
            from genret_dask.datasets import irds

            return irds.load(spec)
    raise TypeError(f"{type(spec).__name__} is not a dataset spec")


def fingerprint_of(spec: DatasetSpec) -> str:
    """Return 16 hexadecimal digits over a dataset's source and settings, without loading it.

    pydoc: versions of the libraries and of Python. beir, dpr: the bytes of the files, wherever
    they lie. ir_datasets: the ids and the package's version.

    Raises
    ------
    DatasetError
        A file or a library is missing.
    """
    match spec:
        case PydocDataset():
            from genret_dask.datasets import pydoc

            return pydoc.source_fingerprint(spec)
        case BeirDataset():
            from genret_dask.datasets import beir

            return beir.source_fingerprint(spec)
        case DprDataset():
            from genret_dask.datasets import dpr

            return dpr.source_fingerprint(spec)
        case IrDatasetsDataset():
            from genret_dask.datasets import irds

            return irds.source_fingerprint(spec)
    raise TypeError(f"{type(spec).__name__} is not a dataset spec")
