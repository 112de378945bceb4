"""What the tracker knows: who has which layer, who wants it, whom it may ask, and what runs."""

from __future__ import annotations

from collections.abc import Iterator

from likewise.model.digest import Digest

CLIENT = "client"
"""The source of a transfer that is an upload; its node is always the hub."""

INDEX = "index"
"""The source of a transfer for which a node fetches a wheel from the server of an index."""

PATIENCE = 3  # failures of the hub or the client, which nobody can replace, before a layer is given up
WITNESSES = 3  # so many nodes in a row that can't reach a source, and nobody asks it any more
CREDIT = 3  # a node that finds more than so many damaged copies in a row has the damage itself
FETCHERS = 2  # so many nodes try to get one layer from an index


class Giver:
    """Whoever can give a layer: a node, the client, the server of an index."""

    __slots__ = ("complaints", "name", "serving")

    def __init__(self, name: str) -> None:
        self.name = name
        self.serving: dict[tuple[Node, Digest], None] = {}
        self.complaints: set[str] = set()  # who could not reach it since it last served somebody


class Site(Giver):
    """A server of an index. What it has, the client says; what can be had from it, the first transfer shows."""

    __slots__ = ("proven", "unreached")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.proven = False  # a wheel came from it
        self.unreached: set[str] = set()  # nodes that could not reach it: not sent to it again


class Wheel:
    """That a site offers a layer, and what came of it."""

    __slots__ = ("client_has", "failed", "key", "site", "size", "stopped", "taker")

    def __init__(self, site: Site, key: str, size: int, client_has: bool) -> None:
        self.site = site
        self.key = key
        self.size = size  # bytes, 0 where nobody says
        self.client_has = client_has
        self.failed: set[str] = set()  # nodes that tried
        self.taker: Node | None = None  # who fetches it now, or did
        self.stopped = False  # an upload of the layer was stopped for it


class Node(Giver):
    """A node as the tracker sees it. Sets of layers are integers with a bit for each."""

    __slots__ = (
        "arrived",
        "avoid",
        "blames",
        "fetching",
        "have",
        "hub_failures",
        "missing",
        "offers",
        "pressing",
        "running",
        "shunned",
        "waiting",
        "wanted",
    )

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.have = 0
        self.offers = 0  # of these, what others may ask it for
        self.missing = 0  # the layers in `wanted`
        self.pressing = 0  # of the missing ones, those that somebody waits for
        self.waiting = 0  # the layers among whose takers it stands
        self.wanted: dict[Digest, Layer] = {}  # not fetched yet, the most urgent first
        self.running: dict[Digest, Giver] = {}  # fetched now, from whom
        self.fetching = 0  # of these, from sites
        self.arrived: dict[Digest, Giver] = {}  # fetched, not checked yet
        self.avoid: set[Node] = set()  # failed this node once: not asked by it again
        self.hub_failures: dict[Digest, int] = {}
        self.blames = 0  # damaged copies that it got since the last good one
        self.shunned = False


class Layer:
    __slots__ = ("bit", "copies", "digest", "holding", "pool", "sent", "takers", "wheel")

    def __init__(self, digest: Digest, bit: int) -> None:
        self.digest = digest
        self.bit = bit
        self.holding = 0  # nodes that offer it
        self.copies = 0  # these, and those that fetch it now
        self.pool: list[Node] = []  # who offers it or once did, without the hub
        self.takers: list[Node] = []  # who waits for it or once did
        self.sent = 0  # bytes of it that came from the client
        self.wheel: Wheel | None = None


class Ledger:
    """The books, and what follows from a loss. `likewise.transport.tracker.Tracker` decides with them."""

    def __init__(self, hub: str) -> None:
        self._layers: dict[Digest, Layer] = {}
        self._by_index: list[Layer] = []
        self._hub = Node(hub)
        self._nodes: dict[str, Node] = {hub: self._hub}
        self._client = Giver(CLIENT)
        self._sites: dict[str, Site] = {}
        self._news = False  # a site may be able to give more than when `begin` looked last
        self._client_gives: frozenset[Digest] | None = None  # None: whatever it is asked for
        self._client_failures: dict[Digest, int] = {}
        self._hub_damages: dict[Digest, int] = {}
        self._hub_refuses: set[Digest] = set()  # it has no room for these
        self._distrusted: dict[str, set[Digest]] = {}  # by address: it gave damaged copies of these
        self._available = 0  # bit per layer that somebody has
        self._awaited = 0  # bit per layer that has takers in waiting
        self._pressing = 0  # bit per layer that somebody may be waiting for
        self._doubtful: dict[Digest, None] = {}  # only these can be unavailable
        self._wary: dict[Node, None] = {}  # nodes that don't ask everybody
        self._freed: dict[Node, None] = {}  # may give more than when `begin` looked last
        self._hungry: dict[Node, None] = {self._hub: None}  # may take more

    # Books

    def _layer(self, digest: Digest) -> Layer:
        layer = self._layers.get(digest)
        if layer is None:
            layer = self._layers[digest] = Layer(digest, 1 << len(self._by_index))
            self._by_index.append(layer)
        return layer

    def _layers_of(self, mask: int) -> Iterator[Layer]:
        while mask:
            bit = mask & -mask
            yield self._by_index[bit.bit_length() - 1]
            mask ^= bit

    @staticmethod
    def _pop(record: dict[Node, None]) -> Node:
        node = next(iter(record))
        del record[node]
        return node

    def _end(self, taker: Node, digest: Digest) -> Layer:
        """The transfer is no longer running; its slots are free."""
        if digest in taker.running:
            source = taker.running.pop(digest)
            source.serving.pop((taker, digest), None)
            if isinstance(source, Node):
                self._freed[source] = None
            elif isinstance(source, Site):
                taker.fetching -= 1
            else:
                self._hungry[self._hub] = None
            self._hungry[taker] = None
        else:
            source = taker.arrived.pop(digest)
        if isinstance(source, Site):  # who may not ask `taker` for it gets it from the site, too, or through the hub
            self._news = True
            self._hungry[self._hub] = None
        return self._layers[digest]

    def _again(self, taker: Node, digest: Digest) -> None:
        """The transfer did not succeed: `taker` wants the layer again, before anything else."""
        layer = self._end(taker, digest)
        layer.copies -= 1
        taker.wanted = {digest: layer, **taker.wanted}
        taker.missing |= layer.bit
        self._hungry[taker] = None
        self._news = True
        self._ensure(taker, layer)

    def _add_holder(self, holder: Node, layer: Layer) -> None:
        holder.offers |= layer.bit
        layer.holding += 1
        layer.copies += 1
        self._available |= layer.bit
        self._freed[holder] = None
        if holder is not self._hub:
            layer.pool.append(holder)

    def _lose(self, holder: Node, layer: Layer) -> None:
        """`holder` is no source of the layer any more. Whoever has nobody else to ask gets it through the hub."""
        if not holder.offers & layer.bit:
            return
        holder.offers ^= layer.bit
        layer.holding -= 1
        layer.copies -= 1
        if not layer.holding:
            self._available &= ~layer.bit
        for taker in tuple(self._nodes.values() if not layer.holding else self._wary):
            if taker.missing & layer.bit:
                self._ensure(taker, layer)

    def _wait(self, taker: Node, layer: Layer) -> None:
        if not taker.waiting & layer.bit:
            taker.waiting |= layer.bit
            layer.takers.append(taker)
            self._awaited |= layer.bit

    # Trust

    def _trusted(self, holder: Node, digest: Digest) -> bool:
        if holder is self._hub:
            return self._hub_damages.get(digest, 0) < PATIENCE
        damaged = self._distrusted.get(holder.name, ())
        return not holder.shunned and len(damaged) < 2 and digest not in damaged

    def _may_ask_hub(self, taker: Node, layer: Layer) -> bool:
        return bool(
            self._hub.offers & layer.bit
            and taker is not self._hub
            and taker.hub_failures.get(layer.digest, 0) < PATIENCE
        )

    def _may_ask(self, taker: Node, layer: Layer, source: Node) -> bool:
        return self._may_ask_hub(taker, layer) if source is self._hub else source not in taker.avoid

    def _sources(self, taker: Node, layer: Layer) -> Iterator[Node]:
        """Everybody whom `taker` may ask for the layer."""
        if self._may_ask_hub(taker, layer):
            yield self._hub
        for source in layer.pool:
            if source.offers & layer.bit and source not in taker.avoid:
                yield source

    def _can_upload(self, digest: Digest) -> bool:
        gives = self._client_gives is None or digest in self._client_gives
        return gives and self._client_failures.get(digest, 0) < PATIENCE

    def _ensure(self, taker: Node, layer: Layer) -> None:
        """See to it that `taker` can get the layer it wants: when it has nobody to ask, the hub fetches it."""
        if not layer.holding:
            self._wait(taker, layer)  # whoever is the first to have it will call
            self._news = True
        elif (not taker.avoid and not taker.hub_failures) or any(self._sources(taker, layer)):
            return
        hub, digest = self._hub, layer.digest
        known = (hub.have | hub.missing) & layer.bit or digest in hub.running or digest in hub.arrived
        if not known and digest not in self._hub_refuses:
            hub.wanted[digest] = layer
            hub.missing |= layer.bit
            self._hungry[hub] = None
        if hub.missing & layer.bit:
            self._wait(hub, layer)
            self._news = True
        if not self._can_get(taker, layer):
            self._doubtful[digest] = None

    def _can_get(self, taker: Node, layer: Layer) -> bool:
        if any(self._sources(taker, layer)):
            return True
        hub, digest = self._hub, layer.digest
        if hub.offers & layer.bit or (taker is not hub and taker.hub_failures.get(digest, 0) >= PATIENCE):
            return False
        if taker is not hub and (self._hub_damages.get(digest, 0) >= PATIENCE or digest in self._hub_refuses):
            return self._is_fetched(layer)
        fetching = digest in hub.running or digest in hub.arrived or self._is_fetched(layer)
        return fetching or self._can_upload(digest) or self._can_fetch(layer) or any(self._sources(hub, layer))

    # Indexes

    @staticmethod
    def _is_fetched(layer: Layer) -> bool:
        """Whether a node fetches the layer from its site, or makes it of the wheel."""
        wheel = layer.wheel
        if wheel is None or wheel.taker is None:
            return False
        taker, digest = wheel.taker, layer.digest
        return wheel.site in (taker.running.get(digest), taker.arrived.get(digest))

    @staticmethod
    def _may_fetch(taker: Node, layer: Layer, wheel: Wheel) -> bool:
        """Whether `taker` may be sent to the site for the layer."""
        wants = bool(taker.missing & layer.bit)
        return wants and taker.name not in wheel.failed and taker.name not in wheel.site.unreached

    def _can_fetch(self, layer: Layer) -> bool:
        """Whether somebody can get the layer from its site, now or when a slot is free."""
        wheel = layer.wheel
        if wheel is None or len(wheel.failed) >= FETCHERS or len(wheel.site.complaints) >= WITNESSES:
            return False
        if self._may_fetch(self._hub, layer, wheel):  # it may not stand among the takers: it had no slot free
            return True
        return any(self._may_fetch(taker, layer, wheel) for taker in layer.takers)

    def _blame_site(self, taker: Node, layer: Layer, wheel: Wheel, damaged: bool) -> None:
        """`taker` did not get the layer from its site: what it got was wrong, or (not `damaged`) it got nothing."""
        wheel.failed.add(taker.name)
        if not damaged:
            wheel.site.unreached.add(taker.name)
            wheel.site.complaints.add(taker.name)
            self._doubtful.update(dict.fromkeys(other.digest for other in self._layers_of(self._hub.missing)))
        self._doubtful[layer.digest] = None
        self._news = True
        self._hungry[self._hub] = None

    def _blame_client(self, layer: Layer, damaged: bool) -> None:
        failures = self._client_failures.get(layer.digest, 0)
        self._client_failures[layer.digest] = PATIENCE if damaged else failures + 1
        if not self._can_upload(layer.digest):
            self._doubtful[layer.digest] = None

    def _blame(self, taker: Node, layer: Layer, source: Node, damaged: bool) -> None:
        self._doubtful[layer.digest] = None
        self._wary[taker] = None
        taker.blames += damaged
        if source is self._hub:
            taker.hub_failures[layer.digest] = taker.hub_failures.get(layer.digest, 0) + 1
        else:
            taker.avoid.add(source)
        if damaged and taker.blames <= CREDIT:
            self._distrust(layer, source)
        elif not damaged and source is not self._hub:
            source.complaints.add(taker.name)
            if len(source.complaints) >= WITNESSES:
                source.shunned = True
                for other in tuple(self._layers_of(source.offers)):
                    self._lose(source, other)
        for other in tuple(taker.wanted.values()):
            self._ensure(taker, other)
        self._hungry[taker] = None

    def _distrust(self, layer: Layer, source: Node) -> None:
        """What `source` has of the layer is damaged; a source that errs in two layers is not asked for any."""
        if source is self._hub:
            if not source.offers & layer.bit:  # known already: several took the same copy
                return
            self._hub_damages[layer.digest] = self._hub_damages.get(layer.digest, 0) + 1
            source.have &= ~layer.bit
            self._lose(source, layer)
            return
        damaged = self._distrusted.setdefault(source.name, set())
        damaged.add(layer.digest)
        lost = tuple(self._layers_of(source.offers)) if len(damaged) > 1 else (layer,)
        for other in lost:
            self._lose(source, other)
