"""Losses of teacher-forced identifiers, and the contrastive generation loss (CGL).

Every function takes the cube's contrast dataset and gives a lazy DataArray where the dataset is
lazy. Values are float64, in nats. A loss that a model lacks, as in a cube that is not sealed, is
NaN, and so is every value that needs it: a sum over half the negatives is no sum.

The formulas are those of "Exploring Training and Inference Scaling Laws in Generative Retrieval"
(Cai et al., SIGIR 2025, arXiv 2503.18941).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from genret_dask.errors import InputError
from genret_dask.metrics.bootstrap import PARALLELIZED

Form = Literal["ratio", "softmax"]


def generation_loss(contrast: xr.Dataset) -> xr.DataArray:
    """Loss of each candidate: the mean of its tokens' negative log-probability.

    Of a candidate with several identifiers, as n-grams are, it is the mean of their losses.

    Parameters
    ----------
    contrast : xarray.Dataset
        With `logit` and `log_partition` over (model, query, candidate, step), or over (model,
        query, candidate, identifier, step); NaN where the identifier has no such step, or the
        candidate no such identifier.

    Returns
    -------
    xarray.DataArray
        (model, query, candidate), NaN where there is no candidate.

    Examples
    --------
    >>> dims = ("model", "query", "candidate", "step")
    >>> logit = xr.DataArray([[[[1.0, 2.0, float("nan")]]]], dims=dims)
    >>> cube = xr.Dataset({"logit": logit, "log_partition": logit + 3})
    >>> float(generation_loss(cube).item())
    3.0
    """
    inner = [dim for dim in ("identifier", "step") if dim in contrast["logit"].dims]
    loss = xr.apply_ufunc(
        _mean_loss,
        contrast["logit"],
        contrast["log_partition"],
        input_core_dims=[inner, inner],
        kwargs={"axes": len(inner)},
        **PARALLELIZED,
    )
    return _described(loss, "generation_loss", "mean negative log-probability of the tokens")


def positive_loss(contrast: xr.Dataset) -> xr.DataArray:
    """Generation loss of a query's best relevant document.

    Returns
    -------
    xarray.DataArray
        (model, query), NaN where a query has no relevant document.
    """
    loss = _over_candidates(_smallest_positive, contrast)
    return _described(loss, "positive_loss", "generation loss of the best relevant document")


def cgl(contrast: xr.Dataset, form: Form = "ratio") -> xr.DataArray:
    """Contrastive generation loss: how the positive's loss compares with the negatives'.

    With L+ the smallest generation loss among the relevant documents and S the sum of the
    negatives' losses, the ratio form is ``-log(S / (S + L+))``; a model that cannot tell the
    positive from n negatives is near ``log(1 + 1 / n)``, a better one below. The softmax form is
    ``-log(exp(-L+) / (exp(-L+) + sum of exp(-L-)))``, near ``log(1 + n)`` by chance.

    Parameters
    ----------
    contrast : xarray.Dataset
        `logit`, `log_partition`, `doc` and `is_positive`.
    form : {"ratio", "softmax"}

    Returns
    -------
    xarray.DataArray
        (model, query), NaN where a query has no relevant document or no negatives.

    Raises
    ------
    InputError
        There is no such form.
    """
    if form not in get_args(Form):
        raise InputError(
            f"the contrastive generation loss has no form {form!r}",
            expected=" or ".join(get_args(Form)),
        )
    loss = _over_candidates(_contrast, contrast, form=form)
    return _described(loss, "cgl", f"contrastive generation loss, {form} form")


def negatives(contrast: xr.Dataset) -> xr.DataArray:
    """Count the negatives of each query: (query,)."""
    sampled = (contrast["doc"] >= 0) & ~contrast["is_positive"]
    found = sampled.sum("candidate").reset_coords(drop=True).rename("negatives")
    return found.assign_attrs(long_name="sampled negatives", units="1")


# --- kernels: arrays in, arrays out, reduced along the last axis --------------------------------


def _mean_loss(logit: np.ndarray, log_partition: np.ndarray, axes: int) -> np.ndarray:
    """Mean of the losses that are there, along one last axis after another; NaN where none is."""
    loss = log_partition.astype(np.float64) - logit
    for _ in range(axes):
        present = ~np.isnan(loss)
        with np.errstate(invalid="ignore"):
            loss = np.where(present, loss, 0.0).sum(axis=-1) / present.sum(axis=-1)
    return loss


def _smallest_positive(loss: np.ndarray, doc: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    positive = is_positive & (doc >= 0)
    smallest = np.where(positive, loss, np.inf).min(axis=-1, initial=np.inf)
    return np.where(positive.any(axis=-1), smallest, np.nan)


def _contrast(loss: np.ndarray, doc: np.ndarray, is_positive: np.ndarray, form: Form) -> np.ndarray:
    negative = ~is_positive & (doc >= 0)
    best = _smallest_positive(loss, doc, is_positive)
    with np.errstate(divide="ignore", invalid="ignore"):
        if form == "ratio":
            value = np.log1p(best / np.where(negative, loss, 0.0).sum(axis=-1))
        else:
            # -log(e^-L+ / (e^-L+ + sum e^-L-)) = log(1 + sum e^(L+ - L-)) = log(e^0 + e^z).
            exponent = np.where(negative, best[..., None] - loss, -np.inf)
            z = np.logaddexp.reduce(exponent, axis=-1, initial=-np.inf)
            value = np.logaddexp(0.0, z)
    return np.where(negative.any(axis=-1), value, np.nan)


# --- labels -------------------------------------------------------------------------------------


def _over_candidates(
    kernel: Callable[..., np.ndarray], contrast: xr.Dataset, **options: Any
) -> xr.DataArray:
    return xr.apply_ufunc(
        kernel,
        generation_loss(contrast),
        contrast["doc"],
        contrast["is_positive"],
        input_core_dims=[["candidate"]] * 3,
        kwargs=options,
        **PARALLELIZED,
    )


def _described(values: xr.DataArray, name: str, long_name: str) -> xr.DataArray:
    return values.rename(name).assign_attrs(long_name=long_name, units="nat")
