"""What likewise adds to a scheduler: which environment is the current one, and emptying workers to be replaced.

A Dask preload for schedulers on nodes; `install` does the same for one that lives in the client.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection
from typing import Any

from distributed.core import Status
from distributed.protocol.pickle import dumps
from distributed.protocol.serialize import deserialize

from likewise.cluster.node_side import unstarted_tasks
from likewise.node.adopt import own_manifest

ANNOUNCEMENT = "likewise: scheduler "
"""Begins the line that tells whoever started the scheduler its address."""

_POLL = (0.05, 1.0)  # seconds between two looks at what still runs: at first, and in the end
_ANSWER = 10.0  # seconds in which a worker says what it has not begun


def dask_setup(scheduler: Any) -> None:
    """Add the handlers and say where the scheduler listens; Dask calls this when it does."""
    install(scheduler, manifest=own_manifest(), cluster=os.environ.get("LIKEWISE_CLUSTER", ""))
    print(f"{ANNOUNCEMENT}{scheduler.address}", flush=True)


def install(scheduler: Any, *, manifest: str, cluster: str = "", hub: str = "") -> None:
    """Add the handlers to a `distributed.Scheduler`.

    ``likewise_current()``
        What a worker that joins now should run: ``{"manifest": id, "cluster": id, "hub": address}``.
    ``likewise_set_current(manifest=…, cluster=…, hub=…)``
        Change any of these.
    ``likewise_drain(addresses, timeout)``
        See `drain`.
    ``likewise_resume(addresses)``
        Let drained workers work again.
    """
    current = {"manifest": manifest, "cluster": cluster, "hub": hub}

    def likewise_current() -> dict[str, str]:
        return dict(current)

    def likewise_set_current(**change: str) -> None:
        current.update({key: value for key, value in change.items() if key in current})

    async def likewise_drain(addresses: Collection[str], timeout: float) -> dict[str, list[str]]:
        return await drain(scheduler, addresses, timeout)

    def likewise_resume(addresses: Collection[str]) -> None:
        _set_status(scheduler, addresses, Status.running)

    handlers = (likewise_current, likewise_set_current, likewise_drain, likewise_resume)
    scheduler.handlers.update({handler.__name__: handler for handler in handlers})


async def drain(scheduler: Any, addresses: Collection[str], timeout: float) -> dict[str, list[str]]:
    """Give the workers no new tasks, hand what they have not begun to others, and wait for what they have begun.

    A worker that is closing gracefully begins nothing (a paused one would go on when its memory allows it).

    Parameters
    ----------
    scheduler : distributed.Scheduler
    addresses : collection of str
        Of the workers.
    timeout : float
        Seconds.

    Returns
    -------
    dict
        The tasks that still ran after that time, by address; nothing when all have ended.
    """
    deadline, pause = time.monotonic() + timeout, _POLL[0]
    _set_status(scheduler, addresses, Status.closing_gracefully)
    while True:
        await _move_unstarted(scheduler, _busy(scheduler, addresses), min(_ANSWER, deadline - time.monotonic()))
        busy = _busy(scheduler, addresses)
        if not busy or time.monotonic() >= deadline:
            return {ws.address: [str(ts.key) for ts in ws.processing] for ws in busy}
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _POLL[1])


def _busy(scheduler: Any, addresses: Collection[str]) -> list[Any]:
    known = (scheduler.workers.get(address) for address in addresses)
    return [ws for ws in known if ws is not None and ws.processing]


def _set_status(scheduler: Any, addresses: Collection[str], status: Status) -> None:
    """Change workers' status on both sides at once, as `Scheduler.retire_workers` does."""
    stimulus = f"likewise-{status.name}-{time.time()}"
    for address in addresses:
        ws = scheduler.workers.get(address)
        if ws is not None and address in scheduler.stream_comms:
            scheduler.handle_worker_status_change(status, ws, stimulus)
            scheduler.stream_comms[address].send(
                {"op": "worker-status-change", "status": status.name, "stimulus_id": stimulus}
            )


async def _move_unstarted(scheduler: Any, workers: Collection[Any], timeout: float) -> None:
    """Let the scheduler choose anew for the tasks that the workers have but did not begin.

    Only the workers know which these are. One that does not answer keeps what it has.
    """
    if not workers or timeout <= 0:
        return
    ask = {"op": "run", "function": dumps(unstarted_tasks), "wait": True}
    asked = scheduler.broadcast(msg=ask, workers=[ws.address for ws in workers], on_error="return")
    try:
        answers = await asyncio.wait_for(asked, timeout)
    except asyncio.TimeoutError:
        return
    moved: dict[Any, str] = {}
    for ws in workers:
        answer = answers.get(ws.address)
        if not isinstance(answer, dict) or answer.get("status") != "OK":
            continue
        result = answer["result"]
        for key in deserialize(result.header, result.frames):  # a scheduler leaves what it receives as it is
            ts = scheduler.tasks.get(key)
            if ts is not None and ts.processing_on is ws:
                moved[key] = "released"  # and waiting at once, since somebody wants it
    if moved:
        scheduler.transitions(moved, f"likewise-drain-{time.time()}")
