"""Cluster: the shards of an export, or the layers to measure, spread over worker processes with Dask."""
