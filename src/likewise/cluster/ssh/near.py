"""Behind a launch: what public indexes offer is found out, and the hub told, so that nodes need the client less.

Nobody waits for it, and what goes wrong here is no more than a note: the client has everything.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from likewise.errors import LikewiseError, NodeError
from likewise.events import Notice, Reporter
from likewise.model.digest import Digest
from likewise.model.manifest import Manifest
from likewise.model.offer import Offer
from likewise.sync import Prepared, find_offers, find_packages, remember_others
from likewise.threads import give_way
from likewise.transport.tasks import in_thread

SLOW = 10.0
"""Seconds of pushing that it takes before indexes are looked at."""

PACKED = 0.4
"""What an archive has of its layer's bytes, about."""

BYTECODE = 0.15
"""What the archive of a layer's bytecode has of the layer's bytes, about."""

_LOOK = 1.0  # seconds
_LITTLE = 1 << 20  # bytes that say nothing of a line
_T = TypeVar("_T")


class Upload(Protocol):
    """What is known here of the upload: see `likewise.transport.upload.Uploader`."""

    async def hub_status(self) -> dict[str, Any]:
        """Who has what; bytes by source."""
        ...

    async def offer(self, offers: Iterable[Offer], *, first: bool = False) -> None:
        """Tell the hub of wheels."""
        ...


class Uplink:
    """How quick the client's line is, measured. `kit` is in bytes, of all hosts together."""

    def __init__(self) -> None:
        self.kit, self._pushing = 0, 0.0

    def pushed(self, kit: int, seconds: float) -> None:
        """So many bytes of the kit went to hosts in so many seconds, before the upload."""
        self.kit, self._pushing = kit, seconds

    def rate(self, status: Mapping[str, Any]) -> float:
        """Bytes per second: of the upload, by the hub's `status`, before that of the kit; 0: nothing was measured."""
        kit = self.kit / self._pushing if self.kit >= _LITTLE and self._pushing > 0 else 0.0
        return float(status["rates"]["client"]) or kit


def bytes_left(manifest: Manifest, missing: Iterable[Digest]) -> float:
    """About how many bytes the archives of these layers have."""
    sizes: dict[Digest, float] = {}
    for ref in manifest.layers:
        sizes[ref.digest] = PACKED * ref.size
        if ref.bytecode:
            sizes[ref.bytecode] = BYTECODE * ref.size
    return sum(sizes.get(digest, 0.0) for digest in missing)


class Near:
    """Tells the hub what nodes can fetch from indexes.

    Parameters
    ----------
    upload : Upload
    prepared : Prepared
    source : str
        One of `likewise.model.report.SOURCES`.
    uplink : Uplink
    reporter : Reporter

    Attributes
    ----------
    sizes : dict of Digest to int
        Bytes of each wheel that is offered, where its index says so.
    """

    def __init__(self, upload: Upload, prepared: Prepared, source: str, uplink: Uplink, reporter: Reporter) -> None:
        self._upload, self._source, self._uplink, self._reporter = upload, source, uplink, reporter
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._others: set[Digest] = set()
        self.sizes: dict[Digest, int] = {}
        self.renew(prepared)

    def renew(self, prepared: Prepared) -> None:
        """From now on this is the environment."""
        if self._stop() is not None:
            self._asked.set()  # of what the hub has asked for, some may belong to this one
        if self._source != "client":
            self._running = asyncio.ensure_future(self._run(prepared))

    def asked(self) -> None:
        """The hub asks the client for a layer. May be called from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._asked.set)

    async def learn(self, prepared: Prepared, others: Mapping[Digest, str]) -> None:
        """Note which wheels (sha256 by layer) proved to be another layer than they were offered as."""
        if new := {layer: sha256 for layer, sha256 in others.items() if layer not in self._others}:
            self._others.update(new)
            await in_thread(remember_others, prepared, new)

    async def close(self) -> None:
        """Look for no more."""
        running = self._stop()
        if running is not None:
            await asyncio.gather(running, return_exceptions=True)

    def _stop(self) -> asyncio.Task[None] | None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        return running

    async def _run(self, prepared: Prepared) -> None:
        try:
            await self._offer(prepared.offers)
            if self._source == "auto":
                await self._until_it_takes_long(prepared)
            known = {offer.layer for offer in prepared.offers}
            await self._offer(await _behind(lambda: find_packages(prepared, known)))
            await self._offer(await _behind(lambda: find_offers(prepared, known)))
        except Exception as error:
            why = error if isinstance(error, LikewiseError) else type(error).__name__  # no text that was not thought of
            self._reporter.report(
                Notice(message=f"Nodes get everything from here. {why}", subject="indexes", severity="note")
            )

    async def _offer(self, offers: Collection[Offer]) -> None:
        self.sizes |= {offer.layer: offer.file.size for offer in offers if offer.file.size}
        if offers:
            with suppress(NodeError):  # the hub is told as soon as it can be reached
                await self._upload.offer(offers, first=self._source == "index")

    async def _until_it_takes_long(self, prepared: Prepared) -> None:
        """Wait until what the client has still to push takes longer than `SLOW`."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            with suppress(NodeError):  # it is asked again
                status = await self._upload.hub_status()
                rate, missing = self._uplink.rate(status), status["missing"]
                if rate and bytes_left(prepared.manifest, missing) / rate > SLOW:
                    return
                if not missing:
                    continue  # until it asks for something
            self._asked.set()
            await asyncio.sleep(_LOOK)


async def _behind(work: Callable[[], _T]) -> _T:
    """The result of `work`, which gives way to everything else, and for which no end of a program waits."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not done.done():
            set_outcome(outcome)

    def run() -> None:
        give_way()
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = done.set_result, work()
        except Exception as error:
            outcome = done.set_exception, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="likewise-offers", daemon=True).start()
    return await done
