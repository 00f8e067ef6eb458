"""What a report is made of: the metrics, means, laws and comparisons of a run's cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dask
import xarray as xr

from genret_dask.cube.open import kinds, open_cube
from genret_dask.fits.compare import compare_families, compare_kinds
from genret_dask.fits.fitting import Fit, fit_points
from genret_dask.fits.frontier import Choice, frontier
from genret_dask.fits.published import published_points
from genret_dask.fits.series import Means, figure_points_of, means_of
from genret_dask.fits.table import fits_of
from genret_dask.metrics.baselines import baseline_records, reduce_baselines
from genret_dask.metrics.queries import reduce_queries
from genret_dask.metrics.reported import main_metric, measure_of, measures_of
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import place_of


@dataclass(frozen=True)
class Kind:
    """One identifier kind of a cube.

    Attributes
    ----------
    name : str
    search, contrast : xarray.Dataset
        Lazy.
    values : xarray.Dataset
        The metrics of each query, in memory.
    means : Means
        Their `metric` is the measure of rankings that the page shows.
    fits : list of Fit
        The laws of `genret_dask fit`.
    more : list of Fit
        Laws that only figures show: the metric at the largest beam against N and D, CGL against C.
    """

    name: str
    search: xr.Dataset
    contrast: xr.Dataset
    values: xr.Dataset
    means: Means
    fits: list[Fit]
    more: list[Fit]

    @property
    def queries(self) -> int:
        return self.values.sizes["query"]

    @cached_property
    def families(self) -> list[dict[str, Any]]:
        return compare_families(self.means)

    @cached_property
    def frontier(self) -> list[Choice]:
        return frontier(self.means)

    def laws(self, law: str, metric: str) -> list[Fit]:
        """The fits of a name over a metric, "cgl" or one minus the metric, as "1 - recall@10"."""
        return [
            fit
            for fit in [*self.fits, *self.more]
            if fit.points.law == law and fit.points.metric == metric
        ]


@dataclass(frozen=True)
class Gathered:
    """A run's cube, reduced.

    Attributes
    ----------
    run : path
        The run directory.
    attributes : dict
        Of the cube.
    kinds : list of Kind
    baselines : list of dict
        Records of `genret_dask.metrics.baselines.baseline_records`.
    metric : str
        The measure of rankings that the page shows.
    published : list of Fit
        Of the study's published points; empty unless they were asked for.
    draws, seed : int
    """

    run: Path
    attributes: dict[Any, Any]
    kinds: list[Kind]
    baselines: list[dict[str, Any]]
    metric: str
    published: list[Fit]
    draws: int
    seed: int

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.run)

    @cached_property
    def between_kinds(self) -> list[dict[str, Any]]:
        sets = {kind.name: kind.values for kind in self.kinds}
        return compare_kinds(sets, draws=self.draws, seed=self.seed, metric=self.metric)


def gather(
    run: Path | str,
    *,
    published: bool = False,
    draws: int | None = None,
    seed: int | None = None,
    values: Mapping[str, xr.Dataset] | None = None,
    metric: str | None = None,
) -> Gathered:
    """Reduce a run's cube, in one pass over each identifier kind.

    Parameters
    ----------
    run : path
        A run directory.
    published : bool
        Fit the study's published points too.
    draws, seed : int, optional
        Resamples of the queries; those of the run's own results by default.
    values : mapping of str to xarray.Dataset, optional
        The metrics of each query by identifier kind, if they are known, so that the cube is not
        read for them.
    metric : str, optional
        A measure of rankings; the one that the collection names by default.

    Raises
    ------
    InputError
        There is no cube, or no such metric.
    CubeError
        It is not sealed.
    """
    run = place_of(run)
    tree = open_cube(RunLayout(run).cube)
    spec = tree.attrs.get("spec") or {}
    draws = (spec.get("fits") or {}).get("bootstrap", 1000) if draws is None else draws
    seed = spec.get("seed", 0) if seed is None else seed
    shown = main_metric(tree.attrs) if metric is None else metric
    measures = {**measures_of(tree), shown: measure_of(tree, shown)}
    found = []
    with dask.config.set(scheduler="threads"):
        for name, search, contrast in kinds(tree):
            known = values[name] if values else reduce_queries(search, contrast, measures)
            means = means_of(known, draws, seed, metric=shown)
            more = [fit_points(points, seed=seed) for points in figure_points_of(means, name)]
            fits = fits_of(name, known, draws, seed, metric=shown)
            found.append(Kind(name, search, contrast, known, means, fits, more))
    baselines = baseline_records(reduce_baselines(tree, {shown: measures[shown]}), draws, seed)
    overlay = [fit_points(points, seed=seed) for points in published_points()] if published else []
    return Gathered(run, tree.attrs, found, baselines, shown, overlay, draws, seed)
