"""Dask preload for schedulers: the dashboard comes when the scheduler already works.

Dask imports Bokeh before its scheduler listens: half a second and more that every first task would wait for. Here the
scheduler is started with ``--no-dashboard`` (its other pages are there at once), and a thread does later what
``--dashboard`` does: when workers have joined and nothing is computed, since importing keeps the scheduler's
interpreter busy, or as soon as somebody opens one of its pages, who waits that long. Without Bokeh there is no
dashboard, as with Dask itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

QUIET = 5.0
"""Seconds that workers and first tasks have the scheduler for themselves."""

LOOK = 0.5
"""Seconds from one look whether something is computed to the next."""


def dask_setup(scheduler: Any) -> None:
    """Have it follow; Dask calls this when the scheduler listens."""
    wanted, known = asyncio.Event(), asyncio.Event()
    waiting = Application([(".*", _Page, {"wanted": wanted, "known": known})])
    pages = scheduler.http_application
    pages.add_application(waiting)  # is asked for what nobody else has

    def ready(connect: Callable[..., None] | None) -> None:
        pages.applications.remove(waiting)
        try:
            if connect is not None:
                connect(pages, scheduler.http_server, scheduler, prefix="")
        finally:
            known.set()

    loop = IOLoop.current()

    async def follow() -> None:
        await _wait(wanted, QUIET)
        while not wanted.is_set() and any(worker.processing for worker in scheduler.workers.values()):
            await _wait(wanted, LOOK)
        threading.Thread(target=_bring, args=(loop, ready), name="likewise-dashboard", daemon=True).start()

    loop.add_callback(follow)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _bring(loop: IOLoop, ready: Callable[[Callable[..., None] | None], None]) -> None:
    """Import the dashboard, and hand over what brings it up, if it can be had."""
    found: Callable[..., None] | None = None
    try:
        from distributed.dashboard.scheduler import connect

        found = connect
    except ImportError:
        pass
    finally:
        loop.add_callback(ready, found)


class _Page(RequestHandler):
    """Stands for every page of the dashboard until it is there."""

    def initialize(self, wanted: asyncio.Event, known: asyncio.Event) -> None:
        self._wanted, self._known = wanted, known

    async def get(self) -> None:
        """Wait, and have whoever asks ask again."""
        self._wanted.set()
        await self._known.wait()
        self.redirect(self.request.uri or "/")
