"""The cube: the logits of all that was searched and scored, as one Zarr store for xarray.

`schema` says what is in it, `store` writes it, `open` reads it.
"""
