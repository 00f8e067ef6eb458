"""Metrics: lazy reductions of the cube, each a NumPy kernel under a labelled xarray function."""

from genret_dask.metrics.answers import answer_hits
from genret_dask.metrics.contrastive import cgl, generation_loss, positive_loss
from genret_dask.metrics.precision import precision_changes
from genret_dask.metrics.ranking import (
    MEASURES,
    average_precision,
    gains,
    measures,
    mrr,
    ndcg,
    ndcg_exp,
    r_precision,
    recall,
    success,
)
from genret_dask.metrics.runs import write_qrels, write_run

__all__ = [
    "MEASURES",
    "answer_hits",
    "average_precision",
    "cgl",
    "gains",
    "generation_loss",
    "measures",
    "mrr",
    "ndcg",
    "ndcg_exp",
    "positive_loss",
    "precision_changes",
    "r_precision",
    "recall",
    "success",
    "write_qrels",
    "write_run",
]
