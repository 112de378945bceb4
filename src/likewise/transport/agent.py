"""The agent of a node: fetches what its processes ask for, and serves others what was checked here.

It asks the hub for everything that a manifest needs and this cache lacks, does the transfers that the hub assigns, and
says what came of them. It decides nothing about who fetches what from whom (that is `tracker`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from distributed.security import Security

from likewise.errors import LikewiseError, NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.manifest import Manifest, decode_manifest
from likewise.model.plan import LockedFile
from likewise.node.cache import NodeCache, host_name
from likewise.node.disk import disk_error, remove_tree
from likewise.node.unpack import DamagedCopy, UnreadableCopy
from likewise.transport.archives import Archive, Archives
from likewise.transport.fetch import HUB_SILENCE, SILENCE, Fetch, SourceDamaged, SourceFailed, answer
from likewise.transport.ledger import INDEX
from likewise.transport.server import listening, own_address
from likewise.transport.serving import Serving
from likewise.transport.tasks import end, in_thread
from likewise.transport.wheels import OtherLayer, WheelFetch

POLL = 10.0
"""Seconds for which the hub keeps a question open."""

_UNREACHABLE = 60.0  # seconds without the hub after which nobody waits any longer
_AGAIN = 1.0  # seconds until the hub is tried again
_MAKERS = 2  # layers that are made of wheels at the same time
_COPIES = 5  # damaged copies of one layer, after which the node is told that there is none


class Agent:
    """One agent; an asynchronous context manager.

    Parameters
    ----------
    cache : NodeCache
        The node's cache.
    hub : str
        Address of the hub.
    security : distributed.Security
    host : str, optional
        Address to listen on; by default the one through which the hub is reached.
    port : int
    store : str, optional
        A store's directory that can be read here; its archives are served as well.
    first : sequence of str
        Names of layers that will be needed first.
    """

    role = "worker"

    def __init__(
        self,
        cache: NodeCache,
        hub: str,
        security: Security,
        *,
        host: str = "",
        port: int = 0,
        store: str = "",
        first: Sequence[str] = (),
    ) -> None:
        self.cache = cache
        self.hub = hub
        self.archives = Archives(cache, store)
        self.serving = Serving(self.archives)
        self.address = ""
        self._security, self._host, self._port = security, host, port
        self._first = tuple(first)
        self._wishes: dict[Digest, asyncio.Future[Archive]] = {}
        self._transfers: dict[int, asyncio.Task[None]] = {}  # by the hub's number
        self._origin: dict[Digest, str] = {}
        self._refusals: dict[Digest, int] = {}
        self._manifests: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._makers = asyncio.Semaphore(_MAKERS)
        self._making: defaultdict[Digest, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._scratch = f"{cache.place('tmp')}/wheels.{os.getpid()}"
        self._heard = time.monotonic()
        self.over = asyncio.Event()
        """The hub has ended, and with it the cluster."""
        self._hub_itself = ""  # its own address for itself; the way to it that is known here may lead over a forwarding

    async def __aenter__(self) -> Agent:
        handlers = {**self.serving.handlers(), **self.handlers()}
        self._server = await listening(
            handlers,
            role=self.role,
            security=self._security,
            host=self._host or own_address(self.hub),
            port=self._port,
            scratch=self.cache.place("agents"),
        )
        self.address = self._server.address
        self.hub = self.hub or self.address
        self.listens()
        self._begin(self._follow_hub())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await end([*self._tasks, *self._transfers.values()])
        remove_tree(self._scratch)
        with contextlib.suppress(LikewiseError):
            await self.tell("left", seconds=1.0)
        self._fail_all(NodeError("The node's agent ended."))
        await self.serving.close()
        await self._server.close()
        remove_tree(self._server.local_directory)  # Dask makes it, and nothing is in it

    def handlers(self) -> dict[str, Any]:
        """Further handlers of the server."""
        return {}

    def listens(self) -> None:
        """Called when the address is known."""

    # ---- what the node's processes ask for

    async def get(self, digest: Digest) -> Archive:
        """The archive of a layer, once it is here.

        Raises
        ------
        FileNotFoundError
            When nobody has it.
        NodeError
            When this machine can't keep it, there is no way to the hub, or the cluster has ended.
        """
        found = await in_thread(self.archives.find, digest)
        if found is not None:
            return found
        if self.over.is_set():
            raise NodeError("The cluster has ended.", where=self.hub)
        wish = self._wish([digest], urgent=True)[0]
        found = await in_thread(self.archives.find, digest)
        if found is not None:  # it arrived between the look and the wish, and what is there is not assigned
            self._fulfil(found)
            return found
        return await asyncio.shield(wish)

    async def manifest(self, manifest_id: Digest) -> bytes:
        """The manifest, as soon as the hub has it. From then on the layers that this cache lacks are fetched.

        Raises
        ------
        FileNotFoundError
            When the hub does not get it within a minute.
        NodeError
            When the hub can't be reached for as long.
        """
        deadline = time.monotonic() + _UNREACHABLE
        while manifest_id not in self._manifests:
            try:
                data = await self.tell("manifest", manifest_id=manifest_id, seconds=POLL + HUB_SILENCE)
            except NodeError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(1.0)
                continue
            if data is not None and digest_bytes(bytes(data)) == manifest_id:
                self._manifests[manifest_id] = bytes(data)
            elif time.monotonic() > deadline:
                raise FileNotFoundError(f"The cluster has no manifest {manifest_id[:12]}.")
        data = self._manifests[manifest_id]
        self._begin(self._prefetch(decode_manifest(data, manifest_id)))
        return data

    async def good(self, digest: Digest) -> None:
        """A process unpacked the layer from the archive here, and found nothing wrong."""
        self._refusals.pop(digest, None)

    async def bad(self, digest: Digest) -> bool:
        """A process found the archive damaged: it goes. Whether another copy may be had."""
        source = self._origin.pop(digest, self.address)
        self.serving.forget(digest)
        await in_thread(self.archives.remove, digest)
        self._refusals[digest] = self._refusals.get(digest, 0) + 1
        self._say(f"the copy of {digest[:12]} from {source} was damaged")
        # the hub may have to look at its own copy first
        await self.tell("failed", digest=digest, source=source, is_damaged=True, received=0, had=True, seconds=60.0)
        return self._refusals[digest] < _COPIES

    # ---- the hub

    async def tell(self, operation: str, *, seconds: float = HUB_SILENCE, **what: Any) -> Any:
        """Tell the hub something, or ask it.

        Raises
        ------
        SourceFailed
            When it can't be reached.
        """
        function = getattr(self._server.rpc(self.hub), f"hub_{operation}")
        if operation != "manifest":
            what["node"] = self.address
        said = await answer(function(**what), seconds)
        self._heard = time.monotonic()
        return said

    async def _follow_hub(self) -> None:
        """Do what the hub assigns, until it ends."""
        known = is_lost = False
        while True:
            try:
                if not known:
                    have = await in_thread(lambda: {*self.archives.unpacked(), *self.archives.whole()})
                    self._hub_itself = await self.tell("hello", name=host_name(), have=sorted(have))
                    await self.tell("want", digests=list(self._wishes))
                work = await self.tell("transfers", busy=list(self._transfers), seconds=POLL + HUB_SILENCE)
                if work.get("over"):
                    self.over.set()
                    self._fail_all(NodeError("The cluster has ended.", where=self.hub))
                    return
                known = not work.get("unknown")
                is_lost = False
            except (NodeError, OSError) as error:  # of the cache: it may have been removed, and is made again
                known = False
                if time.monotonic() - self._heard > _UNREACHABLE:
                    self._fail_all(NodeError("The cluster's hub can't be reached.", where=self.hub))
                if not is_lost:
                    self._say(f"nothing can be asked of the hub {self.hub}: {error}")
                is_lost = True
                await asyncio.sleep(_AGAIN)
                continue
            for digest in work.get("unavailable", ()):
                self._fail(digest, FileNotFoundError(f"Nobody in the cluster can give the layer {digest[:12]}."))
            for number, digest, source, sha256 in work.get("transfers", ()):
                if number not in self._transfers:
                    wheel = work["wheels"].get(digest) if source == INDEX else None
                    self._transfers[number] = asyncio.create_task(self._transfer(digest, source, sha256, wheel))
                    self._transfers[number].add_done_callback(partial(self._over, number))

    def _wish(self, digests: Iterable[Digest], *, urgent: bool = False) -> list[asyncio.Future[Archive]]:
        """Want these; one future for each, which ends when the layer's archive is here. `urgent`: before all others."""
        digests = list(digests)
        new = [digest for digest in digests if digest not in self._wishes]
        for digest in new:
            self._wishes[digest] = asyncio.get_running_loop().create_future()
            self._wishes[digest].add_done_callback(lambda wish: wish.cancelled() or wish.exception())  # seen
        if new or urgent:
            self._begin(self._want(digests if urgent else new, urgent))
        return [self._wishes[digest] for digest in digests]

    async def _want(self, digests: list[Digest], urgent: bool) -> None:
        """Say so until the hub has heard it, or nobody waits any longer."""
        while digests := [digest for digest in digests if digest in self._wishes]:
            with contextlib.suppress(NodeError):
                await self.tell("want", digests=digests, urgent=urgent)
                return
            await asyncio.sleep(_AGAIN)

    async def _prefetch(self, manifest: Manifest) -> None:
        """Want what the manifest needs and this machine lacks."""
        here = await in_thread(lambda: {*self.archives.unpacked(), *self.archives.whole(), *self.archives.in_kits()})
        self._wish(digest for digest in urgency(manifest, self._first) if digest not in here)

    # ---- transfers

    async def _transfer(self, digest: Digest, source: str, sha256: str, wheel: Mapping[str, Any] | None) -> None:
        """Fetch one archive and tell the hub what came of it.

        `sha256` is that of an archive known to be right; `wheel` is what the archive is to be made of.
        """
        fetch: Fetch | WheelFetch
        if wheel is not None:
            file, how = msgspec.convert(wheel["file"], LockedFile), {key: wheel[key] for key in ("size", "lowest")}
            fetch = WheelFetch(file, digest, self.archives, self._scratch, **how)
            work: Awaitable[Archive] = self._make(fetch, digest)
        else:
            is_hub = source == self._hub_itself
            peer = self._server.rpc(self.hub if is_hub else source)
            fetch = Fetch(peer, self.archives, digest, HUB_SILENCE if is_hub else SILENCE)
            work = self._receive(fetch, digest, sha256)
        try:
            archive = await work
        except SourceFailed as error:
            self._say(f"{digest[:12]} from {source}: {error.what}")
            what = {"is_damaged": error.is_damaged, "is_other": isinstance(error, OtherLayer), "had": False}
            await self._report("failed", digest=digest, source=source, received=fetch.received, **what)
        except Exception as error:
            await self._cannot_keep(digest, error, fetch.received)
        else:
            self._origin[digest] = source
            self._fulfil(archive)
            await self._report(
                "have", digest=digest, source=source, sha256=archive.sha256, size=archive.size, received=fetch.received
            )

    def _over(self, number: int, task: asyncio.Task[None]) -> None:
        self._transfers.pop(number, None)

    async def _make(self, fetch: WheelFetch, digest: Digest) -> Archive:
        async with self._making[digest]:  # told twice: the hub forgot that this runs
            archive = await in_thread(self.archives.find, digest)
            if archive is not None:
                return archive
            async with fetch:
                await fetch.download()
                async with self._makers:
                    await self._report("received", digest=digest, received=fetch.received)
                    return await fetch.make()

    async def _receive(self, fetch: Fetch, digest: Digest, sha256: str) -> Archive:
        archive = await in_thread(self.archives.find, digest)
        if archive is not None:
            return archive
        part = await fetch.run()
        if part is None:
            archive = await in_thread(self.archives.find, digest)
            if archive is None:
                raise SourceFailed("It came from elsewhere, and was removed at once.")
            return archive
        try:
            if part.whole.sha256 != sha256:  # nobody vouches for it: it is read through before others get it
                await self._report("received", digest=digest)
                await in_thread(self.archives.check, part.archive)
            return part.publish()
        except (DamagedCopy, UnreadableCopy) as error:
            part.discard()
            raise SourceDamaged(error.what) from error
        finally:
            part.close()

    async def _report(self, operation: str, **what: Any) -> None:
        """Tell the hub; when it can't be reached, it learns the state of things when it can."""
        with contextlib.suppress(NodeError):
            await self.tell(operation, **what)

    async def _cannot_keep(self, digest: Digest, error: Exception, received: int) -> None:
        """The fault is this machine's: whoever waits for the layer hears it, and nobody else is asked."""
        if isinstance(error, OSError):
            error = disk_error(error, f"{host_name()}, in {self.cache.root}")
        elif not isinstance(error, LikewiseError):
            error = NodeError(f"The node's agent failed ({error!r}).", where=host_name())
        self._say(f"{digest[:12]} can't be kept: {error}")
        self._fail(digest, error)
        await self._report("gave_up", digest=digest, received=received)

    def _fulfil(self, archive: Archive) -> None:
        wish = self._wishes.pop(archive.digest, None)
        if wish is not None and not wish.done():
            wish.set_result(archive)

    def _fail(self, digest: Digest, error: Exception) -> None:
        wish = self._wishes.pop(digest, None)
        if wish is not None and not wish.done():
            wish.set_exception(error)

    def _fail_all(self, error: Exception) -> None:
        for digest in list(self._wishes):
            self._fail(digest, error)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, what: str) -> None:
        with contextlib.suppress(OSError):  # the log may lie on the very disk that is full
            sys.stderr.write(f"likewise agent: {what}\n")


def urgency(manifest: Manifest, first: Sequence[str] = ()) -> list[Digest]:
    """The digests of a manifest in the order in which they are best fetched, each once.

    The layers named `first` come first, each with its bytecode, then the largest. Who starts before everything is there
    asks for the outline at once and waits; nobody else needs it.
    """
    places = {name: place for place, name in reversed(list(enumerate(first)))}
    ranked: list[tuple[int, int, Digest]] = []
    for ref in manifest.layers:
        place = places.get(ref.name, len(first))
        ranked.append((place, -ref.size, ref.digest))
        if ref.bytecode:
            ranked.append((place, -ref.size // 4, ref.bytecode))
    return list(dict.fromkeys(digest for _, _, digest in sorted(ranked)))
