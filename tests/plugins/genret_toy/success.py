"""Whether a relevant document is among the first ten."""

import xarray as xr

from genret_dask.metrics import gains


def success(search: xr.Dataset, contrast: xr.Dataset) -> xr.DataArray:
    """1 where it is, 0 where not, NaN where a query has none; (model, query, beam)."""
    found = (gains(search, contrast).isel(rank=slice(10)) > 0).any("rank")
    judged = (contrast["relevance"] > 0).any("candidate").reset_coords(drop=True)
    return found.where(judged).astype("float64")
