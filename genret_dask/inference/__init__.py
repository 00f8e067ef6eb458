"""Constrained search and scoring over exported models: arrays in memory.

`genret_dask.shards.task` computes with it, and `genret_dask.cube.store.write_shard` writes.
"""
