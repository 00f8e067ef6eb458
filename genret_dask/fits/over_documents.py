"""Laws over the size of the corpus: of runs of one study, each with another number of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.errors import InputError, listed
from genret_dask.fits.fitting import Fit, fit_points
from genret_dask.fits.points import Points
from genret_dask.fits.series import Means, means_of, recall_of
from genret_dask.fits.surface import Loss
from genret_dask.fits.table import Weights
from genret_dask.storage.fingerprint import Origin

_VARIES = (
    "name",
    "dataset.documents",
    "fits",
    *(f"inference.{name}" for name in ("batch_queries", "memory", "shard_queries", "threads")),
)
"""Settings in which runs may differ."""


class Run(NamedTuple):
    """What of a run is compared with others.

    Attributes
    ----------
    documents : int
        Of its corpus.
    values : mapping of identifier kind to xarray.Dataset
        As `genret_dask.metrics.queries.reduce_queries` gives them.
    spec : mapping
        Its study, as the cube's attributes have it.
    """

    documents: int
    values: Mapping[str, xr.Dataset]
    spec: Mapping[str, Any]


def fit_over_documents(
    runs: Sequence[Run],
    *,
    draws: int = 1000,
    seed: int = 0,
    loss: Loss = "squares",
    weights: Weights = "equal",
    metric: str = MAIN_METRIC,
) -> list[Fit]:
    """Fit laws over the number of documents M to each model, on the queries that all runs have.

    ``L(M)`` is of the mean metric at the largest beam that all runs have: it falls as M grows.
    ``L(1/M)`` is of the mean CGL, which rises: (M / M0)^a + d, of the same form over 1/M.

    Parameters
    ----------
    runs : sequence of Run
    draws, seed : int
        Resamples of the queries, the same for every run.
    loss : {"squares", "huber"}
    weights : {"equal", "variance"}
        Of the points: all alike, or one over their variance among the resamples.
    metric : str
        A measure of a ranking among the values.

    Returns
    -------
    list of Fit
        By kind of identifier and model; a model counts where runs of several M have it. Settings
        other than `dataset.documents` that differ are among the warnings.

    Raises
    ------
    InputError
        The runs have other queries, no models in common, or one M, or took models from another.
    """
    if len({run.documents for run in runs}) < 2:
        raise InputError(
            f"all runs have {runs[0].documents:,} documents",
            expected="runs of different numbers of documents",
            fix="give each run its dataset.documents",
        )
    if grown := [run for run in runs if run.spec.get("models_from") is not None]:
        raise InputError(
            f"{len(grown)} of the runs searched the models of another run, which were trained for "
            "other documents",
            expected="runs that trained their own models",
        )
    remarks = _remarks(runs)
    found = []
    for kind in dict.fromkeys(kind for run in runs for kind in run.values):
        having = [run for run in runs if kind in run.values]
        means = _means(kind, having, draws, seed, metric)
        sizes = np.array([run.documents for run in having], dtype=np.float64)
        for points in _points(kind, means, sizes):
            there = points.without_gaps()
            if there.distinct > 1:
                whole = replace(there, gaps=there.gaps + remarks)
                whole = whole.weighted_by_variance() if weights == "variance" else whole
                found.append(fit_points(whole, loss=loss, seed=seed))
    if not found:
        raise InputError(
            "no model is in runs of several numbers of documents",
            expected="models of the same name and kind of identifier",
        )
    return found


def _means(kind: str, runs: Sequence[Run], draws: int, seed: int, metric: str) -> list[Means]:
    """The means of each run over the queries that all have."""
    shared = set.intersection(*({*run.values[kind]["query"].values.tolist()} for run in runs))
    queries = [one for one in runs[0].values[kind]["query"].values.tolist() if one in shared]
    counts = [run.values[kind].sizes["query"] for run in runs]
    if not queries or len(queries) < min(counts):
        raise InputError(
            f"the runs with {kind} are of {', '.join(map(str, counts))} queries, of which they "
            f"have {len(queries)} in common",
            expected="runs over the same queries, or the first of them",
        )
    parts = (run.values[kind].sel(query=queries) for run in runs)
    return [means_of(part, draws, seed, metric=metric) for part in parts]


def _points(kind: str, means: Sequence[Means], sizes: np.ndarray) -> Iterator[Points]:
    """The points of each model: of the metric over M, then of CGL over 1/M."""
    beams = set.intersection(*({*one.beam.tolist()} for one in means))
    for model in dict.fromkeys(name for one in means for name in one.model.tolist()):
        places = [
            (one, one.model.tolist().index(model), size)
            for one, size in zip(means, sizes, strict=True)
            if model in one.model
        ]
        first, row, _ = places[0]
        facts = {
            "identifiers": kind,
            "family": str(first.family[row]),
            "precision": str(first.precision[row]),
        }
        x = np.array([[size] for *_, size in places])
        if beams:
            columns = [one.beam.tolist().index(max(beams)) for one, *_ in places]
            values = [
                (one.error[row, column], one.error_draws[:, row, column])
                for (one, row, _), column in zip(places, columns, strict=True)
            ]
            y, draws = (recall_of(np.stack(side, axis=-1)) for side in zip(*values, strict=True))
            yield Points("L(M)", model, first.metric, ("m",), x, y, draws, facts=facts)
        y = np.array([one.cgl[row] for one, row, _ in places])
        draws = np.stack([one.cgl_draws[:, row] for one, row, _ in places], axis=1)
        yield Points("L(1/M)", model, "cgl", ("1/m",), 1 / x, y, draws, facts=facts)


def _remarks(runs: Sequence[Run]) -> tuple[str, ...]:
    """What differs between the runs beside the documents, as a warning."""
    first, *others = (Origin("spec", dict(run.spec)) for run in runs)
    names = dict.fromkeys(name for one in others for name in one.differing(first.record()))
    kept = (name for name in names if not name.startswith(_VARIES))
    found = dict.fromkeys(".".join(name.split(".")[:2]) for name in kept)  # section and key
    return (f"the runs differ in {listed(list(found))}",) if found else ()
