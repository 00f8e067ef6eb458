"""The cube: every candidate's logits as one Zarr store that xarray opens."""

from genret_dask.cube.open import kinds, open_cube

__all__ = ["kinds", "open_cube"]
