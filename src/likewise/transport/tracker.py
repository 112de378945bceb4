"""Who has which layer, and who fetches what from whom: the hub's decisions, without any input or output.

The tracker is told what happens (a node joined, wants, has, failed, left), and `Tracker.begin` says which transfers may
start now. It has no clock and draws from a seeded generator, so the same events give the same decisions; the
simulation in ``bench/simulate.py`` drives this very class.

An event costs a handful of operations, however large the cluster: sources and takers are found by drawing a few from
lists whose entries are checked when they are drawn, never by walking over all nodes. Only losses (a node that leaves,
a strike) may walk, and only as far as they reach; and what nobody has yet, as long as sites offer some of it, is looked
through when there is news of that.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from likewise.model.digest import Digest
from likewise.transport.ledger import CLIENT, FETCHERS, INDEX, WITNESSES, Giver, Layer, Ledger, Node, Site, Wheel

WINDOW = 8  # of what a node wants, so many in its order of priority compete; the rarest of them goes first
TRIAL = 1 << 20  # bytes of a wheel that says how quickly a site gives
PROMISING = 2  # an upload is stopped when the sites would have given all they may in so much less time
LONG = 30.0  # seconds that an upload has still to go when it is stopped to try a site of which nothing is known
DRAWS = 4  # so many holders are looked at, and the least busy is taken


class Transfer(msgspec.Struct, frozen=True):
    """`node` fetches the layer `digest` from `source`, a node's address, `CLIENT` or `INDEX`."""

    node: str
    digest: Digest
    source: str


class Tracker(Ledger):
    """The layers of a cluster: who has them, who wants them, and which transfers run.

    Parameters
    ----------
    hub : str
        Address of the hub. It takes part from the beginning, receives what the client uploads, and passes on what
        others can't fetch from each other.
    uploads, downloads : int
        Transfers that a node gives, and takes, at the same time. More of them share the same links: each arrives
        later, and so does whatever could be passed on then; two are enough to hide the latency.
    client_uploads : int
        Transfers from the client to the hub at the same time.
    fetches : int
        Wheels that all nodes together fetch from one site at the same time; one node fetches up to `downloads`.
    seed : int
        Of the generator that spreads the load.
    """

    def __init__(
        self,
        hub: str,
        *,
        uploads: int = 2,
        downloads: int = 2,
        client_uploads: int = 2,
        fetches: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(hub)
        self._uploads, self._downloads, self._client_uploads = uploads, downloads, client_uploads
        self._fetches = fetches
        self._index_first = False
        self._client_rate = self._index_rate = 0.0
        self._withdrawn: list[Digest] = []
        self._random = random.Random(seed).random
        self._started: list[Transfer] = []

    # What happens

    def joined(self, node: str, have: Iterable[Digest] = ()) -> None:
        """`node` is here, with these layers checked and ready to be served. A second time: it begins anew."""
        if node != self._hub.name:
            self.left(node)
            self._nodes[node] = Node(node)
        for digest in have:
            self.have(node, digest)
        self._hungry[self._nodes[node]] = None

    def left(self, node: str) -> tuple[Transfer, ...]:
        """`node` is gone. The transfers from it, which will never end; `begin` starts them again from elsewhere."""
        gone = self._nodes.get(node)
        if gone is None or gone is self._hub:
            return ()
        del self._nodes[node]
        for digest in (*gone.running, *gone.arrived):
            self._end(gone, digest).copies -= 1
        cut = tuple(Transfer(taker.name, digest, node) for taker, digest in gone.serving)
        for taker, digest in tuple(gone.serving):
            self._again(taker, digest)
        gone.wanted.clear()
        gone.missing = 0
        for record in (self._wary, self._freed, self._hungry):
            record.pop(gone, None)
        self._hungry[self._hub] = None  # what it fetched from a site another one fetches, or the client gives
        self._news = True
        for layer in self._layers_of(gone.have):
            self._lose(gone, layer)
        return cut

    def in_store(self, digests: Iterable[Digest]) -> None:
        """The hub can read these from a directory: no upload is needed."""
        for digest in digests:
            self.have(self._hub.name, digest)

    def client_can(self, digests: Iterable[Digest] | None) -> None:
        """The client can give these and no others; None: whatever it is asked for.

        Its failures are forgotten, and what the hub could not keep.
        """
        self._client_gives = None if digests is None else frozenset(digests)
        self._client_failures.clear()
        refused, self._hub_refuses = self._hub_refuses, set()
        for layer in map(self._layer, refused):
            for taker in tuple(node for node in self._nodes.values() if node.missing & layer.bit):
                self._ensure(taker, layer)
        self._doubtful.update(dict.fromkeys(d for d in self._layers if not self._can_upload(d)))
        self._hungry[self._hub] = None

    def offer(self, digest: Digest, wheel: str, *, site: str, size: int = 0, client_has: bool = True) -> bool:
        """A node that wants this layer can fetch it from an index. Whether that is news; then its site is tried anew.

        Parameters
        ----------
        digest : Digest
            The layer.
        wheel : str
            What tells this offer from another one of the same layer. The same one again changes nothing.
        site : str
            The server that gives it; what nodes can reach is known by server.
        size : int
            Bytes, 0 where nobody knows.
        client_has : bool
            If not, the client is asked for it only when no node can fetch it.
        """
        layer = self._layer(digest)
        if layer.wheel is not None and (layer.wheel.key == wheel or self._is_fetched(layer)):
            return False
        found = self._sites.setdefault(site, Site(INDEX))
        found.proven = found.proven and len(found.complaints) < WITNESSES
        found.complaints.clear()
        found.unreached.clear()
        layer.wheel = Wheel(found, wheel, size, client_has)
        self._news = True
        return True

    def prefer_index(self, always: bool) -> None:
        """Whether the client is asked for what an index offers only when no node can fetch it."""
        self._index_first = always
        self._news = True

    def rates(self, client: float, index: float) -> None:
        """How many bytes came in a second of late: from the client, and from indexes to all nodes; 0: not known.

        Small changes are passed over, since a new rate means to look at everything again.
        """
        if self._sites and (_differ(client, self._client_rate) or _differ(index, self._index_rate)):
            self._client_rate, self._index_rate = client, index
            self._news = True
            self._hungry[self._hub] = None

    def lowest(self, digest: Digest) -> float:
        """Bytes per second at which a site must give a layer: with less, all its fetches were slower than the client.

        0 where the client is asked for it only in the end, and while its rate is not known.
        """
        wheel = self._layer(digest).wheel
        leaves = wheel is None or self._index_first or not wheel.client_has
        return 0.0 if leaves else self._client_rate / self._fetches

    def sent(self, digest: Digest, amount: int) -> None:
        """So many bytes of a layer have come from the client."""
        if digest in self._layers:
            self._layers[digest].sent = amount

    def want(self, node: str, digests: Iterable[Digest], *, urgent: bool = False) -> None:
        """`node` wants these, the most urgent first. May be repeated; what it has or fetches already is passed over.

        Where they are `urgent`, somebody waits: they come before all that this node wants, and before all uploads.
        """
        taker, digests = self._nodes[node], tuple(digests)
        for digest in digests:
            layer = self._layer(digest)
            if (taker.have | taker.missing) & layer.bit or digest in taker.running or digest in taker.arrived:
                continue
            taker.wanted[digest] = layer
            taker.missing |= layer.bit
            self._ensure(taker, layer)
        if urgent:
            for waiting in (taker, self._hub):
                first = {digest: waiting.wanted[digest] for digest in digests if digest in waiting.wanted}
                waiting.wanted = {**first, **waiting.wanted}
                for layer in first.values():
                    waiting.pressing |= layer.bit
                    self._pressing |= layer.bit
        self._hungry[taker] = None

    def received(self, node: str, digest: Digest) -> None:
        """All bytes are there, nothing is checked yet: both ends are free for the next. `have` or `failed` follows."""
        taker = self._nodes.get(node)
        if taker is not None and digest in taker.running:
            source = taker.running[digest]
            self._end(taker, digest)
            taker.arrived[digest] = source
            if isinstance(source, Site):
                source.proven = True
                source.complaints.clear()

    def have(self, node: str, digest: Digest) -> None:
        """`node` has a checked copy, wherever it came from, and can serve it."""
        holder = self._nodes.get(node)
        if holder is None:
            return
        layer = self._layer(digest)
        if holder is self._hub:
            self._hub_refuses.discard(digest)
        if holder.missing & layer.bit:
            del holder.wanted[digest]
            holder.missing ^= layer.bit
        elif digest in holder.running or digest in holder.arrived:
            source = holder.running.get(digest) or holder.arrived[digest]
            self._end(holder, digest).copies -= 1
            holder.blames = 0
            source.complaints.clear()
        if not holder.have & layer.bit:
            holder.have |= layer.bit
            if self._trusted(holder, digest):
                self._add_holder(holder, layer)

    def lacks(self, node: str, digest: Digest) -> None:
        """`node` has the layer no more."""
        holder = self._nodes.get(node)
        if holder is not None and holder.have & (layer := self._layer(digest)).bit:
            holder.have ^= layer.bit
            self._lose(holder, layer)

    def gave_up(self, digest: Digest) -> None:
        """The hub can't keep the layer. Nobody gets it through the hub until it is tried again (`client_can`)."""
        hub, layer = self._hub, self._layer(digest)
        if digest in hub.running or digest in hub.arrived:
            self._end(hub, digest).copies -= 1
        if hub.missing & layer.bit:
            del hub.wanted[digest]
            hub.missing ^= layer.bit
        self._hub_refuses.add(digest)
        self._doubtful[digest] = None

    def failed(self, node: str, digest: Digest, source: str, damaged: bool) -> None:
        """`node` did not get the layer from `source`, or got wrong bytes (`damaged`)."""
        taker = self._nodes.get(node)
        if taker is None:
            return
        layer = self._layer(digest)
        if digest in taker.running or digest in taker.arrived:
            giver = taker.running.get(digest) or taker.arrived[digest]
            if giver.name == source:
                self._again(taker, digest)
        if source == CLIENT:
            self._blame_client(layer, damaged)
        elif source == INDEX:
            if layer.wheel is not None:
                self._blame_site(taker, layer, layer.wheel, damaged)
        elif source in self._nodes:
            self._blame(taker, layer, self._nodes[source], damaged)

    # What follows

    def begin(self) -> list[Transfer]:
        """The transfers that may start now; they count as running from here on."""
        if self._sites and self._news:
            self._withdraw()
            self._fetch()
        while self._freed or self._hungry:
            while self._freed:
                self._give(self._pop(self._freed))
            if self._hungry:
                self._take(self._pop(self._hungry))
        started, self._started = self._started, []
        return started

    def withdrawn(self) -> list[Digest]:
        """The uploads that are to be stopped, each told once: a node fetches the layer instead, or soon will."""
        found, self._withdrawn = self._withdrawn, []
        return found

    def unavailable(self) -> dict[Digest, tuple[str, ...]]:
        """Layers that can't be had, as things are, and the nodes that want them."""
        answer = {}
        for digest in self._doubtful:
            layer = self._layers[digest]
            nodes = tuple(n.name for n in self._nodes.values() if n.missing & layer.bit and not self._can_get(n, layer))
            if asking := tuple(name for name in nodes if name != self._hub.name or len(nodes) == 1):
                answer[digest] = asking
        return answer

    def running(self) -> list[Transfer]:
        """The transfers that run, in no particular order."""
        return [
            Transfer(node.name, digest, source.name)
            for node in self._nodes.values()
            for digest, source in node.running.items()
        ]

    def holders(self, digest: Digest) -> int:
        """How many nodes, the hub among them, have the layer and are asked for it."""
        return self._layers[digest].holding if digest in self._layers else 0

    # Matching

    def _give(self, source: Node) -> None:
        """Give takers that wait what `source` has, as long as it has slots free."""
        while len(source.serving) < self._uploads:
            offer = source.offers & self._awaited
            while offer:
                pressing = offer & self._pressing
                layer = self._rarest(pressing or offer, len(self._by_index) if source is self._hub else WINDOW)
                taker = self._draw_taker(layer, source)
                if taker is not None:
                    self._start(taker, layer, source)
                    break
                offer ^= layer.bit
                self._pressing &= ~layer.bit  # whoever waits for it takes it when a slot of his own is free
            else:
                return

    def _take(self, taker: Node) -> None:
        """Let `taker` fetch what it wants, as long as it has slots free."""
        while taker.missing and self._has_slot(taker):
            window = self._window(taker)
            for layer in window:
                source = self._draw_source(taker, layer)
                if source is not None:
                    self._start(taker, layer, source)
                    break
            else:
                if taker is self._hub and self._start_upload():
                    continue
                for layer in window:
                    self._wait(taker, layer)
                return

    def _window(self, taker: Node) -> list[Layer]:
        """What `taker` wants and somebody has: what is waited for, else the first ones; of these the rarest first."""
        available = taker.missing & self._available
        available = available & taker.pressing or available
        if not available:
            return []
        if available.bit_count() <= WINDOW:
            window = list(self._layers_of(available))
        else:
            window = []
            for layer in taker.wanted.values():
                if layer.bit & available:
                    window.append(layer)
                    if len(window) == WINDOW:
                        break
        window.sort(key=_copies)
        return window

    def _rarest(self, mask: int, limit: int) -> Layer:
        """Of the first `limit` layers in `mask` the one with the fewest copies."""
        best = None
        for layer in self._layers_of(mask):
            if best is None or layer.copies < best.copies:
                best = layer
            limit -= 1
            if not limit:
                break
        assert best is not None
        return best

    def _draw_source(self, taker: Node, layer: Layer) -> Node | None:
        """A holder with a free slot: the least busy of a few, the hub (the only source of much) as the last."""
        pool, best, busy = layer.pool, None, False
        for _ in range(DRAWS):
            if not pool:
                break
            place = int(self._random() * len(pool))
            source = pool[place]
            if not source.offers & layer.bit:  # gone since
                pool[place] = pool[-1]
                pool.pop()
            elif source not in taker.avoid:
                if len(source.serving) >= self._uploads:
                    busy = True
                elif not source.serving:
                    return source
                elif best is None or len(source.serving) < len(best.serving):
                    best = source
        if best is None and self._may_ask_hub(taker, layer):
            if len(self._hub.serving) < self._uploads:
                return self._hub
            busy = True
        if best is None and not busy:  # a busy one calls when it is free; when there is none, look at all
            best = next((s for s in self._sources(taker, layer) if len(s.serving) < self._uploads), None)
        return best

    def _draw_taker(self, layer: Layer, source: Node) -> Node | None:
        """A node that waits for `layer`: of a few, the one that can pass it on soonest."""
        pool, best, avoided = layer.takers, None, False
        draws = DRAWS
        while pool and draws:
            place = int(self._random() * len(pool))
            taker = pool[place]
            if not taker.missing & layer.bit or not self._has_slot(taker):
                pool[place] = pool[-1]
                pool.pop()
                taker.waiting ^= layer.bit
                continue
            draws -= 1
            if not self._may_ask(taker, layer, source):
                avoided = True
            elif best is None or len(taker.serving) < len(best.serving):
                best = taker
                if not taker.serving:
                    break
        if best is None and avoided:
            free = (t for t in pool if t.missing & layer.bit and self._has_slot(t))
            best = next((t for t in free if self._may_ask(t, layer, source)), None)
        if not pool:
            self._awaited &= ~layer.bit
        return best

    def _has_slot(self, taker: Node) -> bool:
        """Whether it may take more from nodes or the client. What it fetches from sites comes over another line."""
        return len(taker.running) - taker.fetching < self._downloads

    def _start(self, taker: Node, layer: Layer, source: Giver) -> None:
        del taker.wanted[layer.digest]
        taker.missing ^= layer.bit
        taker.pressing &= ~layer.bit
        taker.running[layer.digest] = source
        layer.copies += 1
        source.serving[taker, layer.digest] = None
        self._started.append(Transfer(taker.name, layer.digest, source.name))

    # The client and the indexes

    def _start_upload(self) -> bool:
        """Let the client upload a layer that the hub can have from nobody else. Whether there was one.

        First what only the client has, in the order in which it is wanted; then, from the end, what a site may give.
        A client that is quicker than the sites goes by the order alone.
        """
        if len(self._client.serving) >= self._client_uploads:
            return False
        chosen, waiting = None, self._contested() if self._sites else 0
        for layer in self._hub.wanted.values():
            if not self._can_upload(layer.digest) or self._is_fetched(layer) or any(self._sources(self._hub, layer)):
                continue
            pays = not self._can_fetch(layer)
            if pays or self._pays_to_upload(layer, waiting):
                chosen = layer
                if pays or self._is_quicker or self._hub.pressing & layer.bit:
                    break
        if chosen is not None:
            self._start(self._hub, chosen, self._client)
        return chosen is not None

    def _fetch(self) -> None:
        """Send nodes to the sites for what nobody has, as long as there are slots; to an unknown site only one."""
        self._news = False
        for site in self._sites.values():
            while len(site.serving) < (self._fetches if site.proven else 1):
                layer, taker = self._next_fetch(site)
                if layer is None or layer.wheel is None or taker is None:
                    break
                layer.wheel.taker = taker
                taker.fetching += 1
                self._start(taker, layer, site)

    def _next_fetch(self, site: Site) -> tuple[Layer | None, Node | None]:
        """What is best fetched from the site now, and by whom. The first one is a trial: large enough to learn from."""
        wanted, waiting = list(self._hub.wanted.values()), self._contested()
        trial: tuple[Layer | None, Node | None] = None, None
        largest = -1
        for layer in reversed(wanted) if self._is_quicker else wanted:
            wheel = layer.wheel
            if wheel is None or wheel.site is not site or self._is_fetched(layer):
                continue
            if any(self._sources(self._hub, layer)) or not self._pays_to_fetch(layer, wheel, waiting):
                continue
            taker = self._draw_fetcher(layer, wheel)
            if taker is None:
                continue
            if site.proven or (wheel.size >= TRIAL and not self._hub.pressing & layer.bit):
                return layer, taker
            if wheel.size > largest:
                largest, trial = wheel.size, (layer, taker)
        return trial

    def _draw_fetcher(self, layer: Layer, wheel: Wheel) -> Node | None:
        """A node that can be sent to the site now, the least busy; the hub where no other one could ever be."""
        if not self._can_fetch(layer):
            return None
        best, alone, count = None, True, len(layer.takers)
        start = int(self._random() * count)
        for place in range(start, start + count):
            taker = layer.takers[place % count]
            if taker is self._hub or not self._may_fetch(taker, layer, wheel):
                continue
            alone = False
            if not taker.fetching:
                return taker
            if taker.fetching < self._downloads and (best is None or taker.fetching < best.fetching):
                best = taker
        return self._hub if alone and self._hub.fetching < self._downloads else best

    def _withdraw(self) -> None:
        """Stop uploads of what a site gives instead."""
        waiting = self._contested()
        for taker, digest in tuple(self._client.serving):
            layer = self._layers[digest]
            wheel = layer.wheel
            if wheel is None or not self._could_fetch(layer, wheel):
                continue
            if self._index_first or self._pays_to_stop(layer, wheel, waiting):
                wheel.stopped = True
                self._again(taker, digest)
                self._withdrawn.append(digest)

    def _pays_to_stop(self, layer: Layer, wheel: Wheel, waiting: int) -> bool:
        """Whether it would come much sooner from the site, or takes long and the site can't be tried else."""
        if not self._client_rate:
            return False
        left = max(0, wheel.size - layer.sent) / self._client_rate
        if wheel.site.proven and self._index_rate:
            return left > PROMISING * (waiting + wheel.size + self._given(INDEX)) / self._index_rate
        return left > LONG and not wheel.stopped and not self._is_tried(wheel.site)

    def _is_tried(self, site: Site) -> bool:
        """Whether something is known of what comes from the site, or soon will be."""
        return site.proven or bool(site.serving) or self._next_fetch(site)[0] is not None

    def _could_fetch(self, layer: Layer, wheel: Wheel) -> bool:
        """Whether somebody could get from its site what the client uploads now."""
        if len(wheel.failed) >= FETCHERS or len(wheel.site.complaints) >= WITNESSES:
            return False
        return self._can_fetch(layer) or self._hub.name not in wheel.failed | wheel.site.unreached

    def _pays_to_upload(self, layer: Layer, waiting: int) -> bool:
        """Whether the client has given it before the sites have given all that they may."""
        wheel = layer.wheel
        if wheel is None:
            return True
        if self._index_first or not wheel.client_has:
            return False
        if not self._client_rate or not self._index_rate:
            return True
        return wheel.size * self._index_rate <= (waiting + self._given(INDEX)) * self._client_rate

    def _pays_to_fetch(self, layer: Layer, wheel: Wheel, waiting: int) -> bool:
        """Whether the site has given it before the client has given all that it may."""
        if self._index_first or not wheel.client_has or not self._can_upload(layer.digest):
            return True
        if not self._client_rate or not self._index_rate:
            return True
        return wheel.size * self._client_rate <= (waiting + self._given(CLIENT)) * self._index_rate

    @property
    def _is_quicker(self) -> bool:
        """Whether the client is known to give more bytes in a second than the sites."""
        return not self._index_first and self._client_rate > self._index_rate > 0

    def _contested(self) -> int:
        """Bytes that nobody has begun to give, and that sites have."""
        layers = (layer for layer in self._hub.wanted.values() if layer.wheel is not None)
        return sum(layer.wheel.size for layer in layers if layer.wheel and not self._is_fetched(layer))

    def _given(self, source: str) -> int:
        """Bytes that the client or the sites give now, of what sites have."""
        givers: Iterable[Giver] = (self._client,) if source == CLIENT else self._sites.values()
        wheels = (self._layers[digest].wheel for giver in givers for _, digest in giver.serving)
        return sum(wheel.size for wheel in wheels if wheel is not None)


def _differ(new: float, old: float) -> bool:
    """Whether one rate is another one, by an eighth at least."""
    return abs(new - old) > max(new, old) / 8


def _copies(layer: Layer) -> int:
    return layer.copies
