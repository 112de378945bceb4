"""A Dask cluster on hosts that OpenSSH reaches and that have no Python."""
