"""A scheduler's pages while its dashboard is still to come, and where there is none."""

from __future__ import annotations

import asyncio
import sys

import pytest
from distributed import Scheduler
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


def test_without_bokeh_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what will not come; the other pages are there."""
    monkeypatch.setitem(sys.modules, "distributed.dashboard.scheduler", None)
    assert asyncio.run(statuses("/status", "/health")) == [404, 200]
