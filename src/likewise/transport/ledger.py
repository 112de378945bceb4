"""What the tracker knows: who has which layer, who wants it, whom it may ask, and what runs."""

from __future__ import annotations

from collections.abc import Iterator

from likewise.model.digest import Digest

PATIENCE = 3  # failures of the hub or the client, which nobody can replace, before a layer is given up
WITNESSES = 3  # so many nodes in a row that can't reach a source, and nobody asks it any more
CREDIT = 3  # a node that finds more than so many damaged copies in a row has the damage itself


class Node:
    """A node as the tracker sees it. Sets of layers are integers with a bit for each."""

    __slots__ = (
        "arrived",
        "avoid",
        "blames",
        "complaints",
        "have",
        "hub_failures",
        "missing",
        "name",
        "offers",
        "pressing",
        "running",
        "serving",
        "shunned",
        "waiting",
        "wanted",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.have = 0
        self.offers = 0  # of these, what others may ask it for
        self.missing = 0  # the layers in `wanted`
        self.pressing = 0  # of the missing ones, those that somebody waits for
        self.waiting = 0  # the layers among whose takers it stands
        self.wanted: dict[Digest, Layer] = {}  # not fetched yet, the most urgent first
        self.running: dict[Digest, Node | None] = {}  # fetched now, from whom; None is the client
        self.arrived: dict[Digest, Node | None] = {}  # fetched, not checked yet
        self.serving: dict[tuple[Node, Digest], None] = {}
        self.avoid: set[Node] = set()  # failed this node once: not asked by it again
        self.hub_failures: dict[Digest, int] = {}
        self.blames = 0  # damaged copies that it got since the last good one
        self.complaints: set[str] = set()  # who could not reach it since it last served somebody
        self.shunned = False


class Layer:
    __slots__ = ("bit", "copies", "digest", "holding", "pool", "takers")

    def __init__(self, digest: Digest, bit: int) -> None:
        self.digest = digest
        self.bit = bit
        self.holding = 0  # nodes that offer it
        self.copies = 0  # these, and those that fetch it now
        self.pool: list[Node] = []  # who offers it or once did, without the hub
        self.takers: list[Node] = []  # who waits for it or once did


class Ledger:
    """The books, and what follows from a loss. `likewise.transport.tracker.Tracker` decides with them."""

    def __init__(self, hub: str) -> None:
        self._layers: dict[Digest, Layer] = {}
        self._by_index: list[Layer] = []
        self._hub = Node(hub)
        self._nodes: dict[str, Node] = {hub: self._hub}
        self._uploading = 0
        self._client_gives: frozenset[Digest] | None = None  # None: whatever it is asked for
        self._client_failures: dict[Digest, int] = {}
        self._hub_damages: dict[Digest, int] = {}
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
            if source is None:
                self._uploading -= 1
                self._hungry[self._hub] = None
            else:
                source.serving.pop((taker, digest), None)
                self._freed[source] = None
            self._hungry[taker] = None
        else:
            taker.arrived.pop(digest, None)
        return self._layers[digest]

    def _again(self, taker: Node, digest: Digest) -> None:
        """The transfer did not succeed: `taker` wants the layer again, before anything else."""
        layer = self._end(taker, digest)
        layer.copies -= 1
        taker.wanted = {digest: layer, **taker.wanted}
        taker.missing |= layer.bit
        self._hungry[taker] = None
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
        elif (not taker.avoid and not taker.hub_failures) or any(self._sources(taker, layer)):
            return
        hub, digest = self._hub, layer.digest
        if not (hub.have | hub.missing) & layer.bit and digest not in hub.running and digest not in hub.arrived:
            hub.wanted[digest] = layer
            hub.missing |= layer.bit
            self._hungry[hub] = None
            if not layer.holding:
                self._wait(hub, layer)
        if not self._can_get(taker, layer):
            self._doubtful[digest] = None

    def _can_get(self, taker: Node, layer: Layer) -> bool:
        if any(self._sources(taker, layer)):
            return True
        hub, digest = self._hub, layer.digest
        if hub.offers & layer.bit or (taker is not hub and taker.hub_failures.get(digest, 0) >= PATIENCE):
            return False
        if self._hub_damages.get(digest, 0) >= PATIENCE and taker is not hub:
            return False
        fetching = digest in hub.running or digest in hub.arrived
        return fetching or self._can_upload(digest) or any(self._sources(hub, layer))

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
