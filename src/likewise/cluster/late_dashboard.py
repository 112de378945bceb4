"""Dask preload for schedulers: the dashboard comes when the scheduler already works.

Dask imports Bokeh before its scheduler listens: half a second and more that every first task would wait for. Here the
scheduler is started with ``--no-dashboard`` (its other pages are there at once), and a thread does later what
``--dashboard`` does. Without Bokeh there is no dashboard, as with Dask itself.
"""

from __future__ import annotations

import threading
from typing import Any

from tornado.ioloop import IOLoop


def dask_setup(scheduler: Any) -> None:
    """Begin to import; Dask calls this when the scheduler listens."""
    threading.Thread(target=_bring, args=(scheduler, IOLoop.current()), name="likewise-dashboard", daemon=True).start()


def _bring(scheduler: Any, loop: IOLoop) -> None:
    try:
        from distributed.dashboard.scheduler import connect
    except ImportError:
        return
    loop.add_callback(connect, scheduler.http_application, scheduler.http_server, scheduler, prefix="")
