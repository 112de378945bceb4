"""Who has which layer, and who fetches what from whom: the hub's decisions, without any input or output.

The tracker is told what happens (a node joined, wants, has, failed, left), and `Tracker.begin` says which transfers may
start now. It has no clock and draws from a seeded generator, so the same events give the same decisions; the
simulation in ``bench/simulate.py`` drives this very class.

An event costs a handful of operations, however large the cluster: sources and takers are found by drawing a few from
lists whose entries are checked when they are drawn, never by walking over all nodes. Only losses (a node that leaves,
a strike) may walk, and only as far as they reach.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from likewise.model.digest import Digest
from likewise.transport.ledger import Layer, Ledger, Node

CLIENT = "client"
"""The source of a transfer that is an upload; its node is always the hub."""

WINDOW = 8  # of what a node wants, so many in its order of priority compete; the rarest of them goes first
DRAWS = 4  # so many holders are looked at, and the least busy is taken


class Transfer(msgspec.Struct, frozen=True):
    """`node` fetches the layer `digest` from `source`, a node's address or `CLIENT`."""

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
    seed : int
        Of the generator that spreads the load.
    """

    def __init__(
        self, hub: str, *, uploads: int = 2, downloads: int = 2, client_uploads: int = 2, seed: int = 0
    ) -> None:
        super().__init__(hub)
        self._uploads, self._downloads, self._client_uploads = uploads, downloads, client_uploads
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
        for layer in self._layers_of(gone.have):
            self._lose(gone, layer)
        return cut

    def in_store(self, digests: Iterable[Digest]) -> None:
        """The hub can read these from a directory: no upload is needed."""
        for digest in digests:
            self.have(self._hub.name, digest)

    def client_can(self, digests: Iterable[Digest] | None) -> None:
        """The client can give these and no others; None: whatever it is asked for. Its failures are forgotten."""
        self._client_gives = None if digests is None else frozenset(digests)
        self._client_failures.clear()
        self._doubtful.update(dict.fromkeys(d for d in self._layers if not self._can_upload(d)))
        self._hungry[self._hub] = None

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

    def have(self, node: str, digest: Digest) -> None:
        """`node` has a checked copy, wherever it came from, and can serve it."""
        holder = self._nodes.get(node)
        if holder is None:
            return
        layer = self._layer(digest)
        if holder.missing & layer.bit:
            del holder.wanted[digest]
            holder.missing ^= layer.bit
        elif digest in holder.running or digest in holder.arrived:
            source = holder.running.get(digest) or holder.arrived.get(digest)
            self._end(holder, digest).copies -= 1
            holder.blames = 0
            if source is not None:
                source.complaints.clear()
        if not holder.have & layer.bit:
            holder.have |= layer.bit
            if self._trusted(holder, digest):
                self._add_holder(holder, layer)

    def failed(self, node: str, digest: Digest, source: str, damaged: bool) -> None:
        """`node` did not get the layer from `source`, or got wrong bytes (`damaged`)."""
        taker = self._nodes.get(node)
        if taker is None:
            return
        layer = self._layer(digest)
        if digest in taker.running or digest in taker.arrived:
            giver = taker.running.get(digest) or taker.arrived.get(digest)
            if (CLIENT if giver is None else giver.name) == source:
                self._again(taker, digest)
        if source == CLIENT:
            self._blame_client(layer, damaged)
        elif source in self._nodes:
            self._blame(taker, layer, self._nodes[source], damaged)

    # What follows

    def begin(self) -> list[Transfer]:
        """The transfers that may start now; they count as running from here on."""
        while self._freed or self._hungry:
            while self._freed:
                self._give(self._pop(self._freed))
            if self._hungry:
                self._take(self._pop(self._hungry))
        started, self._started = self._started, []
        return started

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
            Transfer(node.name, digest, CLIENT if source is None else source.name)
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
        while taker.missing and len(taker.running) < self._downloads:
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
            if not taker.missing & layer.bit or len(taker.running) >= self._downloads:
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
            free = (t for t in pool if t.missing & layer.bit and len(t.running) < self._downloads)
            best = next((t for t in free if self._may_ask(t, layer, source)), None)
        if not pool:
            self._awaited &= ~layer.bit
        return best

    def _start(self, taker: Node, layer: Layer, source: Node | None) -> None:
        del taker.wanted[layer.digest]
        taker.missing ^= layer.bit
        taker.pressing &= ~layer.bit
        taker.running[layer.digest] = source
        layer.copies += 1
        if source is None:
            self._uploading += 1
        else:
            source.serving[taker, layer.digest] = None
        self._started.append(Transfer(taker.name, layer.digest, CLIENT if source is None else source.name))

    def _start_upload(self) -> bool:
        """Let the client upload the first layer that the hub can have from nobody else. Whether there was one."""
        if self._uploading >= self._client_uploads:
            return False
        for layer in self._hub.wanted.values():
            if self._can_upload(layer.digest) and not any(self._sources(self._hub, layer)):
                self._start(self._hub, layer, None)
                return True
        return False


def _copies(layer: Layer) -> int:
    return layer.copies
