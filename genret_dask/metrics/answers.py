"""Whether retrieved passages hold an answer: the measure that looks at texts, not at judgements.

The match is DPR's, of `genret_dask.datasets.dpr.Answers`. The collection of a run directory has the
texts and the answers; a worker maps it and reads the passages that its part of the cube names, each
once.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.dpr import Answers
from genret_dask.errors import CubeError
from genret_dask.metrics.bootstrap import PARALLELIZED
from genret_dask.metrics.ranking import check_cut_off
from genret_dask.storage.artefacts import record_of

ANSWERS = "answer_hits"

CUT_OFFS = (1, 5, 20, 100)
"""What `genret-dask metrics` reports: the cut-offs of the DPR paper."""


def answer_hits(search: xr.Dataset, contrast: xr.Dataset, k: int, collection: Path) -> xr.DataArray:
    """1 if the text of one of the first `k` passages holds an answer, else 0: DPR's ``has_answer``.

    Titles are not looked at. A query that found nothing scores 0; one without answers is NaN.

    `success` asks whether a passage is judged relevant. The judgements of the dataset ``dpr`` are
    made by this very match over all passages, so that the two are equal there. They differ where
    judgements come from people, as in a BEIR folder with `answers.jsonl`. The cube holds the
    queries that have a relevant document. Top-k accuracy as DPR prints it counts the questions that
    no passage answers as misses: it is this mean times the share of questions in the cube.

    Parameters
    ----------
    search, contrast : xarray.Dataset
        The two datasets of an identifier kind; of the contrast nothing is used.
    k : int
    collection : path
        The folder `collection` of the run directory.

    Returns
    -------
    xarray.DataArray
        float64 (model, query, beam).

    Raises
    ------
    ModelError, DatasetError
        The collection is missing or damaged.
    """
    check_cut_off(ANSWERS, k)
    answers = _opened(collection, _hash_of(collection)).answers
    asked = [bool(answers.get(str(query))) for query in search["query"].values]
    hit = answered(search, collection).isel(rank=slice(k)).any("rank").astype(np.float64)
    found = hit.where(xr.DataArray(asked, dims="query"))
    return found.rename(f"{ANSWERS}@{k}").assign_attrs(long_name=f"{ANSWERS}@{k}", units="1")


def answered(search: xr.Dataset, collection: Path) -> xr.DataArray:
    """Tell of every ranked passage whether it holds an answer to its query.

    Returns
    -------
    xarray.DataArray
        bool (model, query, beam, rank).
    """
    names = np.array([str(query) for query in search["query"].values])
    return xr.apply_ufunc(
        _answered,
        search["doc"],
        xr.DataArray(names, dims="query"),
        input_core_dims=[["rank"], []],
        output_core_dims=[["rank"]],
        kwargs={
            "folder": collection,
            "content_hash": _hash_of(collection),
        },
        **{**PARALLELIZED, "output_dtypes": [np.bool_]},
    ).rename("answered")


def _answered(ranked: np.ndarray, names: np.ndarray, folder: Path, content_hash: str) -> np.ndarray:
    """ranked[..., rank] and names[...] to [..., rank]."""
    collection = _opened(folder, content_hash)
    rows, place = np.unique(ranked, return_inverse=True)
    if len(rows) and rows[-1] >= len(collection):
        raise CubeError(
            f"the cube names document row {rows[-1]}",
            expected=f"a row below {len(collection)}, the documents at {folder}",
            fix="open it beside the collection that it was made from",
        )
    asked, query = np.unique(np.broadcast_to(names, ranked.shape[:-1]), return_inverse=True)
    askers = Answers([collection.answers.get(str(name), ()) for name in asked])
    hits = [
        number * len(rows) + column
        for column, row in enumerate(rows.tolist())
        if row >= 0
        for number in askers.asked_by(collection.texts[row])
    ]
    pairs = query.reshape(ranked.shape[:-1])[..., None] * len(rows) + place.reshape(ranked.shape)
    return np.isin(pairs, np.array(hits, dtype=np.int64))


def _hash_of(folder: Path) -> str:
    return str(record_of(folder)["content_hash"])


@lru_cache(maxsize=1)
def _opened(folder: Path, content_hash: str) -> Collection:
    """Map a collection once in a process, and another of the same place again."""
    return stored.read_artefact(folder)
