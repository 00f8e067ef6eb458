"""The cube: every candidate's logits as one Zarr store that xarray opens."""

from genret_dask.cube.open import open_cube

__all__ = ["open_cube"]
