"""One archive from one other agent, in chunks: bounded memory, resumable, cancelled cleanly."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any

from likewise.errors import NodeError
from likewise.model.digest import Digest
from likewise.transport.archives import Archive, Archives, Part
from likewise.transport.tasks import end, in_thread, within

CHUNK = 4 << 20
"""Bytes of one answer at most."""

IN_FLIGHT = 4
"""Chunks asked for at the same time; with `CHUNK` 16 MiB, and a copy or two of it while messages are taken apart."""

SILENCE = 8.0
"""Seconds without an answer after which a source gives way to another."""

HUB_SILENCE = 30.0
"""The same for the hub, for which there may be no other."""

_SMALLEST = 1 << 16
_FIRST = 1 << 17
_ATTEMPTS = 3  # without getting any further


class SourceFailed(NodeError):
    """This source did not give the archive; another may. `is_damaged`: what it gave was not what it had announced."""

    is_damaged = False


class SourceDamaged(SourceFailed):
    """What this source gave is wrong."""

    is_damaged = True


class Pace:
    """How much to ask for at once: as much as comes within half a second or so, more of it while that goes well."""

    def __init__(self) -> None:
        self.chunk = _FIRST
        self.window = 1

    def took(self, seconds: float) -> None:
        """Learn from the time between a question and its answer."""
        if seconds > 1.0:
            self.chunk = max(_SMALLEST, self.chunk // 2)
        elif seconds < 0.25:
            if self.chunk < CHUNK:
                self.chunk *= 2
            else:
                self.window = min(IN_FLIGHT, self.window + 1)


async def answer(question: Awaitable[Any], seconds: float) -> Any:
    """The answer to a question that was put to another agent.

    Raises
    ------
    SourceFailed
        When there is none in time, or the connection is lost.
    """
    try:
        return await within(seconds, question)
    except TimeoutError:
        raise SourceFailed(f"There was no answer within {seconds:g} seconds.") from None
    except Exception as error:  # Dask's CommClosedError, or whatever its handler raised there
        raise SourceFailed(f"The connection failed ({error or type(error).__name__}).") from error


class Fetch:
    """The transfer of one archive from one source.

    Parameters
    ----------
    peer : distributed.core.PooledRPCCall
        The source.
    archives : Archives
        Where it goes.
    digest : Digest
    silence : float
        Seconds without an answer after which this gives up.
    """

    def __init__(self, peer: Any, archives: Archives, digest: Digest, silence: float = SILENCE) -> None:
        self._silence = silence
        self._peer = peer
        self._archives = archives
        self._digest = digest
        self.received = 0
        """Bytes that came, useful or not."""

    async def run(self) -> Part | None:
        """Receive the archive. It is then the announced one, and not checked any further; the caller closes it.

        None: while this waited for another transfer of the same archive into the same cache, that one was finished.

        Raises
        ------
        SourceFailed
            When the source does not have it, does not answer, or gives something else than it had announced. What was
            received stays, and the next transfer of the same archive goes on from there.
        OSError, NodeError
            When the disk can't take it.
        """
        info = await self._info()
        part = await self._part(Digest(info["sha256"]), int(info["size"]))
        if part is None:
            return None
        try:
            await self._persist(part)
            if not part.is_announced():
                part.discard()
                raise SourceDamaged("What it sent is not the archive that it had announced.")
        except BaseException:
            part.close()
            raise
        return part

    async def _part(self, sha256: Digest, size: int) -> Part | None:
        while True:
            try:
                return await in_thread(self._archives.receive, self._digest, sha256, size)
            except BlockingIOError:  # the agent of another cluster, say, receives the same archive
                await asyncio.sleep(0.2)
            if await in_thread(self._archives.find, self._digest):
                return None

    async def _info(self) -> dict[str, Any]:
        """The source may first have to pack the archive; as long as it gets on with that, it is waited for."""
        done, since = -1, time.monotonic()
        while True:
            info = await answer(self._peer.layer_info(digest=self._digest), self._silence)
            if info is None:
                raise SourceDamaged("It does not have the layer any more.")
            if "sha256" in info:
                return dict(info)
            if info["packing"] != done:
                done, since = info["packing"], time.monotonic()
            elif time.monotonic() - since > self._silence:
                raise SourceFailed("It does not get on with packing the layer.")

    async def _persist(self, part: Part) -> None:
        """Receive the rest, over as many connections as it takes while each gets further than the one before."""
        attempt = 0
        while part.size < part.whole.size:
            before = part.size
            try:
                await self._receive(part, part.whole)
            except SourceFailed as error:
                attempt = 1 if part.size > before else attempt + 1
                if error.is_damaged or attempt >= _ATTEMPTS:
                    raise
                await asyncio.sleep(0.1 * attempt)

    async def _receive(self, part: Part, whole: Archive) -> None:
        pace, offset, size = Pace(), part.size, whole.size
        pending: deque[asyncio.Task[bytes]] = deque()
        try:
            while offset < size or pending:
                while offset < size and len(pending) < pace.window:
                    wanted = min(pace.chunk, size - offset)
                    pending.append(asyncio.create_task(self._read(offset, wanted, whole.sha256, pace)))
                    offset += wanted
                data = await pending.popleft()
                await in_thread(part.append, data)
        finally:
            await end(pending)

    async def _read(self, offset: int, size: int, sha256: str, pace: Pace) -> bytes:
        asked = time.monotonic()
        question = self._peer.layer_read(digest=self._digest, offset=offset, size=size, sha256=sha256)
        data = await answer(question, self._silence)
        pace.took(time.monotonic() - asked)
        if data is None:
            raise SourceFailed("It does not have this archive any more.")
        self.received += len(data)
        if len(data) != size:
            raise SourceDamaged("It sent another number of bytes than there should be.")
        return bytes(data) if not isinstance(data, bytes) else data
