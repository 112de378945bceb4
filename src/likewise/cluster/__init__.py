"""Cluster and its backends: how a node's command is started."""
