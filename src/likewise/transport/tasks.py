"""Waiting that can be cancelled at any moment, without anything going on behind one's back.

`asyncio.wait_for` is not used: up to Python 3.11 a cancellation that comes just when the other end is ready gets lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any, stop: Callable[[], object] | None = None) -> T:
    """Call a function that blocks.

    Cancelled, however often, this calls `stop` and waits for the function, so that what it uses can then be closed.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not call.done():
            with contextlib.suppress(asyncio.CancelledError):  # `end` insists
                await asyncio.wait([call])
        if not call.cancelled():
            call.exception()  # seen
        raise


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled after `seconds`.

    Raises
    ------
    TimeoutError
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        await end([task])


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event happens within `seconds`."""
    if event.is_set():
        return True
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
        return event.is_set()
    finally:
        waiting.cancel()


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended. What they raise is not of interest any more."""
    ended = set(tasks)
    pending = {task for task in ended if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)  # then again: others do use `wait_for`
    for task in ended:
        if not task.cancelled():
            task.exception()
