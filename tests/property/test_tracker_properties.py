"""The tracker under every interleaving of joins, leaves, failures and damaged copies that hypothesis can think of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from likewise.transport.ledger import CLIENT, FETCHERS, INDEX, PATIENCE
from likewise.transport.tracker import Tracker, Transfer

HUB = "hub"
NAMES = [f"n{i}" for i in range(6)]
LAYERS = [f"layer{i}" for i in range(7)]
SITES = ["index.example", "other.example"]
UPLOADS, DOWNLOADS, CLIENT_UPLOADS, FETCHES = 2, 2, 1, 3

nodes = st.sampled_from(NAMES)
layer_lists = st.lists(st.sampled_from(LAYERS), unique=True)
choices = st.integers(0, 1000)


class Swarm(RuleBasedStateMachine):
    """A model of the cluster beside the tracker, as simple as possible; what the tracker decides is checked in it."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker(
            HUB, uploads=UPLOADS, downloads=DOWNLOADS, client_uploads=CLIENT_UPLOADS, fetches=FETCHES
        )
        self.have: dict[str, set[str]] = {HUB: set()}
        self.wanted: dict[str, set[str]] = {HUB: set()}
        self.running: list[Transfer] = []
        self.arrived: list[Transfer] = []
        self.struck: set[tuple[str, str, str]] = set()  # taker, layer, source
        self.damaged: set[tuple[str, str]] = set()  # source, layer
        self.blames: Counter[str] = Counter()  # damaged copies in a row, by taker
        self.patience: Counter[tuple[str, str, str]] = Counter()
        self.uploaded: Counter[str] = Counter()
        self.offered: dict[str, tuple[str, bool]] = {}  # layer -> site, whether the client has it
        self.tried: dict[str, set[str]] = {}  # layer -> nodes that did not get it from its site
        self.unreached: set[tuple[str, str]] = set()  # node, site
        self.index_first = False

    # What happens in the world

    @rule(node=nodes, have=layer_lists, want=layer_lists)
    def join(self, node: str, have: list[str], want: list[str]) -> None:
        if node in self.have:
            self.leave(node)
        self.tracker.joined(node, have)
        self.struck = {s for s in self.struck if node not in (s[0], s[2])}
        self.have[node] = set(have)
        self.blames[node] = 0
        for layer in LAYERS:
            self.patience[node, layer, HUB] = 0
        self.wanted[node] = set()
        self.want(node, want)

    @rule(node=nodes, want=layer_lists)
    def want(self, node: str, want: list[str]) -> None:
        if node in self.have:
            self.tracker.want(node, want)
            self.wanted[node] |= set(want)

    @rule(want=layer_lists)
    def hub_wants(self, want: list[str]) -> None:
        self.tracker.want(HUB, want)
        self.wanted[HUB] |= set(want)

    @rule(node=nodes)
    def leave(self, node: str) -> None:
        if node not in self.have:
            return
        cut = self.tracker.left(node)
        assert set(cut) == {t for t in self.running if t.source == node}
        del self.have[node], self.wanted[node]
        self.running = [t for t in self.running if node not in (t.node, t.source)]
        self.arrived = [t for t in self.arrived if t.node != node]

    @rule(layers=layer_lists, site=st.sampled_from(SITES), size=st.integers(0, 10**8), client_has=st.booleans())
    def offer(self, layers: list[str], site: str, size: int, client_has: bool) -> None:
        for layer in layers:
            if self.tracker.offer(layer, "wheel", site=site, size=size, client_has=client_has):
                self.unreached = {(node, where) for node, where in self.unreached if where != site}
            self.offered.setdefault(layer, (site, client_has))

    @rule(client=st.sampled_from([0.0, 1e3, 1e6]), index=st.sampled_from([0.0, 1e4, 1e7]), first=st.booleans())
    def rates(self, client: float, index: float, first: bool) -> None:
        self.tracker.rates(client, index)
        self.tracker.prefer_index(first)
        self.index_first = first

    @rule()
    def begin(self) -> None:
        begun = self.tracker.begin()
        for digest in self.tracker.withdrawn():
            self.running.remove(Transfer(HUB, digest, CLIENT))
            self.uploaded[digest] -= 1
        for transfer in begun:
            self._check(transfer)
            self.running.append(transfer)
            if transfer.source == CLIENT:
                self.uploaded[transfer.digest] += 1

    @precondition(lambda self: self.running)
    @rule(choice=choices)
    def arrive(self, choice: int) -> None:
        transfer = self.running.pop(choice % len(self.running))
        self.tracker.received(transfer.node, transfer.digest)
        self.arrived.append(transfer)

    @precondition(lambda self: self.running or self.arrived)
    @rule(choice=choices)
    def succeed(self, choice: int) -> None:
        transfer = self._one(choice)
        self.have[transfer.node].add(transfer.digest)
        self.blames[transfer.node] = 0
        self.tracker.have(transfer.node, transfer.digest)

    @precondition(lambda self: self.running or self.arrived)
    @rule(choice=choices, damaged=st.booleans())
    def fail(self, choice: int, damaged: bool) -> None:
        transfer = self._one(choice)
        key = (transfer.node, transfer.digest, transfer.source)
        if transfer.source == INDEX:
            self.tried.setdefault(transfer.digest, set()).add(transfer.node)
            if not damaged:
                self.unreached.add((transfer.node, self.offered[transfer.digest][0]))
            return self.tracker.failed(*key, damaged=damaged)
        if transfer.source in (HUB, CLIENT):  # nobody can replace them: more than this, and the layer may be lost
            if self.patience[key] + 1 >= PATIENCE or damaged:
                return self._put_back(transfer)
            self.patience[key] += 1
        else:
            self.struck.add(key)
        if damaged:
            self.blames[transfer.node] += 1
            if self.blames[transfer.node] == 1 and transfer.source in self.have:  # believed, certainly
                self.damaged.add((transfer.source, transfer.digest))
        self.tracker.failed(*key, damaged=damaged)
        return None

    @rule(node=nodes, layer=st.sampled_from(LAYERS))
    def find_elsewhere(self, node: str, layer: str) -> None:
        """A node gets a layer by itself: from its store, or unpacked with the kit."""
        if node in self.have:
            self.have[node].add(layer)
            self.running = [t for t in self.running if (t.node, t.digest) != (node, layer)]
            self.arrived = [t for t in self.arrived if (t.node, t.digest) != (node, layer)]
            self.tracker.have(node, layer)

    @rule(node=st.sampled_from([HUB, *NAMES]), layer=st.sampled_from(LAYERS))
    def lose(self, node: str, layer: str) -> None:
        """What a node had was removed, and it wants it again."""
        if layer in self.have.get(node, ()):
            self.have[node].remove(layer)
            self.wanted[node].add(layer)
            self.tracker.lacks(node, layer)
            self.tracker.want(node, [layer])

    @precondition(lambda self: self._at_hub())
    @rule(choice=choices)
    def give_up(self, choice: int) -> None:
        """The hub has no room for what a node or an index gives; later it has."""
        transfer = self._at_hub()[choice % len(self._at_hub())]
        (self.running if transfer in self.running else self.arrived).remove(transfer)
        self.tracker.gave_up(transfer.digest)
        self.wanted[HUB].discard(transfer.digest)
        layer, coming = transfer.digest, {t.node for t in self.running + self.arrived if t.digest == transfer.digest}
        if any(layer in self.wanted[node] - self.have[node] for node in self.have.keys() - coming):
            assert layer in self.tracker.unavailable() or self._somebody_gives(layer)
        self.tracker.client_can(None)

    # What must hold

    def _at_hub(self) -> list[Transfer]:
        return [t for t in self.running + self.arrived if t.node == HUB and t.source != CLIENT]

    def _somebody_gives(self, layer: str) -> bool:
        return any(layer in have for have in self.have.values()) or bool(self._fetched(layer))

    def _check(self, transfer: Transfer) -> None:
        taker, layer, source = transfer.node, transfer.digest, transfer.source
        assert layer not in self.have[taker], "it has it"
        assert (taker, layer) not in {(t.node, t.digest) for t in self.running + self.arrived}, "it fetches it"
        assert layer in self.wanted[taker] or taker == HUB, "it does not want it"
        assert (taker, layer, source) not in self.struck, "the source was struck"
        assert (source, layer) not in self.damaged, "the source's copy is damaged"
        if source == CLIENT:
            assert taker == HUB
            if self.uploaded[layer] > self.patience[HUB, layer, CLIENT]:
                holders = {n for n in self.have if layer in self.have[n] and (n, layer) not in self.damaged}
                reachable = {n for n in holders if not any(s[0] == HUB and s[2] == n for s in self.struck)}
                assert not reachable - self._shunned(), "uploaded again though somebody has it"
            assert not self._fetched(layer), "a node fetches it from an index"
            if layer in self.offered and (self.index_first or not self.offered[layer][1]):
                assert not self._untried(layer), "nodes have not tried all that they may"
        elif source == INDEX:
            site, _ = self.offered[layer]
            assert not self._fetched(layer), "another node fetches it"
            assert Transfer(HUB, layer, CLIENT) not in self.running, "the client uploads it"
            assert taker not in self.tried.get(layer, ()), "it tried"
            assert len(self.tried.get(layer, ())) < FETCHERS, "enough have tried"
            assert (taker, site) not in self.unreached, "it can't reach the site"
            if not self.damaged and not self.struck:
                assert not [n for n in self.have if layer in self.have[n]], "somebody has it"
        else:
            assert layer in self.have[source], "the source does not have it"

    def _fetched(self, layer: str) -> list[Transfer]:
        return [t for t in self.running + self.arrived if t.source == INDEX and t.digest == layer]

    def _untried(self, layer: str) -> bool:
        """Whether some node certainly can fetch a layer that it waits for, since nobody failed to reach its site."""
        site, _ = self.offered[layer]
        others = [t for t in self.have if t != HUB and layer in self.wanted[t] and layer not in self.have[t]]
        reached = not any(where == site for _, where in self.unreached)
        return bool(others) and reached and layer not in self.tried

    def _shunned(self) -> set[str]:
        """Nodes that may be out of favour with everybody."""
        return {s[2] for s in self.struck} | {n for n, _ in self.damaged}

    @invariant()
    def slots(self) -> None:
        gives = Counter(t.source for t in self.running)
        takes = Counter(t.node for t in self.running if t.source != INDEX)
        assert gives.pop(CLIENT, 0) <= CLIENT_UPLOADS
        assert gives.pop(INDEX, 0) <= FETCHES * len(SITES)
        assert all(n <= UPLOADS for n in gives.values())
        assert all(n <= DOWNLOADS for n in takes.values())
        assert all(n <= DOWNLOADS for n in Counter(t.node for t in self.running if t.source == INDEX).values())

    @invariant()
    def same_books(self) -> None:
        assert sorted(map(repr, self.tracker.running())) == sorted(map(repr, self.running))

    def teardown(self) -> None:
        """When nothing fails any more, everybody gets everything: the client can give all of it."""
        for _ in range(10_000):
            self.begin()
            if not self.running and not self.arrived:
                break
            self.slots()
            self.succeed(0)
        assert not self.tracker.unavailable()
        for node, wanted in self.wanted.items():
            assert wanted <= self.have[node]

    def _one(self, choice: int) -> Transfer:
        both = self.running + self.arrived
        transfer = both[choice % len(both)]
        (self.running if transfer in self.running else self.arrived).remove(transfer)
        return transfer

    def _put_back(self, transfer: Transfer) -> Any:
        self.have[transfer.node].add(transfer.digest)
        self.tracker.have(transfer.node, transfer.digest)


TestSwarm = Swarm.TestCase
TestSwarm.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
