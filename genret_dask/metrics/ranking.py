"""Measures of ranked lists, as trec_eval defines them.

Each takes the cube's search and contrast datasets, most a cut-off too, and gives (model, query,
beam): lazy where the cube is lazy, and equal to what `ir_measures` computes from the files of
`genret_dask.metrics.runs`. A query that found nothing scores 0; one without relevant documents is
not evaluated and is NaN. A document is expected once in a ranking.

`genret_dask.metrics.answers` has the measure that looks at texts. To add a measure of one's own: a
function of the two datasets, as an entry point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.errors import InputError
from genret_dask.metrics.bootstrap import PARALLELIZED
from genret_dask.specs.registry import entry, names_of

Measure = Callable[[xr.Dataset, xr.Dataset], xr.DataArray]


def gains(search: xr.Dataset, contrast: xr.Dataset) -> xr.DataArray:
    """Relevance grade of every ranked document.

    Parameters
    ----------
    search : xarray.Dataset
        `doc` over (model, query, beam, rank), -1 where a rank is empty.
    contrast : xarray.Dataset
        `doc` and `relevance` over (query, candidate); holds every relevant document of a query.

    Returns
    -------
    xarray.DataArray
        int32 (model, query, beam, rank); 0 where the document is not relevant or not there.
    """
    found = xr.apply_ufunc(
        _gains,
        search["doc"],
        _bare(contrast["doc"]),
        _bare(contrast["relevance"]),
        input_core_dims=[["rank"], ["candidate"], ["candidate"]],
        output_core_dims=[["rank"]],
        **{**PARALLELIZED, "output_dtypes": [np.int32]},
    )
    return found.rename("gain").assign_attrs(long_name="relevance grade", units="1")


def recall(search: xr.Dataset, contrast: xr.Dataset, k: int) -> xr.DataArray:
    """Share of a query's relevant documents among the first `k`; ``R@k`` of ir_measures."""
    return _measure(_recall, "recall", search, contrast, k)


def mrr(search: xr.Dataset, contrast: xr.Dataset, k: int) -> xr.DataArray:
    """One over the rank of the first relevant document, 0 beyond `k`; ``RR@k``."""
    return _measure(_reciprocal_rank, "mrr", search, contrast, k)


def ndcg(search: xr.Dataset, contrast: xr.Dataset, k: int) -> xr.DataArray:
    """Normalised discounted cumulative gain of the first `k`; ``nDCG@k``.

    The gain is the grade itself and the discount ``log2(1 + rank)``, as in trec_eval
    (Järvelin and Kekäläinen, 2002); the ideal ranking is cut at `k` too.
    """
    return _measure(_ndcg, "ndcg", search, contrast, k)


def ndcg_exp(search: xr.Dataset, contrast: xr.Dataset, k: int) -> xr.DataArray:
    """`ndcg` with the gain ``2**grade - 1``; ``nDCG(gains={1: 1, 2: 3, 3: 7, ...})@k``.

    The exponential gain is that of Burges et al. (2005), as web search and learning to rank use
    it. Where all grades are 0 or 1 it equals `ndcg`.
    """
    return _measure(_ndcg_exp, "ndcg_exp", search, contrast, k)


def average_precision(search: xr.Dataset, contrast: xr.Dataset, k: int) -> xr.DataArray:
    """Precision at each relevant document of the first `k`, over all relevant ones; ``AP@k``."""
    return _measure(_average_precision, "map", search, contrast, k)


def success(search: xr.Dataset, contrast: xr.Dataset, k: int) -> xr.DataArray:
    """1 if a relevant document is among the first `k`, else 0; ``Success@k``.

    DPR (Karpukhin et al., 2020) calls its mean top-k accuracy, other papers recall or hits at k.
    """
    return _measure(_success, "success", search, contrast, k)


def r_precision(search: xr.Dataset, contrast: xr.Dataset) -> xr.DataArray:
    """Precision of the first R documents, R the number of a query's relevant ones; ``Rprec``.

    A ranking of fewer than R documents is counted as if others that are not relevant followed.
    """
    return _named(_r_precision, "r_precision", search, contrast)


FAMILIES: dict[str, Callable[..., xr.DataArray]] = {
    "recall": recall,
    "mrr": mrr,
    "ndcg": ndcg,
    "ndcg_exp": ndcg_exp,
    "map": average_precision,
    "success": success,
}
"""Measures with a cut-off: the measure ``name@k`` is ``partial(FAMILIES[name], k=k)``."""

_REPORTED = (
    *(("recall", k) for k in (1, 5, 10, 100)),
    *((name, 10) for name in ("mrr", "ndcg", "map", "ndcg_exp")),
    *(("success", k) for k in (1, 5, 20, 100)),
)


MEASURES: dict[str, Measure] = {
    **{f"{name}@{k}": partial(FAMILIES[name], k=k) for name, k in _REPORTED},
    "r_precision": r_precision,
}
"""What `genret-dask metrics` reports of a ranking, by name."""


def measures() -> dict[str, Measure]:
    """Return `MEASURES`, and those that installed packages add: entries of `genret_dask.metrics`.

    A measure is between 0 and 1, and the higher the better. One of a package that has the name of
    another takes its place.
    """
    added = {name: entry("metrics", name) for name in names_of("metrics")}
    return {**MEASURES, **added}


# --- kernels: gain[..., rank] and relevance[..., candidate] in, [...] out -----------------------


def _gains(ranked: np.ndarray, doc: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(ranked.shape[:-1], doc.shape[:-1], relevance.shape[:-1])
    gain = np.zeros((*shape, ranked.shape[-1]), dtype=np.int32)
    relevant = relevance > 0
    # A query has few relevant documents and hundreds of negatives: only theirs are compared.
    for column in np.flatnonzero(relevant.any(axis=tuple(range(relevant.ndim - 1)))):
        hit = (ranked == doc[..., column, None]) & relevant[..., column, None]
        np.copyto(gain, relevance[..., column, None], where=hit, casting="same_kind")
    return gain


def _recall(gain: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    return _share((gain[..., :k] > 0).sum(axis=-1), (relevance > 0).sum(axis=-1))


def _reciprocal_rank(gain: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    hit = gain[..., :k] > 0
    value = np.where(hit.any(axis=-1), 1.0 / (1 + hit.argmax(axis=-1)), 0.0)
    return np.where((relevance > 0).any(axis=-1), value, np.nan)


def _ndcg(gain: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    ideal = -np.sort(-np.maximum(relevance, 0), axis=-1)
    return _share(_dcg(gain[..., :k]), _dcg(ideal[..., :k]))


def _ndcg_exp(gain: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    ideal = -np.sort(-np.maximum(relevance, 0), axis=-1)
    # Over 2 to the highest grade, which no float overflows by and which leaves the ratio as it is.
    highest = ideal.max(axis=-1, keepdims=True, initial=0).astype(np.float64)
    nothing = np.exp2(-highest)
    found, best = (np.exp2(grades[..., :k] - highest) - nothing for grades in (gain, ideal))
    return _share(_dcg(found), _dcg(best))


def _success(gain: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    hit = (gain[..., :k] > 0).any(axis=-1)
    return np.where((relevance > 0).any(axis=-1), hit.astype(np.float64), np.nan)


def _r_precision(gain: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    relevant = (relevance > 0).sum(axis=-1)
    first = np.arange(gain.shape[-1]) < relevant[..., None]
    return _share(((gain > 0) & first).sum(axis=-1), relevant)


def _average_precision(gain: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    hit = gain[..., :k] > 0
    precision = np.cumsum(hit, axis=-1) / np.arange(1, hit.shape[-1] + 1)
    return _share((precision * hit).sum(axis=-1), (relevance > 0).sum(axis=-1))


def _dcg(gain: np.ndarray) -> np.ndarray:
    return (gain / np.log2(np.arange(2, gain.shape[-1] + 2))).sum(axis=-1)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return part / np.asarray(whole, dtype=np.float64)


# --- labels -------------------------------------------------------------------------------------


def _bare(values: xr.DataArray) -> xr.DataArray:
    """Without labels that are no index: xarray would read those of both sides to compare them."""
    return values.reset_coords(drop=True)


def _measure(
    kernel: Callable[..., Any], name: str, search: xr.Dataset, contrast: xr.Dataset, k: int
) -> xr.DataArray:
    check_cut_off(name, k)
    return _named(kernel, f"{name}@{k}", search, contrast, k=k)


def check_cut_off(name: str, k: int) -> None:
    """Raise `InputError` where a measure is asked for at a cut-off below 1."""
    if k < 1:
        raise InputError(f"{name}@{k} has the cut-off {k}", expected="a cut-off of 1 or more")


def _named(
    kernel: Callable[..., Any],
    name: str,
    search: xr.Dataset,
    contrast: xr.Dataset,
    **options: Any,
) -> xr.DataArray:
    values = xr.apply_ufunc(
        kernel,
        gains(search, contrast),
        _bare(contrast["relevance"]),
        input_core_dims=[["rank"], ["candidate"]],
        kwargs=options,
        **PARALLELIZED,
    )
    return values.rename(name).assign_attrs(long_name=name, units="1")
