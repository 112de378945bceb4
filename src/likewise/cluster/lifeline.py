"""Dask preload for nodes that have the client at the other end of their standard input: they end when it ends.

It starts to watch as soon as it is imported, which Dask's commands do while they read their arguments: before a nanny
waits for a scheduler that may never come. A nanny's child imports it, too, and needs no lifeline: it has its nanny.
"""

from __future__ import annotations

import multiprocessing
import threading

from likewise.node.lifeline import watch

if multiprocessing.parent_process() is None:
    threading.Thread(target=watch, name="likewise-lifeline", daemon=True).start()
