"""Fit laws to the metrics, with intervals, forecasts and warnings; compare and choose by them."""

from genret_dask.fits.compare import better, compare_families, compare_kinds
from genret_dask.fits.csvpoints import read_points
from genret_dask.fits.fit_over import fit_over
from genret_dask.fits.fitting import Fit, Forecast, fit_points, fit_power_law
from genret_dask.fits.frontier import Budget, Choice, best, cheapest, frontier
from genret_dask.fits.laws import Surfaces, fit_power_laws
from genret_dask.fits.outlook import plan_record
from genret_dask.fits.over_documents import fit_over_documents
from genret_dask.fits.points import Estimate, Points
from genret_dask.fits.published import published_points
from genret_dask.fits.series import Means, means_of, pareto, points_of
from genret_dask.fits.surface import fit_surfaces
from genret_dask.fits.table import fit_records, fits_of
from genret_dask.metrics.bootstrap import bootstrap_mean, interval, resample_weights

__all__ = [
    "Budget",
    "Choice",
    "Estimate",
    "Fit",
    "Forecast",
    "Means",
    "Points",
    "Surfaces",
    "best",
    "better",
    "bootstrap_mean",
    "cheapest",
    "compare_families",
    "compare_kinds",
    "fit_over",
    "fit_over_documents",
    "fit_points",
    "fit_power_law",
    "fit_power_laws",
    "fit_records",
    "fit_surfaces",
    "fits_of",
    "frontier",
    "interval",
    "means_of",
    "pareto",
    "plan_record",
    "points_of",
    "published_points",
    "read_points",
    "resample_weights",
]
