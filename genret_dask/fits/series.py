"""The points of a cube's laws: which models and beams one law is of, and what it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from genret_dask.fits.pareto import pareto
from genret_dask.fits.points import Points
from genret_dask.metrics.bootstrap import bootstrap_mean

logger = logging.getLogger(__name__)

ERROR = "recall@10"
"""The measure whose complement is the error of a search."""


@dataclass(frozen=True)
class Means:
    """Means over the queries, measured and in each resample, and what is known of the models.

    Attributes
    ----------
    model, family, precision : str array [model]
    n, d, fraction, train_flops : float64[model]
        Parameters, training pairs, share of the pairs, what training cost.
    beam : int array [beam]
    flops : float64[model, beam]
        Of a query's search, over all queries.
    cgl, error : float64[model] and [model, beam]
        Contrastive generation loss in the ratio form, and 1 - recall@10.
    cgl_draws, error_draws : float64[draws, model] and [draws, model, beam]
    """

    model: np.ndarray
    family: np.ndarray
    precision: np.ndarray
    n: np.ndarray
    d: np.ndarray
    fraction: np.ndarray
    train_flops: np.ndarray
    beam: np.ndarray
    flops: np.ndarray
    cgl: np.ndarray
    error: np.ndarray
    cgl_draws: np.ndarray
    error_draws: np.ndarray


def recall_of(error: np.ndarray) -> np.ndarray:
    """One less the error, without the rounding of its mean: of 1.0000000000000002 it is 0."""
    return np.round(1 - error, 12)


def means_of(values: xr.Dataset, draws: int = 1000, seed: int = 0) -> Means:
    """Means of the metrics of each query, with the same resamples for every model and metric.

    Parameters
    ----------
    values : xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    draws, seed : int
        Resamples of the queries.
    """
    error = (1 - values[ERROR]).transpose("model", "query", "beam")
    # A cube's texts are of a dtype that NumPy does not cast.
    texts = {
        name: np.array([str(text) for text in values[name].values.tolist()])
        for name in ("model", "family", "precision")
    }
    return Means(
        **texts,
        n=values["n_params"].values.astype(np.float64),
        d=values["n_train"].values.astype(np.float64),
        fraction=values["train_fraction"].values.astype(np.float64),
        train_flops=values["train_flops"].values.astype(np.float64),
        beam=values["beam"].values,
        flops=values["flops"].mean("query").transpose("model", "beam").values,
        cgl=values["cgl"].mean("query").values,
        error=error.mean("query").transpose("model", "beam").values,
        cgl_draws=bootstrap_mean(values["cgl"], draws, seed).transpose("draw", "model").values,
        # Weights of a resample sum to 1 but for rounding.
        error_draws=bootstrap_mean(error, draws, seed)
        .transpose("draw", "model", "beam")
        .values.clip(0, 1),
    )


def points_of(means: Means, kind: str) -> list[Points]:
    """The points of every law of a cube.

    - ``L(N)``: for each family, mean CGL against non-embedding parameters, of the models at the
      family's largest train fraction.
    - ``L(D)``: for each family and N with several fractions, mean CGL against training pairs.
    - ``L(N,D)``: for each family that varies both, of all its models.
    - ``L(C)``: for each model, 1 - mean recall@10 against the mean FLOPs of a query, over the
      beam sizes. A beam below 10 returns fewer than 10 documents, which is part of what it costs
      to search with little. And for each family and for all, over the points on the frontier: those
      that no other search beats with fewer FLOPs.
    - ``L(N,D,C)``: for each family, 1 - mean recall@10 over all models and beam sizes. Its third
      axis is C/N, the FLOPs of a query for each parameter: what a search at a given beam size costs
      grows with N, and it is the beam that makes up for a smaller model.

    A series is of one precision; those of others than fp32 have it in their names, as in
    ``t5 int8``. Series of fewer than two distinct x are left out.
    """
    found = [
        *_over_parameters(means),
        *_over_pairs(means),
        *_over_both(means),
        *_over_flops(means),
        *_over_frontiers(means),
        *_over_everything(means),
    ]
    whole = [item.without_gaps() for item in found]
    for item in whole:
        if item.gaps and item.distinct < 2:
            logger.warning("no %s of %s: %s", item.law, item.series, "; ".join(item.gaps))
    return [
        Points(**{**vars(item), "facts": {"identifiers": kind, **item.facts}})
        for item in whole
        if item.distinct > 1
    ]


def groups_of(means: Means) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of the models that one law can be of: a family in a precision."""
    for family in dict.fromkeys(means.family.tolist()):
        for precision in dict.fromkeys(means.precision.tolist()):
            rows = np.flatnonzero((means.family == family) & (means.precision == precision))
            if len(rows):
                yield family if precision == "fp32" else f"{family} {precision}", rows


def surface_axes(means: Means, rows: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The axes that some models vary, and their values: float64[model x beam, K]."""
    beams = means.flops.shape[1]
    n, d = (np.repeat(values[rows], beams) for values in (means.n, means.d))
    columns = {"n": n, "d": d, "c/n": means.flops[rows].ravel() / n}
    used = [axis for axis, column in columns.items() if np.ptp(column) > 0]
    x = np.empty((len(n), len(used)))
    for place, axis in enumerate(used):
        x[:, place] = columns[axis]
    return tuple(used), x


def _facts(means: Means, rows: np.ndarray) -> dict[str, Any]:
    families = dict.fromkeys(means.family[rows].tolist())
    precisions = dict.fromkeys(means.precision[rows].tolist())
    return {
        "family": next(iter(families)) if len(families) == 1 else None,
        "precision": next(iter(precisions)) if len(precisions) == 1 else None,
    }


def _of_loss(
    means: Means, law: str, name: str, rows: np.ndarray, axes: dict[str, np.ndarray]
) -> Points:
    return Points(
        law,
        name,
        "cgl",
        tuple(axes),
        np.stack([column[rows] for column in axes.values()], axis=1),
        means.cgl[rows],
        means.cgl_draws[:, rows],
        facts=_facts(means, rows),
    )


def _over_parameters(means: Means) -> Iterator[Points]:
    for group, rows in groups_of(means):
        largest = rows[means.fraction[rows] == means.fraction[rows].max()]
        yield _of_loss(means, "L(N)", group, largest, {"n": means.n})


def _over_pairs(means: Means) -> Iterator[Points]:
    for group, rows in groups_of(means):
        for size in np.unique(means.n[rows]):
            same = rows[means.n[rows] == size]
            yield _of_loss(means, "L(D)", f"{group} N={size:,.0f}", same, {"d": means.d})


def _over_both(means: Means) -> Iterator[Points]:
    for group, rows in groups_of(means):
        if np.ptp(means.n[rows]) > 0 and np.ptp(means.d[rows]) > 0:
            yield _of_loss(means, "L(N,D)", group, rows, {"n": means.n, "d": means.d})


def _over_flops(means: Means) -> Iterator[Points]:
    for row, model in enumerate(means.model.tolist()):
        yield Points(
            "L(C)",
            model,
            f"1 - {ERROR}",
            ("c",),
            means.flops[row][:, None],
            means.error[row],
            means.error_draws[:, row],
            facts=_facts(means, np.array([row])),
        )


def _over_frontiers(means: Means) -> Iterator[Points]:
    groups = dict(groups_of(means))
    if len(groups) > 1:
        groups["all"] = np.arange(len(means.model))
    for group, rows in groups.items():
        if len(rows) < 2:
            continue
        flops, error = means.flops[rows].ravel(), means.error[rows].ravel()
        best = pareto(flops, error)
        yield Points(
            "L(C)",
            f"{group} frontier",
            f"1 - {ERROR}",
            ("c",),
            flops[best, None],
            error[best],
            means.error_draws[:, rows].reshape(len(means.error_draws), -1)[:, best],
            facts=_facts(means, rows),
        )


def _over_everything(means: Means) -> Iterator[Points]:
    for group, rows in groups_of(means):
        axes, x = surface_axes(means, rows)
        if len(axes) < 2:
            continue
        yield Points(
            f"L({','.join('C' if axis == 'c/n' else axis.upper() for axis in axes)})",
            group,
            f"1 - {ERROR}",
            axes,
            x,
            means.error[rows].ravel(),
            means.error_draws[:, rows].reshape(len(means.error_draws), -1),
            facts=_facts(means, rows),
        )
