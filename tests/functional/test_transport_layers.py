"""Layers travel between agents: real processes with caches of their own, real TLS, on loopback."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from likewise.errors import NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerSource
from likewise.node.cache import open_cache
from likewise.node.layers import LayerShelf
from likewise.node.sources import DirectoryStore
from support.agents import Agent, Client, Line, call, new_cluster, peak_memory, until
from support.nodes import archive, layer, manifest_of, put

MIB = 1 << 20


def noise(size: int = 300_000) -> LayerSource:
    """A layer that nobody has yet, and that can't be compressed."""
    return layer("noise", {"purelib/noise.bin": os.urandom(size)})


def unpack(agent: Agent, *sources: LayerSource) -> None:
    """What the node's processes do: get each layer through the door, check it, accept or reject it."""
    for source in sources:
        agent.shelf().get(source.digest, source.name)
        found = Path(agent.cache.layer(source.digest), "purelib/noise.bin").read_bytes()
        assert found == source.files[0].data


def archives(agent: Agent) -> list[str]:
    """Names of the archives, and parts of such, in an agent's cache."""
    return os.listdir(agent.cache.place("archives"))


def asking(agent: Agent, digest: Digest) -> threading.Thread:
    """A process of the node that waits for a layer, and takes no offence when it does not get it."""

    def ask() -> None:
        with contextlib.suppress(NodeError):
            agent.source().open(digest).close()

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


class Cluster:
    """A hub, two nodes, and whoever joins later."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.id = new_cluster()
        self.hub = Agent("hub", self.id, root / "hub")
        self.a, self.b = self.node("a"), self.node("b")
        self.known = [self.hub, self.a, self.b]

    def node(self, name: str, way: str = "") -> Agent:
        """One more node, with a cache of this name."""
        return Agent("agent", self.id, self.root / name, "--hub", way or self.hub.address)

    def status(self) -> dict[str, dict[str, int]]:
        """Bytes by source."""
        return call(self.hub.address, "hub_status")["bytes"]

    def joins(self, agent: Agent, digest: Digest) -> Agent:
        """The agent, once the hub knows that it has the layer."""
        until(lambda: (nodes := call(self.hub.address, "hub_status", layer=digest)["holders"]) and nodes)
        return agent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of all tests here; each has layers of its own."""
    found = Cluster(tmp_path_factory.mktemp("agents"))
    yield found
    for agent in reversed(found.known):
        agent.kill(signal.SIGTERM)


def test_client_uploads_once_and_nodes_serve_each_other(cluster: Cluster) -> None:
    """Three nodes get six layers at once: the client sends each a single time, and the rest goes from node to node."""
    layers = [noise() for _ in range(6)]
    size = sum(len(archive(source)) for source in layers)
    before = cluster.status()
    with Client(cluster.hub.address, *layers) as client, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda agent: unpack(agent, *layers), cluster.known))
        assert client.sent == size

    def grown(source: str) -> int:
        return cluster.status().get(source, 0) - before.get(source, 0)

    until(lambda: grown("peer") >= 2 * size)
    assert (grown("client"), grown("peer")) == (size, 2 * size)


def test_manifest_fetches_what_is_missing(cluster: Cluster) -> None:
    """Once a node has asked for its manifest, the layers come by themselves, the kit's and the unpacked ones not."""
    there, missing, kit = noise(), noise(), noise()
    manifest = manifest_of(there, missing, kit)
    listing = Path(cluster.a.cache.place("kits"), "0" * 16, "listings", kit.digest)
    listing.parent.mkdir(parents=True)
    listing.touch()
    with Client(cluster.hub.address, there, missing, kit, manifest=manifest.encode()) as client:
        unpack(cluster.a, there)
        assert cluster.a.source().manifest(manifest.id) == manifest
        until(lambda: [name for name in archives(cluster.a) if name.startswith(missing.digest)])
        assert call(cluster.hub.address, "hub_manifest") == manifest.encode()
        assert set(client.uploader.sent) == {there.digest, missing.digest}


def test_hub_serves_a_store(tmp_path: Path) -> None:
    """A hub that can read the client's store serves its archives and manifests; nothing is uploaded or copied."""
    store, source = tmp_path / "store", noise()
    manifest = manifest_of(source)
    put(store, source)
    (store / "manifests").mkdir()
    (store / "manifests" / manifest.id).write_bytes(manifest.encode())
    name = new_cluster()
    with (
        Agent("hub", name, tmp_path / "hub", "--store", str(store)) as hub,
        Agent("agent", name, tmp_path / "a", "--hub", hub.address) as agent,
    ):
        assert agent.source().manifest(manifest.id) == manifest
        unpack(agent, source)
        until(lambda: call(hub.address, "hub_status")["bytes"] == {"store": len(archive(source))})
        assert archives(hub) == []


def test_cut_connection_is_resumed(cluster: Cluster) -> None:
    """A connection that is cut in the middle of a layer costs what was under way, not what had come."""
    source = noise(32 * MIB)
    size = len(archive(source))
    with Client(cluster.hub.address, source), Line(cluster.hub.address, cut_after=size // 2) as line:
        with cluster.node("cut", line.address) as agent:
            unpack(agent, source)
        assert line.cuts >= 1
        assert size <= line.back < 1.6 * size  # 16 MiB may be under way


def test_cut_upload_is_resumed(cluster: Cluster) -> None:
    """The client's upload goes on where it was cut."""
    source = noise(32 * MIB)
    size = len(archive(source))
    with Line(cluster.hub.address, cut_after=size // 2) as line, Client(line.address, source) as client:
        unpack(cluster.a, source)
        assert line.cuts >= 1
        assert size <= line.forth < 1.3 * size
        assert client.sent < 1.3 * size


def test_killed_agent_goes_on_where_it_was(cluster: Cluster) -> None:
    """Agents killed at random moments leave a cache that the next one uses, and what had come is not fetched again."""
    source, kills, moments = noise(32 * MIB), 2, random.Random(7)
    size = len(archive(source))
    with Client(cluster.hub.address, source), Line(cluster.hub.address) as line:
        for _ in range(kills):
            limit = line.back + moments.randrange(MIB, size // 4)
            agent = cluster.node("killed", line.address)
            thread = asking(agent, source.digest)
            until(lambda limit=limit: line.back > limit)
            agent.kill()
            thread.join()
        with cluster.node("killed", line.address) as agent:
            unpack(agent, source)
            assert [name.partition(".")[0] for name in archives(agent)] == [source.digest]
        assert line.back < 1.1 * size + kills * 17 * MIB


def test_wrong_bytes_are_refused(cluster: Cluster) -> None:
    """A peer whose archives were changed behind its back is struck, others are asked, and nothing wrong is seen."""
    other_bytes, other_layer = noise(), noise()
    bad = {source.digest: archive(source)[:-100] + bytes(100) for source in (other_bytes, other_layer)}
    folder = cluster.root / "liar" / "archives"
    folder.mkdir(parents=True, mode=0o700)
    # it announces the sha256 of the right archive and serves another; or it believes in a wrong archive
    (folder / f"{other_bytes.digest}.{digest_bytes(archive(other_bytes))}").write_bytes(bad[other_bytes.digest])
    (folder / f"{other_layer.digest}.{digest_bytes(bad[other_layer.digest])}").write_bytes(bad[other_layer.digest])
    with cluster.joins(cluster.node("liar"), other_bytes.digest) as liar:
        with Client(cluster.hub.address, other_bytes, other_layer) as client:
            unpack(cluster.a, other_bytes, other_layer)
            refusals = cluster.a.log.read_text() + cluster.hub.log.read_text()
            assert all(f"{digest[:12]} from tls://" in refusals for digest in bad)
            assert client.sent == sum(len(data) for data in bad.values())
            unpack(cluster.b, other_bytes, other_layer)
            assert not any(digest[:12] in cluster.b.log.read_text() for digest in bad)
        assert liar.process.poll() is None
    kept = {Path(cluster.a.cache.place("archives"), name).read_bytes() for name in archives(cluster.a)}
    assert kept.isdisjoint(bad.values())


def test_damaged_upload_is_made_anew(cluster: Cluster) -> None:
    """An archive that is damaged in the client's own store is found out on a node, and the client asked for another."""
    source = noise()
    good = archive(source)
    with Client(cluster.hub.address, source) as client:
        client.archives[source.digest] = [good[:-100] + bytes(100), good]
        unpack(cluster.a, source)
        assert client.damaged == [source.digest]


def test_layer_that_nobody_has(cluster: Cluster) -> None:
    """Where neither the client nor a node has a layer, the error names the layer at once; later it can be had."""
    source = noise()
    with Client(cluster.hub.address), pytest.raises(NodeError, match=r"noise: No source .* the other nodes: it is not"):
        unpack(cluster.a, source)
    with Client(cluster.hub.address, source):
        unpack(cluster.a, source)


def test_what_was_removed_is_had_anew(cluster: Cluster) -> None:
    """Archives that expired at the hub, or at the node that wants them, are no damage, and come again, however many."""
    layers = [noise(50_000) for _ in range(6)]
    with Client(cluster.hub.address, *layers) as client:
        unpack(cluster.hub, *layers)
        remove(cluster.hub, *layers)
        unpack(cluster.b, *layers)
        assert not client.damaged
        remove(cluster.b, *layers)
        unpack(cluster.b, *layers)


def test_a_wish_that_comes_late_fetches_nothing_twice(cluster: Cluster) -> None:
    """The hub's own node may say that it wants a layer just when the client has given it: it is there, and stays."""
    source = noise()
    with Client(cluster.hub.address, source) as client:
        unpack(cluster.hub, source)
        call(cluster.hub.address, "hub_want", node=cluster.hub.address, digests=[source.digest], urgent=True)
        unpack(cluster.a, source)
        unpack(cluster.b, source)
        assert client.sent == len(archive(source))


def remove(agent: Agent, *sources: LayerSource) -> None:
    """What expiry does to layers that nobody has used for long."""
    for source in sources:
        shutil.rmtree(agent.cache.layer(source.digest))
        os.unlink(agent.cache.listing(source.digest))
        for path in Path(agent.cache.place("archives")).glob(f"{source.digest}*"):
            path.unlink()


def test_an_archive_that_cannot_be_read(cluster: Cluster) -> None:
    """The client's disk fails in the middle of a layer: it is named at once, and others are still uploaded."""
    broken, whole = noise(), noise()

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Client(cluster.hub.address, broken, whole) as client:
        ordinary = client.uploader._open
        client.uploader._open = lambda digest: Failing() if digest == broken.digest else ordinary(digest)
        with pytest.raises(NodeError, match="No source has a sound copy"):
            unpack(cluster.a, broken)
        unpack(cluster.a, whole)


def test_unpacked_layers_are_served(cluster: Cluster) -> None:
    """A node that has a layer unpacked, and no archive of it, packs it for others, unless a file of it was changed."""
    sound, changed = noise(4 * MIB), noise()
    put(cluster.root / "store", sound, changed)
    cache = open_cache(str(cluster.root / "warm"))
    for source in (sound, changed):
        LayerShelf(cache, [DirectoryStore(str(cluster.root / "store"))]).get(source.digest, source.name)
    path = Path(cache.layer(changed.digest), "purelib/noise.bin")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with cluster.joins(cluster.node("warm"), changed.digest), Client(cluster.hub.address, changed) as client:
        unpack(cluster.a, sound, changed)
        assert set(client.uploader.sent) == {changed.digest}


def test_silent_peer_gives_way(cluster: Cluster) -> None:
    """A peer that does not answer any more is left after some seconds, and the layer comes from elsewhere."""
    source = noise()
    folder = cluster.root / "silent" / "archives"
    folder.mkdir(parents=True, mode=0o700)
    (folder / f"{source.digest}.{digest_bytes(archive(source))}").write_bytes(archive(source))
    with cluster.joins(cluster.node("silent"), source.digest) as silent, Client(cluster.hub.address, source) as client:
        silent.process.send_signal(signal.SIGSTOP)
        unpack(cluster.a, source)
        assert client.sent == len(archive(source))
        silent.kill()


def test_slow_node_holds_nobody_up(cluster: Cluster) -> None:
    """A node that stops in the middle of a transfer does not keep others from theirs."""
    source, more = noise(32 * MIB), noise()
    with cluster.node("slow") as slow, Client(cluster.hub.address, source, more):
        thread = asking(slow, source.digest)
        until(lambda: archives(slow))
        slow.process.send_signal(signal.SIGSTOP)
        unpack(cluster.a, more, source)
        slow.kill()
        thread.join()


def test_memory_is_bounded(cluster: Cluster) -> None:
    """A layer of 300 MiB takes neither the hub nor an agent 64 MiB of memory more than a small one."""
    small, huge = noise(), noise(300 * MIB)
    with Client(cluster.hub.address, small, huge):
        for agent in (cluster.a, cluster.b):
            unpack(agent, small)
        before = [peak_memory(agent.process) for agent in cluster.known]
        for agent in (cluster.a, cluster.b):
            unpack(agent, huge)
    grown = [peak_memory(agent.process) - was for agent, was in zip(cluster.known, before, strict=True)]
    assert max(grown) < 64 * MIB
