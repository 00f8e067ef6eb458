"""The points of a cube's laws: which models and beams one law is of, and what it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.errors import InputError
from genret_dask.fits.points import Points
from genret_dask.metrics.bootstrap import bootstrap_mean

logger = logging.getLogger(__name__)


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
        Contrastive generation loss in the ratio form, and one minus the metric.
    cgl_draws, error_draws : float64[draws, model] and [draws, model, beam]
    metric : str
        The measure whose complement is the error of a search.
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
    metric: str = MAIN_METRIC

    @property
    def widest(self) -> int:
        """Column of the largest beam."""
        return int(self.beam.argmax())


def recall_of(error: np.ndarray) -> np.ndarray:
    """Give 1 less the error, without the rounding of its mean: of 1.0000000000000002 it is 0."""
    return np.round(1 - error, 12)


def pareto(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Choose the rows that no other row beats: none is as cheap and as good, and better in one.

    Parameters
    ----------
    cost, error : float64[n]
        Rows with NaN are never chosen; of equal rows the first is.

    Returns
    -------
    int array
        By rising cost, and so by falling error.

    Examples
    --------
    >>> pareto(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.5, 0.6])).tolist()
    [1, 0]
    """
    there = np.flatnonzero(np.isfinite(cost) & np.isfinite(error))
    order = there[np.lexsort((there, error[there], cost[there]))]
    if not len(order):
        return order
    lowest = np.minimum.accumulate(error[order])
    kept = np.concatenate([[True], error[order][1:] < lowest[:-1]])
    return order[kept]


def means_of(
    values: xr.Dataset, draws: int = 1000, seed: int = 0, *, metric: str = MAIN_METRIC
) -> Means:
    """Average the metrics of each query, with the same resamples for every model and metric.

    Parameters
    ----------
    values : xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    draws, seed : int
        Resamples of the queries.
    metric : str
        The measure among the values that says how good a search is.

    Raises
    ------
    InputError
        The values do not have it.
    """
    if metric not in values or "beam" not in values[metric].dims:
        known = [
            str(name) for name, one in values.items() if "beam" in one.dims and name != "flops"
        ]
        raise InputError(
            f"there is no metric {metric!r} of a search", expected=f"one of {', '.join(known)}"
        )
    values = values.transpose("model", "query", "beam")
    error = 1 - values[metric]
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
        flops=values["flops"].mean("query").values,
        cgl=values["cgl"].mean("query").values,
        error=error.mean("query").values,
        cgl_draws=bootstrap_mean(values["cgl"], draws, seed).values,
        # Weights of a resample sum to 1 but for rounding.
        error_draws=bootstrap_mean(error, draws, seed).values.clip(0, 1),
        metric=metric,
    )


def points_of(means: Means, kind: str) -> list[Points]:
    """Collect the points of every law of a cube.

    - ``L(N)``: for each family, mean CGL against non-embedding parameters, of the models at the
      family's largest train fraction.
    - ``L(D)``: for each family and N with several fractions, mean CGL against training pairs.
    - ``L(N,D)``: for each family that varies both, of all its models.
    - ``L(C)``: for each model, one minus the mean metric against mean FLOPs of a query, over the
      beam sizes. A beam below 10 returns fewer than 10 documents, which is part of what it costs
      to search with little. And for each family and for all, over the points on the frontier: those
      that no other search beats with fewer FLOPs.
    - ``L(N,D,C)``: for each family, one minus the mean metric of all models and beam sizes. Its
      third axis is C/N, the FLOPs of a query for each parameter: what a search at a given beam size
      costs grows with N, and it is the beam that makes up for a smaller model.

    A series is of one precision; those of others than fp32 have it in their names, as in
    ``t5 int8``. Series of fewer than two distinct x are left out.
    """
    found = [points for group, rows in groups_of(means) for points in _of_loss(means, group, rows)]
    found.sort(key=lambda points: ("L(N)", "L(D)", "L(N,D)").index(points.law))
    return _whole([*found, *_over_flops(means), *_over_everything(means)], kind)


def figure_points_of(means: Means, kind: str) -> list[Points]:
    """Collect the points of laws that only figures show.

    Error at the largest beam against N and D, for the models that `points_of` takes, and CGL
    against the FLOPs of a query at the largest beam.
    """
    column = means.widest
    found = []
    for group, rows in groups_of(means):
        largest = rows[means.fraction[rows] == means.fraction[rows].max()]
        for law, axis, name, same in _one_axis(means, group, rows):
            name = f"{name} beam {means.beam[column]}"
            found.append(_points(means, law, name, {axis: getattr(means, axis)}, same, column))
        found.append(_points(means, "L(C)", group, {"c": means.flops[:, column]}, largest))
    return _whole(found, kind)


def _whole(found: Iterable[Points], kind: str) -> list[Points]:
    """Those of two distinct x or more, without points that lack a value."""
    kept = []
    for points in found:
        item = points.without_gaps()
        if item.distinct > 1:
            kept.append(replace(item, facts={"identifiers": kind, **item.facts}))
        elif item.gaps:
            logger.warning("no %s of %s: %s", item.law, item.series, "; ".join(item.gaps))
    return kept


def groups_of(means: Means) -> Iterator[tuple[str, np.ndarray]]:
    """List the models that one law can be of, a family in a precision: its name and their rows."""
    for family in dict.fromkeys(means.family.tolist()):
        for precision in dict.fromkeys(means.precision.tolist()):
            rows = np.flatnonzero((means.family == family) & (means.precision == precision))
            if len(rows):
                yield family if precision == "fp32" else f"{family} {precision}", rows


def _points(
    means: Means,
    law: str,
    series: str,
    axes: Mapping[str, np.ndarray],
    rows: np.ndarray | int,
    column: int | slice | None = None,
) -> Points:
    """Points of some models: of their CGL, or of their errors at a beam or at all of them.

    An axis has a value for each model, or for each model and beam.
    """
    if column is None:
        metric, y, draws = "cgl", means.cgl[rows], means.cgl_draws[:, rows]
    else:
        metric, y = f"1 - {means.metric}", means.error[rows, column].ravel()
        draws = means.error_draws[:, rows, column].reshape(len(means.error_draws), -1)
    x = np.stack([values[rows].ravel() for values in axes.values()], axis=1)
    facts = {}
    for name, labels in (("family", means.family), ("precision", means.precision)):
        found = list(dict.fromkeys(np.atleast_1d(labels[rows]).tolist()))
        facts[name] = found[0] if len(found) == 1 else None
    return Points(law, series, metric, tuple(axes), x, y, draws, facts=facts)


def _one_axis(
    means: Means, group: str, rows: np.ndarray
) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Law, axis, name and models of a family's series over N and over D."""
    yield "L(N)", "n", group, rows[means.fraction[rows] == means.fraction[rows].max()]
    for size in np.unique(means.n[rows]):
        same = rows[means.n[rows] == size]
        if np.isfinite(means.d[same]).any():  # of ready checkpoints D may not be known
            yield "L(D)", "d", f"{group} N={size:,.0f}", same


def _of_loss(means: Means, group: str, rows: np.ndarray) -> Iterator[Points]:
    for law, axis, name, same in _one_axis(means, group, rows):
        yield _points(means, law, name, {axis: getattr(means, axis)}, same)
    rows = rows[np.isfinite(means.d[rows])]
    if len(rows) and np.ptp(means.n[rows]) > 0 and np.ptp(means.d[rows]) > 0:
        yield _points(means, "L(N,D)", group, {"n": means.n, "d": means.d}, rows)


def _over_flops(means: Means) -> Iterator[Points]:
    """Of each model over its beams, then of the frontier of each family and of all."""
    axes, beams = {"c": means.flops}, slice(None)
    for row, model in enumerate(means.model.tolist()):
        yield _points(means, "L(C)", model, axes, row, beams)
    groups = dict(groups_of(means))
    if len(groups) > 1:
        groups["all"] = np.arange(len(means.model))
    for group, rows in groups.items():
        if len(rows) > 1:
            points = _points(means, "L(C)", f"{group} frontier", axes, rows, beams)
            yield points.only(pareto(points.x[:, 0], points.y))


def _over_everything(means: Means) -> Iterator[Points]:
    everything = {
        "n": np.broadcast_to(means.n[:, None], means.flops.shape),
        "d": np.broadcast_to(means.d[:, None], means.flops.shape),
        "c/n": means.flops / means.n[:, None],
    }
    for group, rows in groups_of(means):
        axes = {axis: x for axis, x in everything.items() if np.ptp(x[rows]) > 0}
        if len(axes) > 1:
            law = f"L({','.join('C' if axis == 'c/n' else axis.upper() for axis in axes)})"
            yield _points(means, law, group, axes, rows, slice(None))
