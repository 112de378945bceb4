"""Layers from node to node over Dask's comms: an agent for each node, a hub that knows who has what, the upload."""
