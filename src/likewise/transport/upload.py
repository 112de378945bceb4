"""The client's upload: what the cluster lacks, each layer once, to the hub, which passes it on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from distributed.core import ConnectionPool
from distributed.security import Security

from likewise.errors import LikewiseError, NodeError
from likewise.events import StageAdvanced
from likewise.model.digest import Digest
from likewise.model.offer import Offer, encode_offers
from likewise.transport.fetch import HUB_SILENCE, Pace, SourceFailed, answer
from likewise.transport.tasks import end, in_thread

STAGE = "upload"
"""The stage that progress is reported for; its unit is bytes."""

_POLL = 40.0  # seconds; the hub keeps a question open for less
_PATIENCE = 60.0  # seconds without the hub
_SLOW = 60.0  # seconds for a chunk: a thin line with much on it


class Uploader:
    """Uploads layers for one cluster.

    Parameters
    ----------
    hub_address : str
        As it can be reached from here.
    security : distributed.Security
        The client's role is used.
    open_layer : callable
        Opens a layer's archive for reading, seekable. An OSError or a LikewiseError means that it can't be given.
    manifest : bytes
        The current manifest.
    advanced : callable, optional
        Called with a `StageAdvanced` for every piece that the hub has taken.
    damaged : callable, optional
        Called with the digest of a layer of which the hub had a damaged archive, before it is opened again: the place
        where to look at one's own, which may be sound, and else to remove it.
    name : callable, optional
        The name of a layer in progress reports.
    """

    def __init__(
        self,
        hub_address: str,
        security: Security,
        open_layer: Callable[[Digest], BinaryIO],
        manifest: bytes,
        *,
        advanced: Callable[[StageAdvanced], None] = lambda event: None,
        damaged: Callable[[Digest], None] = lambda digest: None,
        name: Callable[[Digest], str] = lambda digest: digest[:12],
    ) -> None:
        self.hub_address = hub_address
        self.sent: dict[Digest, int] = {}
        """Bytes sent for each layer, those that had to be sent again included."""
        self._arguments = security.get_connection_args("client")
        self._open, self._damaged, self._advanced, self._name = open_layer, damaged, advanced, name
        self._manifest = manifest
        self._offers: dict[Digest, Offer] = {}
        self._index_first = False
        self._pool: Any = None
        self._said = time.monotonic()

    async def run(self) -> None:
        """Upload what the hub asks for until this is cancelled.

        Raises
        ------
        NodeError
            When the hub can't be reached for a minute, or can't keep what it is sent (a full disk).
        """
        self._pool = await ConnectionPool(connection_args=self._arguments, timeout=HUB_SILENCE)
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    await self._follow(tasks)
                except SourceFailed as error:
                    if time.monotonic() - self._said > _PATIENCE:
                        raise NodeError(
                            f"The cluster's hub can't be reached. {error.what}",
                            where=self.hub_address,
                            todo="Is the scheduler's machine still there?",
                        ) from error
                    await asyncio.sleep(0.5)
        finally:
            await end(tasks.values())
            pool, self._pool = self._pool, None
            await pool.close()

    async def set_manifest(self, manifest: bytes) -> None:
        """From now on this manifest is the current one.

        Raises
        ------
        NodeError
            When the hub can't be reached.
        """
        self._manifest = manifest
        await self._call("set_manifest", data=manifest)

    async def offer(self, offers: Iterable[Offer], *, first: bool = False) -> None:
        """Tell the hub which layers nodes can have from an index. Those that were offered before stay offered.

        Parameters
        ----------
        offers : iterable of Offer
        first : bool, default False
            Whether the client is asked for them only when no node can fetch them.

        Raises
        ------
        NodeError
            When the hub can't be reached; it is told as soon as it can.
        """
        self._offers.update({offer.layer: offer for offer in offers})
        self._index_first = first
        await self._tell_offers()

    async def _tell_offers(self) -> None:
        await self._call("offers", data=encode_offers(self._offers.values()), first=self._index_first)

    async def hub_status(self) -> dict[str, Any]:
        """Bytes by source, in total and for each node; see `Hub.hub_status`.

        Raises
        ------
        NodeError
            When the hub can't be reached.
        """
        return dict(await self._call("status"))

    async def _follow(self, tasks: dict[int, asyncio.Task[None]]) -> None:
        await self._call("set_manifest", data=self._manifest)
        if self._offers:
            await self._tell_offers()
        is_new = True
        while True:
            layers = await self._call("wanted", busy=list(tasks), is_new=is_new, seconds=_POLL)
            is_new = False
            for number in [number for number, task in tasks.items() if task.done()]:
                await tasks.pop(number)
            under_way = {task.get_name(): task for task in tasks.values()}
            for layer in layers:
                digest = layer["digest"]
                if digest not in under_way:  # else the hub did not want it any more for a moment, and it goes on
                    under_way[digest] = asyncio.create_task(self._upload(digest, layer["damaged"]), name=digest)
                tasks[layer["number"]] = under_way[digest]

    async def _upload(self, digest: Digest, is_damaged: bool) -> None:
        try:
            if is_damaged:
                await in_thread(self._damaged, digest)
            file, sha256, size = await in_thread(self._opened, digest)
        except (OSError, LikewiseError):
            await self._call("cannot", digest=digest)
            return
        with contextlib.closing(file):
            await self._send(digest, file, sha256, size)

    def _opened(self, digest: Digest) -> tuple[BinaryIO, str, int]:
        """The archive, its sha256, and its size in bytes."""
        file = self._open(digest)
        try:
            return file, *_facts(file)
        except BaseException:
            file.close()
            raise

    async def _send(self, digest: Digest, file: BinaryIO, sha256: str, size: int) -> None:
        """Send the archive from where the hub has it."""
        pace, data, offset = Pace(), b"", 0
        while True:
            asked = time.monotonic()
            try:
                answered = await self._call(
                    "put", digest=digest, sha256=sha256, size=size, offset=offset, data=data, seconds=_SLOW
                )
            except SourceFailed:
                if asked - self._said > _PATIENCE:
                    raise
                await asyncio.sleep(0.3)
                pace, data = Pace(), b""  # ask how much of it is there
                continue
            if "error" in answered:
                error = answered["error"]
                raise NodeError(error["what"], where=error["where"], todo=error["todo"], details=error["details"])
            if "busy" in answered:
                await asyncio.sleep(0.5)
                data = b""
                continue
            if data:
                pace.took(time.monotonic() - asked)
                self.sent[digest] = self.sent.get(digest, 0) + len(data)
                self._advanced(StageAdvanced(stage=STAGE, amount=len(data), item=self._name(digest)))
            if answered["done"]:
                return
            offset = answered["offset"]
            try:
                data = await in_thread(_read, file, offset, pace.chunk)
            except OSError:
                await self._call("cannot", digest=digest)
                return
            if not data:
                return  # the file is shorter than it was: the hub asks again

    async def _call(self, operation: str, *, seconds: float = HUB_SILENCE, **what: Any) -> Any:
        if self._pool is None:  # it does not run
            async with ConnectionPool(connection_args=self._arguments, timeout=HUB_SILENCE) as pool:
                return await answer(getattr(pool(self.hub_address), f"hub_{operation}")(**what), seconds)
        said = await answer(getattr(self._pool(self.hub_address), f"hub_{operation}")(**what), seconds)
        self._said = time.monotonic()
        return said


def _facts(file: BinaryIO) -> tuple[str, int]:
    """sha256 and size of the archive."""
    hashed, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        hashed.update(block)
        size += len(block)
    return hashed.hexdigest(), size


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset, os.SEEK_SET)
    return file.read(size)
