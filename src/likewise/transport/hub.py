"""The hub: the agent beside the scheduler. It knows who has what, assigns transfers, and receives the client's upload.

The decisions are the tracker's; here are the questions and answers. A question that has no answer yet is kept open for
some seconds, each by a task of its own, so no node waits for another. Nothing that is lost on the way matters: whoever
asks says what it is at, and hears again what it has missed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from distributed.security import Security

from likewise.errors import LikewiseError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.manifest import Manifest
from likewise.model.offer import decode_offers
from likewise.model.plan import LockedFile
from likewise.node.cache import NodeCache, host_name
from likewise.transport.agent import POLL, Agent
from likewise.transport.archives import Archive
from likewise.transport.ledger import CLIENT, INDEX
from likewise.transport.rates import Meter
from likewise.transport.receiving import Receiving
from likewise.transport.tasks import happens, in_thread
from likewise.transport.tracker import Tracker, Transfer
from likewise.transport.wheels import is_public, site_of

_GONE = 10.0  # seconds without a question after which a node counts as gone
_LOOK = 2.0
_ENOUGH = 1 << 20  # bytes from the client that say how quickly they come
_FAREWELL = 0.1  # seconds for the last answers to get away


class _Member:
    """A node as the hub knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes: defaultdict[str, int] = defaultdict(int)
        self.have: set[Digest] = set()
        self.wants: dict[Digest, None] = {}
        self.work: dict[Digest, tuple[int, Transfer]] = {}  # with a number, since a layer may be assigned again
        self.lost: list[Digest] = []  # can't be had; not said yet
        self.told: set[Digest] = set()  # said
        self.asking = 0
        self.heard = time.monotonic()
        self.news = asyncio.Event()


class Hub(Agent):
    """The agent beside the scheduler; see `Agent` for the parameters."""

    role = "scheduler"

    def __init__(
        self,
        cache: NodeCache,
        security: Security,
        *,
        host: str,
        port: int = 0,
        store: str = "",
        first: Sequence[str] = (),
    ) -> None:
        super().__init__(cache, "", security, host=host, port=port, store=store, first=first)
        self._members: dict[str, _Member] = {}
        self._bytes: defaultdict[str, int] = defaultdict(int)
        self._vouched: dict[Digest, str] = {}
        self._looked: set[Digest] = set()
        self._stored: set[Digest] = set()
        self._wheels: dict[Digest, LockedFile] = {}
        self._sizes: dict[Digest, int] = {}
        self._given: dict[Digest, str] = {}
        self._others: dict[Digest, str] = {}
        self._from_client, self._from_index = Meter(_ENOUGH), Meter(1)
        self._numbers = itertools.count(1)
        self._ends = False
        self._current = ""
        self._manifest_news = asyncio.Event()
        self._receiving = Receiving(self.archives, self._took, self._arrived, self._refused, POLL)

    def listens(self) -> None:
        """The hub takes part from here on."""
        self._tracker = Tracker(self.address)
        self._members[self.address] = _Member(host_name())
        self._begin(self._watch())

    async def __aexit__(self, *exception: object) -> None:
        self._ends = True
        for member in self._members.values():
            member.news.set()
        await asyncio.sleep(_FAREWELL)
        await super().__aexit__(*exception)
        self._receiving.close()

    def handlers(self) -> dict[str, Any]:
        """Everything here that begins with ``hub_``."""
        return {name: getattr(self, name) for name in dir(type(self)) if name.startswith("hub_")}

    # ---- what nodes say

    async def hub_hello(self, node: str, name: str, have: list[Digest]) -> str:
        """A node is here and has these layers. Returns the hub's own address, which the node may know by another."""
        known = self._members.get(node)
        member = known if known and node == self.address else _Member(name)
        if known and known is not member:
            member.bytes = known.bytes
            self._forget_work(node, known)
        self._members[node] = member
        member.have.update(have)
        self._tracker.joined(node, have)
        self._assign()
        return self.address

    async def hub_want(self, node: str, digests: list[Digest], urgent: bool = False) -> None:
        """A node wants these layers, the most urgent first; `urgent`: a process waits for them."""
        member = self._members.get(node)
        if member is None:
            return
        await self._look_into_store(digests)
        member.wants.update(dict.fromkeys(digests))
        for digest in member.have.intersection(digests):
            found = await in_thread(self.archives.find, digest) if node == self.address else None
            if found is not None:  # it came while the wish was on its way
                self._fulfil(found)
            else:  # it was there, and has been removed since
                self._lacks(node, digest)
        if not member.told.isdisjoint(digests):  # it heard that they can't be had, and tries again: so does the client
            member.told.difference_update(digests)
            self._tracker.client_can(None)
        self._tracker.want(node, digests, urgent=urgent)
        self._assign()

    async def hub_transfers(self, node: str, busy: list[int]) -> dict[str, Any]:
        """What a node should fetch besides the transfers with the numbers `busy`; waits for some seconds for it.

        Returns
        -------
        dict
            ``transfers``: number, digest, source, and sha256 of the right archive ("" when not known) of each;
            ``wheels``: by digest, for those whose source is an index, ``file`` (a `LockedFile`), ``size`` (bytes of
            the layer's content, 0 when not known) and ``lowest`` (bytes per second with which the index has failed);
            ``unavailable``: digests that nobody can give; ``unknown``: the node has to say hello first; ``over``: the
            hub ends, and with it the cluster.
        """
        member = self._members.get(node)
        if member is None:
            return {"unknown": True}
        deadline = time.monotonic() + POLL
        member.asking += 1
        try:
            while not self._ends:
                new = [(number, t) for number, t in member.work.values() if number not in busy]
                left = deadline - time.monotonic()
                if new or member.lost or left <= 0:
                    lost, member.lost = member.lost, []
                    transfers = [(n, t.digest, t.source, self._vouched.get(t.digest, "")) for n, t in new]
                    return {"transfers": transfers, "wheels": self._wheels_of(new), "unavailable": lost}
                member.news.clear()
                await happens(member.news, left)
            return {"over": True}
        finally:
            member.asking -= 1
            member.heard = time.monotonic()

    async def hub_received(self, node: str, digest: Digest, received: int = 0) -> None:
        """A node has all bytes of a layer and checks them. `received`: bytes of a wheel."""
        self._fetched(node, digest, received)
        self._tracker.received(node, digest)
        self._assign()

    async def hub_have(self, node: str, digest: Digest, source: str, sha256: str, size: int, received: int) -> None:
        """A node has a layer that was checked."""
        self._fetched(node, digest, 0)
        kind = self._count(node, digest, source, received)
        if kind != "peer":
            self._given.setdefault(digest, kind)
        member = self._members.get(node)
        if member is None:
            return
        member.have.add(digest)
        member.wants.pop(digest, None)
        member.work.pop(digest, None)
        self._vouched.setdefault(digest, sha256)
        self._tracker.have(node, digest)
        self._assign()

    async def hub_failed(
        self,
        node: str,
        digest: Digest,
        source: str,
        is_damaged: bool,
        received: int,
        had: bool,
        is_other: bool = False,
    ) -> None:
        """A transfer failed.

        `had`: the node had said before that it has the layer, and was wrong. `is_other`: the wheel is another layer.
        """
        self._fetched(node, digest, 0)
        if is_other and digest in self._wheels:
            self._others[digest] = self._wheels[digest].sha256
        self._count(node, digest, source, received)
        member = self._members.get(node)
        if member is None:
            return
        if digest in member.work and member.work[digest][1].source == source:  # else it is assigned anew by now
            del member.work[digest]
        if had:
            member.have.discard(digest)
            self._vouched.pop(digest, None)
            if node == self.address:
                source = self.address
            else:
                self._rejoin(node, member)
        if is_damaged and source == self.address:
            is_damaged = await self._is_damaged(digest)
        if source != node or node == self.address:
            self._tracker.failed(node, digest, source, is_damaged)
        self._assign()

    async def hub_gave_up(self, node: str, digest: Digest, received: int) -> None:
        """A node can't keep a layer, and does not want it any more."""
        self._fetched(node, digest, 0)
        self._count(node, digest, "", received)
        member = self._members.get(node)
        if member is not None:
            member.wants.pop(digest, None)
            if node == self.address:
                member.work.pop(digest, None)
                self._tracker.gave_up(digest)
            else:
                self._rejoin(node, member)
            self._assign()

    async def hub_left(self, node: str) -> None:
        """A node ends."""
        self._part_from(node)

    async def hub_manifest(self, manifest_id: str | None = None) -> bytes | None:
        """A manifest, or the current one; waits for some seconds until it is there."""
        deadline = time.monotonic() + POLL
        while True:
            data = self._manifests.get(manifest_id or self._current)
            if data is None and manifest_id:
                data = await in_thread(self.archives.stored_manifest, Digest(manifest_id))
            left = deadline - time.monotonic()
            if data is not None or left <= 0:
                return data
            self._manifest_news.clear()
            await happens(self._manifest_news, left)

    # ---- what the client says

    async def hub_set_manifest(self, data: bytes) -> str:
        """This manifest is the current one; earlier ones stay. Returns its id."""
        self._current = digest_bytes(bytes(data))
        self._sizes.update(_sizes(bytes(data)))
        self._manifests[self._current] = bytes(data)
        self._manifest_news.set()
        return self._current

    async def hub_offers(self, data: bytes, first: bool = False) -> None:
        """Nodes can have these layers from an index.

        Parameters
        ----------
        data : bytes
            See `likewise.model.offer.encode_offers`. May come at any time, and again with more of them; what is not at
            a plain web address, or has no sha256, is passed over.
        first : bool, default False
            From now on the client is asked for what is offered only when no node can fetch it.
        """
        for offer in decode_offers(bytes(data)):
            if is_public(offer.file):
                size = offer.file.size or self._sizes.get(offer.layer, 0)
                key, site = f"{offer.file.sha256} {offer.file.url}", site_of(offer.file)
                if self._tracker.offer(offer.layer, key, site=site, size=size, client_has=offer.client_has):
                    self._wheels[offer.layer] = offer.file
        self._tracker.prefer_index(first)
        self._assign()

    async def hub_wanted(self, busy: list[int], is_new: bool = False) -> list[dict[str, Any]]:
        """What the client should upload besides `busy` (see `Receiving.wanted`); `is_new`: for the first time."""
        if is_new:
            self._from_client.waited()
            self._tracker.client_can(None)
            self._assign()
        return await self._receiving.wanted(busy)

    async def hub_put(self, digest: str, sha256: str, size: int, offset: int, data: bytes) -> dict[str, Any]:
        """Some bytes of an archive from the client; see `Receiving.put`."""
        return await self._receiving.put(Digest(digest), Digest(sha256), size, offset, data)

    async def hub_cannot(self, digest: str) -> None:
        """The client can't give this layer."""
        self._receiving.refuse(Digest(digest))

    async def hub_status(self, layer: str = "") -> dict[str, Any]:
        """Who has received what from where.

        Parameters
        ----------
        layer : str, optional
            A digest; its ``holders`` are then in the answer.

        Returns
        -------
        dict
            ``manifest``: id of the current one; ``bytes``: by source ("client", "index", "peer", "store"), in total;
            ``given``: by digest, which of "client", "index" and "store" was the first to give the layer; ``rates``:
            bytes per second that came from "client" and "index" of late, 0 when not known; ``missing``: digests that
            nodes want and nobody has; ``others``: by digest, the sha256 of a wheel that was offered as this layer and
            is another; ``nodes``: by address ``name``, ``bytes``, ``layers`` (number of), ``wants``, ``fetching``.
        """
        nodes = {
            address: {
                "name": member.name,
                "bytes": dict(member.bytes),
                "layers": len(member.have),
                "wants": len(member.wants.keys() - member.have),
                "fetching": len(member.work),
            }
            for address, member in self._members.items()
        }
        holders = [address for address, member in self._members.items() if layer in member.have]
        return {
            "hub": self.address,
            "manifest": self._current,
            "bytes": dict(self._bytes),
            "given": dict(self._given),
            "missing": self._missing(),
            "others": dict(self._others),
            "rates": {CLIENT: self._from_client.rate, INDEX: self._from_index.rate},
            "nodes": nodes,
            "holders": holders,
        }

    def _missing(self) -> list[Digest]:
        """What nodes want and nobody has."""
        wanted = set[Digest]().union(*(member.wants for member in self._members.values()))
        return sorted(digest for digest in wanted if not self._tracker.holders(digest))

    # ---- what follows

    def _assign(self) -> None:
        """Tell everybody what the tracker decided."""
        self._tracker.rates(self._from_client.rate, self._from_index.rate)
        begun = self._tracker.begin()
        for digest in self._tracker.withdrawn():
            self._receiving.withdraw(digest)
            self._from_client.ended(digest)
        for transfer in begun:
            member = self._members[transfer.node]
            if transfer.source == CLIENT:
                self._from_client.began(transfer.digest)
                self._receiving.want(transfer.digest)
            else:
                if transfer.source == INDEX:
                    self._from_index.began((transfer.node, transfer.digest))
                member.work[transfer.digest] = next(self._numbers), transfer
                member.news.set()
        for digest, nodes in self._tracker.unavailable().items():
            for member in (self._members[node] for node in nodes):
                if digest not in member.told:
                    member.told.add(digest)
                    member.lost.append(digest)
                    member.news.set()

    def _took(self, digest: Digest, amount: int, here: int) -> None:
        self._from_client.took(amount)
        self._tracker.sent(digest, here)
        self._count(self.address, digest, CLIENT, amount)

    def _fetched(self, node: str, digest: Digest, received: int) -> None:
        """A wheel came, or will not come."""
        if received:
            self._from_index.took(received)
        self._from_index.ended((node, digest))

    def _wheels_of(self, work: Iterable[tuple[int, Transfer]]) -> dict[Digest, dict[str, Any]]:
        """What nodes have to know of the wheels that they are to fetch."""
        return {
            digest: {
                "file": msgspec.to_builtins(self._wheels[digest]),
                "size": self._sizes.get(digest, 0),
                "lowest": self._tracker.lowest(digest),
            }
            for digest in (transfer.digest for _, transfer in work if transfer.source == INDEX)
        }

    def _arrived(self, archive: Archive) -> None:
        self._from_client.ended(archive.digest)
        self._given.setdefault(archive.digest, CLIENT)
        self._vouched[archive.digest] = archive.sha256
        self._members[self.address].have.add(archive.digest)
        self._origin[archive.digest] = CLIENT
        self._fulfil(archive)
        self._tracker.have(self.address, archive.digest)
        self._assign()

    def _refused(self, digest: Digest) -> None:
        self._from_client.ended(digest)
        self._tracker.failed(self.address, digest, CLIENT, True)
        self._assign()

    async def _look_into_store(self, digests: Iterable[Digest]) -> None:
        """What can be read from a directory need not be uploaded."""
        new = [digest for digest in digests if digest not in self._looked]
        self._looked.update(new)
        stored = await in_thread(self.archives.stored, new)
        self._stored.update(stored)
        self._tracker.in_store(stored)

    async def _is_damaged(self, digest: Digest) -> bool:
        """Somebody found the copy from here damaged. Is it? If so it goes, and the client will hear it."""
        archive = None
        try:
            archive = await in_thread(self.archives.find, digest)
            if archive is not None:
                await in_thread(self.archives.check, archive)
                return False
        except (LikewiseError, OSError):
            with suppress(OSError):
                await in_thread(self.archives.remove, digest)
        self.serving.forget(digest)
        self._vouched.pop(digest, None)
        self._stored.discard(digest)
        self._looked.discard(digest)
        if archive is None:
            self._lacks(self.address, digest)
            return False
        self._receiving.doubt(digest)
        return True

    def _lacks(self, node: str, digest: Digest) -> None:
        """What a node had was removed, since nobody had used it for long."""
        self._members[node].have.discard(digest)
        self._tracker.lacks(node, digest)

    def _rejoin(self, node: str, member: _Member) -> None:
        """Let the tracker begin anew with a node whose state it can't know; what runs goes on and is reported."""
        self._forget_work(node, member)
        self._tracker.joined(node, member.have)
        self._tracker.want(node, member.wants)

    def _count(self, node: str, digest: Digest, source: str, received: int) -> str:
        """Add to the bytes by source; the kind of the source."""
        from_store = source == self.address and digest in self._stored
        kind = source if source in (CLIENT, INDEX) else "store" if from_store else "peer"
        if received:
            self._bytes[kind] += received
            if node in self._members:
                self._members[node].bytes[kind] += received
        return kind

    def _forget_work(self, node: str, member: _Member) -> None:
        """What the node was to fetch counts no longer."""
        for digest in member.work:
            self._from_index.ended((node, digest))
        member.work.clear()

    def _part_from(self, node: str) -> None:
        member = self._members.pop(node, None) if node != self.address else None
        if member is not None:
            self._forget_work(node, member)
            self._tracker.left(node)
            self._assign()

    async def _watch(self) -> None:
        """Part from nodes of which nothing was heard."""
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            for node, member in list(self._members.items()):
                if not member.asking and now - member.heard > _GONE:
                    self._part_from(node)
            self._assign()  # rates have changed


def _sizes(manifest: bytes) -> dict[Digest, int]:
    """Bytes of content by layer."""
    try:
        return {ref.digest: ref.size for ref in msgspec.json.decode(manifest, type=Manifest).layers}
    except msgspec.MsgspecError:  # a newer one: whoever needs it will say so
        return {}
