"""Layers over Dask comms: from node to node, and from the client to the first of them."""
