"""One of everything that can be added to genret-dask: see its docs/extending.md."""
