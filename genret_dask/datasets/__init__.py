"""Datasets: documents, queries and relevance judgements, from docstrings, files or a catalogue.

One file a kind: a record of its settings that loads it, found through the entry points of
`genret_dask.datasets`.
"""

from __future__ import annotations

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.beir import BeirDataset
from genret_dask.datasets.bigrams import BigramsDataset
from genret_dask.datasets.collection import SPLITS, Collection, Qrels
from genret_dask.datasets.columns import Strings
from genret_dask.datasets.dpr import DprDataset
from genret_dask.datasets.irds import IrDatasetsDataset
from genret_dask.datasets.kilt import KiltDataset
from genret_dask.datasets.msmarco import MsmarcoDataset
from genret_dask.datasets.pydoc import PydocDataset
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.datasets.summary import summary

__all__ = [
    "SPLITS",
    "BeirDataset",
    "BigramsDataset",
    "Collection",
    "CollectionWriter",
    "Dataset",
    "DprDataset",
    "IrDatasetsDataset",
    "KiltDataset",
    "MsmarcoDataset",
    "PydocDataset",
    "Qrels",
    "Strings",
    "summary",
]
