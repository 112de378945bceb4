"""When an agent ends: with the last process of its cluster on this node, or with whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator

from likewise.errors import LikewiseError
from likewise.node.cache import NodeCache
from likewise.node.expiry import leased_clusters, prune
from likewise.transport.tasks import happens

_LOOK = 1.0  # seconds between two looks at the leases
_IDLE = 5.0  # seconds without a living lease: a nanny restarts its worker, a worker is followed by the next
_PRUNE = 6 * 3600.0  # seconds between two looks for what has expired
_LOCK = 4.0  # seconds to wait for an agent that is just ending


async def until_unleased(cache: NodeCache, cluster: str, over: asyncio.Event) -> None:
    """Return when no living process here belongs to `cluster`: for some seconds, or once it is `over`."""
    last = time.monotonic()
    while True:
        if is_leased(cache, cluster):
            last = time.monotonic()
        elif over.is_set() or time.monotonic() - last > _IDLE:
            return
        if over.is_set():
            await asyncio.sleep(_LOOK)
        else:
            await happens(over, _LOOK)


def is_leased(cache: NodeCache, cluster: str) -> bool:
    """Whether a living process here belongs to `cluster`, or one whose cluster can't be known yet."""
    return bool(leased_clusters(cache, time.time()) & {cluster, "*"})


async def until_abandoned(fd: int = 0) -> None:
    """Return when whoever holds the other end of the pipe or socket `fd` is gone; never for anything else."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        # a thread, since making the descriptor non-blocking would do so for other processes that share it
        threading.Thread(target=_read_to_end, args=(fd, loop, ended), daemon=True).start()
    await ended.wait()


def _read_to_end(fd: int, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(fd, 1024):
            pass
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(ended.set)


async def prune_regularly(cache: NodeCache, every: float = _PRUNE) -> None:
    """Remove what has expired in the cache, for ever: a cluster may live for weeks without another start here."""
    while True:
        await asyncio.sleep(every)
        with contextlib.suppress(LikewiseError, OSError):
            await asyncio.to_thread(prune, cache)


@contextlib.contextmanager
def only_one(folder: str, cluster: str) -> Iterator[bool]:
    """Whether this process is the only agent of `cluster` here, as long as the block lasts.

    Another one may be about to end, because it saw no lease; so it is waited for a little.
    """
    fd = os.open(f"{folder}/{cluster}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    deadline = time.monotonic() + _LOCK
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
