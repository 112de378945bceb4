"""Dask preload for nodes: only the configuration that the client sent counts, not what the machine's files say.

Dask reads ``~/.config/dask`` and a few other places when it is imported, and has no switch for that. The client's
configuration comes through ``DASK_INTERNAL_INHERIT_CONFIG`` and wins wherever it says something; this module, which
Dask's commands import before they make a scheduler, nanny or worker, takes away the rest.
"""

from __future__ import annotations

import dask.config

dask.config.paths.clear()
dask.config.refresh()
