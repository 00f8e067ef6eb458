"""The share of the first ten documents that are relevant."""

import xarray as xr

from genret_dask.metrics import gains


def precision(search: xr.Dataset, contrast: xr.Dataset) -> xr.DataArray:
    """NaN where a query has no relevant document; (model, query, beam)."""
    found = (gains(search, contrast).isel(rank=slice(10)) > 0).sum("rank") / 10
    return found.where((contrast["relevance"] > 0).any("candidate").reset_coords(drop=True))
