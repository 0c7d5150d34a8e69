"""Where members run: here, on any pool, or in virtual time. Dask is in `ensemblerl.cluster`."""
