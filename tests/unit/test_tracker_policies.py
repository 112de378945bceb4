"""What the tracker prefers, whom it stops asking, and what it gives up."""

from __future__ import annotations

from likewise.transport.ledger import CLIENT, CREDIT, FETCHERS, INDEX, PATIENCE, WITNESSES
from likewise.transport.tracker import Tracker, Transfer

HUB = "hub"


def tracker(*nodes: str, **options: int) -> Tracker:
    """A tracker that knows these nodes, which have nothing."""
    found = Tracker(HUB, **options)
    for node in nodes:
        found.joined(node)
    return found


def finish(found: Tracker) -> list[Transfer]:
    """Let every transfer succeed until nothing is left to do; all of them, in order."""
    done: list[Transfer] = []
    while begun := found.begin():
        for transfer in begun:
            found.have(transfer.node, transfer.digest)
        done += begun
    return done


def one_by_one(found: Tracker) -> list[Transfer]:
    """Let every transfer succeed, the oldest first, and see after each what follows; all of them, in order."""
    running = found.running()
    done: list[Transfer] = []
    while running := running + found.begin():
        done.append(running.pop(0))
        found.have(done[-1].node, done[-1].digest)
    return done


def test_the_client_gives_each_layer_once() -> None:
    """A hundred nodes want the same layers, and each leaves the client a single time, for the hub."""
    nodes = [f"n{i}" for i in range(100)]
    found = tracker(*nodes)
    for node in nodes:
        found.want(node, ["a", "b", "c"])
    done = finish(found)
    assert [t for t in done if t.source == CLIENT] == [Transfer(HUB, layer, CLIENT) for layer in "abc"]
    assert len(done) == 3 + 300
    assert sum(t.source == HUB for t in done) < 60


def test_the_client_uploads_the_most_urgent_first() -> None:
    """Uploads follow the order in which the first node wants the layers."""
    found = tracker("n", client_uploads=1)
    found.want("n", ["z", "a", "m"])
    assert [t.digest for t in finish(found) if t.source == CLIENT] == ["z", "a", "m"]


def test_the_same_events_give_the_same_decisions() -> None:
    """Two trackers with one seed decide alike; nothing depends on hashes of names."""

    def run() -> list[Transfer]:
        found = tracker(*(f"n{i}" for i in range(20)), seed=7)
        for i in range(20):
            found.want(f"n{i}", [f"layer{j}" for j in range(30)])
        return finish(found)

    assert run() == run()


def test_what_the_hub_can_read_is_not_uploaded() -> None:
    """Layers of a store that the hub reads come from the hub."""
    found = tracker("n")
    found.in_store(["a"])
    found.want("n", ["a"])
    assert finish(found) == [Transfer("n", "a", HUB)]


def test_peers_come_before_the_hub() -> None:
    """The hub, the only source of much, is not asked for what a peer has."""
    found = tracker("n")
    found.in_store(["a"])
    found.joined("peer", ["a"])
    found.want("n", ["a"])
    assert finish(found) == [Transfer("n", "a", "peer")]


def test_the_rarest_layer_goes_first() -> None:
    """Of two layers that are as urgent, the one with a single holder is taken before the one with many."""
    found = tracker("n", downloads=1)
    found.joined("x", ["common", "rare"])
    found.joined("y", ["common"])
    found.want("n", ["common", "rare"])
    assert [t.digest for t in finish(found)] == ["rare", "common"]


def test_transfers_from_a_node_that_left_begin_anew() -> None:
    """Whoever fetched from it is named, and gets the layer from the client through the hub."""
    found = tracker("n")
    found.joined("x", ["a"])
    found.want("n", ["a"])
    assert found.begin() == [Transfer("n", "a", "x")]
    assert found.left("x") == (Transfer("n", "a", "x"),)
    assert finish(found) == [Transfer(HUB, "a", CLIENT), Transfer("n", "a", HUB)]


def test_a_source_that_is_wrong_twice_is_asked_for_nothing() -> None:
    """Damaged copies of two layers: what else it offers comes from elsewhere."""
    found = tracker("n", "m")
    found.joined("liar", ["a", "b", "c"])
    for node, layer in (("n", "a"), ("m", "b")):
        found.want(node, [layer])
        assert Transfer(node, layer, "liar") in found.begin()
        found.failed(node, layer, "liar", damaged=True)
        finish(found)
    found.want("m", ["c"])
    assert finish(found) == [Transfer(HUB, "c", CLIENT), Transfer("m", "c", HUB)]


def test_a_node_with_a_bad_disk_does_not_bring_others_into_disrepute() -> None:
    """Who finds every copy damaged is believed a few times; then it is he who gets nothing, and is named."""
    sources = [f"s{i}" for i in range(10)]
    found = tracker("broken", "sound")
    for source in sources:
        found.joined(source, ["a"])
    found.in_store(["a"])
    found.want("broken", ["a"])
    while begun := found.begin():
        for transfer in begun:
            if transfer.node == "broken":
                found.failed("broken", "a", transfer.source, damaged=True)
            else:
                found.have(transfer.node, "a")
    assert found.unavailable() == {"a": ("broken",)}
    assert found.holders("a") >= len(sources) - CREDIT
    found.want("sound", ["a"])
    assert "sound" in {t.node for t in finish(found)}


def test_a_source_that_several_cannot_reach_is_left_alone() -> None:
    """After as many witnesses in a row nobody is sent to it; when it says hello again, it is a source again."""
    takers = [f"n{i}" for i in range(WITNESSES)]
    found = tracker(*takers, "later", uploads=WITNESSES)
    found.joined("deaf", ["a"])
    for taker in takers:
        found.want(taker, ["a"])
    assert found.begin() == [Transfer(taker, "a", "deaf") for taker in takers]
    for taker in takers:
        found.failed(taker, "a", "deaf", damaged=False)
    found.want("later", ["a"])
    assert {t.source for t in finish(found)} >= {CLIENT, HUB}
    assert found.holders("a") == len(["hub", *takers, "later"])
    found.joined("deaf", ["b"])
    found.want("later", ["b"])
    assert Transfer("later", "b", "deaf") in found.begin()


def test_the_hub_is_tried_again_some_times() -> None:
    """Nobody can replace the hub: one failure is not the end, but as many as patience allows are."""
    found = tracker("n")
    found.in_store(["a"])
    found.want("n", ["a"])
    for _ in range(PATIENCE):
        assert found.begin() == [Transfer("n", "a", HUB)]
        assert not found.unavailable()
        found.failed("n", "a", HUB, damaged=False)
    assert found.begin() == []
    assert found.unavailable() == {"a": ("n",)}


def test_what_the_client_cannot_give_is_named_until_it_can() -> None:
    """A damaged upload is not asked for again before the client says that it has another."""
    found = tracker("n")
    found.want("n", ["a"])
    assert found.begin() == [Transfer(HUB, "a", CLIENT)]
    found.failed(HUB, "a", CLIENT, damaged=True)
    assert found.begin() == []
    assert found.unavailable() == {"a": ("n",)}
    found.client_can(None)
    assert finish(found) == [Transfer(HUB, "a", CLIENT), Transfer("n", "a", HUB)]
    assert not found.unavailable()


def test_what_the_hub_cannot_keep_is_named_until_it_can() -> None:
    """A hub with a full disk holds nothing else up: other layers come, and the one is tried again when it is wanted."""
    found = tracker("n", client_uploads=1, downloads=1)
    found.joined("far", ["a"])
    found.want(HUB, ["a", "b"])
    found.want("n", ["b"])
    assert Transfer(HUB, "a", "far") in found.begin()
    found.gave_up("a")
    found.left("far")
    found.want("n", ["a"])
    assert finish(found) == [Transfer(HUB, "b", CLIENT), Transfer("n", "b", HUB)]
    assert found.unavailable() == {"a": ("n",)}
    found.client_can(None)
    assert finish(found) == [Transfer(HUB, "a", CLIENT), Transfer("n", "a", HUB)]


def test_what_a_node_has_no_more_is_fetched_again() -> None:
    """It is not asked for it, and gets it from others; what only the hub had the client uploads again."""
    found = tracker()
    found.joined("n", ["a"])
    found.joined("m", ["a"])
    found.lacks("n", "a")
    found.want("n", ["a"])
    assert finish(found) == [Transfer("n", "a", "m")]
    found.in_store(["b"])
    found.lacks(HUB, "b")
    found.want("n", ["b"])
    assert finish(found) == [Transfer(HUB, "b", CLIENT), Transfer("n", "b", HUB)]


def test_damage_at_the_hub_is_mended_by_the_client() -> None:
    """The hub's only copy is damaged: the client uploads it again, and then it is served."""
    found = tracker("n")
    found.want("n", ["a"])
    upload, transfer = Transfer(HUB, "a", CLIENT), Transfer("n", "a", HUB)
    assert found.begin() == [upload]
    found.have(HUB, "a")
    assert found.begin() == [transfer]
    found.failed("n", "a", HUB, damaged=True)
    assert finish(found) == [upload, transfer]


def test_a_damaged_copy_at_the_hub_counts_once() -> None:
    """However many complain of the hub's damaged copy, the one that the client uploads in its place is served."""
    nodes = [f"n{i}" for i in range(PATIENCE + 1)]
    found = tracker(*nodes, uploads=len(nodes))
    found.in_store(["a"])
    for node in nodes:
        found.want(node, ["a"])
    assert {t.source for t in found.begin()} == {HUB}
    for node in nodes:
        found.failed(node, "a", HUB, damaged=True)
    assert {t.node for t in finish(found)} == {HUB, *nodes}
    assert not found.unavailable()


def test_what_somebody_waits_for_comes_first() -> None:
    """A layer that is wanted urgently is uploaded, and passed on, before those that were wanted earlier."""
    found = tracker("n", downloads=1, client_uploads=1)
    found.want("n", ["a", "b", "c", "d"])
    assert found.begin() == [Transfer(HUB, "a", CLIENT)]
    found.want("n", ["d", "c"], urgent=True)
    found.have(HUB, "a")
    assert [t.digest for t in finish(found) if t.source == CLIENT] == ["d", "c", "b"]


def test_urgency_changes_the_order_of_what_is_there() -> None:
    """Of layers that the hub has all of, a node gets the urgent one next, however rare the others are."""
    found = tracker("n", "other", downloads=1)
    found.have("other", "z")
    found.in_store([*"abcdefghij", "z"])
    found.want("n", [*"abcdefghij", "z"])
    (begun,) = found.begin()
    found.want("n", ["z"], urgent=True)
    found.have("n", begun.digest)
    (following,) = found.begin()
    assert following.digest == "z"


def offering(*layers: tuple[str, int], nodes: int = 2, client_has: bool = True) -> Tracker:
    """A tracker whose nodes want these layers (name, size), all of which a site offers."""
    found = tracker(*(f"n{i}" for i in range(nodes)))
    for layer, size in layers:
        found.offer(layer, "wheel", site="https://index.example", size=size, client_has=client_has)
    for i in range(nodes):
        found.want(f"n{i}", [layer for layer, _ in layers])
    return found


MIB = 1 << 20


def test_a_site_is_tried_with_one_wheel_while_the_client_gives_from_the_end() -> None:
    """Nobody knows yet whether there is a way to the index: one layer is risked, and nothing else waits."""
    found = offering(("a", 9 * MIB), ("b", 8 * MIB), ("c", 7 * MIB), ("d", 6 * MIB))
    begun = found.begin()
    assert [t.digest for t in begun if t.source == INDEX] == ["a"]
    assert [t.digest for t in begun if t.source == CLIENT] == ["d", "c"]


def test_a_proven_site_gives_to_several_nodes() -> None:
    """After the trial each node fetches two at a time, and different ones."""
    found = offering(*((f"l{i}", MIB) for i in range(8)), client_has=False)
    (trial,) = found.begin()
    found.received(trial.node, trial.digest)
    begun = [t for t in found.begin() if t.source == INDEX]
    assert len(begun) == len({t.digest for t in begun}) == 4
    assert sorted(t.node for t in begun) == ["n0", "n0", "n1", "n1"]


def test_two_nodes_try_and_then_the_client_is_asked() -> None:
    """Whether they got nothing or something wrong; and what is offered again, the same as before, is not tried anew."""
    for damaged in (True, False):
        found = offering(("a", MIB), nodes=5, client_has=False)
        tried = []
        for _ in range(FETCHERS):
            (transfer,) = found.begin()
            assert transfer.source == INDEX
            tried.append(transfer.node)
            found.failed(transfer.node, "a", INDEX, damaged=damaged)
        assert len(set(tried)) == FETCHERS
        found.offer("a", "wheel", site="https://index.example", size=MIB, client_has=False)
        assert found.begin() == [Transfer(HUB, "a", CLIENT)]
        assert not found.unavailable()


def test_a_site_that_three_nodes_cannot_reach_is_left_alone() -> None:
    """Layers that nobody tried to get from there are then asked of the client at once."""
    found = offering(("a", MIB), ("b", MIB), ("c", MIB), nodes=5, client_has=False)
    for _ in range(WITNESSES):
        (transfer,) = [t for t in found.begin() if t.source == INDEX]
        found.failed(transfer.node, transfer.digest, INDEX, damaged=False)
    assert {t.source for t in finish(found)} <= {CLIENT, HUB, *(f"n{i}" for i in range(5))}


def test_a_site_that_was_given_up_is_tried_with_what_is_offered_later() -> None:
    """By one node, as in the beginning: there may be a way by now, when a cluster that has run for days gets more."""
    found = offering(("a", MIB), ("b", MIB), ("c", MIB), nodes=5, client_has=False)
    for _ in range(WITNESSES):
        (transfer,) = [t for t in found.begin() if t.source == INDEX]
        found.failed(transfer.node, transfer.digest, INDEX, damaged=False)
    finish(found)
    for layer in ("later", "last"):
        found.offer(layer, "wheel", site="https://index.example", size=MIB, client_has=False)
    found.want("n0", ["later", "last"])
    (trial,) = found.begin()
    assert trial.source == INDEX


def test_a_slow_upload_is_stopped_when_sites_are_much_quicker() -> None:
    """It began before the offer came; the node fetches the layer, and the client is not asked for it again."""
    found = tracker("n0", "n1")
    for node in ("n0", "n1"):
        found.want(node, ["a", "b"])
    assert {t.digest for t in found.begin()} == {"a", "b"}
    for layer in ("a", "b"):
        found.offer(layer, "wheel", site="https://index.example", size=50 * MIB)
    found.want("n0", ["trial"])
    found.offer("trial", "wheel", site="https://index.example", size=MIB, client_has=False)
    (trial,) = found.begin()
    found.received(trial.node, trial.digest)
    found.have(trial.node, trial.digest)
    found.rates(1e5, 1e8)
    begun = found.begin()
    assert sorted(found.withdrawn()) == ["a", "b"]
    assert {(t.digest, t.source) for t in begun} >= {("a", INDEX), ("b", INDEX)}
    assert not [t for t in begun if t.source == CLIENT]


def test_a_client_that_is_quick_keeps_what_it_would_have_given_sooner() -> None:
    """The rates decide: the last layer is not left to a site that would need longer for it than the client."""
    found = offering(("a", 10 * MIB))
    found.rates(1e8, 1e5)
    assert found.begin() == [Transfer(HUB, "a", CLIENT)]


def test_the_index_first_if_that_is_wanted() -> None:
    """Even if the client is quicker; what no index has it gives all the same."""
    found = offering(("a", MIB), ("b", MIB))
    found.want("n0", ["own"])
    found.prefer_index(True)
    found.rates(1e8, 1e5)
    done = finish(found)
    assert [t.digest for t in done if t.source == CLIENT] == ["own"]
    assert sorted(t.digest for t in done if t.source == INDEX) == ["a", "b"]


def test_what_a_node_made_when_it_left_another_one_fetches() -> None:
    """It had received the wheel, and its slot was free again; nobody else is asked for anything."""
    found = offering(("a", MIB), client_has=False)
    (first,) = found.begin()
    found.received(first.node, "a")
    assert found.begin() == []
    found.left(first.node)
    (second,) = found.begin()
    assert (second.digest, second.source) == ("a", INDEX)
    assert second.node not in (first.node, HUB)


def test_the_hub_fetches_what_it_cannot_have_from_the_one_who_has_it() -> None:
    """It was busy when the layer was given to others and no longer stood in line: the client is not asked even so."""
    for seed in range(50):
        found = Tracker(HUB, uploads=2, downloads=2, client_uploads=1, fetches=3, seed=seed)
        found.joined("n0", ["a", "d"])
        for layer in ("a", "b", "c"):
            found.offer(layer, "wheel", site="https://index.example", client_has=False)
        found.joined("n0")
        found.want("n0", ["a", "b", "c", "d", "e"])
        found.joined("n1", ["a", "b", "c", "d"])
        for transfer in [t for t in found.begin() if (t.node, t.source) == (HUB, "n1")][:1]:
            found.failed(HUB, transfer.digest, "n1", damaged=False)
        assert {t.digest for t in one_by_one(found) if t.source == CLIENT} <= {"d", "e"}
        assert not found.unavailable()


def test_the_client_gives_what_the_last_one_who_could_fetch_leaves_behind() -> None:
    """It left in the middle, and the others had tried."""
    found = offering(("a", MIB), nodes=3, client_has=False)
    (first,) = found.begin()
    found.failed(first.node, "a", INDEX, damaged=True)
    (second,) = found.begin()
    found.received(second.node, "a")
    found.begin()
    found.failed(HUB, "a", INDEX, damaged=True)  # the hub, too, tried
    found.left(second.node)
    assert found.begin() == [Transfer(HUB, "a", CLIENT)]


def test_a_long_upload_is_stopped_once_to_try_a_site() -> None:
    """There is nothing else to try it with. When it does not answer, the upload goes on, and is left alone."""
    found = tracker("n0", "n1")
    for node in ("n0", "n1"):
        found.want(node, ["a"])
    upload = Transfer(HUB, "a", CLIENT)
    assert found.begin() == [upload]
    found.offer("a", "wheel", site="https://index.example", size=100 * MIB)
    found.sent("a", 20 * MIB)
    found.rates(1e6, 0.0)
    for tries in range(FETCHERS):
        (transfer,) = found.begin()
        assert transfer.source == INDEX
        assert found.withdrawn() == (["a"] if not tries else [])
        found.failed(transfer.node, "a", INDEX, damaged=False)
    assert found.begin() == [upload]
    found.rates(1e5, 0.0)
    assert (found.begin(), found.withdrawn()) == ([], [])


def test_no_upload_is_stopped_that_soon_ends_or_need_not_be() -> None:
    """Twenty seconds are left of it; or another layer, which nobody has begun with, will do to try the site."""
    found = tracker("n0")
    found.want("n0", ["a"])
    found.begin()
    found.offer("a", "wheel", site="https://index.example", size=100 * MIB)
    found.sent("a", 80 * MIB)
    found.rates(1e6, 0.0)
    assert (found.begin(), found.withdrawn()) == ([], [])
    found.sent("a", 0)
    found.offer("b", "wheel", site="https://index.example", size=MIB)
    found.want("n0", ["b"])
    assert [t.digest for t in found.begin() if t.source == INDEX] == ["b"]
    found.rates(2e6, 0.0)
    assert (found.begin(), found.withdrawn()) == ([], [])


def test_a_site_has_to_give_what_makes_it_worth_while() -> None:
    """Its share of what the client would give; nothing certain where the client is the last to be asked."""
    found = offering(("a", MIB), ("b", MIB))
    assert found.lowest("a") == 0.0  # nobody knows how quick the client is
    found.rates(1.6e6, 0.0)
    assert found.lowest("a") == 1e5
    found.prefer_index(True)
    assert found.lowest("a") == 0.0
    assert offering(("a", MIB), client_has=False).lowest("a") == 0.0
