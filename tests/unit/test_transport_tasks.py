"""Waiting that can be cancelled, and how much an agent asks for at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from likewise.transport.fetch import CHUNK, IN_FLIGHT, Pace, SourceFailed, answer
from likewise.transport.tasks import end, happens, in_thread, within


def test_pace_grows_and_shrinks() -> None:
    """Quick answers make for larger pieces, and then for more of them; slow ones for smaller pieces; within bounds."""
    pace = Pace()
    for _ in range(20):
        pace.took(0.01)
    assert (pace.chunk, pace.window) == (CHUNK, IN_FLIGHT) and pace.chunk * pace.window <= 64 << 20
    for _ in range(20):
        pace.took(3.0)
    assert 0 < pace.chunk < 100_000
    pace.took(0.5)
    assert pace.chunk < 100_000


def test_cancelled_work_in_a_thread_is_waited_for() -> None:
    """When whoever waits for a thread is cancelled, again and again, the thread's work is over before that shows."""
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        over.wait(10)

    async def cancel() -> bool:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.05)
        was_done = task.done()
        over.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return was_done

    assert asyncio.run(cancel()) is False


def test_cancelled_work_in_a_thread_is_told_to_stop() -> None:
    """It may take long else."""
    told = threading.Event()

    async def cancel() -> bool:
        task = asyncio.create_task(in_thread(told.wait, 30, stop=told.set))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return told.is_set()

    assert asyncio.run(cancel())


def test_end_insists() -> None:
    """A task that swallows a cancellation is cancelled again."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    async def scenario() -> bool:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await end([task])
        return task.cancelled()

    assert asyncio.run(scenario())


def test_within_cancels_what_takes_too_long() -> None:
    """What is not done in time is cancelled and has ended when that is told; what is done in time gives its result."""
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def quick() -> int:
        return 5

    async def scenario() -> int:
        with pytest.raises(TimeoutError):
            await within(0.01, slow())
        assert ended == [True]
        return await within(10, quick())

    assert asyncio.run(scenario()) == 5


def test_happens() -> None:
    """Whether an event happens in time is told, and nothing goes on waiting for it."""

    async def scenario() -> tuple[bool, bool, int]:
        event = asyncio.Event()
        never = await happens(event, 0.01)
        asyncio.get_running_loop().call_later(0.01, event.set)
        once = await happens(event, 10)
        await asyncio.sleep(0)
        return never, once, len(asyncio.all_tasks())

    assert asyncio.run(scenario()) == (False, True, 1)


@pytest.mark.parametrize("error", [OSError("gone"), KeyError("what a handler raised there"), asyncio.TimeoutError()])
def test_whatever_goes_wrong_there_is_the_sources_failure(error: Exception) -> None:
    """No exception of another machine passes for one of this machine."""

    async def fails() -> None:
        raise error

    async def ask() -> None:
        await answer(fails(), 10)

    with pytest.raises(SourceFailed):
        asyncio.run(ask())
