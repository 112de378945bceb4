"""A scheduler's pages while its dashboard is still to come, and where there is none."""

from __future__ import annotations

import asyncio
import sys

import pytest
from distributed import Client, Event, Scheduler, Worker
from tornado.httpclient import AsyncHTTPClient

from likewise.cluster import late_dashboard


async def statuses(*paths: str) -> list[int]:
    """How a scheduler without a dashboard of its own answers for these pages."""
    async with Scheduler(port=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", dashboard=False) as scheduler:
        late_dashboard.dask_setup(scheduler)
        link = f"http://127.0.0.1:{scheduler.http_server.port}"
        ask = AsyncHTTPClient().fetch
        found = await asyncio.gather(*(ask(link + path, raise_error=False) for path in paths))
        return [answer.code for answer in found]


def test_whoever_comes_early_waits_for_it() -> None:
    """Several pages at once, asked for right away: they come, and one that is none is not found."""
    pytest.importorskip("bokeh")
    assert asyncio.run(statuses("/status", "/", "/workers", "/health", "/no-such-page")) == [200, 200, 200, 200, 404]


async def brought() -> dict[str, bool]:
    """Whether the dashboard was there while a task went on, and whether it came afterwards."""
    seen = {}
    async with (
        Scheduler(port=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", dashboard=False) as scheduler,
        Worker(scheduler.address, nthreads=1),
        Client(scheduler.address, asynchronous=True) as client,
    ):
        before = list(scheduler.http_application.applications)
        task = client.submit(lambda: Event("go").wait(60))
        while not any(worker.processing for worker in scheduler.workers.values()):
            await asyncio.sleep(0.01)
        late_dashboard.dask_setup(scheduler)
        stand_in = [page for page in scheduler.http_application.applications if page not in before]
        await asyncio.sleep(20 * late_dashboard.LOOK)
        seen["while it computes"] = stand_in[0] not in scheduler.http_application.applications
        await Event("go").set()
        await task
        while stand_in[0] in scheduler.http_application.applications:
            await asyncio.sleep(0.01)
        seen["afterwards"] = True
    return seen


def test_what_is_computed_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks for it: it waits until nothing is computed."""
    pytest.importorskip("bokeh")
    monkeypatch.setattr(late_dashboard, "QUIET", 0.01)
    monkeypatch.setattr(late_dashboard, "LOOK", 0.05)
    assert asyncio.run(brought()) == {"while it computes": False, "afterwards": True}


def test_without_bokeh_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what will not come; the other pages are there."""
    monkeypatch.setitem(sys.modules, "distributed.dashboard.scheduler", None)
    assert asyncio.run(statuses("/status", "/health")) == [404, 200]
