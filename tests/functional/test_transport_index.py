"""Nodes fetch by themselves what an index offers: real agents over TLS, a real index, all on loopback."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from likewise.model.digest import digest_bytes
from likewise.model.offer import Offer
from likewise.model.plan import LockedFile
from likewise.node.expiry import prune
from support.agents import Agent, Client, new_cluster, until
from support.fetching import NODES, Cluster, Made, asked, in_the_making, unpack
from support.indexes import IndexServer, dead_url, serve_index
from support.nodes import archive, layer

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for many tests; each has layers and an index of its own, so the hub knows nothing of them."""
    found = Cluster(tmp_path_factory.mktemp("agents"))
    yield found
    found.end()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that has measured nothing yet."""
    found = Cluster(tmp_path)
    yield found
    found.end()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexServer]:
    """An index on loopback."""
    with serve_index(tmp_path / "index") as found:
        yield found


def test_one_node_fetches_and_the_others_get_it_from_there(cluster: Cluster, index: IndexServer) -> None:
    """Each wheel is read once in all; what no index has comes from the client; the report says so for each layer."""
    wheels = [Made(index, f"sample{i}") for i in range(6)]
    own = layer("own", {"purelib/own.bin": os.urandom(MIB)})
    before = cluster.status()["bytes"]
    with Client(cluster.hub.address, own, *(made.source for made in wheels)) as client:
        client.offer([made.offer for made in wheels], first=True)
        cluster.everywhere(own, *(made.source for made in wheels))
        assert set(client.uploader.sent) == {own.digest}
    assert [asked(index, made) for made in wheels] == [1] * len(wheels)
    status = cluster.status()
    grown = {kind: status["bytes"][kind] - before.get(kind, 0) for kind in ("index", "peer")}
    assert grown["index"] == sum(made.wheel.stat().st_size for made in wheels)
    assert grown["peer"] >= (NODES - 1) * grown["index"] * 0.99
    assert status["given"][own.digest] == "client"
    assert {status["given"][made.source.digest] for made in wheels} == {"index"}
    assert status["rates"]["index"] > 0


def wrong_content(index: IndexServer, made: Made) -> LockedFile:
    """Other bytes of the same size."""
    index.manner = index_with(index, fault="wrong-content")
    return made.file


def missing(index: IndexServer, made: Made) -> LockedFile:
    """404."""
    made.wheel.unlink()
    return made.file


def forbidden(index: IndexServer, made: Made) -> LockedFile:
    """403."""
    index.manner = index_with(index, fault="status", status=403)
    return made.file


def silent(index: IndexServer, made: Made) -> LockedFile:
    """A connection, and then nothing."""
    index.manner = index_with(index, fault="hang")
    return made.file


def cut(index: IndexServer, made: Made) -> LockedFile:
    """Half of the file."""
    index.manner = index_with(index, fault="truncate")
    return made.file


def endless(index: IndexServer, made: Made) -> LockedFile:
    """More bytes than the file has, without an end."""
    index.manner = index_with(index, fault="huge")
    return made.file


def login_page(index: IndexServer, made: Made) -> LockedFile:
    """What a hotel's network answers."""
    index.manner = index_with(index, fault="html")
    return made.file


def down(index: IndexServer, made: Made) -> LockedFile:
    """Nobody listens."""
    return replace_url(made.file, f"{dead_url()}{made.wheel.name}")


def local_file(index: IndexServer, made: Made) -> LockedFile:
    """A redirect to a file of the node."""
    index.manner = index_with(index, redirect="file:///etc/")
    return made.file


def other_layer(index: IndexServer, made: Made) -> LockedFile:
    """A good wheel of something else."""
    return Made(index, "another").file


def no_wheel(index: IndexServer, made: Made) -> LockedFile:
    """A file with the right sha256 that is no wheel at all."""
    made.wheel.write_bytes(b"no zip file")
    return LockedFile(filename=made.file.filename, url=made.file.url, sha256=digest_bytes(b"no zip file"), size=11)


def index_with(index: IndexServer, **manner: Any) -> Any:
    """How the index answers from now on."""
    return type(index.manner)(folder=index.manner.folder, **manner)


def replace_url(file: LockedFile, url: str) -> LockedFile:
    """The same file elsewhere."""
    return LockedFile(filename=file.filename, url=url, sha256=file.sha256, size=file.size)


@pytest.mark.parametrize(
    "spoil",
    [
        wrong_content,
        missing,
        forbidden,
        silent,
        cut,
        endless,
        login_page,
        down,
        local_file,
        other_layer,
        no_wheel,
    ],
    ids=lambda spoil: str(spoil.__name__),
)
def test_the_client_gives_what_an_index_does_not(
    cluster: Cluster, index: IndexServer, spoil: Callable[[IndexServer, Made], LockedFile]
) -> None:
    """Whatever is wrong with the index: a node tries, at most two do, then the client gives the layer, once."""
    made = Made(index, "sample")
    file = spoil(index, made)
    with Client(cluster.hub.address, made.source) as client:
        client.offer([Offer(layer=made.source.digest, file=file, client_has=False)])
        cluster.everywhere(made.source)
        assert client.uploader.sent == {made.source.digest: len(archive(made.source))}
    status = cluster.status()
    assert status["given"][made.source.digest] == "client"
    other = {made.source.digest: file.sha256} if spoil in (other_layer, no_wheel) else {}
    assert {layer: sha256 for layer, sha256 in status["others"].items() if layer == made.source.digest} == other
    tries = [node for node in cluster.nodes if f"{made.source.digest[:12]} from index" in node.log.read_text()]
    assert len(tries) == 2


def test_a_node_that_is_killed_while_it_fetches_is_replaced(fresh: Cluster, index: IndexServer) -> None:
    """The layer is fetched by another node, without the client. What the node leaves goes when its cache is looked at.

    The client is gone by then, too: it has said what it knows.
    """
    made = Made(index, "sample")
    index.manner = index_with(index, fault="slow", delay=3600.0)
    with ThreadPoolExecutor(NODES) as pool, Client(fresh.hub.address, made.source) as client:
        client.offer([made.offer], first=True)
        waiting = [pool.submit(node.source().open, made.source.digest) for node in fresh.nodes]
        until(lambda: asked(index, made))
        until(lambda: any(n["fetching"] for n in fresh.status()["nodes"].values()))
        index.manner = index_with(index)
        busy = {address for address, n in fresh.status()["nodes"].items() if n["fetching"]}
        (fetching,) = (i for i, node in enumerate(fresh.nodes) if listens(node) in {port_of(a) for a in busy})
        fresh.nodes[fetching].kill()
        assert client.sent == 0
    for i, wait in enumerate(waiting):
        if i != fetching:
            wait.result(60).close()
    assert asked(index, made) == 2
    left = in_the_making(fresh.nodes[fetching])
    assert list(left.iterdir())
    prune(fresh.nodes[fetching].cache)
    assert not left.exists()


def port_of(address: str) -> int:
    """The port in an agent's address."""
    return int(address.rpartition(":")[2])


def listens(agent: Agent) -> int:
    """The port on which an agent listens (proc(5), net/tcp), the one of its sockets that is in state LISTEN."""
    inodes = set()
    for link in Path(f"/proc/{agent.process.pid}/fd").iterdir():
        target = os.readlink(link) if link.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for line in Path(f"/proc/{agent.process.pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            return int(words[1].rpartition(":")[2], 16)
    return 0


class Throttled(io.BytesIO):
    """An archive that can be read at `rate[0]` bytes per second, whatever that is by then: a thin uplink."""

    def __init__(self, data: bytes, rate: list[float]) -> None:
        super().__init__(data)
        self._rate = rate

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, after a while; whoever computes the sha256 first reads through at once."""
        data = super().read(size)
        if self._sha256_is_known:
            time.sleep(len(data) / self._rate[0])
        return data

    _sha256_is_known = False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Sending begins."""
        self._sha256_is_known = True
        return super().seek(offset, whence)


def throttle(client: Client, rate: float) -> list[float]:
    """From now on the client sends so many bytes per second for each of two layers; what is returned may be changed."""
    unlimited, changing = client.uploader._open, [rate]
    client.uploader._open = lambda digest: Throttled(unlimited(digest).read(), changing)
    return changing


def test_a_quick_index_gives_most_and_takes_over_what_the_client_began(fresh: Cluster, index: IndexServer) -> None:
    """The client sends slowly, and has begun with the largest layers before anybody knew of the index."""
    wheels = [Made(index, f"sample{i}", (12 - i) * MIB) for i in range(8)]
    total = sum(made.wheel.stat().st_size for made in wheels)
    with Client(fresh.hub.address, *(made.source for made in wheels)) as client, ThreadPoolExecutor(1) as pool:
        throttle(client, 600_000)
        everywhere = pool.submit(fresh.everywhere, *(made.source for made in wheels))
        until(lambda: len(client.uploader.sent) == 2)  # two uploads run, of the largest
        client.offer([made.offer for made in wheels])
        everywhere.result()
        assert client.sent < total / 4
    status = fresh.status()
    assert status["given"][wheels[0].source.digest] == "index"
    assert all(asked(index, made) <= 1 for made in wheels)
    assert status["rates"]["index"] > status["rates"]["client"] > 0


@pytest.mark.parametrize("is_there", [True, False])
def test_the_only_layer_is_on_its_way_already(fresh: Cluster, index: IndexServer, is_there: bool) -> None:
    """A minute of its upload is left, so that is stopped. Without a way to the index it goes on; no byte goes twice."""
    made = Made(index, "sample", 8 * MIB)
    file = made.file if is_there else replace_url(made.file, f"{dead_url()}{made.wheel.name}")
    with ThreadPoolExecutor(1) as pool, Client(fresh.hub.address, made.source) as client:
        rate = throttle(client, 100_000)
        everywhere = pool.submit(fresh.everywhere, made.source)
        until(lambda: client.sent)
        client.offer([Offer(layer=made.source.digest, file=file)])
        tries = f"{made.source.digest[:12]} from index"
        until(lambda: asked(index, made) or sum(tries in node.log.read_text() for node in fresh.nodes) == 2)
        rate[0] = 100e6
        everywhere.result()
        whole = len(archive(made.source))
        assert client.sent < whole / 4 if is_there else client.sent == whole
    assert fresh.status()["given"][made.source.digest] == ("index" if is_there else "client")


def test_a_quick_client_gives_most(fresh: Cluster, index: IndexServer) -> None:
    """The index is slow, and gives no more than what the client would not have given before."""
    wheels = [Made(index, f"sample{i}", 2 * MIB) for i in range(8)]
    index.manner = index_with(index, fault="slow", delay=0.7)
    with Client(fresh.hub.address, *(made.source for made in wheels)) as client:
        client.offer([made.offer for made in wheels])
        fresh.everywhere(*(made.source for made in wheels))
        assert len(client.uploader.sent) >= len(wheels) / 2
    given = list(fresh.status()["given"].values())
    assert given.count("client") >= len(wheels) / 2 and len(given) == len(wheels)


def test_without_a_way_to_the_index_all_comes_from_the_client(fresh: Cluster, index: IndexServer) -> None:
    """One wheel is tried for; while nobody answers, the client goes on with all the others."""
    wheels = [Made(index, f"sample{i}", 2 * MIB) for i in range(8)]
    index.manner = index_with(index, fault="hang")
    with Client(fresh.hub.address, *(made.source for made in wheels)) as client:
        client.offer([made.offer for made in wheels])
        fresh.everywhere(*(made.source for made in wheels))
        assert client.sent == sum(len(archive(made.source)) for made in wheels)
    assert len([one for one in index.asked if one.path.endswith(".whl")]) <= NODES
    assert set(fresh.status()["given"].values()) == {"client"}


def test_a_hub_that_is_alone_fetches_itself(tmp_path: Path, index: IndexServer) -> None:
    """A cluster of one machine has no other node that could."""
    made = Made(index, "sample")
    with Agent("hub", new_cluster(), tmp_path / "hub") as hub, Client(hub.address, made.source) as client:
        client.offer([made.offer], first=True)
        unpack(hub, made.source)
        assert client.sent == 0


def test_what_may_hold_a_credential_is_not_fetched(cluster: Cluster, index: IndexServer) -> None:
    """A URL with user info or a query is passed over, and so is a file without sha256; nobody asks for them."""
    made = Made(index, "sample")
    bad = [
        replace_url(made.file, made.file.url.replace("://", "://user:secret@")),
        replace_url(made.file, f"{made.file.url}?token=secret"),
        replace_url(made.file, made.wheel.as_uri()),
        LockedFile(filename=made.file.filename, url=made.file.url, sha256="", size=made.file.size),
    ]
    with Client(cluster.hub.address, made.source) as client:
        for file in bad:
            client.offer([Offer(layer=made.source.digest, file=file)], first=True)
        cluster.everywhere(made.source)
        assert client.sent == len(archive(made.source))
    assert index.asked == []
