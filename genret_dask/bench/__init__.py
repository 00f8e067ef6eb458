"""Benchmarks against the code that a study would use instead; `genret-dask bench` runs them."""
