"""Baselines: rankings of the same queries by something else than the models, one file a kind.

A kind is found by the entry-point group `genret_dask.baselines` of `pyproject.toml`; the names here
are for code that makes a study in Python.
"""

from genret_dask.baselines.base import Baseline, Rankings
from genret_dask.baselines.bm25 import Bm25Baseline
from genret_dask.baselines.dense import DenseBaseline
from genret_dask.baselines.run import RunBaseline

__all__ = ["Baseline", "Bm25Baseline", "DenseBaseline", "Rankings", "RunBaseline"]
