"""Reads a cluster's YAML file, starts or reaches the cluster, and checks it before work."""

from genret_dask.clusters.client import cluster_class, connect
from genret_dask.clusters.spec import ClusterSpec, load_cluster_spec

__all__ = ["ClusterSpec", "cluster_class", "connect", "load_cluster_spec"]
