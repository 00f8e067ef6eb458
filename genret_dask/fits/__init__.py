"""Laws through the metrics, with bootstrap intervals."""

from genret_dask.fits.laws import PowerLaw, fit_power_law, fit_power_laws
from genret_dask.fits.table import first_fits
from genret_dask.metrics.bootstrap import bootstrap_mean, interval, resample_weights

__all__ = [
    "PowerLaw",
    "bootstrap_mean",
    "first_fits",
    "fit_power_law",
    "fit_power_laws",
    "interval",
    "resample_weights",
]
