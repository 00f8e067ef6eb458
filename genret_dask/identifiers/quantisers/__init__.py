"""Quantisers, one file each: from the embeddings of documents to a cell a level.

A quantiser is found by the entry-point group `genret_dask.quantisers` of `pyproject.toml`.
"""
