"""Dask clusters: their YAML files, how one is started or reached, and a look at it before work."""

from genret_dask.clusters.client import cluster_class, connect
from genret_dask.clusters.spec import ClusterSpec, load_cluster_spec

__all__ = ["ClusterSpec", "cluster_class", "connect", "load_cluster_spec"]
