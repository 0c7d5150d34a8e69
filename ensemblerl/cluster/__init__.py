"""Execution on Dask: a local cluster of processes, any client, any cluster object."""
