"""How tasks run: one by one in this process, or on a Dask cluster that may lose any of them."""
