"""What the tracker prefers, whom it stops asking, and what it gives up."""

from __future__ import annotations

from likewise.transport.ledger import CREDIT, PATIENCE, WITNESSES
from likewise.transport.tracker import CLIENT, Tracker, Transfer

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
