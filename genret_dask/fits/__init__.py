"""Laws through the metrics, with intervals, forecasts and what speaks against them."""

from genret_dask.fits.csvpoints import read_points
from genret_dask.fits.fitting import Estimate, Fit, Forecast, Points, fit_points
from genret_dask.fits.laws import PowerLaw, fit_power_law, fit_power_laws
from genret_dask.fits.published import published_points
from genret_dask.fits.surface import Surfaces, fit_surfaces
from genret_dask.fits.table import fit_records
from genret_dask.metrics.bootstrap import bootstrap_mean, interval, resample_weights

__all__ = [
    "Estimate",
    "Fit",
    "Forecast",
    "Points",
    "PowerLaw",
    "Surfaces",
    "bootstrap_mean",
    "fit_records",
    "fit_points",
    "fit_power_law",
    "fit_power_laws",
    "fit_surfaces",
    "interval",
    "published_points",
    "read_points",
    "resample_weights",
]
