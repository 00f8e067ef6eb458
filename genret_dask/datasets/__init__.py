"""Datasets: documents, queries and relevance judgements, from docstrings, files or a catalogue.

One file a kind: a record of its settings that loads it, found through the entry points of
`genret_dask.datasets`.
"""

from __future__ import annotations

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.beir import BeirDataset
from genret_dask.datasets.collection import SPLITS, Collection, Qrels, summary
from genret_dask.datasets.dpr import DprDataset
from genret_dask.datasets.irds import IrDatasetsDataset
from genret_dask.datasets.pydoc import PydocDataset

__all__ = [
    "SPLITS",
    "BeirDataset",
    "Collection",
    "Dataset",
    "DprDataset",
    "IrDatasetsDataset",
    "PydocDataset",
    "Qrels",
    "summary",
]
