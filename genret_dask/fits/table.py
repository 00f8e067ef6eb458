"""The first fits of a study as records: L(N), L(D), and error against inference FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr

from genret_dask.fits.laws import fit_power_law, fit_power_laws
from genret_dask.metrics.bootstrap import bootstrap_mean
from genret_dask.metrics.contrastive import cgl
from genret_dask.metrics.ranking import recall

_LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Series:
    """The points of one law.

    Attributes
    ----------
    law : str
        "L(N)", "L(D)" or "L(C)".
    family, precision, name, metric : str
        What the points have in common, and what y is.
    x, y : float64[n]
    draws : float64[draws, n]
        y in each resample of the queries.
    """

    law: str
    family: str
    precision: str
    name: str
    metric: str
    x: np.ndarray
    y: np.ndarray
    draws: np.ndarray


def first_fits(
    kind: str, search: xr.Dataset, contrast: xr.Dataset, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Fit a power law to each series of the cube; plain JSON values.

    - ``L(N)``: for each family, mean CGL (ratio form) against non-embedding parameters, of the
      models at the family's largest train fraction.
    - ``L(D)``: for each family and N with several fractions, mean CGL against training pairs.
    - ``L(C)``: for each model, 1 - mean recall@10 against the mean FLOPs of a query, over the
      beam sizes. A beam below 10 returns fewer than 10 documents, which is part of what it costs
      to search with little.

    A series is of one precision; those of others than fp32 have it in their names, as in
    ``t5 int8``. Series of fewer than two distinct x are left out. Intervals are of laws fitted to
    the same resamples of the queries; FLOPs stay those of all queries.

    Parameters
    ----------
    kind : str
        Identifier kind, the cube's group.
    search, contrast : xarray.Dataset
        The two datasets of that group, reduced in one pass.
    draws, seed : int
        Resamples of the queries.

    Returns
    -------
    list of dict
        identifiers, law, family, precision, series, metric; exponent and asymptote as
        ``{"value": float, "low": float, "high": float}`` with 95 % percentile bounds; scale, r2,
        n, warnings. None stands for a value that there is not.
    """
    loss, error = cgl(contrast), 1 - recall(search, contrast, 10)
    lazy = {
        "cgl": loss.mean("query"),
        "cgl_draws": bootstrap_mean(loss, draws, seed).transpose("draw", "model"),
        "error": error.mean("query").transpose("model", "beam"),
        "error_draws": bootstrap_mean(error, draws, seed).transpose("draw", "model", "beam"),
        "flops": search["flops"].mean("query").transpose("model", "beam"),
        **{
            name: search[name].variable
            for name in ("family", "precision", "n_params", "n_train", "train_fraction")
        },
    }
    found = {name: np.asarray(value) for name, value in dask.compute(lazy)[0].items()}
    found["model"] = np.asarray(search["model"].values)
    series = [*_over_parameters(found), *_over_pairs(found), *_over_flops(found)]
    return [
        {"identifiers": kind, **_record(_without_gaps(item))}
        for item in series
        if len(np.unique(_without_gaps(item).x)) > 1
    ]


def _groups(found: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of the models that one law can be of: a family in a precision."""
    for family in _distinct(found["family"]):
        for precision in _distinct(found["precision"]):
            rows = (found["family"] == family) & (found["precision"] == precision)
            if rows.any():
                yield family if precision == "fp32" else f"{family} {precision}", rows


def _over_parameters(found: dict[str, np.ndarray]) -> Iterator[Series]:
    for group, of_group in _groups(found):
        largest = found["train_fraction"][of_group].max()
        rows = np.flatnonzero(of_group & (found["train_fraction"] == largest))
        yield _cgl_series(found, "L(N)", group, rows, "n_params")


def _over_pairs(found: dict[str, np.ndarray]) -> Iterator[Series]:
    for group, of_group in _groups(found):
        for size in np.unique(found["n_params"][of_group]):
            rows = np.flatnonzero(of_group & (found["n_params"] == size))
            yield _cgl_series(found, "L(D)", f"{group} N={size:,}", rows, "n_train")


def _over_flops(found: dict[str, np.ndarray]) -> Iterator[Series]:
    for row, model in enumerate(found["model"]):
        yield Series(
            "L(C)",
            str(found["family"][row]),
            str(found["precision"][row]),
            str(model),
            "1 - recall@10",
            found["flops"][row],
            found["error"][row],
            found["error_draws"][:, row],
        )


def _cgl_series(
    found: dict[str, np.ndarray], law: str, name: str, rows: np.ndarray, x: str
) -> Series:
    return Series(
        law,
        str(found["family"][rows[0]]),
        str(found["precision"][rows[0]]),
        name,
        "cgl",
        found[x][rows].astype(np.float64),
        found["cgl"][rows],
        found["cgl_draws"][:, rows],
    )


def _without_gaps(series: Series) -> Series:
    """Without the points that a cube that is not sealed lacks."""
    there = np.isfinite(series.x) & np.isfinite(series.y)
    return Series(
        series.law,
        series.family,
        series.precision,
        series.name,
        series.metric,
        series.x[there],
        series.y[there],
        series.draws[:, there],
    )


def _record(series: Series) -> dict[str, Any]:
    law = fit_power_law(series.x, series.y)
    whole = series.draws[np.isfinite(series.draws).all(axis=1)]
    resampled = fit_power_laws(series.x, whole)
    fitted = np.isfinite(resampled.exponent)
    warnings = list(law.warnings)
    if np.isfinite(law.exponent) and not fitted.all():
        warnings.append(f"{int((~fitted).sum())} of {len(fitted)} resamples have no law")
    return {
        "law": series.law,
        "family": series.family,
        "precision": series.precision,
        "series": series.name,
        "metric": series.metric,
        "exponent": _estimate(law.exponent, resampled.exponent[fitted]),
        "asymptote": _estimate(law.asymptote, resampled.asymptote),
        "scale": _number(law.scale if np.isfinite(law.exponent) else math.nan),
        "r2": _number(law.r2),
        "n": law.n,
        "warnings": warnings,
    }


def _estimate(value: float, draws: np.ndarray) -> dict[str, float | None]:
    bounds = np.quantile(draws, _LEVELS) if np.isfinite(value) and len(draws) else (np.nan,) * 2
    return {"value": _number(value), "low": _number(bounds[0]), "high": _number(bounds[1])}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _distinct(values: np.ndarray) -> list[str]:
    return [str(value) for value in dict.fromkeys(values.tolist())]
